"""What questions cost a reader of a published catalogue: seconds, and bytes read against bytes needed.

    python -m tests.benchmarks.queries [PARTITIONS [ROWS [REPEATS]]]

writes a catalogue of replicas of the mock sky's answers (200 partitions of 50,000 rows), asks it three
questions by DuckDB, Polars and LSDB, each in a process of its own, and prints a table.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import healpy
import numpy as np
import pyarrow.parquet as pq
from upath import UPath

from ojala.pipeline.storage.healpix import Partition
from tests.benchmarks.catalogues import ORDER, answers_for_the_mock_sky, publish_replicas

CONE = "cone of 1 degree"
CUT = "quasars at 2 < z < 3"
STATISTIC = "mean and scatter of z"
RADIUS = 1.0
"""Of the cone [deg]."""

READS: Mapping[str, tuple[str, ...]] = {
    CONE: ("ra", "dec", "object_id", "z", "ojala_class"),
    CUT: ("ojala_class", "z", "object_id", "z_err"),
    STATISTIC: ("z",),
}
"""Question -> columns that it needs; of the cut the last three and of the cone all are returned."""

REPEATS = 5

Answer = tuple[float, ...]
"""What an engine found: rows and the sum of their z, or mean and standard deviation."""


@dataclass(frozen=True, slots=True)
class Target:
    """A catalogue and the place of the cone in it.

    Attributes
    ----------
    root : str
        Root of the catalogue.
    ra, dec : float
        Centre of the cone [deg].
    """

    root: str
    ra: float
    dec: float

    @classmethod
    def at_corner(cls, root: str, partition: Partition) -> Target:
        """The cone around the northern corner of a partition, where three others touch it."""
        nside = healpy.order2nside(partition.order)
        x, y, z = healpy.boundaries(nside, partition.pixel, nest=True)[:, 0]
        return cls(root, float(np.degrees(np.arctan2(y, x)) % 360), float(np.degrees(np.arcsin(z))))

    @property
    def leaves(self) -> list[Path]:
        """Paths of all leaves."""
        return sorted(Path(self.root, "dataset").rglob("Npix=*.parquet"))

    @property
    def pattern(self) -> str:
        """Pattern of the leaves' paths."""
        return f"{self.root}/dataset/*/*/*.parquet"

    @property
    def box(self) -> tuple[float, float]:
        """Half the width of a box around the cone in right ascension [deg], and the cosine of its radius."""
        sine = np.sin(np.radians(RADIUS)) / np.cos(np.radians(self.dec))
        return float(np.degrees(np.arcsin(sine))), float(np.cos(np.radians(RADIUS)))


def ask_duckdb(question: str, target: Target) -> Answer:
    """Ask by SQL, in a database in memory that is new each time."""
    import duckdb

    ra, dec, (width, cosine) = target.ra, target.dec, target.box
    separation = (
        f"sin(radians(dec)) * sin(radians({dec})) + "
        f"cos(radians(dec)) * cos(radians({dec})) * cos(radians(ra - {ra}))"
    )
    where = {
        CONE: f"dec BETWEEN {dec - RADIUS} AND {dec + RADIUS} AND ra BETWEEN {ra - width} AND {ra + width} "
        f"AND {separation} > {cosine}",
        CUT: "ojala_class = 'QSO' AND z BETWEEN 2 AND 3",
    }
    with duckdb.connect() as database:
        if question == STATISTIC:
            query = f"SELECT avg(z::DOUBLE), stddev_pop(z::DOUBLE) FROM '{target.pattern}'"
            return tuple(database.execute(query).fetchall()[0])
        columns = ", ".join(READS[question])
        found = database.execute(
            f"SELECT {columns} FROM '{target.pattern}' WHERE {where[question]}"
        ).fetchnumpy()
        return float(len(found["z"])), float(np.nansum(np.ma.filled(found["z"], np.nan), dtype=float))


