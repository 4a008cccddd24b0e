"""Which fields the files of a request hold, told by their content."""

from __future__ import annotations

from collections.abc import Sequence

from astropy.io import fits
from upath import UPath

from ojala.pipeline.ingest.discovery import discover_files
from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.formats.table import opened
from ojala.pipeline.ingest.images import bricks, cutout_files
from ojala.pipeline.ingest.images.bricks import BrickPlane, brick_fields, brick_plane, is_brick_plane
from ojala.pipeline.ingest.images.cutout_files import cutout_field, is_cutout
from ojala.pipeline.ingest.images.field import Field
from ojala.pipeline.ingest.surveys.hdus import open_hdus

_EXPECTED = f"{bricks.EXPECTED}; {cutout_files.EXPECTED}"


def find_fields(sources: Sequence[UPath]) -> tuple[list[Field], tuple[str, ...]]:
    """The fields in files and folders.

    Parameters
    ----------
    sources : sequence of UPath
        Files, or folders whose files are all looked at. A file that is named must be understood; one in a
        folder that holds something else is passed over.

    Returns
    -------
    fields : list of Field
        Bricks by name, then cut-outs by path.
    not_read : tuple of str
        Files in folders that were passed over, with the reason.

    Raises
    ------
    IngestError
        If a file that is named is not understood, a file is damaged, planes of a brick do not belong
        together, or there is no image.
    """
    found, passed_over = discover_files(sources, image_of)
    planes = [one for one in found.values() if isinstance(one, BrickPlane)]
    cutouts = [one for one in found.values() if isinstance(one, Field)]
    fields = brick_fields(planes) + cutouts
    if not fields:
        seen = f"; {len(passed_over)} files were looked at, such as {passed_over[0]}" if passed_over else ""
        raise IngestError(f"no images were found: expected {_EXPECTED}{seen}")
    return fields, passed_over


def image_of(path: UPath) -> BrickPlane | Field:
    """What a file holds.

    Raises
    ------
    SourceError
        If it is no image that is known here: says what was found and what was expected; or if it is damaged.
    """
    if not path.exists():
        raise SourceError("does not exist")
    with opened(path) as raw:
        head = raw.read(6)
    if head != b"SIMPLE":
        raise SourceError(f"is no FITS file: expected {_EXPECTED}")
    with open_hdus(path) as hdus:
        images = {
            i: hdu.header for i, hdu in enumerate(hdus) if hdu.is_image and hdu.header.get("NAXIS", 0) >= 2
        }
        found = ", ".join(hdu.name or f"HDU {i}" for i, hdu in enumerate(hdus))
        if images:
            number, header = next(iter(images.items()))
            if is_brick_plane(header) or is_brick_plane(hdus[0].header):
                return brick_plane(path, number, _with_primary(header, hdus[0].header))
            if is_cutout(header):
                return cutout_field(path, images)
    raise SourceError(
        f"is a FITS file with {found}, in which there are no images known here: expected {_EXPECTED}"
    )


def _with_primary(header: fits.Header, primary: fits.Header) -> fits.Header:
    """A header with what only the primary header says of brick, kind and band."""
    joined = header.copy()
    for key in ("BRICKNAM", "BRICK", "IMTYPE", "BAND", "FILTER"):
        if key not in joined and key in primary:
            joined[key] = primary[key]
    return joined
