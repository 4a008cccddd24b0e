"""The contracts of the published OJALÁ: the columns of its catalogue under their published names."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from ojala.catalogs_schema.columns import flags, words
from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.ojala import CLASSES, PUBLISHED_NAMES
from ojala.catalogs_schema.photometry import KEY_COLUMNS


class PublishedFlag(enum.IntFlag):
    """Reasons not to trust a row of the published network. Bits are never reused for another meaning."""

    NO_BANDS = 1 << 0
    FEW_BANDS = 1 << 1
    BAND_REJECTED = 1 << 2
    NO_REFERENCE_BAND = 1 << 3
    NO_KRON_FLUX = 1 << 4
    ABSURD_INPUT = 1 << 5
    CLASS_UNCERTAIN = 1 << 6
    Z_NEGATIVE = 1 << 7
    OUT_OF_RANGE = 1 << 8
    INPUT_FLAGGED = 1 << 9
    NOT_PREDICTED = 1 << 10
    ERROR_UNTRAINED = 1 << 11
    NO_EBV = 1 << 12


FLAG_MEANINGS: Mapping[enum.IntFlag, str] = {
    PublishedFlag.NO_BANDS: "no input at all: the predictions are the same for all such rows",
    PublishedFlag.FEW_BANDS: "fewer than 10 of the 60 inputs",
    PublishedFlag.BAND_REJECTED: "a flux was given that is infinite, or too large for single precision: not "
    "read",
    PublishedFlag.NO_REFERENCE_BAND: "iSDSS is missing or not positive: no MAG_i; ratios are to the Kron "
    "flux where iSDSS is missing, and absent where that is missing too",
    PublishedFlag.NO_KRON_FLUX: "the Kron flux in iSDSS is missing: it counts as 0, and so do the line "
    "fluxes",
    PublishedFlag.ABSURD_INPUT: "a magnitude outside 5..35 (such as 99), or a ratio to iSDSS beyond 100 in "
    "modulus: read as a measurement, as published",
    PublishedFlag.CLASS_UNCERTAIN: "the most probable class has a probability below 0.7",
    PublishedFlag.Z_NEGATIVE: "Z_GAL is negative: kept as it is, and counted as 0 in the line fluxes",
    PublishedFlag.OUT_OF_RANGE: "a prediction is infinite and was set to null",
    PublishedFlag.INPUT_FLAGGED: "the photometry itself is flagged (flags > 3 or mask_flags != 0)",
    PublishedFlag.NOT_PREDICTED: "the network gave no finite answer: predictions are null, CLASS says "
    "GALAXY and the line fluxes are 0, as published",
    PublishedFlag.ERROR_UNTRAINED: "an error of a quantity of the most probable class is outside of the "
    "limits that the training kept to, and has no meaning",
    PublishedFlag.NO_EBV: "the fluxes were to be corrected for extinction, but E(B-V) is missing or outside "
    "0..5 mag",
}
"""One sentence per bit."""

_T3 = (
    "scale of a Student-t distribution with 3 degrees of freedom: 1.197 times it is the half-width of the "
    "central 68.3 % interval, sqrt(3) times it the standard deviation; label errors are taken out"
)
_GAUSSIAN = "standard deviation of a Gaussian; label errors are taken out"

# Name: unit, UCD, meaning.
_QUANTITIES: dict[str, tuple[str, str, str]] = {
    "HALPHA_CONT": (
        "",
        "phot.flux.density;em.opt;arith.ratio",
        "observed f_lambda at H alpha over f_lambda in iSDSS",
    ),
    "HBETA_CONT": (
        "",
        "phot.flux.density;em.opt;arith.ratio",
        "observed f_lambda at H beta over f_lambda in iSDSS",
    ),
    "Z_GAL": ("", "src.redshift.phot", "redshift if a galaxy; can be negative"),
    "Z_QSO": ("", "src.redshift.phot", "redshift if a quasar; can be negative"),
    "HBETA_4861_EW": (
        "Angstrom",
        "spect.line.eqWidth;em.line.Hbeta",
        "rest-frame equivalent width of H beta",
    ),
    "HALPHA_6562_EW": (
        "Angstrom",
        "spect.line.eqWidth;em.line.Halpha",
        "rest-frame equivalent width of H alpha",
    ),
    "OIII_5007_EW": ("Angstrom", "spect.line.eqWidth", "rest-frame equivalent width of [O III] 5007"),
    "NII_6584_EW": ("Angstrom", "spect.line.eqWidth", "rest-frame equivalent width of [N II] 6584"),
    "LOGM": ("", "phys.mass", "log10 of the stellar mass in solar masses, if a galaxy"),
    "LOGSFR": ("", "phys.SFR", "log10 of the star-formation rate in solar masses a year, if a galaxy"),
    "TEFF": ("K", "phys.temperature.effective", "effective temperature, if a star"),
    "LOGG": ("", "phys.gravity", "log10 of the surface gravity in cm/s2, if a star"),
    "ALPHAFE": ("", "phys.abund", "[alpha/Fe] in dex, if a star"),
    "FEH": ("", "phys.abund.Fe", "[Fe/H] in dex, if a star"),
}
_LINES = {"HALPHA": "H alpha", "HBETA": "H beta", "OIII5007": "[O III] 5007", "NII6584": "[N II] 6584"}

QUANTITIES: tuple[str, ...] = tuple(_QUANTITIES)
"""Predicted quantities in the published order; each has an ``_ERR``."""

_SPECTRAL, _PROPERTIES = QUANTITIES[:8], QUANTITIES[8:]
_PROBABILITIES = tuple(f"P_{name}" for name in CLASSES)
_DERIVED = (
    *(f"FLUX_{line}{part}" for line in _LINES for part in ("", "_ERR")),
    "HA_HB_RATIO",
    "L_HALPHA_CORR",
    "LOGSFR_HA",
    "LOGSFR_HA_ERR",
)

PUBLISHED_ORDER: tuple[str, ...] = (
    *_SPECTRAL,
    *(f"{name}_ERR" for name in QUANTITIES),
    *_PROBABILITIES,
    *(f"{name}{part}" for name in _PROPERTIES for part in ("", "_ERR")),
    "CLASS",
    *_PROBABILITIES,
    *_DERIVED,
)
"""The 53 columns that the authors' script adds, in its order; nine names come twice, with equal content."""

