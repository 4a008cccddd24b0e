"""Spectra of a folder tree, one per object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from upath import UPath

from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.surveys.detect import detect_kind
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex, LabelTable
from ojala.pipeline.ingest.surveys.spectrum import Spectrum

_TABLES = ("desi/**/QSO_cat_*.fits*", "desi/**/redrock-*.fits*")
_SPECTRA = (
    *("sdss/spec-*.fits*", "lamost/spec-*.fits*", "desi/**/coadd-*.fits*"),
    *("*.parquet", "mmu/**/*.parquet", "mmu/**/*.hdf5"),
)


def read_folder(directory: Path) -> list[Spectrum]:
    """Read every spectrum under a folder with ``sdss``, ``lamost``, ``desi`` and ``mmu``.

    The latter has Parquet and HDF5 files of the Multimodal Universe; Parquet files in the folder are read.

    Returns
    -------
    list of Spectrum
        Spectra with a trusted class and redshift, one per object: of repeated visits, that of the highest
        signal to noise. Sorted by survey and source.
    """

    def files(patterns: Sequence[str]) -> list[UPath]:
        return [UPath(path) for pattern in patterns for path in sorted(directory.glob(pattern))]

    tables: list[LabelTable] = []
    for path in files(_TABLES):
        if (read_labels := detect_kind(path).read_labels) is not None:
            tables += read_labels(path)
    labels = LabelIndex(tables)
    spectra: list[Spectrum] = []
    for path in files(_SPECTRA):
        try:
            kind = detect_kind(path)
        except SourceError as error:
            raise IngestError(error.in_file(path)) from error
        if (read_spectra := kind.read_spectra) is not None:
            spectra += read_spectra([path], labels)
    return _one_per_object([s for s in spectra if s.trusted and s.object_class and np.isfinite(s.z)])


def _one_per_object(spectra: Sequence[Spectrum]) -> list[Spectrum]:
    """One spectrum per object: of visits within about 2 arcsec of each other, that of highest S/N."""
    best: dict[tuple[object, ...], Spectrum] = {}
    for spectrum in spectra:
        if np.isfinite(spectrum.ra):
            cosine = np.cos(np.radians(spectrum.dec))
            key: tuple[object, ...] = tuple(np.round([spectrum.dec * 1800.0, spectrum.ra * cosine * 1800.0]))
        else:
            key = (spectrum.survey, spectrum.source.rsplit("-", 1)[-1])
        if key not in best or spectrum.signal_to_noise > best[key].signal_to_noise:
            best[key] = spectrum
    return sorted(best.values(), key=lambda s: (s.survey, s.source))
