"""Processes are killed at any moment; the same command goes on, and the result tells nothing of it."""

import json
import os
import signal

import numpy as np
import pytest
from upath import UPath

from ojala.pipeline import run as survey_run
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.record import read_record
from ojala.pipeline.storage.hats import read_leaves
from tests.fault_injection.accounts import check, data_of, photometry_of, settle, wide_table
from tests.fault_injection.command_server import WORKER_FAULT
from tests.fault_injection.conftest import ROWS, TILE_ROWS, asking
from tests.fault_injection.processes import (
    frozen_ingest,
    kill,
    listening,
    receipts,
    start_ingest,
    start_run,
    workers_of,
)
from tests.helpers.pace import until
from tests.helpers.survey import Finished, ingest_table, plan_run, run_and_publish

pytestmark = pytest.mark.fault


@pytest.mark.parametrize("whom", ["driver", "process group"])
def test_a_run_whose_driver_is_killed_goes_on_where_it_was(
    request, asked, undisturbed, tmp_path, monkeypatch, ledger, whom
):
    """A worker kills it in the middle of a partition, at its 40th step at files."""
    if whom == "process group" and not request.config.getoption("--soak"):
        pytest.skip("each starts workers of its own; see make soak")
    fault = ledger(f"SIGKILL of the {'driver' if whom == 'driver' else 'whole process group'}")
    order = {"kind": f"SIGKILL of the {whom}", "step": 40, "folder": asked.out, "done": f"{tmp_path}/done"}
    monkeypatch.setenv(WORKER_FAULT, json.dumps(order))
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", "tests.fault_injection.command_server")
    process = start_run(asked.model_copy(update={"engine": "local", "workers": 1}))
    until(lambda: receipts(asked.out) or not process.is_alive())
    workers = workers_of(process)
    addresses = listening(process)
    process.join()
    fault.injected = 1
    assert process.exitcode == -signal.SIGKILL
    assert set(addresses) <= {"127.0.0.1"}, "no other machine reaches scheduler, workers or a dashboard"
    until(lambda: not any(worker.is_running() for worker in workers), seconds=60)
    plan = plan_run(asked)
    assert 0 < len(plan.to_do) < len(plan.entries), "what was done is not done again"
    settle(fault, asked, undisturbed)


@pytest.mark.parametrize(
    ("step", "file"),
    [
        ("catalogues are made", "runs/*/ojala/hats.properties"),
        ("margins are made", "runs/*/supplemental/photometry_10arcsec/margins.csv"),
        ("provenance is written", "runs/*/provenance/prov.json"),
        ("checksums are written", "runs/*/checksums.sha256"),
        ("it is published", "publications.jsonl"),
    ],
)
def test_a_run_that_is_killed_while_it_ends_is_ended_by_the_next(
    request, asked, undisturbed, ledger, step, file
):
    if not request.config.getoption("--soak"):
        pytest.skip("the short form is in the campaign")
    fault = ledger(f"SIGKILL of a run while {step}")
    process = start_run(asked)
    until(lambda: [*UPath(asked.out).glob(file)] or not process.is_alive(), every=0.001)
    kill(process)
    fault.injected = 1
    assert plan_run(asked).to_do == [], "no partition is done again"
    finished = settle(fault, asked, undisturbed)
    assert list(verify(finished.out)) == []


def test_a_worker_that_stands_still_is_ended_and_its_partition_done_by_another(
    request, asked, undisturbed, ledger
):
    if not request.config.getoption("--soak"):
        pytest.skip("its time must run out; the short form is in tests/pipeline/execution/test_engines.py")
    fault = ledger("SIGSTOP of a worker until its time limit of 30 s")
    config = asked.model_copy(update={"engine": "local", "workers": 2, "partition_seconds": 30.0})
    plan = plan_run(config)
    survey_run.begin(plan)
    running = survey_run.execute(plan)
    done = [next(running) for _ in range(5)]
    os.kill(done[-1].attempts[-1].pid, signal.SIGSTOP)
    fault.injected = 1
    with fault.recovered():
        done += running
    assert {receipt.status for receipt in done} == {"done"}
    causes = [attempt.cause for receipt in done for attempt in receipt.attempts if attempt.error]
    assert set(causes) == {"timeout"}
    check(fault, run_and_publish(config), undisturbed)


