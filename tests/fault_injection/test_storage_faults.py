"""Disks fill up, turn read-only and lose bytes, files go missing, clocks jump: nothing is lost by it."""

import os
import re
import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import typer
from upath import UPath

from ojala.catalogs_schema.files import TEMPORARY
from ojala.flows.cli.output import show_run
from ojala.pipeline import run as survey_run
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.record import Status, read_record, runs_folder
from ojala.pipeline.runs.releases import pointers
from ojala.pipeline.storage.files import OutputError
from ojala.pipeline.storage.lock import hold
from tests.fault_injection.accounts import check, data_of, settle
from tests.fault_injection.conftest import ROWS, TILE_ROWS
from tests.fault_injection.processes import receipts
from tests.helpers.survey import Finished, plan_run, run_and_publish

pytestmark = pytest.mark.fault


@contextmanager
def disk(folder: Path, size: str):
    """A disk of its own with that much room; gives a function that mounts it anew with other options."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def begin(config):
    plan = plan_run(config)
    survey_run.begin(plan)
    return plan


def leaves(root: UPath) -> list[UPath]:
    return sorted(root.rglob("Npix=*.parquet"), key=str)


def test_a_full_disk_stops_the_run_early_and_it_goes_on_when_there_is_room(
    asked, undisturbed, tmp_path, ledger
):
    fault = ledger("disk full during a run")
    with disk(tmp_path / "disk", "400k") as remount:
        config = asked.model_copy(update={"out": str(tmp_path / "disk" / "out")})
        plan = begin(config)
        running, failed = survey_run.execute(plan), []
        with pytest.raises(
            OutputError, match=r"No space left on device: make room, then give .* again"
        ) as told:
            failed.extend(receipt for receipt in running if receipt.status == "failed")
        fault.injected = 1
        assert [attempt.cause for receipt in failed for attempt in receipt.attempts] == ["output"]
        assert str(config.out) in str(told.value), "says where"
        assert len(list(Path(config.out).rglob("Npix=*.parquet"))) < len(plan.entries) // 2
        assert not list(Path(config.out).rglob(f"*{TEMPORARY}")), "no half of a file stays"
        assert not (UPath(config.out) / "collection.properties").exists()
        remount("size=64m")
        again = plan_run(config)
        assert (again.run_id, again.states().get("done", 0) > 0) == (plan.run_id, True)
        settle(fault, config, undisturbed)


def fill(folder: Path) -> Path:
    """A file that takes all the room that a disk has left."""
    ballast = folder / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


def test_a_disk_that_is_full_when_a_run_ends_or_is_published_costs_neither(
    asked, undisturbed, tmp_path, ledger
):
    fault = ledger("disk full at the end of a run, and at its publication")
    with disk(tmp_path / "disk", "64m"):
        config = asked.model_copy(update={"out": str(tmp_path / "disk" / "out")})
        for _ in survey_run.execute(plan := begin(config)):
            pass
        ballast = fill(tmp_path / "disk")
        with pytest.raises(OutputError, match=r"No space left on device: make room"):
            survey_run.finalise(plan)
        fault.injected = 1
        ballast.unlink()
        assert plan_run(config).to_do == [], "no partition is done again"
        record = survey_run.finalise(plan_run(config))
        ballast = fill(tmp_path / "disk")
        with pytest.raises(OutputError, match=r"No space left on device: make room"):
            survey_run.publish(plan)
        fault.injected = 2
        assert pointers(UPath(config.out)) == {}, "nothing is published"
        ballast.unlink()
        with fault.recovered():
            survey_run.publish(plan_run(config))
        assert pointers(UPath(config.out)) == {"ojala": plan.run_id}
        check(fault, Finished(config, plan, record), undisturbed)
        assert list(verify(UPath(config.out))) == []


def test_a_disk_that_is_read_only_takes_no_run_and_says_so(asked, tmp_path):
    with disk(tmp_path / "disk", "1m") as remount:
        remount("ro")
        out = UPath(tmp_path / "disk" / "out")
        config = asked.model_copy(update={"out": str(out)})
        refusal = "Read-only file system: make it writable or name another folder"
        with pytest.raises(OutputError, match=refusal):
            begin(config)
        with pytest.raises(OutputError, match=refusal), hold(out, "ojala"):
            pass


def test_a_disk_that_turns_read_only_stops_the_run(asked, undisturbed, tmp_path, ledger):
    fault = ledger("disk turned read-only during a run")
    with disk(tmp_path / "disk", "64m") as remount:
        config = asked.model_copy(update={"out": str(tmp_path / "disk" / "out")})
        running = survey_run.execute(begin(config))
        next(running)
        remount("ro")
        fault.injected = 1
        with pytest.raises(
            OutputError, match="Read-only file system: make it writable or name another folder"
        ):
            list(running)
        remount("rw")
        settle(fault, config, undisturbed)


def test_a_disk_that_is_full_during_an_ingest_leaves_nothing(many, tmp_path, ledger):
    fault = ledger("disk full during an ingest")
    with disk(tmp_path / "disk", "400k") as remount:
        files, out = [many.parent / "input.parquet"], UPath(tmp_path / "disk" / "photometry")
        with pytest.raises(IngestError, match="No space left on device"):
            ingest_photometry(files, out, tile_rows=TILE_ROWS)
        fault.injected = 1
        assert list((tmp_path / "disk").iterdir()) == []
        remount("size=64m")
        with fault.recovered():
            summary = ingest_photometry(files, out, tile_rows=TILE_ROWS)
        assert summary.rows == ROWS
        assert list(verify(out)) == []
        fault.rows, fault.partitions, fault.survived = summary.rows, len(summary.partitions), 1


def truncate(leaf: UPath) -> None:
    leaf.write_bytes(leaf.read_bytes()[:-100])


def flip_a_bit(leaf: UPath) -> None:
    content = bytearray(leaf.read_bytes())
    content[len(content) // 3] ^= 0x10
    leaf.write_bytes(bytes(content))


def remove(leaf: UPath) -> None:
    leaf.unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, r"DamagedInput: .*Npix=\d+.parquet: SHA-256 is .*: ingest it again or restore the file"),
        (flip_a_bit, r"DamagedInput: .*Npix=\d+.parquet: SHA-256 is .*: ingest it again or restore the file"),
        (remove, r"DamagedInput: .*Npix=\d+.parquet is missing: ingest it again or restore the file"),
    ],
)
def test_a_damaged_photometry_leaf_fails_its_partition_alone_and_at_once(
    asked, many, undisturbed, tmp_path, ledger, capsys, damage, said
):
    fault = ledger(f"photometry leaf: {damage.__name__.replace('_', ' ')}")
    photometry = UPath(tmp_path / "photometry")
    shutil.copytree(many.path, photometry.path)
    leaf = leaves(photometry)[0]
    whole = leaf.read_bytes()
    damage(leaf)
    fault.injected = 1
    config = asked.model_copy(update={"photometry": str(photometry)})
    result = run_and_publish(config)
    assert result.record.status == Status.INCOMPLETE
    assert list(result.record.failed) == [f"{leaf.parent.parent.name[7:]}/{leaf.stem[5:]}"]
    (error,) = result.record.failed.values()
    assert re.match(said, error), error
    assert result.record.rows_in - result.record.rows_out > 0
    with pytest.raises(typer.Exit) as ended:
        show_run(result.record, config, as_json=False)
    assert ended.value.exit_code == 4
    told = capsys.readouterr()
    assert "is incomplete, not published" in told.out
    assert "1 partition failed; the same command retries them" in told.err
    assert not (result.out / "collection.properties").exists()
    leaf.write_bytes(whole)
    settle(fault, config, undisturbed)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, remove])
def test_a_damaged_leaf_of_the_run_is_made_again(asked, undisturbed, ledger, damage):
    fault = ledger(f"leaf of an unfinished run: {damage.__name__.replace('_', ' ')}")
    running = survey_run.execute(plan := begin(asked))
    done = [next(running) for _ in range(6)]
    running.close()
    run = runs_folder(UPath(asked.out)) / plan.run_id
    leaf = run / done[2].leaves[0].path
    damage(leaf)
    if leaf.exists():  # a change is seen by its time, as any program that writes leaves it
        os.utime(leaf.path, ns=(1 << 60, 2 * 10**18))
    fault.injected = 1
    assert plan_run(asked).states()["damaged"] == 1
    settle(fault, asked, undisturbed)


def test_a_clock_that_jumps_back_changes_neither_the_run_nor_its_order(asked, undisturbed, ledger):
    """The clock jumps between two starts: the unfinished run lies in the future."""
    fault = ledger("clock jumped back by decades")
    running = survey_run.execute(plan := begin(asked))
    next(running)
    running.close()
    folder = runs_folder(UPath(asked.out))
    future = plan.run_id.replace(plan.run_id[:8], "20991231")
    record = read_record(folder / plan.run_id).model_copy(
        update={"run_id": future, "started": "2099-12-31T00:00:00+00:00"}
    )
    (folder / plan.run_id).rename(folder / future)
    (folder / future / "run.json").write_text(record.model_dump_json())
    for file in (folder / future).rglob("*"):
        if file.is_file():
            os.utime(file.path, ns=(41 * 10**17, 41 * 10**17))
    fault.injected = 1
    assert plan_run(asked).run_id == future
    finished = settle(fault, asked, undisturbed)
    assert receipts(asked.out) == len(finished.plan.entries)
    # A run that is begun now is the later one, whatever the clock says.
    changed = asked.model_copy(update={"precision": "bf16"})
    later = run_and_publish(changed)
    assert later.plan.run_id != future
    assert plan_run(changed).run_id == later.plan.run_id
    assert plan_run(changed).to_do == []
    assert data_of(later.run) == undisturbed
