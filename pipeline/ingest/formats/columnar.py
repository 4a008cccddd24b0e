"""Parquet and HDF5 files whose columns are arrays: names of the columns, and rows in batches.

HDF5 needs the package h5py (``pip install '.[hdf5]'``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_PARQUET_MAGIC = b"PAR1"


def is_columnar(head: bytes) -> bool:
    """Whether the first bytes of a file are those of Parquet or HDF5."""
    return head.startswith((_PARQUET_MAGIC, _HDF5_MAGIC))


def column_names_of(path: UPath) -> frozenset[str]:
    """Names of the columns, those of a struct as ``spectrum.flux``, or of the data sets of an HDF5 file.

    Raises
    ------
    SourceError
        If the file is damaged, or h5py is missing.
    """
    with _is_hdf5(path) as hdf5:
        if hdf5 is not None:
            return frozenset(name for name in hdf5 if hasattr(hdf5[name], "shape"))
    with open_parquet(path) as file:
        names = []
        for field in file.schema_arrow:
            names.append(field.name)
            kind = field.type
            if isinstance(kind, pa.ListType) and pa.types.is_struct(kind.value_type):
                kind = kind.value_type
            if pa.types.is_struct(kind):
                names += [f"{field.name}.{kind.field(i).name}" for i in range(kind.num_fields)]
    return frozenset(names)


def read_batches(path: UPath, wanted: Collection[str], rows: int) -> Iterator[dict[str, Any]]:
    """Read columns in batches of at most `rows` rows.

    Parameters
    ----------
    path : UPath
        The file.
    wanted : collection of str
        Names as of `column_names_of`; those that the file lacks are left out. For all members of a struct
        its own name.
    rows : int
        Largest number of rows of a batch.

    Yields
    ------
    dict of str to array
        pyarrow arrays of a Parquet file, or NumPy arrays of an HDF5 file, by name.

    Raises
    ------
    SourceError
        If the file is damaged, or h5py is missing.
    """
    with _is_hdf5(path) as hdf5:
        if hdf5 is not None:
            names = [name for name in wanted if name in hdf5]
            for begin in range(0, min(len(hdf5[name]) for name in names), rows):
                yield {name: np.asarray(hdf5[name][begin : begin + rows]) for name in names}
            return
    with open_parquet(path) as file:
        have = file.schema_arrow.names
        tops = [name for name in dict.fromkeys(word.partition(".")[0] for word in wanted) if name in have]
        chosen = [name for name in wanted if name.partition(".")[0] in tops]
        for batch in file.iter_batches(batch_size=rows, columns=chosen):
            yield {name: batch.column(name) for name in tops}


@contextmanager
def open_parquet(path: UPath) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; exceptions inside of the block that come from its bytes are damage.

    Raises
    ------
    SourceError
        If it is damaged.
    """
    try:
        # Small pieces: a row group of images is as large as the file.
        with path.open("rb") as raw, pq.ParquetFile(raw, pre_buffer=False, buffer_size=1 << 20) as file:
            yield file
    except pa.ArrowException as error:
        raise SourceError(f"is a damaged Parquet file: {error}") from error


@contextmanager
def _is_hdf5(path: UPath) -> Iterator[Any]:
    """The open file if it is HDF5, else None."""
    with path.open("rb") as raw:
        if not raw.read(len(_HDF5_MAGIC)).startswith(_HDF5_MAGIC):
            yield None
            return
        try:
            import h5py
        except ModuleNotFoundError:
            raise SourceError(
                "is an HDF5 file, which needs the package h5py: pip install '.[hdf5]' in a checkout of ojala"
            ) from None
        try:
            with h5py.File(raw, "r") as file:
                yield file
        except OSError as error:
            raise SourceError(f"is a damaged HDF5 file: {error}") from error
