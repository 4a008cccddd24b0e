"""Catalogues and runs made by the code of commit 355b994; tests/data/old_version/README.md says how."""

import tarfile
from pathlib import Path

import lsdb
import pytest
from upath import UPath

from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.receipts import all_receipts
from ojala.pipeline.runs.record import Status, find_runs, read_record
from ojala.pipeline.runs.releases import published_run
from tests.helpers.survey import plan_run, run_and_publish, without_report

pytestmark = pytest.mark.integration

ARCHIVE = Path(__file__).parents[1] / "data" / "old_version" / "ojala-0.1.0-355b994.tar.xz"
PUBLISHED, INCOMPLETE = "20261128T171534Z-b7e8", "20261128T171625Z-7b47"
FAILED = "6/9822"


@pytest.fixture
def old(tmp_path):
    """Unpack photometry, catalogue (one published and one incomplete run), spectra and redshifts."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return UPath(tmp_path)


@pytest.fixture
def config(old):
    """The configuration of the incomplete run, on this machine."""
    return RunConfig(
        photometry=str(old / "photometry"), out=str(old / "catalogue"), engine="serial", precision="fp32"
    )


def test_records_receipts_and_the_published_release_are_read(old):
    out = old / "catalogue"
    runs = {run.name: read_record(run) for run in find_runs(out)}
    assert {name: run.status for name, run in runs.items()} == {
        PUBLISHED: Status.COMPLETE,
        INCOMPLETE: Status.INCOMPLETE,
    }
    assert list(runs[INCOMPLETE].failed) == [FAILED]
    assert runs[PUBLISHED].products == ("ojala", "ojala_vectors")
    receipts = {receipt.partition: receipt for receipt in all_receipts(out / "runs" / INCOMPLETE)}
    assert {name for name, receipt in receipts.items() if receipt.status != "done"} == {FAILED}
    assert sum(receipt.rows_out for receipt in receipts.values()) == 48
    assert published_run(out, "ojala").name == PUBLISHED


@pytest.mark.parametrize(
    ("collection", "product", "rows", "column"),
    [("catalogue", "ojala", 60, "p_galaxy"), ("redshifts", "specpt", 3, "z_err")],
)
def test_the_published_run_is_joined_with_its_input(old, collection, product, rows, column):
    with pytest.warns(RuntimeWarning, match="does not have a margin cache"):
        table = lsdb.open_catalog(str(old / collection)).load_extension(product).compute()
    assert len(table) == rows
    assert table.filter(regex=f"^{column}(_{product})?$").notna().all().all()


@pytest.mark.parametrize("folder", ["photometry", "catalogue", "spectra", "redshifts"])
def test_nothing_is_damaged(old, folder):
    assert [str(damage) for damage in verify(old / folder)] == []


def test_a_damaged_leaf_of_an_older_contract_is_found(old):
    leaf = old / "catalogue" / "runs" / PUBLISHED / "ojala_vectors/dataset/Norder=4/Dir=0/Npix=615.parquet"
    leaf.write_bytes(leaf.read_bytes()[:-1] + b"?")
    assert [damage.file for damage in verify(old / "catalogue")] == [str(leaf)]


def reasons(state):
    """Reasons for which a partition is stale: weights and contracts may have changed since, too."""
    assert state.startswith("stale: ")
    return set(state.removeprefix("stale: ").split(", "))


def test_partitions_are_stale_for_their_code_and_not_for_their_input(config):
    plan = plan_run(config)
    assert plan.run_id == INCOMPLETE
    states = {entry.partition.name: entry.state for entry in plan.entries}
    assert states.pop(FAILED) == "failed"
    assert len(states) == 3
    assert all("code" in reasons(state) and "input" not in reasons(state) for state in states.values())
    assert {entry.action for entry in plan.entries} == {"work"}


def test_vectors_of_the_older_contract_are_stale_for_their_contract(config, old):
    (old / "catalogue" / "runs" / INCOMPLETE).rename(old / "other")
    plan = plan_run(config.model_copy(update={"vectors": True}))
    assert plan.run_id not in (PUBLISHED, INCOMPLETE)
    assert all({"code", "contract"} <= reasons(entry.state) for entry in plan.entries)


def test_an_incomplete_run_is_resumed_and_published(config, monkeypatch):
    without_report(monkeypatch)
    result = run_and_publish(config)
    assert (result.plan.run_id, result.record.status) == (INCOMPLETE, Status.COMPLETE)
    assert (result.record.rows_out, result.record.failed) == (60, {})
    assert published_run(result.out, "ojala").name == INCOMPLETE
    assert list(verify(result.out)) == []


def test_a_run_of_spectra_is_planned_and_repeated(old, monkeypatch):
    without_report(monkeypatch)
    spectra, out = str(old / "spectra"), str(old / "redshifts")
    config = RunConfig(model="specpt", spectra=spectra, out=out, engine="serial", precision="fp32")
    assert ["code" in reasons(entry.state) for entry in plan_run(config).entries] == [True, True]
    result = run_and_publish(config)
    assert (result.record.status, result.record.rows_out) == (Status.COMPLETE, 3)
    assert list(verify(result.out)) == []
