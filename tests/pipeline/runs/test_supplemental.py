"""Margins and index of a run: linked where nothing around has changed, of the release, and never stale."""

import errno
import os

import lsdb
import pyarrow.parquet as pq
import pytest
from hats.io.validation import is_valid_collection
from upath import UPath

from ojala.pipeline import run as survey_run
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.run import make_release, publish_run
from ojala.pipeline.runs import supplemental
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.published import read_release
from ojala.pipeline.runs.record import read_record
from ojala.pipeline.runs.region import parse_region
from ojala.pipeline.runs.releases import ReleaseError, pointers, rollback
from ojala.pipeline.runs.supplemental import SUPPLEMENTAL
from ojala.pipeline.storage.files import OutputError
from tests.helpers.survey import Finished, plan_run, run_and_publish, without_report

pytestmark = pytest.mark.integration

MARGINS = {"margins": True}


def data_of(finished: Finished, folder: str) -> dict[str, int]:
    """Files and their inodes below a folder of the supplemental catalogues of a run."""
    root = finished.run / SUPPLEMENTAL / folder
    return {path.relative_to(root).as_posix(): os.stat(path.path).st_ino for path in root.rglob("*.parquet")}


@pytest.fixture(scope="module")
def first(photometry, tmp_path_factory):
    """A published run, and one over a region of it with other settings."""
    out = tmp_path_factory.mktemp("out")
    asked = {"photometry": str(photometry), "out": str(out), "model": "empty", "engine": "serial"}
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        return run_and_publish(RunConfig(**asked, **MARGINS))


@pytest.fixture(scope="module")
def second(first):
    """A run over one partition, published after the first."""
    config = first.config.model_copy(update={"batch_size": 64})
    tile = first.plan.entries[0].partition.name
    plan = plan_run(config, parse_region(f"tiles:{tile}", config.adapter.flags))
    assert (len(plan.to_do), len(plan.to_link)) == (1, len(plan.entries) - 1)
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        survey_run.begin(plan)
        for _ in survey_run.execute(plan):
            pass
        record = survey_run.finalise(plan)
    survey_run.publish(plan)
    return Finished(config, plan, record)


def test_a_run_links_what_is_of_the_same_leaves_and_makes_the_rest(first, second):
    assert data_of(first, "photometry_10arcsec") == data_of(second, "photometry_10arcsec") != {}
    assert data_of(first, "object_id_index") == data_of(second, "object_id_index") != {}
    old, new = data_of(first, "ojala"), data_of(second, "ojala")
    touched = second.plan.entries[0].partition.leaf
    assert old.keys() == new.keys()
    own = f"ojala_10arcsec/{touched}"
    assert old[own] == new[own], "a margin has the rows of other partitions"
    assert 0 < sum(old[name] == new[name] for name in new) < len(new)
    assert [str(damage) for damage in verify(first.out)] == []


def test_readers_get_margins_index_and_defaults_of_the_release_that_is_published(first, second):
    assert is_valid_collection(first.out, strict=True)
    catalog = lsdb.open_catalog(first.out.path)
    assert second.plan.run_id in catalog.hc_collection.default_margin
    assert catalog.margin is not None
    extended = catalog.load_extension("ojala")
    assert "ew_halpha" not in extended.columns
    key = next(iter(pq.read_table(next(first.photometry.rglob("Npix=*.parquet")).path)["object_id"])).as_py()
    found = catalog.id_search(values={"object_id": key}).compute(progress_bar=False)
    assert found["object_id"].tolist() == [key]
    assert read_release(first.out).products[0].root == second.run / "ojala"
    rollback(first.out, "ojala")
    assert first.plan.run_id in (first.out / "collection.properties").read_text()
    assert second.plan.run_id not in (first.out / "collection.properties").read_text()
    assert read_release(first.out).products[0].root == first.run / "ojala"
    publish_run(first.out, second.plan.run_id)


def test_margins_and_an_index_of_other_leaves_are_damage(first, second):
    run = second.run
    record = second.record
    assert list(supplemental.supplemental_faults(run, record, first.photometry)) == []
    margins = supplemental.product_margin(run, "ojala") / "margins.csv"
    index = supplemental.input_index(run) / "leaves.csv"
    kept = {path: path.read_text() for path in (margins, index)}
    try:
        for path, text in kept.items():
            head, line, *rest = text.splitlines()
            path.write_text("\n".join([head, line[:-1] + ("0" if line[-1] != "0" else "1"), *rest]) + "\n")
        faults = [str(damage) for damage in verify(first.out) if run.name in str(damage)]
        faults += [text for _, text in supplemental.supplemental_faults(run, record, first.photometry)]
    finally:
        for path, text in kept.items():
            path.write_text(text)
    assert any("margins of 1 partitions" in text and "make a new run" in text for text in faults)
    assert any("the index is not of the leaves of" in text for text in faults)


def test_a_run_that_is_stopped_while_margins_are_made_is_not_published_and_goes_on(config, monkeypatch):
    asked = config.model_copy(update=MARGINS)
    without_report(monkeypatch)
    with monkeypatch.context() as broken:
        broken.setattr(supplemental, "write_object_index", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_and_publish(asked)
    out = UPath(asked.out)
    assert pointers(out) == {}
    plan = plan_run(asked)
    assert plan.to_do == []
    record = make_release(plan.resolved)
    assert pointers(out) == {"ojala": record.run_id} == {"ojala": plan.run_id}, "the same run went on"
    assert [str(damage) for damage in verify(out)] == []
    assert data_of(Finished(asked, plan, record), "object_id_index")


def test_a_run_whose_margins_cannot_be_written_says_why_and_is_published_when_they_can(config, monkeypatch):
    without_report(monkeypatch)
    asked = config.model_copy(update=MARGINS)
    with monkeypatch.context() as broken:
        broken.setattr(supplemental, "write_object_index", fill_the_disk)
        with pytest.raises(ReleaseError, match=r"its assessment is not complete: margins: .*make room"):
            make_release(plan_run(asked).resolved)
    plan = plan_run(asked)
    assert read_record(plan.folder).problems.keys() == {"margins"}
    assert make_release(plan.resolved).problems == {}
    assert pointers(plan.resolved.out) == {"ojala": plan.run_id}


def fill_the_disk(*of_the_index, **settings):
    raise OutputError(errno.ENOSPC, "no space left: make room, then give the same command again", "index")


def interrupt(*of_the_index, **settings):
    raise KeyboardInterrupt


def test_a_run_without_margins_is_published_without(config, monkeypatch):
    without_report(monkeypatch)
    finished = run_and_publish(config.model_copy(update={"margins": False}))
    assert not (finished.run / SUPPLEMENTAL).exists()
    assert "margin" not in (finished.out / "collection.properties").read_text()
    assert [str(damage) for damage in verify(finished.out)] == []
