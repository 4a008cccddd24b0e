"""Kinds of files of spectra and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from astropy.io import fits
from upath import UPath

if TYPE_CHECKING:
    from ojala.pipeline.ingest.surveys.label_tables import LabelIndex, LabelTable
    from ojala.pipeline.ingest.surveys.spectrum import Spectrum


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of files with its detection and its reader; each is detected in FITS or by its first bytes.

    Attributes
    ----------
    name : str
        Name in summaries and provenance.
    expected : str
        Description for error messages.
    matches_fits : callable, optional
        Detects the kind in an open FITS file.
    matches_head : callable, optional
        Detects the kind in the first bytes of any other file.
    read_spectra : callable, optional
        Reads spectra, given the labels of all tables.
    read_labels : callable, optional
        Reads tables of labels.
    """

    name: str
    expected: str
    matches_fits: Callable[[fits.HDUList], bool] | None = None
    matches_head: Callable[[bytes], bool] | None = None
    read_spectra: Callable[[UPath, LabelIndex], Iterable[Spectrum]] | None = None
    read_labels: Callable[[UPath], list[LabelTable]] | None = None
