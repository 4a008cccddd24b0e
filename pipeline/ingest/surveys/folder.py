"""All spectra under a folder, each object once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from upath import UPath

from ojala.pipeline.ingest.surveys.collection import read_collection
from ojala.pipeline.ingest.surveys.desi import read_desi
from ojala.pipeline.ingest.surveys.label_tables import KnownObjects, read_desi_tables
from ojala.pipeline.ingest.surveys.lamost import read_lamost
from ojala.pipeline.ingest.surveys.sdss import read_sdss
from ojala.pipeline.ingest.surveys.spectrum import Spectrum


def read_folder(directory: Path) -> list[Spectrum]:
    """Read every spectrum under a folder with ``sdss``, ``lamost``, ``desi`` and ``more_spectra.parquet``.

    Returns
    -------
    list of Spectrum
        Those with a trusted class and redshift, one per object: of repeated visits, that of the highest
        signal to noise. Sorted by survey and source.
    """

    def found(pattern: str) -> list[UPath]:
        return [UPath(path) for path in sorted(directory.glob(pattern))]

    spectra = [read_sdss(path) for path in found("sdss/spec-*.fits*")]
    spectra += [read_lamost(path) for path in found("lamost/spec-*.fits*")]
    patterns = ("desi/**/QSO_cat_*.fits*", "desi/**/redrock-*.fits*")
    objects = KnownObjects(
        t for pattern in patterns for path in found(pattern) for t in read_desi_tables(path)
    )
    for path in found("desi/**/coadd-*.fits*"):
        spectra += read_desi(path, objects)
    for path in found("more_spectra.parquet"):
        spectra += read_collection(path)
    return _each_once([s for s in spectra if s.trusted and s.object_class and np.isfinite(s.z)])


def _each_once(spectra: Sequence[Spectrum]) -> list[Spectrum]:
    """One spectrum per object: of visits within about 2 arcsec of each other, that of highest S/N."""
    best: dict[tuple[object, ...], tuple[float, Spectrum]] = {}
    for spectrum in spectra:
        if np.isfinite(spectrum.ra):
            place = (
                np.round(spectrum.dec * 1800.0),
                np.round(spectrum.ra * np.cos(np.radians(spectrum.dec)) * 1800.0),
            )
            key: tuple[object, ...] = place
        else:
            key = (spectrum.survey, spectrum.source.rsplit("-", 1)[-1])
        quality = spectrum.signal_to_noise
        if key not in best or quality > best[key][0]:
            best[key] = (quality, spectrum)
    return sorted((spectrum for _, spectrum in best.values()), key=lambda s: (s.survey, s.source))
