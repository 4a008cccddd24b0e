"""The contract of a spectra catalogue: one row is one observed spectrum on its own wavelengths.

The four arrays of a spectrum are lists of single-precision numbers, one list a row: spectra of all surveys
stand in one table without padding, and lsdb, DuckDB, Polars and pandas read lists as lists, astropy (format
``parquet``) as a column of arrays. A list of a fixed size, which astropy's ``parquet.votable`` could read as
well, would have to pad each spectrum to the longest.
"""

from __future__ import annotations

import functools

import pyarrow as pa

from ojala.catalogs_schema.bands import BY_NAME, Band
from ojala.catalogs_schema.columns import measured, words
from ojala.catalogs_schema.contract import NONE, Column, Contract
from ojala.catalogs_schema.ojala import CLASSES, LINES, Z_MAX
from ojala.catalogs_schema.photometry import KEY_COLUMNS

SURVEYS: tuple[str, ...] = (
    *("SDSS", "DESI", "LAMOST", "GALAH", "APOGEE", "VIPERS"),
    *("ESO", "TEMPLATE", "OTHER"),
)
"""Where spectra come from; ESO stands for phase-3 spectra of its archive, TEMPLATE for models and libraries
of templates, OTHER for what readers outside of this program read."""

SPECTRUM_CLASSES: tuple[str, ...] = (NONE, *CLASSES)
"""Classes of spectra; NONE where the survey gives none."""

ARRAYS: tuple[str, ...] = ("wavelength", "flux", "ivar", "mask")
"""The columns that hold lists, all of one length in a row."""

IMAGING_BANDS: tuple[Band, ...] = tuple(BY_NAME[name] for name in ("ls_g", "ls_r", "ls_z", "W1", "W2"))
"""Bands in which a spectroscopic survey hands on the fluxes of its targets."""

KEY_NAMES: tuple[str, ...] = ("_healpix_29", "object_id", "primary_id", "ra", "dec")
"""Columns that every product of spectra takes over from them."""

_HEALPIX, _, _, _, _RA, _DEC = KEY_COLUMNS


_label = functools.partial(measured, error="standard error")


def _list(name: str, element: pa.DataType, unit: str, ucd: str, what: str) -> Column:
    kind = pa.list_(pa.field("element", element, nullable=False))
    return Column(name, kind, unit, ucd, what, nullable=False)


def _text(name: str, ucd: str, what: str) -> Column:
    return Column(name, pa.string(), "", ucd, f"{what}; {NONE} where there is none", nullable=False)


def _imaging(band: Band) -> tuple[Column, Column]:
    em = "em.IR" if band.name in ("W1", "W2") else "em.opt"
    return _label(
        band.flux_column,
        "uJy",
        f"phot.flux.density;{em}",
        f"total flux density f_nu (AB) of the target in {band.system} {band.name}",
    )


LABELS: tuple[Column, ...] = (
    *_label("log_mass", "", "phys.mass", "log10 of the living stellar mass [Msun], Kroupa IMF", 2.0, 14.0),
    *_label("log_sfr", "", "phys.SFR", "log10 of the star-formation rate [Msun/yr], Kroupa IMF", -10.0, 6.0),
    *(
        column
        for line, label, ucd in LINES
        for column in _label(
            f"ew_{line}",
            "Angstrom",
            ucd,
            f"rest-frame equivalent width of {label}, positive in emission",
            -100.0,
            10000.0,
        )
    ),
    *_label("teff", "K", "phys.temperature.effective", "effective temperature", 1000.0, 200000.0),
    *_label("logg", "", "phys.gravity", "log10 of the surface gravity in cm s-2", -2.0, 10.0),
    *_label("fe_h", "", "phys.abund.Fe", "iron abundance [Fe/H]", -6.0, 2.0),
    *_label("alpha_fe", "", "phys.abund", "abundance of alpha elements [alpha/Fe]", -2.0, 3.0),
    *_label("log_mbh", "", "phys.mass", "log10 of the black-hole mass [Msun]", 3.0, 13.0),
)
"""Labels and their errors, defined as the quantities of the value-added catalogue."""

