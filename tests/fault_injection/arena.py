"""Where a campaign of faults takes place: small surveys, small disks, processes that fork commands."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from upath import UPath

from ojala.catalogs_schema.ojala import EMBEDDING_WIDTH
from ojala.models.ojala.checkpoint import save
from ojala.models.ojala.network import Ojala, OjalaConfig
from ojala.pipeline.runs.record import find_runs
from tests.fault_injection.command_server import CommandServer, steps_of
from tests.fault_injection.invariants import Truth
from tests.fault_injection.prefect_server import PrefectServer
from tests.helpers.survey import photometry_table

TINY = OjalaConfig(
    width=EMBEDDING_WIDTH,
    encoder=((2, 32),),
    decoder=((2, 32),),
    trunk=(32,),
    pre_norm=True,
    reads_errors=True,
)


LONG_PRELOADED = ("s3fs",)
"""Modules that commands on an object store import."""


@dataclass
class Tally:
    """What was injected, by kind of the fault and by command, and how it went on."""

    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    recovery: dict[str, list[float]] = field(default_factory=dict)
    commands: int = 0

    def by_kind(self) -> Counter[str]:
        """Number of faults of each kind, during whatever command."""
        kinds: Counter[str] = Counter()
        for (kind, _), count in self.faults.items():
            kinds[kind] += count
        return kinds


@dataclass
class Survey:
    """A small survey: two catalogues of the same objects with other fluxes, two weights, and the truth."""

    rows: int
    tile_rows: int
    table: Path
    halves: tuple[Path, Path]
    photometry: list[Path]
    weights: list[Path]
    truth: Truth


@dataclass
class Arena:
    """What the machines of a campaign share: the process that forks commands, disks, surveys, the tally."""

    server: CommandServer
    folder: Path
    library: Path | None
    disk: Path | None
    temporary: Path | None
    surveys: list[Survey] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    usual: dict[str, int] = field(default_factory=dict)
    deadline: float = float("inf")
    long: bool = False
    failures: list[str] = field(default_factory=list)

    @property
    def clock(self) -> Path:
        """File that moves the clock of the commands of `faked_server`."""
        return self.folder / "clock"

    @cached_property
    def faked_server(self) -> CommandServer:
        """Another process that forks, under libfaketime: Dask's loops would spin there."""
        return CommandServer(self.clock, str(self.library))

    @cached_property
    def prefect(self) -> PrefectServer:
        """A Prefect server."""
        return PrefectServer(self.folder / "prefect")


@contextmanager
def arena(folder: Path, *, long: bool) -> Iterator[Arena]:
    """Open an arena in a folder; its disk is one in memory where such a one can be mounted."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    with ExitStack() as stack:
        server = CommandServer(modules=LONG_PRELOADED if long else ())
        stack.callback(server.close)
        disk = stack.enter_context(_disk(folder / "disk", "size=64m,nr_inodes=6000"))
        temporary = stack.enter_context(_disk(folder / "temporary", "size=4m"))
        place = Arena(server, folder, library, disk, temporary, long=long)
        try:
            yield place
        finally:
            for name in {"faked_server", "prefect"} & vars(place).keys():
                getattr(place, name).close()


@contextmanager
def _disk(folder: Path, options: str) -> Iterator[Path | None]:
    """A small disk in memory; None where no such can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def make_survey(place: Arena, seed: int) -> Survey:
    """A random survey with all its undisturbed data, made by commands that nothing happens to."""
    random = np.random.default_rng(seed)
    rows, tile_rows = int(random.integers(15, 40)), int(random.integers(8, 20))
    folder = place.folder / f"survey-{seed}"
    folder.mkdir()
    halves = folder / "first.parquet", folder / "second.parquet"
    survey = Survey(rows, tile_rows, folder / "0.parquet", halves, [], [], Truth())
    table = photometry_table(rows, seed)
    for half, file in zip((table.slice(0, rows // 2), table.slice(rows // 2)), halves, strict=True):
        pq.write_table(half, file)
    for number in range(2):
        torch.manual_seed(seed + number)
        survey.weights.append(folder / f"{number}.safetensors")
        save(survey.weights[-1], Ojala(TINY), name="tiny", version="1", training={})
        pq.write_table(table, folder / f"{number}.parquet")
        other = photometry_table(rows, seed + 1000)
        for name in ("ra", "dec"):
            other = other.set_column(other.schema.get_field_index(name), name, table[name])
        table = other
        survey.photometry.append(folder / f"photometry-{number}")
        words = [
            "ingest",
            folder / f"{number}.parquet",
            "--out",
            survey.photometry[-1],
            "--tile-rows",
            tile_rows,
        ]
        finish(place, words, folder)
    for photometry in survey.photometry:
        for weights in survey.weights:
            out = folder / f"{photometry.name}-{weights.stem}"
            words = ["run", "--photometry", photometry, "--weights", weights, "--out", out]
            finish(place, [*words, "--engine", "serial", "--vectors"], folder)
            (run,) = find_runs(UPath(out))
            survey.truth.learn(run)
    return survey


def finish(place: Arena, words: list[object], folder: Path) -> None:
    """A command that nothing happens to, to its end."""
    log = folder / f"{words[0]}.log"
    pid = place.server.give(words, log, [folder], 0, "")
    while (state := place.server.state(pid)) is None:
        time.sleep(0.01)
    assert state == 0, log.read_text()
    place.usual.setdefault(str(words[0]), steps_of(log))


@contextmanager
def filled(disk: Path, *, inodes: bool) -> Iterator[None]:
    """Fill a disk with one file, or with empty ones until it can hold no more of them."""
    ballast = disk / "ballast"
    ballast.mkdir()
    with suppress(OSError):
        if inodes:
            for number in range(10**6):
                (ballast / str(number)).touch()
        else:
            with (ballast / "file").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 20))
    with suppress(OSError), (ballast / "rest").open("wb", buffering=0) as file:
        while not inodes:
            file.write(bytes(4096))
    try:
        yield
    finally:
        shutil.rmtree(ballast)