DISTINCT: tuple[str, ...] = tuple(dict.fromkeys(PUBLISHED_ORDER))
"""The 44 distinct ones, each where it comes first."""


def _columns() -> tuple[Column, ...]:
    single, double = pa.float32(), pa.float64()
    found: dict[str, Column] = {}
    for name, (unit, ucd, what) in _QUANTITIES.items():
        error = _GAUSSIAN if name.startswith("Z_") else _T3
        found[name] = Column(name, single, unit, ucd, f"{what}; given for every object, whatever its class")
        found[f"{name}_ERR"] = Column(
            f"{name}_ERR", single, unit, f"stat.error;{ucd}", f"error of {name}: {error}", minimum=0.0
        )
    for name in CLASSES:
        what = f"probability of being a {name.lower()}; not calibrated"
        found[f"P_{name}"] = Column(
            f"P_{name}", single, "", "stat.probability;src.class", what, minimum=0.0, maximum=1.0
        )
    found["CLASS"] = words(
        "CLASS", "most probable class; GALAXY where nothing is predicted, as published", CLASSES
    )
    flux = "line flux from equivalent width, continuum, redshift and the Kron flux in iSDSS"
    for line, label in _LINES.items():
        ucd = {"HALPHA": "phot.flux;em.line.Halpha", "HBETA": "phot.flux;em.line.Hbeta"}.get(
            line, "phot.flux"
        )
        found[f"FLUX_{line}"] = Column(
            f"FLUX_{line}", double, "mW.m**-2", ucd, f"{label} {flux}; 1 mW.m**-2 = 1 erg.s**-1.cm**-2"
        )
        found[f"FLUX_{line}_ERR"] = Column(
            f"FLUX_{line}_ERR",
            double,
            "mW.m**-2",
            f"stat.error;{ucd}",
            f"error of FLUX_{line} from the _ERR of continuum and equivalent width, taken as Gaussian, and "
            f"of Z_GAL; that of the iSDSS flux is left out",
            minimum=0.0,
        )
    found["HA_HB_RATIO"] = Column(
        "HA_HB_RATIO", double, "", "phot.flux;arith.ratio", "FLUX_HALPHA / FLUX_HBETA; can be negative"
    )
    found["L_HALPHA_CORR"] = Column(
        "L_HALPHA_CORR",
        double,
        "10**-7W",
        "phys.luminosity;em.line.Halpha",
        "H alpha luminosity [erg/s] corrected for internal dust (Balmer decrement above 2.86, exponent "
        "2.615; Planck 2018); null unless flux and ratio are positive and Z_GAL is not negative",
    )
    found["LOGSFR_HA"] = Column(
        "LOGSFR_HA",
        double,
        "",
        "phys.SFR",
        "log10 of the star-formation rate in solar masses a year, 7.9e-42 L_HALPHA_CORR",
    )
    found["LOGSFR_HA_ERR"] = Column(
        "LOGSFR_HA_ERR",
        double,
        "",
        "stat.error;phys.SFR",
        "error of LOGSFR_HA; also where the flux is not positive and LOGSFR_HA is null",
        minimum=0.0,
    )
    return tuple(found[name] for name in DISTINCT)


