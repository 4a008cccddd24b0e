"""APOGEE spectra: combined spectra (apStar), normalised ones (aspcapStar), and the table allStar.

Both are at rest and in vacuum, on one grid even in log10(wavelength).
"""

from __future__ import annotations

import re

import numpy as np
from astropy.io import fits
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.fits import open_hdus
from ojala.pipeline.ingest.surveys.hdus import column_names, read_columns
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex, LabelTable, sorted_table
from ojala.pipeline.ingest.surveys.reader import label_reader, reader
from ojala.pipeline.ingest.surveys.spectrum import Labels, Spectrum, double, name_key

EXPECTED = "an APOGEE spectrum (apStar or aspcapStar: images of flux and error with CRVAL1 near 4.18)"
EXPECTED_TABLE = "APOGEE's table allStar (APOGEE_ID, TEFF, LOGG and M_H)"

BAD_PIXEL = 0xFF | 1 << 14
"""Bits of apStar's mask of pixels that must not be used (APOGEE_PIXMASK 0 to 7, and 14)."""

BAD_STAR = 1 << 0 | 1 << 3 | 1 << 4 | 1 << 9 | 1 << 16 | 1 << 17
"""Bits of STARFLAG of doubtful spectra: bad pixels, a bright neighbour, low S/N, persistence, odd lines."""

_NO_ERROR = 1e8  # the pipeline gives bad pixels an error of 1e10
_NAME = re.compile(r"2M\d{8}[+-]\d{7}")
_PARAM = {"teff": 0, "logg": 1, "fe_h": 3, "alpha_fe": 6}
_TABLE = {"teff": "TEFF", "logg": "LOGG", "fe_h": "FE_H", "alpha_fe": "ALPHA_M"}
_NEEDED = {"APOGEE_ID", "TEFF", "LOGG", "M_H"}


def is_apogee(hdus: fits.HDUList) -> bool:
    """Whether a file is a combined or a normalised spectrum of APOGEE."""
    if len(hdus) < 3 or not all(isinstance(hdu, fits.ImageHDU) for hdu in hdus[1:3]):
        return False
    header = hdus[1].header
    return "CDELT1" in header and 4.1 < float(header.get("CRVAL1", 0.0)) < 4.3


@reader("APOGEE spectrum", EXPECTED, fits=is_apogee)
def read_apogee(path: UPath, labels: LabelIndex | None = None) -> Spectrum:
    """Read the combined spectrum of an apStar file, or a normalised one of an aspcapStar file.

    The latter has a relative scale. Parameters are those of allStar, or else of aspcapStar. The redshift is
    0: the spectrum is at rest.

    Raises
    ------
    SourceError
        The file is no such spectrum.
    """
    with open_hdus(path) as hdus:
        if not is_apogee(hdus):
            raise SourceError(f"is no APOGEE spectrum: expected {EXPECTED}")
        flux, error = (double(np.atleast_2d(hdus[number].data)[0]) for number in (1, 2))
        header, grid = hdus[0].header, hdus[1].header
        combined = "NVISITS" in header
        bits = np.atleast_2d(hdus[3].data)[0].astype(np.int32) if combined and len(hdus) > 3 else None
        own = _parameters(hdus)
    wavelength = 10.0 ** (
        grid["CRVAL1"] + (np.arange(len(flux)) + 1.0 - grid.get("CRPIX1", 1.0)) * grid["CDELT1"]
    )
    named = _NAME.search(path.name)
    name = str(header.get("OBJID", "")).strip() or (named[0] if named else path.name.split(".fits")[0])
    key = np.array([name_key(name)])
    index = labels or LabelIndex()
    found = index.lookup("APOGEE", key)[0] or Labels(trusted=not int(header.get("STARFLAG", 0)) & BAD_STAR)
    ra, dec = index.positions("APOGEE", key)
    usable = (error > 0.0) & (error < _NO_ERROR) & np.isfinite(flux)
    if bits is not None:
        usable &= (bits & BAD_PIXEL) == 0
    return Spectrum(
        source=path.name.split(".fits")[0],
        survey="APOGEE",
        wavelength=wavelength,
        flux=flux,
        ivar=np.where(usable, np.where(usable, error, 1.0) ** -2.0, 0.0),
        object_class="STAR",
        subclass="",
        z=0.0,
        trusted=found.trusted,
        ra=float(header.get("RA", ra[0])),
        dec=float(header.get("DEC", dec[0])),
        labels=found.labels or own,
        mask=bits,
        target=name,
        relative=not combined,
    )


def _parameters(hdus: fits.HDUList) -> dict[str, tuple[float, float]]:
    """Parameters of an aspcapStar file."""
    for hdu in hdus:
        if isinstance(hdu, fits.BinTableHDU) and "PARAM" in column_names(hdu):
            values = read_columns(hdu, ("PARAM",))["PARAM"].ravel()
            chosen = {name: float(values[at]) for name, at in _PARAM.items() if at < len(values)}
            return {name: (value, np.nan) for name, value in chosen.items() if value > -999.0}
    return {}


def is_allstar(hdus: fits.HDUList) -> bool:
    """Whether a file is APOGEE's table of all stars."""
    return len(hdus) > 1 and isinstance(hdus[1], fits.BinTableHDU) and set(column_names(hdus[1])) >= _NEEDED


@label_reader("APOGEE catalogue", EXPECTED_TABLE, fits=is_allstar)
def read_allstar(path: UPath) -> LabelTable:
    """Read positions and parameters by APOGEE_ID; of several rows of a star the one with EXTRATARG 0.

    Raises
    ------
    SourceError
        The file is no such table.
    """
    with open_hdus(path) as hdus:
        if not is_allstar(hdus):
            raise SourceError(f"is no table allStar: expected {EXPECTED_TABLE}")
        wanted = ("APOGEE_ID", "RA", "DEC", "EXTRATARG", "STARFLAG", "ASPCAPFLAG", "M_H", "M_H_ERR")
        names = [f"{name}{end}" for name in _TABLE.values() for end in ("", "_ERR")]
        raw = read_columns(hdus[1], (*wanted, *names))
    n = len(raw["APOGEE_ID"])
    columns: dict[str, np.ndarray] = {"class": np.full(n, "STAR")}
    for ours, theirs in _TABLE.items():
        theirs = theirs if theirs in raw else {"FE_H": "M_H"}.get(theirs, theirs)
        for end in ("", "_ERR"):
            if f"{theirs}{end}" in raw:
                values = double(raw[f"{theirs}{end}"])
                columns[f"{ours}{end.lower()}"] = np.where(values > -999.0, values, np.nan)
    columns |= {axis.lower(): double(raw[axis]) for axis in ("RA", "DEC") if axis in raw}
    flags = raw.get("STARFLAG", np.zeros(n, np.int64)).astype(np.int64)
    columns["trusted"] = (flags & BAD_STAR) == 0
    main = raw.get("EXTRATARG", np.zeros(n, np.int64)) == 0
    keys = np.array([name_key(str(name)) for name in raw["APOGEE_ID"]], np.int64)
    return sorted_table("APOGEE", 0, keys, columns, main.astype(int))
