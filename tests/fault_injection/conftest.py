"""The table of faults, and what the tests of faults share."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from upath import UPath

from ojala.pipeline.runs.config import RunConfig
from tests.fault_injection.accounts import Fault, Ledger, data_of
from tests.fault_injection.object_store import object_store
from tests.helpers.once import made_once
from tests.helpers.survey import ingest_table, photometry_table, run_and_publish, with_report, without_report

RESULTS = Path(__file__).with_name("RESULTS.md")
ROWS, TILE_ROWS = 240, 20
"""Objects of the survey to which most faults happen, and most of them in a partition."""

HEAD = (
    "| fault | partitions | rows | injected | survived | rows lost | seconds to the same state | date |",
    "|---|---|---|---|---|---|---|---|",
)


@pytest.fixture
def ledger(record_property: Callable[[str, object], None]) -> Iterator[Ledger]:
    """Opens a line of the table of faults; it is printed when the test has passed."""
    lines: list[Fault] = []

    def open_line(name: str) -> Fault:
        lines.append(Fault(name))
        return lines[-1]

    yield open_line
    for line in lines:
        record_property("fault", dataclasses.asdict(line))


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> UPath:
    """A photometry catalogue of 240 objects in about 30 partitions. Read only."""
    table = photometry_table(ROWS, 3)
    return made_once(tmp_path_factory, "many", lambda folder: ingest_table(table, folder, TILE_ROWS))


@pytest.fixture(scope="session")
def undisturbed(many: UPath, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The data of a run over these objects that nothing happened to."""

    def make(folder: Path) -> dict[str, str]:
        return data_of(run_and_publish(asking(many, folder)).run)

    return made_once(tmp_path_factory, "undisturbed", make)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of an object store."""
    with object_store(tmp_path_factory.mktemp("s3") / "log") as port:
        yield port


@pytest.fixture(autouse=True)
def short_of_reports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short forms leave reports out of the runs of this process, long ones write all."""
    (with_report if request.config.getoption("--soak") else without_report)(monkeypatch)


@pytest.fixture
def asked(many: UPath, tmp_path: Path) -> RunConfig:
    """A run over these objects in this process."""
    return asking(many, tmp_path / "out")


def asking(photometry: UPath, out: Path | str) -> RunConfig:
    """A run of the empty model in this process."""
    return RunConfig(photometry=str(photometry), out=str(out), model="empty", engine="serial")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    passed = {report.nodeid for report in terminalreporter.stats.get("passed", [])}
    faults = [
        value
        for report in terminalreporter.stats.get("", [])
        for name, value in report.user_properties
        if name == "fault" and report.when == "teardown" and report.nodeid in passed
    ]
    if not faults:
        return
    lines = {fault["name"]: _line(fault) for fault in faults}
    terminalreporter.section("faults")
    terminalreporter.write_line("\n".join([*HEAD, *lines.values()]))
    if config.getoption("--soak"):
        # Parts of the soak may be run one by one: each replaces its own lines.
        known = RESULTS.read_text().splitlines() if RESULTS.exists() else []
        before = {_cells(line)[0]: line for line in known if line.startswith("| ") and line not in HEAD}
        campaigns = {_campaign(line): line for line in known if line.startswith("Campaign")}
        for report in terminalreporter.stats.get("passed", []):
            texts = [text for name, text in report.user_properties if name == "campaign"]
            campaigns |= {_campaign(text): text for text in texts}
        RESULTS.write_text(_page({**before, **lines}, [*campaigns.values()]))


def _line(fault: dict) -> str:
    seconds = fault["recovery"]
    shown = f"{statistics.median(seconds):.1f}" if seconds else ""
    if len(seconds) > 1:
        shown += f" (median; {min(seconds):.1f} to {max(seconds):.1f})"
    numbers = [f"{fault[name]:,}" for name in ("partitions", "rows", "injected", "survived", "rows_lost")]
    return f"| {' | '.join([fault['name'], *numbers, shown, str(datetime.now(UTC).date())])} |"


def _campaign(sentence: str) -> str:
    """Where a campaign took place, by the sentence of `test_campaign.summary`."""
    return sentence.partition(" of seeds")[0]


def _cells(line: str) -> list[str]:
    return line.strip("| ").split(" | ")


def _page(lines: dict[str, str], campaigns: list[str]) -> str:
    injected, survived, lost = (
        sum(int(_cells(line)[column].replace(",", "")) for line in lines.values()) for column in (3, 4, 5)
    )
    total = f"Faults injected: {injected:,}; survived: {survived:,}; rows lost: {lost:,}."
    return "\n".join([_PREFACE, *HEAD, *lines.values(), "", total, "", *campaigns, ""])


_PREFACE = """# Faults and what became of them

Made by `make soak`. Each fault is injected for real: processes get SIGKILL or SIGSTOP, disks are file systems
in memory that fill up or turn read-only, memory is withheld by the kernel's limit, connections are cut by a
proxy, files are damaged as they lie. After it the same command is given again, and rows and the bytes of all
data columns are compared with those of a run that nothing happened to. Of hostile rows, a fault is one case:
its rows arrive unchanged and are answered, or the first bad one is named and nothing is written.
The campaign gives commands and faults in random order to random small surveys and looks after each, and while
a command stands still, at what readers see and what receipts say; `--campaign-seed` repeats one.
The seconds are the time from the fault until everything is there, with the work that was left to do at that
moment, on a machine that may have had other work to do.
"""