_DESCRIPTION = (
    "One row for each row of the photometry, with the numbers that the network and weights published with "
    "arXiv:2604.00661 give for it, under the published names; the columns that the authors' file has twice "
    "are here once. The published way is kept where it is at fault: {bias}; log variances are not clipped to "
    "the limits of the training; _ERR of quantities other than redshifts is the scale of a Student-t "
    "distribution; magnitudes such as 99 and 0 are read as measurements; a row without a finite answer is a "
    "GALAXY with line fluxes 0; errors of line fluxes leave out that of iSDSS and take equivalent widths as "
    "Gaussian; a negative Z_GAL is kept but counts as 0 in line fluxes. Errors of the photometry are not "
    "read. The flags tell rows that should not be trusted. L_HALPHA_CORR and LOGSFR_HA are those of the "
    "script's version that the published catalogue fits (commit a92c88a). Not settled by what is published, "
    "and chosen by --option: whether fluxes are corrected for Galactic extinction (extinction=keep, the "
    "default, or correct), the aperture of MAG_i (mag_i=aperture, that of the narrow bands, or kron), and "
    "the wavelengths by which f_nu became f_lambda (wavelengths=pivot or archive; archive is for fluxes of "
    "FNuDualObj). WISE magnitudes are AB magnitudes of the photometry's W1 and W2."
)

_COMMON_NAMES: Mapping[str, str] = {
    "class": "CLASS",
    "flags": "published_flags",
    **{
        ours: theirs
        for published, name in PUBLISHED_NAMES.items()
        for theirs, ours in ((published, name), (f"{published}_ERR", f"{name}_err"))
        if theirs in DISTINCT and published not in ("CLASS", "L_HALPHA_CORR")  # ours is the logarithm
    },
}

OJALA_PUBLISHED = Contract(
    name="ojala_published",
    version="2.0.0",
    title="Published OJALA",
    description=_DESCRIPTION.format(
        bias="the wavelength bias of the training is left out at inference (ojala_published_bias has it)"
    ),
    columns=(*KEY_COLUMNS, *_columns(), flags("published")),
    flag_meanings=FLAG_MEANINGS,
    column_names=_COMMON_NAMES,
)
"""The published catalogue's columns as the published inference makes them."""

OJALA_PUBLISHED_BIAS = replace(
    OJALA_PUBLISHED,
    name="ojala_published_bias",
    title="Published OJALA with its wavelength bias",
    description=_DESCRIPTION.format(
        bias="only the wavelength bias of the training, which the published inference leaves out, is added "
        "here"
    ),
)
"""The same with the wavelength bias of the training in the encoder."""
