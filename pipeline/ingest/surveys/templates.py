"""Templates as spectra: stellar atmospheres and tables of wavelength and flux.

Templates have no noise. Their inverse variance corresponds to an error of one per cent, so that they can be
read together with observed spectra.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
from astropy.io import fits
from upath import UPath

from ojala.models.simulation.wavelength_grid import to_vacuum
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.fits import open_hdus
from ojala.pipeline.ingest.formats.table import opened
from ojala.pipeline.ingest.surveys.hdus import column_names, read_columns
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex
from ojala.pipeline.ingest.surveys.reader import reader
from ojala.pipeline.ingest.surveys.spectrum import Spectrum, double

EXPECTED = (
    "a ck04 atmosphere (a table with WAVELENGTH and g00 .. g50, TEFF and LOG_Z in the header) or a template "
    "as text with two columns of numbers, wavelength [Angstrom] and flux"
)

ERROR = 0.01
"""Relative error of a template, given as its inverse variance."""

_BLUE, _RED = 900.0, 60000.0  # wavelength range [Angstrom]: from the Lyman limit to beyond W2
_GRAVITY = re.compile(r"G\d\d")
_SPECTRAL_TYPE = re.compile(r"[rw]?([obafgkm]\d*(i|ii|iii|iv|v)|wd.*)$")


def is_atmosphere(hdus: fits.HDUList) -> bool:
    """Whether a file is a node of the ck04 grid."""
    if len(hdus) < 2 or not isinstance(hdus[1], fits.BinTableHDU) or "TEFF" not in hdus[0].header:
        return False
    names = column_names(hdus[1])
    return "WAVELENGTH" in names and any(_GRAVITY.fullmatch(name) for name in names)


@reader("ck04 atmosphere", EXPECTED, fits=is_atmosphere)
def read_atmosphere(path: UPath, labels: LabelIndex | None = None) -> Iterator[Spectrum]:
    """Read the spectra of a node of the Castelli & Kurucz (2004) grid, one for each gravity it has.

    Raises
    ------
    SourceError
        The file is no such node.
    """
    with open_hdus(path) as hdus:
        if not is_atmosphere(hdus):
            raise SourceError(f"is no stellar atmosphere: expected {EXPECTED}")
        header = hdus[0].header
        teff, m_h = float(header["TEFF"]), float(header["LOG_Z"])
        gravities = [name for name in column_names(hdus[1]) if _GRAVITY.fullmatch(name)]
        columns = read_columns(hdus[1], ("WAVELENGTH", *gravities))
    stem = path.name.split(".fits")[0]
    for name in gravities:
        if columns[name].any():  # gravities outside the grid stand as zeros
            known = {"teff": (teff, np.nan), "logg": (int(name[1:]) / 10.0, np.nan), "fe_h": (m_h, np.nan)}
            yield _template(f"{stem}-{name.lower()}", columns["WAVELENGTH"], columns[name], "STAR", known)


def is_template_text(head: bytes) -> bool:
    """Whether the first bytes of a file are text with two columns of numbers."""
    lines = [
        line
        for line in head.decode(errors="replace").splitlines()[:-1]
        if line.strip() and not line.lstrip().startswith("#")
    ]
    try:
        return len(lines) > 2 and all(len([float(word) for word in line.split()]) == 2 for line in lines)
    except ValueError:
        return False


@reader("template", EXPECTED, head=is_template_text)
def read_template_text(path: UPath, labels: LabelIndex | None = None) -> Spectrum:
    """Read a template from text: wavelength in air [Angstrom] and f_lambda.

    A name that is a spectral type (``g2v``, ``wdgd71``) makes it a star; others have no class.

    Raises
    ------
    SourceError
        A line does not hold two numbers, or wavelengths do not increase.
    """
    with opened(path) as raw:
        text = raw.read().decode(errors="replace")
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#")[0].split()
        if words:
            try:
                wavelength, flux = map(float, words)
            except ValueError:
                raise SourceError(
                    f"holds {line.strip()!r}, expected wavelength and flux", row=number
                ) from None
            rows.append((wavelength, flux))
    wavelength, flux = np.array(rows, np.float64).T
    if (np.diff(wavelength) < 0).any():
        raise SourceError("has wavelengths that do not increase", column="wavelength")
    stem = path.name.split(".")[0]
    star = _SPECTRAL_TYPE.match(stem.lower()) is not None
    return _template(
        path.name.removesuffix(".gz"),
        to_vacuum(wavelength),
        flux,
        "STAR" if star else "",
        {},
        subclass=stem if star else "",
        target=stem,
    )


def _template(
    source: str,
    wavelength: np.ndarray,
    flux: np.ndarray,
    object_class: str,
    labels: Mapping[str, tuple[float, float]],
    subclass: str = "",
    target: str = "",
) -> Spectrum:
    kept = (wavelength > _BLUE) & (wavelength < _RED) & np.r_[True, np.diff(wavelength) > 0.0]
    level = double(flux[kept])
    level = level / max(np.median(level), np.finfo(np.float32).tiny)
    return Spectrum(
        source=source,
        survey="TEMPLATE",
        wavelength=double(wavelength[kept]),
        flux=level,
        ivar=(ERROR * np.maximum(np.abs(level), 0.01)) ** -2.0,
        object_class=object_class,
        subclass=subclass,
        z=0.0 if object_class == "STAR" else np.nan,
        trusted=bool(object_class),
        ra=np.nan,
        dec=np.nan,
        labels=labels,
        target=target or source,
        relative=True,
    )