def ask_polars(question: str, target: Target) -> Answer:
    """Ask by a lazy scan."""
    import polars as pl

    ra, dec, (width, cosine) = target.ra, target.dec, target.box
    rows = pl.scan_parquet(target.pattern)
    if question == STATISTIC:
        z = pl.col("z").cast(pl.Float64)
        mean, scatter = rows.select(z.mean().alias("mean"), z.std(ddof=0).alias("scatter")).collect().row(0)
        return mean, scatter
    if question == CONE:
        separation = pl.col("dec").radians().sin() * np.sin(np.radians(dec)) + pl.col(
            "dec"
        ).radians().cos() * np.cos(np.radians(dec)) * ((pl.col("ra") - ra).radians().cos())
        rows = rows.filter(
            pl.col("dec").is_between(dec - RADIUS, dec + RADIUS),
            pl.col("ra").is_between(ra - width, ra + width),
            separation > cosine,
        )
    else:
        rows = rows.filter(pl.col("ojala_class") == "QSO", pl.col("z").is_between(2, 3))
    found = rows.select(READS[question]).collect()
    return float(found.height), float(found["z"].cast(pl.Float64).sum())


def ask_lsdb(question: str, target: Target) -> Answer:
    """Ask by LSDB, with Dask's threads."""
    from lsdb.loaders.hats.read_hats import open_catalog

    catalog = open_catalog(target.root, columns=list(READS[question]))
    if question == CONE:
        catalog = catalog.cone_search(target.ra, target.dec, 3600 * RADIUS)
    elif question == CUT:
        catalog = catalog.query("ojala_class == 'QSO' and 2 <= z <= 3")
    z = catalog.compute(progress_bar=False)["z"].astype("float64")
    if question == STATISTIC:
        return float(z.mean()), float(z.std(ddof=0))
    return float(len(z)), float(z.sum())


ENGINES: Mapping[str, Callable[[str, Target], Answer]] = {
    "DuckDB": ask_duckdb,
    "Polars": ask_polars,
    "LSDB": ask_lsdb,
}
"""Who is asked."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians over the repeats of one question.

    Attributes
    ----------
    answer : tuple of float
        What was found.
    cold, warm : float
        Seconds, without and with the files in the system's cache.
    processor : float
        Processor seconds of all threads, warm.
    asked : int
        Bytes of the read calls, warm; an engine that maps files makes none.
    fetched : int
        Bytes that came from the disk, cold.
    """

    answer: Answer
    cold: float
    warm: float
    processor: float
    asked: int
    fetched: int


def cost(engine: str, question: str, target: Target, repeats: int = REPEATS) -> Cost:
    """Ask a question once unmeasured, then without and with the files in the cache."""
    ask = ENGINES[engine]
    answer = ask(question, target)
    cold = []
    for _ in range(repeats):
        forget(target)
        cold.append(_measured(ask, question, target))
    warm = [_measured(ask, question, target) for _ in range(repeats)]
    return Cost(
        answer,
        cold=statistics.median(seconds for seconds, *_ in cold),
        warm=statistics.median(seconds for seconds, *_ in warm),
        processor=statistics.median(busy for _, busy, *_ in warm),
        asked=int(statistics.median(asked for *_, asked, _ in warm)),
        fetched=int(statistics.median(fetched for *_, fetched in cold)),
    )


def _measured(
    ask: Callable[[str, Target], Answer], question: str, target: Target
) -> tuple[float, float, int, int]:
    asked, fetched = _read_so_far()
    begin, busy = time.perf_counter(), time.process_time()
    ask(question, target)
    seconds, busy = time.perf_counter() - begin, time.process_time() - busy
    after = _read_so_far()
    return seconds, busy, after[0] - asked, after[1] - fetched


def _read_so_far() -> tuple[int, int]:
    """Bytes that this process asked for by read calls, and bytes that came from the disk for it."""
    lines = Path("/proc/self/io").read_text().splitlines()
    numbers = {name: int(value) for name, value in (line.split(": ") for line in lines)}
    return numbers["rchar"], numbers["read_bytes"]


