"""Publishing, rolling back and reprocessing: what readers see, and what is never touched again."""

import errno
import json
import os
import shutil
from functools import partial

import duckdb
import lsdb
import polars
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hats.io.validation import is_valid_collection
from mocpy import MOC
from upath import UPath

from ojala.pipeline import run as survey_run
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.run import publish_run
from ojala.pipeline.runs import releases as releasing
from ojala.pipeline.runs.gates import GateError, read_gates
from ojala.pipeline.runs.receipts import all_receipts
from ojala.pipeline.runs.record import RecordError, Status, read_record, run_folder
from ojala.pipeline.runs.region import coverage, parse_region
from ojala.pipeline.runs.releases import (
    ReleaseError,
    pointers,
    published_run,
    read_history,
    releases,
    rollback,
    was_published,
    was_rolled_back,
)
from tests.helpers.survey import Finished, plan_run, run_and_publish, without_report

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    without_report(monkeypatch)


@pytest.fixture
def first(config):
    return run_and_publish(config.model_copy(update={"margins": True}))


def anew(config):
    """The configuration with something changed on which numbers depend."""
    return config.model_copy(update={"batch_size": config.batch_size + 1})


def reprocess(config, region=None):
    plan = plan_run(config, parse_region(region) if region else None)
    survey_run.begin(plan)
    for _ in survey_run.execute(plan):
        pass
    return Finished(config, plan, survey_run.finalise(plan))


def one_tile(first):
    return f"tiles:{first.plan.entries[0].partition.name}"


def run_of_leaf(path):
    return pq.ParquetFile(path.path).metadata.metadata[b"ojala.run_id"].decode()


def test_a_reader_who_opened_the_old_release_goes_on_reading_it(config, first):
    old_lsdb = lsdb.open_catalog(first.out.path).load_extension("ojala")
    old_arrow = ds.dataset((published_run(first.out, "ojala") / "ojala" / "dataset").path)
    second = run_and_publish(anew(first.config))
    assert pointers(first.out) == {"ojala": second.plan.run_id}
    assert len(old_lsdb.compute(progress_bar=False)) == old_arrow.to_table().num_rows == 300
    assert first.plan.run_id in old_arrow.files[0]
    assert second.plan.run_id in (first.out / "collection.properties").read_text()
    assert len(lsdb.open_catalog(first.out.path).load_extension("ojala").compute(progress_bar=False)) == 300
    assert is_valid_collection(first.out, strict=True)


def test_rollback_leads_to_the_release_before_and_the_one_before_that(config, first):
    second = run_and_publish(anew(config))
    third = run_and_publish(anew(anew(config)))
    assert rollback(first.out, "ojala").run_id == second.plan.run_id
    assert rollback(first.out, "ojala").run_id == first.plan.run_id
    with pytest.raises(ReleaseError, match="nothing to roll back to"):
        rollback(first.out, "ojala")
    publish_run(first.out, third.plan.run_id)
    assert rollback(first.out, "ojala").run_id == first.plan.run_id
    assert [line.action for line in read_history(first.out)] == [
        *["publish"] * 3,
        *["rollback"] * 2,
        "publish",
        "rollback",
    ]
    assert list(verify(first.out)) == []


def test_what_was_rolled_back_is_not_published_again_by_itself(config, first):
    second = run_and_publish(anew(config))
    rollback(first.out, "ojala")
    assert was_rolled_back(first.out, second.plan.run_id)
    plan = plan_run(anew(config))
    assert (plan.run_id, plan.to_do) == (second.plan.run_id, [])
    with pytest.raises(ReleaseError, match="was rolled back and is not published again by itself"):
        survey_run.publish(plan)
    assert pointers(first.out) == {"ojala": first.plan.run_id}
    publish_run(first.out, second.plan.run_id)
    assert not was_rolled_back(first.out, second.plan.run_id)


