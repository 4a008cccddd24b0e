"""Cost of an ingest by format, workers, rows and their order on the sky, and of 1 % new rows.

    python -m tests.benchmarks.ingest forms 100000
    python -m tests.benchmarks.ingest rows 100000 1000000 10000000
    python -m tests.benchmarks.ingest growth 1000000

Each measurement is a command ``ojala ingest`` in a process of its own: its processor time with that of its
workers, its wall time, and the largest sum of the memory of its processes. The rows are those of
`tests.helpers.survey.photometry_table`, over and over, at places drawn evenly over 8,500 deg2.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import healpy
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from astropy.table import Table

from ojala.pipeline.storage.healpix import INDEX_ORDER
from tests.helpers.commands import OJALA
from tests.helpers.survey import photometry_table

FILE_ROWS = 100_000
"""Rows of an input file, about those of a tile."""

SKY = 633 << 2 * (INDEX_ORDER - 4)
"""Positions of the survey: the first 633 pixels of order 4, 8,500 deg2."""

SAMPLING = 0.05
"""Time between two looks at the memory [s]."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a command.

    Attributes
    ----------
    cpu, wall : float
        Processor time of all its processes, and time [s].
    own, mapped : float
        Largest memory of one of its processes: that it has for itself, and resident in all, with the pages of
        mapped scratch files, which the system can take back [MiB].
    """

    cpu: float
    wall: float
    own: float
    mapped: float


def measure(words: Sequence[object]) -> Cost:
    """Cost of a command; its processes are looked at every `SAMPLING` seconds."""
    begin = time.monotonic()
    process = subprocess.Popen([OJALA, *map(str, words)], stdout=subprocess.DEVNULL)
    own = mapped = 0.0
    used = dict[int, float]()
    while process.poll() is None:
        for one in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)):
            try:
                memory, times = one.memory_info(), one.cpu_times()
            except psutil.NoSuchProcess:
                continue
            own, mapped = max(own, memory.rss - memory.shared), max(mapped, memory.rss)
            used[one.pid] = times.user + times.system
        time.sleep(SAMPLING)
    if process.returncode:
        raise SystemExit(f"ojala {' '.join(map(str, words))} ended with {process.returncode}")
    return Cost(sum(used.values()), time.monotonic() - begin, own / 2**20, mapped / 2**20)


def survey_tables(
    rows: int, *, shuffled: bool, first_tile: int = 1, share: float = 1.0
) -> Sequence[Callable[[], pa.Table]]:
    """Tables of `FILE_ROWS` rows, made when they are called for.

    Parameters
    ----------
    rows : int
        Rows of all tables.
    shuffled : bool
        Whether each has rows all over the sky; otherwise they follow each other on it.
    first_tile : int
        Number of the first tile; each table is one.
    share : float
        Part of the sky of the survey that has them.
    """
    pattern = photometry_table(min(rows, FILE_ROWS))
    files = -(-rows // FILE_ROWS)

    def table(number: int) -> pa.Table:
        count = min(FILE_ROWS, rows - number * FILE_ROWS)
        random = np.random.default_rng((first_tile, number))
        sky = int(SKY * share)
        low, high = (0, sky) if shuffled else (sky * number // files, sky * (number + 1) // files)
        index = random.integers(low, high, count)
        if not shuffled:
            index.sort()
        ra, dec = healpy.pix2ang(2**INDEX_ORDER, index, nest=True, lonlat=True)
        own = {
            "tile_id": np.full(count, first_tile + number, np.int32),
            "number": np.arange(1, count + 1, dtype=np.int32),
            "ra": ra,
            "dec": dec,
        }
        drawn = pattern.slice(0, count)
        return pa.table({name: own.get(name, drawn[name]) for name in drawn.column_names})

    return [lambda number=number: table(number) for number in range(files)]


def write_survey(folder: Path, tables: Sequence[Callable[[], pa.Table]]) -> list[Path]:
    """Write tables as Parquet files."""
    folder.mkdir(parents=True)
    files = [folder / f"{number:05d}.parquet" for number in range(len(tables))]
    for file, table in zip(files, tables, strict=True):
        pq.write_table(table(), file)
    return files


def write_form(form: str, table: pa.Table, path: Path) -> None:
    """Write a table in a format."""
    if form == "Parquet":
        pq.write_table(table, path)
    elif form == "CSV":
        pacsv.write_csv(table, path)
    else:
        names = {"FITS": "fits", "ECSV": "ascii.ecsv", "VOTable": "votable"}
        columns = {n: np.ma.masked_invalid(table[n].to_numpy()) for n in table.column_names}
        Table(columns).write(path, format=names[form])


FORMS = ("Parquet", "FITS", "CSV", "ECSV", "VOTable")


def forms(rows: int, folder: Path) -> str:
    """Rows per second by format and workers, of four files with so many rows in all.

    What an ingest of eight rows takes, most of it imports and the start of workers, is taken off.
    """
    lines = [
        "| format | MB | workers | CPU [s] | rows per CPU-second | wall [s] | rows/s |",
        "|" + "---|" * 7,
    ]
    table = survey_tables(rows, shuffled=True)[0]()
    start = {}
    for workers in (1, 2):
        write_form("Parquet", table.slice(0, 8), folder / "few")
        words = ["ingest", folder / "few", "--out", folder / f"few-{workers}", "--workers", workers]
        start[workers] = found = measure(words)
        lines.append(f"| start | 0 | {workers} | {found.cpu:.1f} | | {found.wall:.1f} | |")
    for form in FORMS:
        files = [folder / f"{form}-{number}" for number in range(4)]
        for number, file in enumerate(files):
            write_form(form, table.slice(number * rows // 4, rows // 4), file)
        size = sum(file.stat().st_size for file in files) / 1e6
        for workers in (1, 2):
            out = folder / f"{form}-{workers}-out"
            found = measure(["ingest", *files, "--out", out, "--workers", workers])
            cpu, wall = found.cpu - start[workers].cpu, found.wall - start[workers].wall
            lines.append(
                f"| {form} | {size:,.0f} | {workers} | {cpu:.1f} | {rows / cpu:,.0f} | "
                f"{wall:.1f} | {rows / wall:,.0f} |"
            )
    return "\n".join(lines)


ORDERS = {"sky": False, "shuffled": True}
"""Orders of the rows by name: along the sky, or each file all over it."""


def sizes(counts: Sequence[int], orders: Sequence[str], workers: int, folder: Path) -> Iterator[str]:
    """Time and memory by rows and their order on the sky, line by line."""
    yield "| rows | order | CPU [s] | rows per CPU-second | wall [s] | own [MiB] | with mapped files [MiB] |"
    yield "|" + "---|" * 7
    for rows in counts:
        for order in orders:
            with TemporaryDirectory(dir=folder) as name:
                files = write_survey(Path(name, "files"), survey_tables(rows, shuffled=ORDERS[order]))
                found = measure(["ingest", *files, "--out", Path(name, "out"), "--workers", workers])
            yield (
                f"| {rows:,} | {order} | {found.cpu:.1f} | {rows / found.cpu:,.0f} | {found.wall:.1f} | "
                f"{found.own:,.0f} | {found.mapped:,.0f} |"
            )


def growth(rows: int, folder: Path) -> str:
    """Time from new rows, 1 % of a published survey in 1 % of its sky, to the release; model ``empty``."""
    photometry, out = folder / "photometry", folder / "out"
    run = ["run", "--photometry", photometry, "--out", out, "--model", "empty", "--engine", "serial"]
    files = write_survey(folder / "files", survey_tables(rows, shuffled=False))
    tiles = survey_tables(rows // 100, shuffled=False, first_tile=90_000, share=0.01)
    new = write_survey(folder / "new", tiles)
    steps = {
        f"ingest of {rows:,} rows": ["ingest", *files, "--out", photometry, "--tile-rows", 10_000],
        "run and publication": run,
        f"ingest --add of {rows // 100:,} rows": ["ingest", *new, "--add", "--to", photometry],
        "run and publication of the new release": run,
    }
    lines = ["| step | CPU [s] | wall [s] |", "|" + "---|" * 3]
    for step, words in steps.items():
        found = measure(words)
        lines.append(f"| {step} | {found.cpu:.1f} | {found.wall:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("forms", "rows", "growth"))
    parser.add_argument("counts", type=int, nargs="+")
    parser.add_argument("--workers", type=int, default=1, help="of `rows`")
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=list(ORDERS), help="of `rows`")
    parser.add_argument("--folder", default=None, help="for files; 3 kB a row")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="ojala-bench-", dir=given.folder) as where:
        if given.what == "rows":
            for line in sizes(given.counts, given.orders, given.workers, Path(where)):
                print(line, flush=True)
        else:
            print({"forms": forms, "growth": growth}[given.what](given.counts[0], Path(where)))
