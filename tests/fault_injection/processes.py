"""Runs and ingests in processes of their own, which tests kill."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any

import dask
import psutil
from upath import UPath

from ojala.pipeline.ingest import build, photometry
from ojala.pipeline.runs.config import RunConfig
from tests.helpers.pace import until
from tests.helpers.survey import run_and_publish

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.fault_injection.processes"])  # so that a start costs no imports


def start_run(config: RunConfig) -> BaseProcess:
    """A process that carries a run through, leader of its own process group."""
    return start(partial(run_and_publish, report=True), config)


def start_ingest(files: list[str], out: str, tile_rows: int) -> BaseProcess:
    """A process that makes a photometry catalogue."""
    return start(_ingest, files, out, tile_rows)


def frozen_ingest(files: list[str], out: str, tile_rows: int) -> BaseProcess:
    """The same, frozen when all leaves are written and the catalogue is not yet whole."""
    process = start(_ingest_and_freeze, files, out, tile_rows)
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    return process


def _ingest(files: list[str], out: str, tile_rows: int) -> None:
    photometry.ingest_photometry([UPath(file) for file in files], UPath(out), tile_rows=tile_rows)


def _ingest_and_freeze(files: list[str], out: str, tile_rows: int) -> None:
    finalise = build.finalise_catalogue

    def freeze_first(*arguments: Any, **named: Any) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        finalise(*arguments, **named)

    build.finalise_catalogue = freeze_first
    _ingest(files, out, tile_rows)


def start(work: Callable[..., object], *arguments: object) -> BaseProcess:
    """A process that does some work, leader of its own process group."""
    process = _context.Process(target=_lead, args=(dict(os.environ), work, *arguments))
    process.start()
    return process


def _lead(environment: dict[str, str], work: Callable[..., object], *arguments: object) -> None:
    os.setsid()
    os.environ.update(environment)
    dask.config.refresh()  # the process that this one is forked from has read another environment
    # What workers say of a driver that is killed is noise.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    work(*arguments)


def workers_of(process: BaseProcess | psutil.Process) -> list[psutil.Process]:
    """The worker processes of a run: children of the process from which they are forked."""
    with suppress(psutil.NoSuchProcess):
        return [worker for child in psutil.Process(process.pid).children() for worker in child.children()]
    return []


def listening(process: BaseProcess) -> list[str]:
    """The addresses on which a run and its workers listen; those of ended processes are not known."""
    addresses = []
    with suppress(psutil.NoSuchProcess):
        for one in [psutil.Process(process.pid), *workers_of(process)]:
            connections = one.net_connections("inet")
            addresses += [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]
    return addresses


def kill(process: BaseProcess) -> None:
    """SIGKILL to one process; its workers must find out by themselves."""
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def receipts(out: str) -> int:
    """Receipts that the runs of a collection have written so far."""
    return sum(1 for _ in UPath(out).glob("runs/*/receipts/*/*.json"))