def forget(target: Target) -> None:
    """Ask the system to drop a catalogue's files from its cache; other files stay there."""
    for path in Path(target.root).rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def needed_bytes(question: str, target: Target) -> int:
    """Compressed size of the columns that a question needs, in the row groups that hold its answer."""
    ra, dec, (_, cosine) = target.ra, target.dec, target.box
    columns = READS[question]
    total = 0
    for path in target.leaves:
        with pq.ParquetFile(path) as leaf:
            for number in range(leaf.num_row_groups):
                group = leaf.metadata.row_group(number)
                if question == CONE:
                    rows = leaf.read_row_group(number, columns=["ra", "dec"], use_threads=False)
                    here = healpy.ang2vec(rows["ra"].to_numpy(), rows["dec"].to_numpy(), lonlat=True)
                    holds = bool((here @ healpy.ang2vec(ra, dec, lonlat=True) > cosine).any())
                elif question == CUT:
                    rows = leaf.read_row_group(number, columns=["ojala_class", "z"], use_threads=False)
                    z = rows["z"].to_numpy()
                    holds = bool(((z >= 2) & (z <= 3) & (rows["ojala_class"].to_numpy() == "QSO")).any())
                else:
                    holds = True
                if holds:
                    chunks = (group.column(i) for i in range(group.num_columns))
                    total += sum(c.total_compressed_size for c in chunks if c.path_in_schema in columns)
    return total


def ask_alone(engine: str, question: str, target: Target, repeats: int) -> Cost:
    """What a question costs in a process of its own, whose imports do not count."""
    order = json.dumps([engine, question, asdict(target), repeats])
    command = [sys.executable, "-m", "tests.benchmarks.queries", "--ask", order]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{engine}, {question}: {done.stderr}")
    facts = json.loads(done.stdout.splitlines()[-1])
    return Cost(**(facts | {"answer": tuple(facts["answer"])}))


def agree(answers: Sequence[Answer]) -> bool:
    """Whether all engines found the same; sums of floats may differ by their order."""
    return bool(np.allclose(answers, answers[0], rtol=1e-6))


def table_row(question: str, engine: str, found: Cost, needed: int) -> str:
    """One line of the table."""
    cells = [
        question,
        engine,
        f"{found.cold:.2f}",
        f"{found.warm:.2f}",
        f"{found.processor:.2f}",
        f"{needed / 1e6:.1f}",
        f"{found.asked / 1e6:.1f}",
        f"{found.fetched / 1e6:.1f}",
        f"{found.fetched / needed:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


HEADS = (
    "question",
    "by",
    "cold [s]",
    "warm [s]",
    "processor [s]",
    "needed [MB]",
    "asked for [MB]",
    "from disk [MB]",
    "from disk / needed",
)


def main(partitions: int = 200, rows: int = 50_000, repeats: int = REPEATS) -> None:
    """Make the catalogue, ask, and print the table."""
    with TemporaryDirectory(prefix="ojala-bench-") as name:
        answers = answers_for_the_mock_sky(Path(name))
        leaves = publish_replicas(UPath(name) / "ojala", answers, partitions, rows)
        size = sum(leaf.bytes for leaf in leaves.values())
        print(f"{partitions * rows:,} rows in {partitions} leaves, {size / 1e9:.2f} GB\n")
        print("| " + " | ".join(HEADS) + " |\n|" + "---|" * len(HEADS))
        target = Target.at_corner(str(Path(name, "ojala")), Partition(ORDER, 0))
        for question in READS:
            needed = needed_bytes(question, target)
            answered = []
            for engine in ENGINES:
                found = ask_alone(engine, question, target, repeats)
                answered.append(found.answer)
                print(table_row(question, engine, found, needed), flush=True)
            if not agree(answered):
                raise RuntimeError(f"{question}: the engines found different things: {answered}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ask"]:
        by, what, place, times = json.loads(sys.argv[2])
        print(json.dumps(asdict(cost(by, what, Target(**place), times))))
    else:
        main(*(int(argument) for argument in sys.argv[1:]))