def leaves_published(out):
    """Rows and runs of the published leaves, as DuckDB, Polars, pyarrow and the manifest find them."""
    pattern = f"{out}/published/ojala/dataset/**/*.parquet"
    (by_duckdb,) = duckdb.sql(f"SELECT count(*), count(DISTINCT object_id) FROM '{pattern}'").fetchall()
    by_polars = polars.scan_parquet(pattern).select("object_id").collect()
    by_pyarrow = ds.dataset(f"{out}/published/ojala/dataset", format="parquet")
    manifest = json.loads((out / "published.json").read_text())["ojala"]
    rows = {*by_duckdb, by_polars.height, by_polars["object_id"].n_unique(), by_pyarrow.count_rows()}
    rows.add(sum(pq.read_metadata((out / leaf).path).num_rows for leaf in manifest["leaves"]))
    return rows, {run_of_leaf(out / leaf) for leaf in manifest["leaves"]} | {
        run_of_leaf(UPath(leaf)) for leaf in by_pyarrow.files
    }


def test_a_release_has_a_name_that_stays_with_its_run(config, first):
    out, run_id = first.out, first.plan.run_id
    publish_run(out, run_id, name="DR1")
    assert read_history(out)[-1].name == json.loads((out / "published.json").read_text())["ojala"]["release"]
    second = run_and_publish(anew(config))
    for run, name, refusal in (
        (second.plan.run_id, "dr1", f"DR1 is the name of run {run_id} and cannot be given to another"),
        (run_id, "DR2", "has the name DR1, which cannot be changed"),
        (second.plan.run_id, "../DR2", "'../DR2' is no name of a release"),
    ):
        with pytest.raises(ReleaseError, match=refusal):
            publish_run(out, run, name=name)
    assert pointers(out) == {"ojala": second.plan.run_id}
    rollback(out, "ojala")
    assert [(one.run_id, one.name) for one in releases(out)] == [(run_id, "DR1"), (second.plan.run_id, None)]
    assert "ojala_release=DR1" in (out / f"ojala-{run_id}.properties").read_text()
    leaves = f"{out}/releases/DR1/ojala/dataset/**/*.parquet"
    assert duckdb.sql(f"SELECT count(*) FROM '{leaves}'").fetchall() == [(300,)]
    assert {run_of_leaf(leaf) for leaf in (out / "releases/DR1/ojala").rglob("Npix=*.parquet")} == {run_id}
    assert list(verify(out)) == []


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EPERM])
def test_links_that_cannot_be_made_keep_a_release_as_it_is_unless_the_file_system_has_none(
    config, first, monkeypatch, reason
):
    second = run_and_publish(anew(config))
    monkeypatch.setattr(os, "symlink", failing(OSError(reason, os.strerror(reason))))
    if reason == errno.EPERM:
        shutil.rmtree((first.out / "published").resolve())
        (first.out / "published").unlink()
        rollback(first.out, "ojala")
        assert pointers(first.out) == {"ojala": first.plan.run_id}
        return
    with pytest.raises(OSError, match="No space left"):
        rollback(first.out, "ojala")
    assert leaves_published(first.out) == ({300}, {second.plan.run_id})
    monkeypatch.undo()
    rollback(first.out, "ojala")
    assert leaves_published(first.out) == ({300}, {first.plan.run_id})


def failing(problem):
    def fail(*arguments, **options):
        raise problem

    return fail


def test_one_path_and_one_manifest_lead_every_reader_to_the_published_leaves(config, first):
    assert leaves_published(first.out) == ({300}, {first.plan.run_id})
    second = run_and_publish(anew(config))
    assert leaves_published(first.out) == ({300}, {second.plan.run_id})
    rollback(first.out, "ojala")
    assert leaves_published(first.out) == ({300}, {first.plan.run_id})
    assert len([*first.out.glob(".published-*")]) == 1, "former links do not stay"
    (first.out / "published").unlink()
    assert [damage.file for damage in verify(first.out)] == []
    (first.out / "published.json").write_text("{}")
    assert [damage.file for damage in verify(first.out)] == [f"{first.out}/published.json"]
    publish_run(first.out, first.plan.run_id)
    assert leaves_published(first.out) == ({300}, {first.plan.run_id})


