"""Disk usage counts links once, and pruning keeps what is published, new or needed."""

import shutil

import pytest
from upath import UPath

from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.record import Status, find_runs, read_record, write_record
from ojala.pipeline.runs.releases import pointers
from ojala.pipeline.runs.retention import disk_usage, plan_pruning, prune_runs
from tests.helpers.commands import here
from tests.helpers.survey import ingest_table, photometry_table, run_and_publish, without_report

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def three_runs(tmp_path_factory) -> UPath:
    """A collection of three runs: the second links all but one leaf of the first, the third is new."""
    patch = pytest.MonkeyPatch()
    without_report(patch)
    folder = tmp_path_factory.mktemp("retention")
    table = photometry_table(300)
    for number, batch_size in enumerate((128, 128, 129)):
        root = ingest_table(table.slice(0, 300 if number else 299), folder / str(number), tile_rows=150)
        run_and_publish(
            RunConfig(
                photometry=str(root),
                out=str(folder / "out"),
                model="empty",
                engine="serial",
                batch_size=batch_size,
            )
        )
    patch.undo()
    return UPath(folder / "out")


@pytest.fixture
def out(three_runs, tmp_path) -> UPath:
    """A copy of it beside it, whose links are links."""
    copy = three_runs.with_name(tmp_path.name)
    shutil.copytree(three_runs.path, copy.path, copy_function=_link, symlinks=True)
    return copy


def _link(source, target):
    UPath(target).hardlink_to(source)


def test_shared_files_are_counted_once(out):
    usages, total = disk_usage(out)
    first, second, third = usages
    assert first.shared == second.shared > 0 == third.shared
    assert total == sum(one.own for one in usages) + first.shared
    told = here("du", out, "--json")
    assert f'"bytes": {total}' in told.output


def test_pruning_says_first_and_removes_then(out):
    runs = [run.name for run in find_runs(out)]
    published = pointers(out)["ojala"]
    assert published == runs[2]
    told = here("prune", "--out", out, "--keep", 1)
    assert "2 of 3 runs would be removed" in told.output
    assert [run.name for run in find_runs(out)] == runs
    told = here("prune", "--out", out, "--keep", 2, "--yes")
    assert f"{runs[0]}: removed" in told.output
    assert [run.name for run in find_runs(out)] == runs[1:]
    assert list(verify(out)) == []
    second = out / "runs" / runs[1] / "ojala"
    assert len(list(second.rglob("Npix=*.parquet"))) == len(list((second / "dataset").rglob("*.parquet"))) > 1
    assert not list(out.glob(f"*-{runs[0]}.properties"))


def test_what_is_published_or_needed_is_kept_however_old(out):
    first, second, third = find_runs(out)
    record = read_record(third)
    write_record(third, record.model_copy(update={"status": Status.INCOMPLETE, "base": first.name}))
    reasons = {one.run_id: one.kept for one in plan_pruning(out, 1)}
    assert reasons[third.name] == "published"
    assert reasons[first.name] == f"run {third.name} links its leaves"
    assert reasons[second.name] == "among the newest 1 of ojala"
    assert [one.kept != "" for one in prune_runs(out, 1)] == [True, True, True]
