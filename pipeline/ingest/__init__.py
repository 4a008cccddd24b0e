"""Ingest: files of photometry, spectra and images become HATS catalogues.

`photometry.ingest_photometry`, `spectra.ingest_spectra` and `cutouts.ingest_cutouts` make a catalogue each.
Formats of tables are registered in `formats`, surveys in `surveys.detect`, kinds of images in
`images.detect`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ojala.pipeline.ingest.cutouts import CutoutsSummary, ingest_cutouts
    from ojala.pipeline.ingest.errors import IngestError
    from ojala.pipeline.ingest.photometry import IngestSummary, ingest_photometry
    from ojala.pipeline.ingest.spectra import SpectraSummary, ingest_spectra

__all__ = [
    "CutoutsSummary",
    "IngestError",
    "IngestSummary",
    "SpectraSummary",
    "ingest_cutouts",
    "ingest_photometry",
    "ingest_spectra",
]

_MODULES = {
    "CutoutsSummary": "cutouts",
    "IngestError": "errors",
    "IngestSummary": "photometry",
    "SpectraSummary": "spectra",
    "ingest_cutouts": "cutouts",
    "ingest_photometry": "photometry",
    "ingest_spectra": "spectra",
}


def __getattr__(name: str) -> object:
    # Lazy: pyarrow and astropy would slow the start of the command line.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
