"""FITS binary tables, gzipped or not, with array columns of fixed or variable length.

A header card ``FILTERS`` gives the names of the filters of the array columns, separated by spaces, where they
are not the 57 of J-PAS.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from upath import UPath

from ojala.catalogs_schema.errors import OjalaError
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.fits_structure import copy_hdus, hdu_extents, verify_checksums
from ojala.pipeline.ingest.formats.table import (
    BATCH_ROWS,
    SourceColumn,
    TableSource,
    by_lower_case,
    is_compressed,
    opened,
)

MOST_IN_MEMORY = 4 << 30
"""Most bytes of a compressed file or one on an object store that are unpacked in memory."""

_DAMAGE = (
    *(ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError),
    fits.VerifyError,
)
"""Exceptions of astropy for damaged headers and tables."""


def matches(head: bytes) -> bool:
    """Whether the first bytes of a file are those of FITS."""
    return head.startswith(b"SIMPLE")


@contextmanager
def open_table(path: UPath, scratch: UPath) -> Iterator[TableSource]:
    """Open the one binary table of a FITS file.

    The file is mapped into memory, not read as a whole; one that is compressed or not on a local disk is
    unpacked into `scratch` while it is open. A table of one row whose cells are the columns of a table
    (TOPCAT's column-oriented FITS) is read as that table.

    Raises
    ------
    SourceError
        If it is damaged, cut off, or has no table or several.
    """
    with _opened(path, scratch, verify=True) as file:
        with damage_errors():
            source = _source(file)
        yield source


@contextmanager
def open_hdus(path: UPath, *, verify: bool = True) -> Iterator[fits.HDUList]:
    """Open a FITS file, compressed or not; plain files on a local disk are mapped, others held in memory.

    Parameters
    ----------
    path : UPath
        The file.
    verify : bool
        Read all bytes and compare the checksums that the headers have.

    Raises
    ------
    SourceError
        If it is cut off, its checksum differs from its bytes, or astropy cannot read what is read inside of
        the block. Warnings of astropy are no damage.
    """
    with _opened(path, None, verify=verify) as hdus, damage_errors():
        yield hdus


@contextmanager
def _opened(path: UPath, scratch: UPath | None, *, verify: bool) -> Iterator[fits.HDUList]:
    with path.open("rb") as raw:
        plain = path.protocol in ("", "file", "local") and not is_compressed(raw.read(6))
    copy = scratch / "unpacked.fits" if scratch is not None and not plain else None
    try:
        if plain:
            with _checked(path.path, verify) as hdus:
                yield hdus
        elif copy is not None:
            with opened(path) as stream, copy.open("wb") as target:
                copy_hdus(stream, target, scratch)
            with _checked(copy.path, verify) as hdus:
                yield hdus
        else:
            content = io.BytesIO()
            with opened(path) as stream:
                copy_hdus(stream, content, limit=MOST_IN_MEMORY)
            with _checked(content, verify) as hdus:
                yield hdus
    finally:
        if copy is not None:
            copy.unlink(missing_ok=True)


@contextmanager
def _checked(file: str | io.BytesIO, verify: bool) -> Iterator[fits.HDUList]:
    raw = open(file, "rb") if isinstance(file, str) else file  # noqa: SIM115  # closed below, where it is a path
    try:
        extents = hdu_extents(raw)
        if verify:
            verify_checksums(raw, extents)
        trailing = raw.seek(0, 2) > (extents[-1].end if extents else 0)
        raw.seek(0)
    finally:
        if isinstance(file, str):
            raw.close()
    with damage_errors():
        hdus = fits.open(file, memmap=isinstance(file, str))
    with hdus:
        # Astropy would take what lies behind the last HDU for the header of one more.
        with damage_errors():
            whole = fits.HDUList([hdus[number] for number in range(len(extents))]) if trailing else hdus
        yield whole


@contextmanager
def damage_errors() -> Iterator[None]:
    """Turn exceptions of astropy into a `SourceError`; its warnings of odd headers are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        try:
            yield
        except OjalaError:
            raise
        except _DAMAGE as error:
            raise SourceError(f"is a damaged FITS file: {error}") from error


def _source(file: fits.HDUList) -> TableSource:
    tables = [hdu for hdu in file if isinstance(hdu, fits.BinTableHDU)]
    if len(tables) != 1:
        raise SourceError(f"holds {len(tables)} binary tables, expected one")
    table = tables[0]
    columns = by_lower_case(SourceColumn(c.name, c.unit or "") for c in table.columns)
    notes = {key: str(table.header.get(key, file[0].header.get(key, ""))) for key in ("select", "filters")}
    rows = int(table.header["NAXIS2"])
    length = _column_length(table) if rows == 1 else None

    def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for first in range(0, rows if length is None else length, BATCH_ROWS):
            part = slice(first, first + BATCH_ROWS)
            with damage_errors():
                data = table.data if length is not None else table.data[part]
                names = [columns[key].name for key in wanted]
                arrays = [_arrow(table, data, name, None if length is None else part) for name in names]
            yield pa.RecordBatch.from_arrays(arrays, list(wanted))

    return TableSource(columns, batches, {key: value for key, value in notes.items() if value})


def _column_length(table: fits.BinTableHDU) -> int | None:
    """Rows of a column-oriented table: the length that all cells of its one row have; None for others."""
    lengths = {
        table.data.dtype[number].shape[0] if table.data.dtype[number].shape else 1
        for number in range(len(table.columns))
    }
    return int(lengths.pop()) if len(lengths) == 1 and lengths != {1} else None


def _arrow(table: fits.BinTableHDU, data: fits.FITS_rec, name: str, part: slice | None) -> pa.Array:
    """Cells of a column; `part` is that of the one row's cell in a column-oriented table."""
    column = table.columns[name]
    values, stored = np.asarray(data.field(name)), np.asarray(data)[name]
    if part is not None:
        values, stored = values[0][part], stored[0][part]
    if values.dtype.kind == "O":
        return pa.array([np.asarray(cell, dtype=np.float64) for cell in values])
    if stored.dtype.kind in "SU":
        return pa.array([_text(cell) for cell in stored.ravel().tolist()], pa.string())
    if values.dtype.kind not in "iufb":
        raise SourceError(f"has the format {column.format}, expected numbers", column=name)
    flat = values.reshape(len(values), -1) if values.ndim > 1 else values
    null = table.header.get(f"TNULL{table.columns.names.index(name) + 1}")
    missing = None if null is None else (stored == null).reshape(flat.shape).ravel()
    found = pa.array(flat.astype(flat.dtype.newbyteorder("=")).ravel(), mask=missing)
    if flat.ndim == 1:
        return found
    if flat.shape[1] == 0:
        return pa.nulls(len(flat))
    return pa.FixedSizeListArray.from_arrays(found, flat.shape[1])


def _text(cell: bytes | str) -> str:
    """Text of a cell; a letter beyond ASCII, against the standard, is taken for Latin-1."""
    text = cell.decode("latin-1") if isinstance(cell, bytes) else cell
    return text.rstrip("\0 ")
