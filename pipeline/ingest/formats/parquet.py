"""Parquet tables, with units as this program, astropy, VOParquet and others state them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.table import BATCH_ROWS, SourceColumn, TableSource, by_lower_case
from ojala.pipeline.storage.units import schema_units

_BUFFER_BYTES = 1 << 16


def matches(head: bytes) -> bool:
    """Whether the first bytes of a file are those of Parquet."""
    return head.startswith(b"PAR1")


@contextmanager
def open_table(path: UPath, scratch: UPath) -> Iterator[TableSource]:
    """Open a Parquet file.

    Raises
    ------
    SourceError
        If it is damaged.
    """
    with path.open("rb") as raw:
        if not matches(raw.read(4)):
            raise SourceError("is a compressed file with Parquet in it: unpack it first")
        raw.seek(0)
        try:
            # Read in small pieces: a row group as long as the file must not come into memory whole.
            file = pq.ParquetFile(
                raw, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
            )
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"is a damaged Parquet file: {error}") from error
        schema = file.schema_arrow
        try:
            units = schema_units(schema)
        except ValueError as error:
            raise SourceError(f"is a damaged Parquet file: {error}") from error
        columns = by_lower_case(SourceColumn(f.name, units.get(f.name, "")) for f in schema)
        notes = {
            key.decode(errors="replace").lower(): value.decode(errors="replace")
            for key, value in (schema.metadata or {}).items()
            if key.lower() in (b"select", b"filters")
        }

        def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
            names = [columns[key].name for key in wanted]
            try:
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
                    yield batch.select(names).rename_columns(list(wanted))
            except (pa.ArrowException, OSError) as error:
                raise SourceError(f"is a damaged Parquet file: {error}") from error

        yield TableSource(columns, batches, notes)
