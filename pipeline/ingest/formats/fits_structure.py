"""Structure of FITS files: where their HDUs lie, whether they are whole, and their checksums.

The sizes that the headers state bound what is read and unpacked, whatever follows them; see the FITS Standard
4.0, sections 3.3, 4.4.1.1 and appendix J.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError

BLOCK = 2880
"""Length to which headers and data are padded [bytes]."""

_MOST_HEADER_BYTES = 10_000 * BLOCK
_PIECE_BYTES = BLOCK << 11
_SIZE_CARD = re.compile(rb"(BITPIX|NAXIS\d{0,3}|PCOUNT|GCOUNT) *= *([+-]?\d+) *(?:/|$)")
_SUM_CARD = re.compile(rb"(CHECKSUM|DATASUM) *= *'([^']*)'")
_ALL_ONES = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class HduExtent:
    """Place of an HDU in a file.

    Attributes
    ----------
    number : int
        Number of the HDU, from 0.
    start, data, size : int
        Offsets of header and data, and number of bytes of data without padding.
    sums : dict of str to str
        ``CHECKSUM`` and ``DATASUM`` where the header has them.
    """

    number: int
    start: int
    data: int
    size: int
    sums: dict[str, str]

    @property
    def end(self) -> int:
        """Offset behind the padded data."""
        return self.data + _padded(self.size)


def hdu_extents(raw: BinaryIO) -> list[HduExtent]:
    """Find the HDUs of a file; bytes behind the last of them, such as zeros of a tape, are not looked at.

    Raises
    ------
    SourceError
        If a header is damaged, or the file is shorter than its headers state.
    """
    length = raw.seek(0, 2)
    raw.seek(0)
    extents: list[HduExtent] = []
    while (found := _next_extent(raw, extents)) is not None:
        extent, _ = found
        if extent.end > length:
            raise _cut_off(extent, length)
        extents.append(extent)
        raw.seek(extent.end)
    return extents


def copy_hdus(raw: BinaryIO, target: BinaryIO, folder: UPath | None = None, limit: int | None = None) -> None:
    """Copy the HDUs of a stream, such as that of a compressed file, and nothing that follows them.

    Parameters
    ----------
    raw, target : binary file
        From where and to where.
    folder : UPath, optional
        Local folder of `target`, whose free space must suffice.
    limit : int, optional
        Most bytes to copy.

    Raises
    ------
    SourceError
        If a header is damaged, the stream is shorter than its headers state, or there is no space.
    """
    extents: list[HduExtent] = []
    while (found := _next_extent(raw, extents)) is not None:
        extent, header = found
        free = shutil.disk_usage(folder.path).free if folder is not None else None
        most = min(value for value in (free, limit and limit - extent.data, 1 << 62) if value is not None)
        if extent.size > most:
            raise SourceError(
                f"unpacks to more than the {max(most, 0):,} bytes that are left for it: HDU {extent.number} "
                f"has {extent.size:,} bytes; unpack the file where there is space and name that"
            )
        target.write(header)
        left = _padded(extent.size)
        while left:
            piece = raw.read(min(left, _PIECE_BYTES))
            if not piece:
                break
            target.write(piece)
            left -= len(piece)
        if left:
            raise _cut_off(extent, extent.end - left)
        extents.append(extent)


def verify_checksums(raw: BinaryIO, extents: list[HduExtent]) -> None:
    """Compare the checksums that headers have with the bytes of the file.

    DATASUM decides, and CHECKSUM, which covers the header, too, only where there is no DATASUM: an edited
    header with an old CHECKSUM is common, and no damage to the data.

    Raises
    ------
    SourceError
        If one differs.
    """
    for extent in extents:
        data, whole = (extent.sums.get(key, "").strip() for key in ("DATASUM", "CHECKSUM"))
        if data.isdecimal():
            right = _fold(int(data)) == _sum_words(raw, extent.data, extent.end)
        elif whole.strip("0"):
            right = _sum_words(raw, extent.start, extent.end) in (0, _ALL_ONES)
        else:
            continue
        if not right:
            raise SourceError(
                f"is a damaged FITS file: the checksum of HDU {extent.number} is not that of its bytes; get "
                "the file again"
            )


def _next_extent(raw: BinaryIO, before: list[HduExtent]) -> tuple[HduExtent, bytes] | None:
    """The HDU that begins here, with its header; None where none begins."""
    start = before[-1].end if before else 0
    header = _read_header(raw, b"XTENSION" if before else b"SIMPLE")
    if header is None:
        return None
    sizes: dict[bytes, int] = {}
    sums: dict[str, str] = {}
    for card in _cards(header):
        if match := _SIZE_CARD.match(card):
            sizes.setdefault(match[1], int(match[2]))
        elif match := _SUM_CARD.match(card):
            sums.setdefault(match[1].decode(), match[2].decode(errors="replace"))
    axes = [sizes.get(b"NAXIS%d" % axis, -1) for axis in range(1, sizes.get(b"NAXIS", -1) + 1)]
    if b"NAXIS" not in sizes or b"BITPIX" not in sizes or min(axes, default=0) < 0:
        raise SourceError(f"is a damaged FITS file: HDU {len(before)} does not state its size")
    values = 1 if axes else 0
    for axis in axes:
        values *= axis
    values = (values + sizes.get(b"PCOUNT", 0)) * sizes.get(b"GCOUNT", 1)
    size = max(values, 0) * abs(sizes[b"BITPIX"]) // 8
    return HduExtent(len(before), start, start + len(header), size, sums), header


def _read_header(raw: BinaryIO, begin: bytes) -> bytes | None:
    header = bytearray()
    while True:
        block = raw.read(BLOCK)
        if not header and not block.startswith(begin):
            return None
        header += block
        if len(block) < BLOCK:
            raise SourceError("is a damaged FITS file: it is cut off in a header; get the file again")
        if any(card.startswith(b"END ") for card in _cards(block)):
            return bytes(header)
        if len(header) > _MOST_HEADER_BYTES:
            raise SourceError("is a damaged FITS file: a header has no END")


def _cards(block: bytes) -> Iterator[bytes]:
    return (block[at : at + 80] for at in range(0, len(block), 80))


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _cut_off(extent: HduExtent, length: int) -> SourceError:
    return SourceError(
        f"is a damaged FITS file: it is cut off after {length:,} bytes, its HDU {extent.number} ends at "
        f"{extent.end:,}; get the file again"
    )


def _sum_words(raw: BinaryIO, start: int, end: int) -> int:
    """Ones' complement sum of the big-endian 32-bit words between two offsets."""
    raw.seek(start)
    total, left = 0, end - start
    while left:
        piece = raw.read(min(left, _PIECE_BYTES))
        if not piece:
            break
        left -= len(piece)
        total = _fold(total + int(np.frombuffer(piece, ">u4").sum(dtype=np.uint64)))
    return total


def _fold(total: int) -> int:
    while total >> 32:
        total = (total & _ALL_ONES) + (total >> 32)
    return total
