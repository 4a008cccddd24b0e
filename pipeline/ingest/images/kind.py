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
    fields : callable
        Joins the parts of all files to fields.
    matches : callable, optional
        Detects the kind by the header of a file's first image, completed from its primary header.
    read : callable, optional
        Takes path, images by HDU number and that header; returns a part of a field.
    matches_columns : callable, optional
        Detects the kind by the columns of a Parquet or HDF5 file.
    read_columns : callable, optional
        Takes the path of such a file; returns a part of a field, or parts of several.
    """

    expected: str
    fields: Callable[[Sequence[Any]], list[Field]]
    matches: Callable[[fits.Header], bool] | None = None
    read: Callable[[UPath, dict[int, fits.Header], fits.Header], Any] | None = None
    matches_columns: Callable[[frozenset[str]], bool] | None = None
    read_columns: Callable[[UPath], Any] | None = None