LABEL_NAMES: tuple[str, ...] = tuple(c.name for c in LABELS if not c.name.endswith("_err"))
"""The labels without their errors."""

SPECTRA = Contract(
    name="spectra",
    version="1.2.0",
    title="Spectra",
    description=(
        "One row is one spectrum as its survey coadded it, on its own wavelengths, not corrected for "
        "Galactic extinction. Repeated visits are rows of their own: `primary_id` names the best spectrum of "
        "the same object, so that `object_id = primary_id` picks each object once. Labels come from the "
        "surveys' value-added tables and are null where these say nothing. A spectrum without a position (a "
        "template) has null `ra` and `dec`, and its `_healpix_29` is made from its name."
    ),
    columns=(
        _HEALPIX,
        Column(
            "object_id",
            pa.int64(),
            "",
            "meta.id;meta.main",
            "key of the spectrum: the first 63 bits of the SHA-256 of survey/source_id",
            nullable=False,
            minimum=0,
        ),
        Column("survey", pa.string(), "", "meta.id;instr.obsty", "survey", nullable=False, allowed=SURVEYS),
        _text("source_id", "meta.id", "name of the spectrum in its survey"),
        _text("target_id", "meta.id;src", "the survey's name of the object, the same for all its visits"),
        Column(
            "primary_id",
            pa.int64(),
            "",
            "meta.id.cross",
            "object_id of the best spectrum of the same "
            "object: that of the highest snr of those within 2 arcsec or with the same target_id",
            nullable=False,
            minimum=0,
        ),
        Column(
            "n_spectra",
            pa.int32(),
            "",
            "meta.number",
            "spectra of the same object, this one included",
            nullable=False,
            minimum=1,
        ),
        Column("ra", _RA.type, _RA.unit, _RA.ucd, _RA.description, minimum=0.0, maximum=360.0),
        Column("dec", _DEC.type, _DEC.unit, _DEC.ucd, _DEC.description, minimum=-90.0, maximum=90.0),
        _list("wavelength", pa.float32(), "Angstrom", "em.wl", "vacuum wavelength of each pixel, increasing"),
        _list(
            "flux",
            pa.float32(),
            "10**-20.W.m**-2.Angstrom**-1",
            "phot.flux.density;em.wl",
            "flux density f_lambda, 1e-17 erg/s/cm2/Angstrom; arbitrary scale where relative_flux; 0 where "
            "it was not a number",
        ),
        _list(
            "ivar",
            pa.float32(),
            "10**40.W**-2.m**4.Angstrom**2",
            "stat.weight;phot.flux.density",
            "inverse variance of flux; 0 where the pixel must not be used",
        ),
        _list(
            "mask", pa.int32(), "", "meta.code.qual", "the survey's own mask bits of each pixel; 0 is good"
        ),
        Column(
            "relative_flux",
            pa.bool_(),
            "",
            "meta.code",
            "whether flux has an arbitrary scale",
            nullable=False,
        ),
        Column(
            "snr", pa.float32(), "", "stat.snr", "median signal to noise of the usable pixels", nullable=False
        ),
        words("class", f"class in the survey; {NONE} where not known", SPECTRUM_CLASSES),
        _text("subclass", "src.class", "the survey's subclass"),
        Column(
            "z", pa.float32(), "", "src.redshift", "spectroscopic redshift", minimum=-0.1, maximum=2 * Z_MAX
        ),
        Column("z_err", pa.float32(), "", "stat.error;src.redshift", "standard error of z", minimum=0.0),
        Column(
            "trusted",
            pa.bool_(),
            "",
            "meta.code.qual",
            "whether the survey had no doubt about class and redshift",
            nullable=False,
        ),
        Column("ebv", pa.float32(), "mag", "phot.color.excess", "Galactic E(B-V), SFD98 scale", minimum=0.0),
        *(column for band in IMAGING_BANDS for column in _imaging(band)),
        *LABELS,
    ),
)
"""Spectra of a survey, one row each."""

SPECTRA_KEYS: tuple[Column, ...] = tuple(SPECTRA[name] for name in KEY_NAMES)
"""Key and position, shared by all products of spectra."""
