"""FITS binary tables, gzipped or not, with array columns of fixed or variable length.

A header card ``FILTERS`` gives the names of the filters of the array columns, separated by spaces, where they
are not the 57 of J-PAS.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.table import BATCH_ROWS, SourceColumn, TableSource, by_lower_case, opened

_DAMAGE = (
    *(ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError),
    *(AstropyUserWarning, fits.VerifyError),
)
"""Exceptions of astropy for damaged headers and tables."""


def matches(head: bytes) -> bool:
    """Whether the first bytes of a file are those of FITS."""
    return head.startswith(b"SIMPLE")


@contextmanager
def open_table(path: UPath, scratch: UPath) -> Iterator[TableSource]:
    """Open the one binary table of a FITS file.

    The file is mapped into memory, not read as a whole; one that is gzipped or not on a local disk is
    unpacked into `scratch` while it is open.

    Raises
    ------
    SourceError
        If it is damaged, cut off, or has no table or several.
    """
    copy = None if _is_plain(path) else scratch / "unpacked.fits"
    try:
        if copy is not None:
            with opened(path) as raw, copy.open("wb") as target:
                shutil.copyfileobj(raw, target)
        with damage_errors():
            file = fits.open((copy or path).path, memmap=True, lazy_load_hdus=False, checksum=True)
        with file:
            with damage_errors():
                source = _source(file)
            yield source
    finally:
        if copy is not None:
            copy.unlink(missing_ok=True)


@contextmanager
def damage_errors() -> Iterator[None]:
    """Turn exceptions and warnings of astropy into a `SourceError`."""
    with warnings.catch_warnings():
        # astropy only warns of a file that is shorter than its header says, or breaks the standard.
        warnings.simplefilter("error", AstropyUserWarning)
        try:
            yield
        except SourceError:
            raise
        except _DAMAGE as error:
            raise SourceError(f"is a damaged FITS file: {error}") from error


def _is_plain(path: UPath) -> bool:
    with path.open("rb") as raw:
        return path.protocol in ("", "file", "local") and raw.read(6) == b"SIMPLE"


def _source(file: fits.HDUList) -> TableSource:
    tables = [hdu for hdu in file if isinstance(hdu, fits.BinTableHDU)]
    if len(tables) != 1:
        raise SourceError(f"holds {len(tables)} binary tables, expected one")
    table = tables[0]
    columns = by_lower_case(SourceColumn(c.name, c.unit or "") for c in table.columns)
    notes = {key: str(table.header.get(key, file[0].header.get(key, ""))) for key in ("select", "filters")}

    def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        rows = int(table.header["NAXIS2"])
        for first in range(0, rows, BATCH_ROWS):
            with damage_errors():
                part = table.data[first : first + BATCH_ROWS]
                arrays = [_arrow(part, table.columns[columns[key].name]) for key in wanted]
            yield pa.RecordBatch.from_arrays(arrays, list(wanted))

    return TableSource(columns, batches, {key: value for key, value in notes.items() if value})


def _arrow(part: fits.FITS_rec, column: fits.Column) -> pa.Array:
    values = np.asarray(part.field(column.name))
    if values.dtype.kind == "O":
        return pa.array([np.asarray(cell, dtype=np.float64) for cell in values])
    if values.dtype.kind in "SU":
        return pa.array(values.astype(str).ravel().tolist())
    if values.dtype.kind not in "iufb" or values.ndim > 2:
        raise SourceError(f"has the format {column.format}, expected numbers", column=column.name)
    missing = None
    if column.null is not None and values.dtype.kind in "iu":
        stored = column.null * (column.bscale or 1) + (column.bzero or 0)
        missing = (values == stored).ravel()
    flat = pa.array(values.astype(values.dtype.newbyteorder("=")).ravel(), mask=missing)
    if values.ndim == 1:
        return flat
    if values.shape[1] == 0:
        return pa.nulls(len(values))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