def test_a_worker_that_is_killed_costs_nothing_but_time(asked, undisturbed, ledger):
    fault = ledger("SIGKILL of a worker")
    config = asked.model_copy(update={"engine": "local", "workers": 2})
    plan = plan_run(config)
    survey_run.begin(plan)
    running = survey_run.execute(plan)
    done = [next(running) for _ in range(5)]
    os.kill(done[-1].attempts[-1].pid, signal.SIGKILL)
    fault.injected = 1
    with fault.recovered():
        done += running
    assert {receipt.status for receipt in done} == {"done"}
    assert len(done) == len(plan.entries)
    check(fault, run_and_publish(config), undisturbed)


def test_many_partitions_with_random_kills(request, tmp_path, ledger):
    """Workers and drivers are killed at random, seeded moments until the run is whole."""
    if not request.config.getoption("--soak"):
        pytest.skip("the short form is in the campaign")
    rows, side, kills = 8_000, 50.0, 12
    photometry = ingest_table(wide_table(rows, side), tmp_path, tile_rows=8)
    expected = data_of(run_and_publish(asking(photometry, tmp_path / "undisturbed")).run)
    assert len(expected) >= 2000
    asked = asking(photometry, tmp_path / "out").model_copy(update={"engine": "local", "workers": 2})
    workers, drivers = ledger("soak: SIGKILL of workers"), ledger("soak: SIGKILL of drivers")
    random = np.random.default_rng(20261120)
    process, before = start_run(asked), 0
    while workers.injected + drivers.injected < kills:
        # Kills are spread over the work: each after some more partitions are done.
        before += max(1, int(random.uniform(0.1, 0.6) * len(expected) / kills))
        until(
            lambda now=process, enough=before: receipts(asked.out) >= enough or not now.is_alive(),
            every=0.3,
        )
        if not process.is_alive():
            break
        alive = workers_of(process)
        if alive and random.random() < 0.7:
            alive[random.integers(len(alive))].kill()
            workers.injected += 1
        else:
            kill(process)
            drivers.injected += 1
            process = start_run(asked)
    with drivers.recovered():
        process.join()
    plan = plan_run(asked)
    assert (process.exitcode, plan.to_do) == (0, [])
    finished = Finished(asked, plan, read_record(UPath(asked.out) / "runs" / plan.run_id))
    assert workers.injected + drivers.injected == kills
    for fault in (workers, drivers):
        check(fault, finished, expected)


def test_an_ingest_that_is_killed_is_resumed_by_the_next(tmp_path, many, ledger):
    fault = ledger("SIGKILL of an ingest")
    files, out = [str(many.parent / "input.parquet")], tmp_path / "photometry"
    kill(frozen_ingest(files, str(out), TILE_ROWS))
    fault.injected = 1
    assert not out.exists()
    assert len(list(tmp_path.glob(".photometry.*"))) == 1
    (stranger := tmp_path / ".photometry.notes").mkdir()
    with fault.recovered():
        again = start_ingest(files, str(out), TILE_ROWS)
        again.join()
    assert again.exitcode == 0
    assert photometry_of(UPath(out)) == photometry_of(many)
    assert sorted(tmp_path.iterdir()) == [stranger, out]
    fault.partitions, fault.rows, fault.survived = len(read_leaves(UPath(out))), ROWS, 1


def test_the_folder_of_an_ingest_that_lives_is_left_alone(tmp_path, many):
    files, out = [str(many.parent / "input.parquet")], tmp_path / "photometry"
    first = frozen_ingest(files, str(out), TILE_ROWS)
    folder = next(tmp_path.glob(".photometry.*"))
    second = start_ingest(files, str(out), TILE_ROWS)
    second.join()
    assert second.exitcode != 0, "the first is making it"
    assert folder.exists()
    os.kill(first.pid, signal.SIGCONT)
    first.join()
    assert first.exitcode == 0
    assert list(tmp_path.iterdir()) == [out]
