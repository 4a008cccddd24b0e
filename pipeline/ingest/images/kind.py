"""Kinds of image files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from astropy.io import fits
from upath import UPath

from ojala.pipeline.ingest.images.field import Field


@dataclass(frozen=True, slots=True)
class ImageKind:
    """A kind of image files with its detection and its reader.

    Attributes
    ----------
    expected : str
        Description for error messages.
    matches : callable
        Detects the kind by the header of a file's first image, completed from its primary header.
    read : callable
        Takes path, images by HDU number and that header; returns a part of a field.
    fields : callable
        Joins the parts of all files to fields.
    """

    expected: str
    matches: Callable[[fits.Header], bool]
    read: Callable[[UPath, dict[int, fits.Header], fits.Header], Any]
    fields: Callable[[Sequence[Any]], list[Field]]
