"""HDUs of FITS files and selected columns of their tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from astropy.io import fits

from ojala.pipeline.ingest.errors import SourceError

_FORMATS = {"L": "S1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "A": "S"}
_COLUMN_CARD = re.compile(rb"(TTYPE\d+|TFORM\d+) *= *'([^']*)'")
_SCALE_CARD = re.compile(rb"(TSCAL|TZERO|TNULL)(\d+) *= *([-+0-9.EeDd]+)")
_UNSCALED = (("TZERO", "0"), ("TSCAL", "1"))
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
    return [name for name, _ in _columns(_header(hdu))]


def _header(hdu: fits.BinTableHDU) -> bytes:
    """The cards of a header as they stand in the file.

    astropy would interpret each of the several hundred cards of an SDSS spectrum's header, which takes
    longer than everything else.
    """
    place = hdu.fileinfo()
    place["file"].seek(place["hdrLoc"])
    return bytes(place["file"].read(place["datLoc"] - place["hdrLoc"]))


def _columns(header: bytes) -> list[tuple[str, str]]:
    """Name and format of each column."""
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
        By name; truth values as the letters T and F, numbers in the machine's byte order, texts without
        trailing blanks. Scaled integers (TSCAL, TZERO) are float64, NaN where null (TNULL); unsigned ones are
        unsigned integers.

    Raises
    ------
    SourceError
        If a column has a format that is not supported.
    """
    header, cards = hdu.header, _header(hdu)
    scales: dict[int, dict[str, str]] = {}
    for match in _SCALE_CARD.finditer(cards):
        scales.setdefault(int(match[2]), {})[match[1].decode()] = match[3].decode()
    names, formats, offsets, numbers = [], [], [], []
    offset = 0
    for i, (name, form) in enumerate(_columns(cards), start=1):
        parts = re.match(r"(\d*)([A-Z])", form)
        if parts is None:
            raise SourceError(f"has the format {form!r}, which is none of FITS", column=name)
        repeat, code = int(parts[1] or 1), parts[2]
        if name in wanted:
            if code not in _FORMATS:
                raise SourceError(f"has the format {form}, expected plain numbers or text", column=name)
            names.append(name)
            numbers.append(i)
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
    return {
        name: _native(records[name], scales.get(number, {}))
        for name, number in zip(names, numbers, strict=True)
    }


def whole_keys(values: np.ndarray, column: str) -> np.ndarray:
    """Integer keys as int64, exact, shape (N,).

    Raises
    ------
    SourceError
        If the column holds other numbers, or floating-point numbers that may have lost their last digits.
    """
    if values.dtype.kind == "f":
        wrong = ~(np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < 2.0**53))
    elif values.dtype.kind == "u":
        wrong = values > np.iinfo(np.int64).max
    elif values.dtype.kind == "i":
        return values.astype(np.int64)
    else:
        raise SourceError("holds no numbers, expected whole numbers", column=column)
    if wrong.any():
        row = int(wrong.argmax())
        raise SourceError(
            f"{values[row]} is no exact key: keys have to be whole numbers of 64 bits; floating-point "
            "numbers have lost the last digits of keys of 2**53 or more",
            row=row + 1,
            column=column,
        )
    return values.astype(np.int64)


def _with_other_sign(values: np.ndarray) -> np.ndarray:
    """Signed integers plus 2**(bits - 1) as unsigned ones, and the reverse, exact."""
    kind = np.dtype(f"{'u' if values.dtype.kind == 'i' else 'i'}{values.dtype.itemsize}")
    bit = np.array(1, f"u{values.dtype.itemsize}") << (8 * values.dtype.itemsize - 1)
    return np.asarray((values.view(bit.dtype) ^ bit).view(kind))


def _native(values: np.ndarray, scale: Mapping[str, str]) -> np.ndarray:
    squeezed = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.dtype.kind == "S":
        return np.char.rstrip(np.char.decode(squeezed, "latin-1"))
    native = squeezed.astype(squeezed.dtype.newbyteorder("="))
    if native.dtype.kind not in "iu" or not scale:
        return native
    zero, factor = (float(scale.get(card, default).upper().replace("D", "E")) for card, default in _UNSCALED)
    sign = 2.0 ** (8 * native.dtype.itemsize - 1)
    if factor == 1.0 and abs(zero) in (0.0, sign):
        # The convention for unsigned integers, and for signed bytes: the sign bit is the other way round.
        return native if not zero else _with_other_sign(native)
    found = native * factor + zero
    return np.where(native == int(float(scale["TNULL"])), np.nan, found) if "TNULL" in scale else found
