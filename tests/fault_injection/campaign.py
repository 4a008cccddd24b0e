"""A campaign of faults: commands and faults in any order on small surveys, a state machine of hypothesis."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp

import h5py
import psutil
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from upath import UPath

from ojala.catalogs_schema.errors import ExitCode
from ojala.flows.release import API_URL
from ojala.pipeline.runs.record import Status, find_runs, read_record
from ojala.pipeline.runs.releases import pointers, read_history
from ojala.pipeline.storage.files import sha256_of
from ojala.pipeline.storage.hats import current_release
from tests.fault_injection import prefect_server
from tests.fault_injection.accounts import photometry_of
from tests.fault_injection.arena import Arena, filled
from tests.fault_injection.command_server import WORKER_FAULT, CommandServer, steps_of
from tests.fault_injection.invariants import check_settled
from tests.helpers.pace import scaled

# Kinds of faults; one that is there several times is taken more often.
SIGNALS = ("SIGKILL", "SIGKILL", "SIGKILL", "SIGTERM", "SIGINT")
LIMITS = ("limit of memory", "limit of open files", "limit of file size")
DISKS = ("disk full", "no inodes left", "disk read-only", "TMPDIR full")
SECOND = "SIGSTOP, and the same command a second time"
CLOCKS = ("-20y", "-1h", "+3d", "+400d")
WORKERS = (
    "SIGKILL",
    "SIGSTOP",
    "limit of memory",
    "SIGKILL of the forkserver",
    "SIGKILL of the driver",
    "SIGKILL of the process group",
)
"""Kinds of which a worker is the origin."""

PREFECT = "Prefect's server: "
"""Beginning of the kinds that `prefect_server.FAULTS` names."""

ANY = (*SIGNALS, *LIMITS, *DISKS, *(f"clock {jump}" for jump in CLOCKS), SECOND, "")
"""Kinds for every command; none is one of them."""

COMMANDS = (
    *("run", "run", "run", "reprocess", "reprocess", "ingest", "ingest", "update", "update", "update"),
    *("publish", "publish", "publish", "rollback", "rollback", "export", "export", "damage", "damage"),
    *("run_on_workers", "run_tracked"),
)
"""Commands, as methods of `Campaign`."""

SIDES = ("box:240,245.5,40,50", "box:245.5,250,40,50", "box:240,250,40,43.9")

REFUSALS = (
    "was rolled back and is not published again by itself",
    "it failed quality gates",
    "nothing to roll back",
    "cannot be published",
    "has no published run",
    "has no redshift PDFs",
    "is made from what the catalogue does not hold",
)
"""What a command may answer, in place of doing it, to a request that does not fit what is there."""

DONE = {
    "ingest": ("is not empty",),
    "ingest --add": ("already: --replace",),
    "export": ("exists: remove it",),
}
"""What a command answers that was ended after its work was done, and is given again."""

TIME_LIMIT = 240.0
"""Time after which a command hangs [s], on a free machine."""


@dataclass(frozen=True)
class Injection:
    """What is done to a command, at which part of its usual steps [%], and whether it is given again."""

    kind: str = ""
    moment: int = 0
    again: bool = False


def kept_going(step: Callable[..., None]) -> Callable[..., None]:
    """A step that in the long form stores a failure, with what led to it, and ends its machine alone."""

    @functools.wraps(step)
    def carried(self: Campaign, **choices: object) -> None:
        if self.broken or time.monotonic() > self.arena.deadline:
            return
        self.story.append(f"{step.__name__} {choices}")
        try:
            step(self, **choices)
        except Exception:  # a long campaign goes on and lists its failures at the end
            if not self.arena.long:
                raise
            self.broken = True
            story = "\n".join([*self.story, traceback.format_exc(limit=-3)])
            self.arena.failures.append(story)
            print(f"campaign: failure {len(self.arena.failures)}\n{story}", flush=True)

    return carried


class Campaign(RuleBasedStateMachine):
    """Commands and faults in any order on one collection; `arena` is set before it runs."""

    arena: Arena

    def __init__(self) -> None:
        super().__init__()
        here = self.arena
        self.folder = Path(mkdtemp(dir=here.disk or here.folder))
        self.logs = Path(mkdtemp(dir=here.folder))
        self.out = UPath(self.folder / "out")
        self.count = 0
        self.broken = False
        self.story: list[str] = []
        self.settings: list[object] = []

    @initialize(survey=st.integers(0, 10**6))
    @kept_going
    def begin(self, survey: int) -> None:
        """Choose a survey, and make its first release."""
        if self.arena.long and survey == 0:
            self.broken = True  # the first of hypothesis, which does the same at each step
            return
        self.survey = self.arena.surveys[survey % len(self.arena.surveys)]
        self.choose(0, 0, False)
        self.give("run", self.settings)

    @rule(
        command=st.sampled_from(COMMANDS),
        choice=st.integers(0, 99),
        fault=st.sampled_from(ANY),
        moment=st.integers(0, 99),
        again=st.booleans(),
    )
    @kept_going
    def act(self, command: str, choice: int, fault: str, moment: int, again: bool) -> None:
        """Give a command with a fault. One rule for all: hypothesis would leave out rules at random."""
        getattr(self, command)(choice, Injection(fault, moment, again))

    def run(self, choice: int, fault: Injection) -> None:
        """Run with settings that may be others than before, also between a kill and its resumption."""
        self.choose(choice % 2, choice // 2 % 2, choice // 4 % 2 == 1)
        self.give("run", [*self.settings, *(["--no-publish"] if choice % 5 == 0 else [])], fault)

    def run_on_workers(self, choice: int, fault: Injection) -> None:
        """Run on worker processes, one of which does something to itself or to others."""
        if not self.arena.long:
            self.run(choice, fault)
            return
        self.choose(0, choice % 2, False)
        kind = WORKERS[choice % len(WORKERS)]
        done = self.logs / f"done-{self.count}"
        order = {"kind": kind, "step": 1 + fault.moment % 30, "folder": str(self.folder), "done": str(done)}
        environment = {
            WORKER_FAULT: json.dumps(order),
            "DASK_DISTRIBUTED__WORKER__PRELOAD": "tests.fault_injection.command_server",
        }
        words = [*self.settings, "--engine", "local", "--workers", "2", "--partition-seconds", "20"]
        self.give("run", words, environment=environment)
        if done.exists():
            name = kind if " of the " in kind else f"worker: {kind}"
            self.arena.tally.faults[name, "run"] += 1
            self.recover(name, "run", self.settings)

    def run_tracked(self, choice: int, fault: Injection) -> None:
        """Run while a Prefect server is named that does not answer, or no longer."""
        if not self.arena.long:
            self.run(choice, fault)
            return
        self.choose(0, choice % 2, False)
        kind = prefect_server.FAULTS[choice // 2 % len(prefect_server.FAULTS)]
        server = self.arena.prefect
        if kind.startswith("SIG"):
            injection = replace(fault, kind=PREFECT + kind, again=True)
            self.give("run", self.settings, injection, server.environment | {API_URL: server.url()})
            return
        with prefect_server.deaf_url(kind) as url:
            code, _, said = self.carry_out(
                "run", self.settings, Injection(), server.environment | {API_URL: url}
            )
        assert code == ExitCode.ACCESS, said
        assert "nothing was begun" in said, said
        self.survey.truth.check(self.out)
        self.arena.tally.faults[PREFECT + kind, "run"] += 1
        self.recover(PREFECT + kind, "run", self.settings)

    def reprocess(self, choice: int, fault: Injection) -> None:
        """Reprocess a side of the sky, also with other weights."""
        if not pointers(self.out):
            self.run(choice, fault)
            return
        record = read_record(self.out / "runs" / pointers(self.out)["ojala"])
        self.choose(self.photometry, choice % 2, "ojala_vectors" in record.products)
        side = SIDES[choice % len(SIDES)]
        self.give("reprocess", [*self.settings, "--region", side, "--yes"], fault)

    def publish(self, choice: int, fault: Injection) -> None:
        """Publish any of the complete runs."""
        records = [read_record(run) for run in find_runs(self.out) if (run / "run.json").exists()]
        complete = [record.run_id for record in records if record.status == Status.COMPLETE]
        if not complete:
            self.run(choice, fault)
            return
        self.give("publish", [complete[choice % len(complete)], "--out", self.out], fault)

    def rollback(self, choice: int, fault: Injection) -> None:
        """Go back to the release before; given again it would go back one further."""
        if len(read_history(self.out)) < 2:
            self.run(choice, fault)
            return
        self.give("rollback", ["--out", self.out], replace(fault, again=False))

    def export(self, choice: int, fault: Injection) -> None:
        """Export the redshift PDFs of the last run that has them: the file is whole or not there."""
        runs = [run for run in find_runs(self.out) if (run / "ojala_vectors" / "hats.properties").exists()]
        if not runs:
            self.choose(self.photometry, choice % 2, True)
            self.give("run", self.settings, fault)
            return
        file = self.folder / f"pdf-{self.count}.hdf5"
        words = ["pdf", self.out, "--to", file, "--class", "galaxy", "--run", runs[-1].name]
        self.give("export", words, fault)
        if file.exists():
            with h5py.File(file) as content:
                assert len(content["data/pdfs"]) == len(content["ancil/object_id"])
            file.unlink()

    def ingest(self, choice: int, fault: Injection) -> None:
        """Ingest the survey once more: the catalogue is whole or not there."""
        out = self.folder / f"ingest-{self.count}"
        self.give("ingest", [self.survey.table, "--out", out, "--tile-rows", self.survey.tile_rows], fault)
        if out.exists():
            assert photometry_of(UPath(out)) == photometry_of(UPath(self.survey.photometry[0]))
            shutil.rmtree(out)

    def update(self, choice: int, fault: Injection) -> None:
        """Add the other half of the survey to a catalogue of its first: readers see one of two releases."""
        root = UPath(self.folder / f"update-{self.count}")
        halves = self.survey.halves
        self.give("ingest", [halves[0], "--out", root, "--tile-rows", self.survey.tile_rows])
        first = photometry_of(current_release(root))
        self.give("ingest --add", [halves[1], "--add", "--to", root], fault)
        whole = photometry_of(UPath(self.survey.photometry[0]))
        assert photometry_of(current_release(root)) in (first, whole)
        shutil.rmtree(root)

    def damage(self, choice: int, fault: Injection) -> None:
        """Damage a published leaf as it lies: a run that reads all leaves makes it again."""
        run = self.out / "runs" / pointers(self.out).get("ojala", "none")
        record = read_record(run) if pointers(self.out) else None
        shas = [sha256_of(UPath(weights)) for weights in self.survey.weights]
        if record is None or record.region or run != find_runs(self.out)[-1]:
            self.run(choice, fault)
            return
        vectors = "ojala_vectors" in record.products
        self.choose(self.photometry, shas.index(record.weights_sha256), vectors)
        leaves = sorted(Path(run.path, "ojala").rglob("Npix=*.parquet"))
        leaf = leaves[choice % len(leaves)]
        stat, whole = leaf.stat(), leaf.read_bytes()
        content = bytearray(whole)
        content[len(content) // 3] ^= 0x10
        leaf.unlink()  # a link of another run keeps what it has
        kind = ("flip a bit", "truncate", "remove")[fault.moment % 3]
        if kind != "remove":
            leaf.write_bytes(content if kind == "flip a bit" else whole[:-100])
            os.utime(leaf, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        self.arena.tally.faults[f"published leaf: {kind}", "run"] += 1
        begin = time.monotonic()
        code, _, said = self.carry_out("run", [*self.settings, "--check"], Injection(), {})
        self.survey.truth.check(self.out, damaged=run.name)
        assert code == 0 or any(text in said for text in REFUSALS), said
        self.arena.tally.recovery.setdefault(f"published leaf: {kind}", []).append(time.monotonic() - begin)
        leaf.unlink(missing_ok=True)
        leaf.write_bytes(whole)
        os.utime(leaf, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    def teardown(self) -> None:
        """At the end the collection is carried to a whole release, and all its files are checked."""
        try:
            self.end()
        finally:
            shutil.rmtree(self.folder)
            shutil.rmtree(self.logs)

    @kept_going
    def end(self) -> None:
        """Carry the collection to a whole release."""
        if self.give("run", self.settings) == 0:
            assert self.give("verify", [self.out]) == 0

    # How a command is given, and what is checked.

    def choose(self, photometry: int, weights: int, vectors: bool) -> None:
        """Put photometry and weights into the places that the commands name."""
        self.photometry = photometry
        draft = self.folder / "photometry.new"
        draft.symlink_to(self.survey.photometry[photometry])
        draft.replace(self.folder / "photometry")
        shutil.copy(self.survey.weights[weights], self.folder / "weights.new")
        (self.folder / "weights.new").replace(self.folder / "weights.safetensors")
        self.settings = ["--photometry", self.folder / "photometry", "--out", self.out, "--engine", "serial"]
        self.settings += [
            "--weights",
            self.folder / "weights.safetensors",
            *(["--vectors"] if vectors else []),
        ]

    def give(
        self,
        command: str,
        words: list[object],
        fault: Injection | None = None,
        environment: dict[str, str] | None = None,
    ) -> int:
        """Give a command with a fault, check all invariants, and give it again if that is asked for."""
        fault = fault or Injection()
        code, happened, said = self.carry_out(command, words, fault, environment or {})
        self.survey.truth.check(self.out)
        if "fault of the program" in said or "Traceback" in said:
            # Of a worker without memory Dask prints what it could not do.
            assert "limit of memory" in fault.kind + (environment or {}).get(WORKER_FAULT, ""), said
        if code == 0:
            check_settled(self.out, command, words, fault.kind)
        elif not happened and not environment:
            assert any(text in said for text in REFUSALS), f"{command} ends with {code}: {said}"
        if happened:
            self.arena.tally.faults[fault.kind, command] += 1
            if fault.again or fault.kind == SECOND:
                self.recover(fault.kind, command, words)
        return code

    def recover(self, kind: str, command: str, words: list[object]) -> None:
        """The same command again: it ends well, or is refused as the request is."""
        begin = time.monotonic()
        code, _, said = self.carry_out(command, words, Injection(), {})
        self.survey.truth.check(self.out)
        refused = any(text in said for text in (*REFUSALS, *DONE.get(command, ())))
        assert code == 0 or refused, f"{command} ends with {code}: {said}"
        if code == 0:
            check_settled(self.out, command, words)
        self.arena.tally.recovery.setdefault(kind, []).append(time.monotonic() - begin)

    def carry_out(
        self, command: str, words: list[object], fault: Injection, environment: dict[str, str]
    ) -> tuple[int, bool, str]:
        """One command to its end; its exit code, whether the fault took place, and what it said."""
        here, kind = self.arena, fault.kind
        self.count += 1
        here.tally.commands += 1
        log = self.logs / f"{self.count}.log"
        step = 1 + fault.moment * here.usual.get(command, 40) // 100 if kind else 0
        from_within = kind if kind in (*SIGNALS, *LIMITS) else "SIGSTOP" if kind else ""
        if here.temporary is not None:
            environment = environment | {"TMPDIR": str(here.temporary)}
        server = here.faked_server if kind.startswith("clock ") and here.library else here.server
        pid = server.give([command.split()[0], *words], log, [self.folder], step, from_within, **environment)
        code, changed = self.wait(server, pid, log), False
        if code == "stopped":
            self.survey.truth.check(self.out)
            with self.surroundings(kind, command, words) as changed:
                os.kill(pid, signal.SIGCONT)
                code = self.wait(server, pid, log)
        if WORKER_FAULT in environment:
            self.end_family(pid)
        steps = steps_of(log)
        if not kind and code == 0:
            here.usual[command] = max(steps, 1)
        happened = changed if from_within == "SIGSTOP" else bool(kind) and steps >= step
        assert isinstance(code, int)
        return code, happened, log.read_text()

    def wait(self, server: CommandServer, pid: int, log: Path) -> int | str:
        """Wait for the end or the stop of a command."""
        deadline = time.monotonic() + scaled(TIME_LIMIT)
        while (state := server.state(pid)) is None:
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
                raise AssertionError(f"hangs: {log.read_text()}")
            time.sleep(0.02)
        return state

    def end_family(self, pid: int) -> None:
        """Workers end by themselves when their driver is gone."""
        deadline = time.monotonic() + scaled(60)
        while family := [one for one in psutil.process_iter() if _group_of(one) == pid]:
            assert time.monotonic() < deadline, f"left behind: {family}"
            if any(one.status() == psutil.STATUS_STOPPED for one in family):
                with suppress(psutil.Error):
                    for one in family:
                        one.resume()
            time.sleep(0.1)

    @contextmanager
    def surroundings(self, fault: str, command: str, words: list[object]) -> Iterator[bool]:
        """Change the surroundings of a command that stands still; gives whether that is possible here."""
        disk = self.arena.temporary if fault == "TMPDIR full" else self.arena.disk
        if fault == SECOND:
            code, _, said = self.carry_out(command, words, Injection(), {})
            done_already = any(
                text in said for text in ("rolled back", "to roll back to", "exists: remove it")
            )
            assert done_already or code in (0, ExitCode.LOCKED), said
            yield True
        elif fault.startswith(PREFECT):
            with self.arena.prefect.disturbed(fault.removeprefix(PREFECT)):
                yield True
        elif fault.startswith("clock "):
            self.arena.clock.write_text(f"{fault.split()[1]}\n")
            yield self.arena.library is not None
            self.arena.clock.write_text("+0\n")
        elif disk is None:
            yield False
        elif fault == "disk read-only":
            made = subprocess.run(["mount", "-o", "remount,ro", disk], check=False, capture_output=True)
            yield made.returncode == 0
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        else:
            with filled(disk, inodes=fault == "no inodes left"):
                yield True


def _group_of(process: psutil.Process) -> int:
    try:
        return 0 if process.status() == psutil.STATUS_ZOMBIE else os.getpgid(process.pid)
    except (psutil.Error, ProcessLookupError):
        return 0
