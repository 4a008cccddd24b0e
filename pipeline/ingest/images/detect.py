"""Registry of the kinds of image files, and detection of the fields in the files of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from astropy.io import fits
from upath import UPath

from ojala.pipeline.ingest.discovery import discover_files
from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.formats.columnar import column_names_of, is_columnar
from ojala.pipeline.ingest.formats.fits import open_hdus
from ojala.pipeline.ingest.formats.table import opened
from ojala.pipeline.ingest.images import bricks, cutout_files, stamp_fields
from ojala.pipeline.ingest.images.field import Field
from ojala.pipeline.ingest.images.kind import ImageKind
from ojala.pipeline.ingest.surveys.hdus import hdu_names

KINDS: tuple[ImageKind, ...] = (bricks.KIND, cutout_files.KIND, stamp_fields.KIND)
"""Kinds of images, in the order in which they are tried: a kind is a module with ``KIND`` and one entry."""


def find_fields(sources: Sequence[UPath]) -> tuple[list[Field], tuple[str, ...]]:
    """Find the fields in files and folders.

    Parameters
    ----------
    sources : sequence of UPath
        Files, or folders, whose files are all read. A file that is named must be understood; one in a folder
        that holds something else is passed over.

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
    parts, passed_over = discover_files(sources, read_image)
    fields = [
        field
        for kind in KINDS
        for field in kind.fields([part for its_kind, part in parts.values() if its_kind is kind])
    ]
    if not fields:
        seen = f"; {len(passed_over)} files were looked at, such as {passed_over[0]}" if passed_over else ""
        raise IngestError(f"no images were found: expected {_expected()}{seen}")
    return fields, passed_over


def read_image(path: UPath) -> tuple[ImageKind, Any]:
    """Detect the kind of an image file and read its headers; returns the kind with a part of a field.

    Raises
    ------
    SourceError
        If it has none of the kinds, with its content and the expected kinds; or if it is damaged.
    """
    if not path.exists():
        raise SourceError("does not exist")
    with opened(path) as raw:
        head = raw.read(8)
    if is_columnar(head):
        names = column_names_of(path)
        for kind in KINDS:
            if kind.matches_columns is not None and kind.matches_columns(names):
                assert kind.read_columns is not None
                return kind, kind.read_columns(path)
        raise SourceError(f"has no column of images known here: expected {_expected()}")
    if not head.startswith(b"SIMPLE"):
        raise SourceError(f"is neither FITS, Parquet nor HDF5: expected {_expected()}")
    with open_hdus(path, verify=False) as hdus:
        images = {
            i: hdu.header for i, hdu in enumerate(hdus) if hdu.is_image and hdu.header.get("NAXIS", 0) >= 2
        }
        if images:
            header = _with_primary(next(iter(images.values())), hdus[0].header)
            for kind in KINDS:
                if kind.matches is not None and kind.read is not None and kind.matches(header):
                    return kind, kind.read(path, images, header)
        raise SourceError(
            f"is a FITS file with {hdu_names(hdus)}, in which there are no images known here: "
            f"expected {_expected()}"
        )


def _expected() -> str:
    return "; ".join(kind.expected for kind in KINDS)


def _with_primary(header: fits.Header, primary: fits.Header) -> fits.Header:
    """A header with the brick, kind and band of the primary header, where it lacks them."""
    joined = header.copy()
    for key in ("BRICKNAM", "BRICK", "IMTYPE", "BAND", "FILTER"):
        if key not in joined and key in primary:
            joined[key] = primary[key]
    return joined
