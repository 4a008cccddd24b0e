"""Benchmark of Parquet settings: size, processor time to write, and time of queries.

    python -m tests.benchmarks.encodings [PARTITIONS]

writes the same rows with each of `VARIANTS`, queries each catalogue with DuckDB and Polars, and prints a
table. The settings of `ojala.pipeline.storage.parquet` follow from it; see ``tests/benchmarks/QUERIES.md``.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ojala.catalogs_schema import votable
from ojala.catalogs_schema.ojala import OJALA
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.parquet import ROW_GROUP_ROWS, writer_settings
from tests.benchmarks.catalogues import ORDER, answers_for_the_mock_sky, replica_leaf
from tests.benchmarks.queries import CONE, CUT, ENGINES, STATISTIC, Target, cost

ROWS = 50_000
"""Rows of a partition."""

REPEATS = 3

FLOATS = [column.name for column in OJALA if pa.types.is_floating(column.type)]
VARIANTS: Mapping[str, dict[str, Any]] = {
    "as leaves are written": {},
    "one row group": {"row_group_size": ROWS},
    "row groups of 10,000": {"row_group_size": 10_000},
    "byte stream split": {"use_byte_stream_split": FLOATS},
    "zstd level 3": {"compression_level": 3},
    "lz4": {"compression": "lz4"},
    "uncompressed": {"compression": "none"},
    "no page index": {"write_page_index": False},
    "no statistics": {"write_page_index": False, "write_statistics": False},
}
"""Changes of single settings of `ojala.pipeline.storage.parquet`."""


def encode(table: pa.Table, changes: Mapping[str, Any]) -> pa.Buffer:
    """Encode a leaf with changed settings."""
    settings = {**writer_settings(OJALA), **changes}
    rows = settings.pop("row_group_size", ROW_GROUP_ROWS)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, OJALA.schema(), **settings) as writer:
        writer.add_key_value_metadata(votable.header(OJALA))
        writer.write_table(table, row_group_size=rows)
    return sink.getvalue()


def measure(folder: Path, tables: Mapping[Partition, pa.Table]) -> Iterator[tuple[str, list[str]]]:
    """Measure each variant; yields its name and table row."""
    rows = sum(table.num_rows for table in tables.values())
    for name, changes in VARIANTS.items():
        root = folder / "catalogue"
        busy, size, footer = [], 0, 0
        for partition, table in tables.items():
            begin = time.process_time()
            content = encode(table, changes)
            busy.append(time.process_time() - begin)
            size += content.size
            footer = int.from_bytes(content[-8:-4].to_pybytes(), "little")
            path = root / partition.leaf
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        target = Target.at_corner(str(root), next(iter(tables)))
        figures = [f"{1e3 * statistics.median(busy):.0f}", f"{size / rows:.1f}", f"{footer / 1024:.0f}"]
        for engine in ("DuckDB", "Polars"):
            for question in (CONE, CUT, STATISTIC):
                found = cost(engine, question, target, REPEATS)
                figures.append(f"{1e3 * found.processor:.0f}")
                if engine == "DuckDB":
                    figures[-1] += f" ({found.asked / 1e6:.1f})"
        shutil.rmtree(root)
        yield name, figures


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    with TemporaryDirectory(prefix="ojala-bench-") as name:
        answers = answers_for_the_mock_sky(Path(name))
        partitions = [Partition(ORDER, pixel) for pixel in range(count)]
        tables = {partition: replica_leaf(answers, partition, ROWS) for partition in partitions}
        heads = ["", "write [ms]", "B/row", "footer [KiB]"]
        heads += [f"{engine}: {q} [ms (MB)]" for engine in list(ENGINES)[:1] for q in (CONE, CUT, STATISTIC)]
        heads += [f"{engine}: {q} [ms]" for engine in list(ENGINES)[1:2] for q in (CONE, CUT, STATISTIC)]
        print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
        for what, figures in measure(Path(name), tables):
            print("| " + " | ".join([what, *figures]) + " |", flush=True)
