"""HDUs of FITS files and selected columns of their tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from astropy.io import fits

from ojala.pipeline.ingest.errors import SourceError

_FORMATS = {"L": "i1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "A": "S"}
_COLUMN_CARD = re.compile(rb"(TTYPE\d+|TFORM\d+) *= *'([^']*)'")
_WIDTHS = {
    "L": 1,
    "X": 1,
    "B": 1,
    "A": 1,
    "I": 2,
    "J": 4,
    "E": 4,
    "K": 8,
    "D": 8,
    "C": 8,
    "P": 8,
    "M": 16,
    "Q": 16,
}


def hdu_names(hdus: fits.HDUList) -> str:
    """Names of the HDUs of a file, for messages."""
    return ", ".join(hdu.name or f"HDU {i}" for i, hdu in enumerate(hdus))


def column_names(hdu: fits.BinTableHDU) -> list[str]:
    """Names of a binary table's columns, in upper case; read from the header alone."""
    return [name for name, _ in _columns(hdu)]


def _columns(hdu: fits.BinTableHDU) -> list[tuple[str, str]]:
    """Name and format of each column, from the cards as they stand in the file.

    astropy would interpret each of the several hundred cards of an SDSS spectrum's header, which takes
    longer than everything else.
    """
    place = hdu.fileinfo()
    place["file"].seek(place["hdrLoc"])
    header = place["file"].read(place["datLoc"] - place["hdrLoc"])
    words = {match[1]: match[2].decode().strip() for match in _COLUMN_CARD.finditer(header)}
    count = len(words) // 2
    return [(words[b"TTYPE%d" % i].upper(), words[b"TFORM%d" % i]) for i in range(1, count + 1)]


def read_columns(hdu: fits.BinTableHDU, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """Read columns of a binary table, as far as it has them.

    The record layout comes from the header; only these columns are decoded.

    Parameters
    ----------
    hdu : BinTableHDU
        The table.
    wanted : sequence of str
        Names in upper case; the case in the file does not matter.

    Returns
    -------
    dict of str to ndarray
        By name; numbers in the machine's byte order, texts without trailing blanks.

    Raises
    ------
    SourceError
        If a column has a format that is not supported.
    """
    header = hdu.header
    names, formats, offsets = [], [], []
    offset = 0
    for i, (name, form) in enumerate(_columns(hdu), start=1):
        parts = re.match(r"(\d*)([A-Z])", form)
        if parts is None:
            raise SourceError(f"has the format {form!r}, which is none of FITS", column=name)
        repeat, code = int(parts[1] or 1), parts[2]
        if name in wanted:
            if code not in _FORMATS or f"TSCAL{i}" in header:
                raise SourceError(f"has the format {form}, expected plain numbers or text", column=name)
            names.append(name)
            formats.append(f"S{repeat}" if code == "A" else f"{repeat}{_FORMATS[code]}")
            offsets.append(offset)
        offset += -(-repeat // 8) if code == "X" else repeat * _WIDTHS[code]
    rows, width = int(header["NAXIS2"]), int(header["NAXIS1"])
    layout = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": width})
    place = hdu.fileinfo()
    place["file"].seek(place["datLoc"])
    content = place["file"].read(rows * width)
    if len(content) < rows * width:
        raise SourceError(f"is cut off: its table {hdu.name} has fewer bytes than its {rows} rows need")
    records = np.frombuffer(content, layout, rows)
    return {name: _native(records[name]) for name in names}


def _native(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "S":
        return np.char.rstrip(values.astype(str))
    squeezed = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    return squeezed.astype(squeezed.dtype.newbyteorder("="))
