"""Tiers of tests, their time limits, a check for processes left behind, and catalogues for many tests."""

from __future__ import annotations

import gc
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import settings
from upath import UPath

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.pipeline.runs.config import RunConfig
from tests.helpers.once import made_once
from tests.helpers.pace import scaled, slowness
from tests.helpers.survey import Finished, ingest_table, photometry_table, run_and_publish

# Tests run side by side; networks and maps with all cores each would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

# Nearly all objects of this process are of modules, which stay: to look for unused ones among them after
# every 700 new ones took an eighth of the time of the collection of tests.
gc.set_threshold(50_000)

settings.register_profile("short", max_examples=100, deadline=None)
settings.register_profile("soak", max_examples=5_000, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The long forms of the tests of faults; see `make soak`."""
    parser.addoption("--soak", action="store_true", help="run the long forms of tests that have one")
    parser.addoption(
        "--campaign-seed", type=int, help="seed of the campaign of faults; default: a random one"
    )
    parser.addoption("--campaign-hours", type=float, default=4.0, help="length of its long form; default: 4")


TIERS = ("integration", "fault", "gpu")
"""Markers of tests that are not unit tests; see CONTRIBUTING.md."""

_OTHER_TIER = re.compile(rf"^pytestmark = [^\n]*mark\.(?:{'|'.join(TIERS)})\b", re.MULTILINE)

SESSION = "OJALA_TEST_SESSION"
"""Variable that every process that the tests start inherits, and by which those left behind are found."""

ENDING = 20.0
"""Seconds that processes may take to end after the last test."""


def pytest_configure(config: pytest.Config) -> None:
    """Set how many cases hypothesis tries, and measure the machine once for all processes of the tests."""
    settings.load_profile("soak" if config.getoption("--soak") else "short")
    os.environ.setdefault(SESSION, uuid.uuid4().hex)
    slowness()
    _leave_trees_uncompiled()


def _leave_trees_uncompiled() -> None:
    """Align catalogues in Python: for a few partitions it takes less than to compile how, 6 s per process."""
    import numba

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", True)
        import hats.pixel_tree  # noqa: F401 - functions that are defined now are not compiled


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test a tier and a time limit for this machine; files that take long come first.

    So no process is left alone with a long file at the end (`--no-loadscope-reorder`).
    """
    for item in items:
        if not any(item.get_closest_marker(tier) for tier in TIERS):
            item.add_marker("unit")
        limit = item.get_closest_marker("timeout")
        item.add_marker(pytest.mark.timeout(scaled(limit.args[0] if limit else 300.0)), append=False)
    long = {item.path for item in items if not item.get_closest_marker("unit")}
    items.sort(key=lambda item: item.path not in long)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave modules of other tiers unread where unit tests alone are asked for: they import most."""
    if config.option.markexpr != "unit" or collection_path.suffix != ".py":
        return None
    return True if _OTHER_TIER.search(collection_path.read_text()) else None


def pytest_collection_finish() -> None:
    """Spare what was imported for the tests from all searches for unused objects."""
    gc.freeze()


def pytest_report_header() -> str:
    """The factor of the time limits."""
    return f"time limits x {slowness():.1f} for this machine as it is now"


def _left_behind() -> list[psutil.Process]:
    """Processes that these tests started and that are still there, without those of pytest itself."""
    this = psutil.Process()
    # Python's own helpers end with this process.
    helpers = [child for child in this.children() if " multiprocessing." in " ".join(child.cmdline())]
    ours = {process.pid for process in (this, *this.parents(), *helpers)}
    return [process for process in _with_session() if process.pid not in ours]


def _with_session() -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if (
                process.status() != psutil.STATUS_ZOMBIE
                and process.environ().get(SESSION) == os.environ[SESSION]
            ):
                yield process


def pytest_unconfigure() -> None:
    """Let modules find their objects at the end."""
    gc.unfreeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run of tests that leaves a process behind."""
    if hasattr(session.config, "workerinput"):
        return  # the process that distributes the tests looks, when its workers have ended
    deadline = time.monotonic() + scaled(ENDING)
    while (left := _left_behind()) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in left:
        with suppress(psutil.Error):
            print(f"\nleft behind by the tests: process {process.pid}: {' '.join(process.cmdline())}")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def photometry(tmp_path_factory: pytest.TempPathFactory) -> UPath:
    """A photometry catalogue of 300 objects in several partitions. Read only."""
    return made_once(tmp_path_factory, "survey", lambda folder: ingest_table(photometry_table(300), folder))


@pytest.fixture(scope="session")
def finished(photometry: UPath, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The catalogue of the empty model over those objects, with vectors and margins. Read only."""

    def make(out: Path) -> Finished:
        asked = {"photometry": str(photometry), "out": str(out), "model": "empty", "engine": "serial"}
        return run_and_publish(RunConfig(**asked, vectors=True, margins=True), report=True)

    return made_once(tmp_path_factory, "catalogue", make)


@pytest.fixture
def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flux, error [uJy] and E(B-V) of 20 objects as models read them."""
    table = photometry_table(20)
    flux = np.stack([table[b.flux_column].to_numpy() for b in MODEL_BANDS], axis=1)
    error = np.stack([table[b.error_column].to_numpy() for b in MODEL_BANDS], axis=1)
    return flux, error, table["ebv"].to_numpy()