def test_input_that_is_swapped_after_the_last_partition_is_not_published(config, first, tmp_path):
    other = tmp_path / "swapped"
    shutil.copytree(config.photometry, other)
    run = reprocess(anew(config).model_copy(update={"photometry": str(other)}))
    leaf = next(iter(sorted(UPath(other).rglob("Npix=*.parquet"), key=str)))
    content = leaf.read_bytes()
    leaf.write_bytes(content[:-1] + b"!")
    with pytest.raises(GateError, match=r"inputs: the input of 1 partitions .* makes these partitions anew"):
        publish_run(run.out, run.plan.run_id, again=True)
    leaf.write_bytes(content)
    listing = (UPath(other) / "leaves.csv").read_text()
    (UPath(other) / "leaves.csv").write_text(listing.replace(listing.split()[1][-64:], "1" * 64))
    problems = [damage.problem for damage in verify(run.run)]
    assert problems[0] == f"not the input that run {run.plan.run_id} was made from: run it again"
    assert "the index is not of the leaves" in problems[-1]


def test_a_leaf_whose_damage_a_gate_found_is_mended_by_the_same_command(config):
    plan = plan_run(config)
    survey_run.begin(plan)
    for _ in survey_run.execute(plan):
        pass
    survey_run.make_catalogues(plan)
    leaf = next(iter(sorted((plan.folder / "ojala").rglob("Npix=*.parquet"), key=str)))
    stat = os.stat(leaf.path)
    leaf.write_bytes(leaf.read_bytes()[:-1] + b"!")
    os.utime(leaf.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    survey_run.assess(plan.resolved, plan.run_id)
    with pytest.raises(GateError, match="checksums: 1 of"):
        survey_run.publish(plan)
    mended = run_and_publish(config)
    assert [entry.state for entry in mended.plan.to_do] == ["damaged"]
    assert list(verify(mended.out)) == []


@pytest.mark.parametrize("what", ["publish", "rollback"])
def test_a_crash_before_the_pointer_turns_leaves_the_old_release_and_a_way_on(
    config, first, monkeypatch, what
):
    second = run_and_publish(anew(config))
    third = run_and_publish(anew(anew(config))) if what == "rollback" else None
    present = third or second

    def crash(*args, **kwargs):
        raise OSError("power failure")

    with monkeypatch.context() as broken:
        broken.setattr(releasing, "write_collection", crash)
        turn = partial(rollback, product="ojala") if third else partial(publish_run, run_id=first.plan.run_id)
        with pytest.raises(OSError, match="power failure"):
            turn(first.out)
    assert pointers(first.out) == {"ojala": present.plan.run_id}
    assert rollback(first.out, "ojala").run_id == (second if third else first).plan.run_id


def test_publishing_again_what_is_published_changes_nothing(first):
    before = (first.out / "collection.properties").read_bytes()
    publish_run(first.out, first.plan.run_id)
    assert (first.out / "collection.properties").read_bytes() == before
    assert len(read_history(first.out)) == 1


def test_a_published_run_is_never_written_to_again(config, first):
    plan = plan_run(config)
    with pytest.raises(ReleaseError, match="not written to again"):
        survey_run.begin(plan)
    record = read_record(first.run)
    content = record.model_copy(update={"status": Status.RUNNING}).model_dump_json()
    (first.run / "run.json").write_text(content)  # whatever its record says
    assert plan_run(config).run_id != first.plan.run_id
    again = reprocess(config, one_tile(first))
    assert again.plan.run_id != first.plan.run_id
    with pytest.raises(ReleaseError, match="not written to again"):
        survey_run.begin(plan)
    (first.run / "run.json").write_text(record.model_dump_json())
    assert list(verify(first.run)) == []


def test_a_region_is_done_again_in_a_new_run_and_all_else_is_linked_with_its_own_provenance(config, first):
    partition = first.plan.entries[0].partition
    other = anew(config)
    plan = plan_run(other, parse_region(one_tile(first)))
    assert plan.states() == {"reprocess": 1, "stale: configuration": len(plan.entries) - 1}
    assert "are kept as they are" in plan.remarks[0]
    second = reprocess(other, one_tile(first))
    assert (second.record.status, second.record.linked) == (Status.COMPLETE, len(plan.entries) - 1)
    assert (second.record.base, second.record.region) == (first.plan.run_id, one_tile(first))
    for receipt in all_receipts(second.run):
        leaf = receipt.leaves[0].path
        anew_here = receipt.partition == partition.name
        assert os.path.samefile(first.run / leaf, second.run / leaf) is not anew_here
        assert receipt.run_id == run_of_leaf(second.run / leaf)
        assert receipt.run_id == (second if anew_here else first).plan.run_id
    table = pq.read_table((second.run / "provenance" / "partitions.parquet").path).to_pylist()
    made = {f"{row['order']}/{row['pixel']}": (row["run_id"], row["key"]) for row in table}
    assert made[partition.name] == (second.plan.run_id, second.plan.to_do[0].fingerprint.key())
    assert {run for run, _ in made.values()} == {first.plan.run_id, second.plan.run_id}

    (mixed,) = second.record.mixed_versions.values()
    assert sorted(mixed.values()) == [1, len(plan.entries) - 1]
    assert read_gates(second.run).outcomes()["mixed_versions"] == "warn"
    assert list(verify(second.run)) == list(verify(first.run)) == []
    publish_run(first.out, second.plan.run_id)
    assert list(verify(first.out)) == []


def test_a_reprocessing_that_was_stopped_goes_on(config, first):
    region = "tiles:" + ",".join(entry.partition.name for entry in first.plan.entries[:3])
    other = anew(config)
    plan = plan_run(other, parse_region(region))
    survey_run.begin(plan)
    receipts = survey_run.execute(plan)
    next(receipts)
    receipts.close()
    again = plan_run(other, parse_region(region))
    assert (again.run_id, len(again.to_do), len(again.to_link)) == (plan.run_id, 2, 0)
    assert plan_run(config).run_id == first.plan.run_id, "a run over all of it does not go on from there"
    assert reprocess(other, region).record.linked == len(plan.entries) - 3


def test_without_a_finished_run_there_is_nothing_to_reprocess(config):
    with pytest.raises(ReleaseError, match="has no finished run of ojala"):
        plan_run(config, parse_region("cone:245.5,43.9,1"))


@pytest.fixture
def broken(config, photometry, tmp_path):
    """A run of which one partition failed, and how to repair its photometry."""
    copy = UPath(tmp_path / "photometry")
    shutil.copytree(photometry.path, copy.path)
    leaf = sorted(copy.rglob("Npix=*.parquet"), key=str)[0]
    whole = leaf.read_bytes()
    leaf.write_bytes(whole[:5000])
    config = config.model_copy(update={"photometry": str(copy)})
    return run_and_publish(config), lambda: leaf.write_bytes(whole)


def test_an_incomplete_run_is_published_only_as_a_partial_one_that_says_what_is_missing(broken):
    run, repair = broken
    (name,) = run.record.failed
    with pytest.raises(ReleaseError, match="1 partitions are missing"):
        publish_run(run.out, run.plan.run_id)
    publish_run(run.out, run.plan.run_id, partial=True)
    assert read_record(run.run).status == Status.PARTIAL
    (failed,) = (entry.partition for entry in run.plan.entries if entry.partition.name == name)
    there = [entry.partition for entry in run.plan.entries if entry.partition != failed]
    assert MOC.load((run.run / "failed.moc.fits").path) == coverage([failed])
    assert MOC.load((run.run / "moc.fits").path) == coverage(there)
    assert "ojala_missing_partitions=1" in (run.run / "ojala" / "hats.properties").read_text()
    assert read_history(run.out)[-1].partial
    (release,) = releases(run.out)
    assert (release.published, release.status, release.missing) == ("published", "partial", 1)
    rows = sum(entry.rows for entry in run.plan.entries if entry.partition != failed)
    assert len(lsdb.open_catalog((run.run / "ojala").path).compute(progress_bar=False)) == rows
    repair()
    assert list(verify(run.out)) == []

    whole = run_and_publish(run.config)
    assert whole.plan.run_id != run.plan.run_id
    assert (whole.record.status, whole.record.linked) == (Status.COMPLETE, len(there))
    assert [entry.state for entry in whole.plan.to_do] == ["failed"]


def test_what_failed_can_be_reprocessed(broken):
    run, repair = broken
    publish_run(run.out, run.plan.run_id, partial=True)
    repair()
    again = reprocess(run.config, "flagged")
    assert [entry.partition.name for entry in again.plan.to_do] == list(run.record.failed)
    assert again.record.status == Status.COMPLETE


def test_publishing_one_models_run_leaves_the_others_published(config, first):
    other = config.model_copy(update={"vectors": True})
    theirs = run_folder(first.out, "20200101T000000Z-aaaa")
    shutil.copytree(first.run.path, theirs.path)
    record = read_record(first.run).model_copy(update={"run_id": theirs.name, "products": ("spectra",)})
    (theirs / "run.json").write_text(record.model_dump_json())
    (theirs / "ojala").rename(theirs / "spectra")
    publish_run(first.out, theirs.name)
    with_vectors = run_and_publish(other)
    assert pointers(first.out) == {
        "spectra": theirs.name,
        **dict.fromkeys(("ojala", "ojala_vectors"), with_vectors.plan.run_id),
    }
    without = run_and_publish(anew(config))
    assert pointers(first.out) == {"spectra": theirs.name, "ojala": without.plan.run_id}, (
        "vectors of another release do not stay beside it"
    )
    with pytest.raises(ReleaseError, match="nothing to roll back to"):
        rollback(first.out, "spectra")


def test_a_gate_that_fails_keeps_a_run_from_being_published_unless_it_is_overruled(config, first):
    leaf = next(iter(sorted((first.run / "ojala").rglob("Npix=*.parquet"), key=str)))
    second = run_and_publish(anew(config))
    rollback(first.out, "ojala")
    damaged = second.run / "ojala" / leaf.relative_to(first.run / "ojala").as_posix()
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    with pytest.raises(GateError, match=r"checksums: 1 of .* leaves differ .* --force-gate checksums"):
        publish_run(first.out, second.plan.run_id, again=True)
    assert pointers(first.out) == {"ojala": first.plan.run_id}
    with pytest.raises(GateError, match="there is no gate nonsense"):
        publish_run(first.out, second.plan.run_id, forced=["nonsense"], again=True)
    publish_run(first.out, second.plan.run_id, forced=["contract", "checksums"], again=True)
    assert read_history(first.out)[-1].forced == ("checksums", "contract")


def test_releases_are_listed_with_what_they_are(config, first):
    second = run_and_publish(anew(config))
    (second.run / "run.json").write_bytes(b'{"run_id": ')
    (one, two) = releases(first.out)
    assert (one.run_id, one.status, one.published) == (first.plan.run_id, "complete", "was published")
    assert (one.rows, one.partitions, one.missing) == (300, len(first.plan.entries), 0)
    assert one.bytes == sum((first.run / r.leaves[0].path).stat().st_size for r in all_receipts(first.run))
    assert (two.status, two.published) == ("damaged", "published")
    third = plan_run(anew(config))
    survey_run.begin(third)
    assert releases(first.out)[-1].status == "interrupted"


@pytest.mark.parametrize("name", ["../../etc", "/etc", "..", "", "a/b"])
def test_names_of_runs_cannot_lead_out_of_the_collection(first, name):
    with pytest.raises(RecordError, match="is no name of a run"):
        publish_run(first.out, name)


def test_a_damaged_history_is_named(first):
    (first.out / "publications.jsonl").write_text('{"action": "pub\n')
    with pytest.raises(ReleaseError, match=r"publications.jsonl, line 1 cannot be read"):
        was_published(first.out, "x")
