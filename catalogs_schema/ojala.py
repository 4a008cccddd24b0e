"""The contracts of OJALA's value-added catalogue, of its vectors and of its predicted bands."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping

import pyarrow as pa

from ojala.catalogs_schema.bands import MODEL_BANDS, Band, System
from ojala.catalogs_schema.columns import (
    class_columns,
    count,
    flags,
    measured,
    number,
    probability,
    vector,
    words,
)
from ojala.catalogs_schema.contract import NONE, Column, Contract
from ojala.catalogs_schema.photometry import KEY_COLUMNS


class Flag(enum.IntFlag):
    """Flags of a row. Bits are never reused for another meaning."""

    NO_BANDS = 1 << 0
    FEW_BANDS = 1 << 1
    BAND_REJECTED = 1 << 2
    NO_REFERENCE_BAND = 1 << 3
    NO_EBV = 1 << 4
    FAINT = 1 << 5
    CLASS_UNCERTAIN = 1 << 6
    Z_MULTIMODAL = 1 << 7
    OUT_OF_RANGE = 1 << 8
    INPUT_FLAGGED = 1 << 9
    NOT_PREDICTED = 1 << 10
    NOVEL = 1 << 11


FLAG_MEANINGS: Mapping[enum.IntFlag, str] = {
    Flag.NO_BANDS: "no usable band at all: nothing is predicted, every prediction is null",
    Flag.FEW_BANDS: "fewer than 10 usable bands: the answer leans on the prior",
    Flag.BAND_REJECTED: "at least one band was given but cannot be used (flux not finite or above 1e9 uJy in "
    "modulus, error not finite, zero or negative) and was treated as not observed",
    Flag.NO_REFERENCE_BAND: "iSDSS is missing or not positive: no line fluxes and luminosities",
    Flag.NO_EBV: "Galactic E(B-V) is missing or not plausible (outside 0..5 mag) and was taken as zero",
    Flag.FAINT: "median signal-to-noise ratio of the usable bands below 1",
    Flag.CLASS_UNCERTAIN: "the most probable class has a probability below 0.7",
    Flag.Z_MULTIMODAL: "a second mode holds at least 20 % of the redshift PDF",
    Flag.OUT_OF_RANGE: "a prediction fell outside its column's range and was set to null",
    Flag.INPUT_FLAGGED: "the photometry itself is flagged (flags > 3 or mask_flags != 0)",
    Flag.NOT_PREDICTED: "the model gave no finite answer: every prediction is null",
    Flag.NOVEL: "novelty above 1: unlike what the model was trained on, so answers and errors may be wrong",
}
"""One sentence per bit."""


def names(mask: int) -> list[str]:
    """The names of the bits set in a mask, lowest bit first."""
    return [flag.name for flag in Flag if mask & flag and flag.name]


CLASSES: tuple[str, ...] = ("GALAXY", "STAR", "QSO")
"""Object classes; their index is the class code in labels and logits."""

BPT_CLASSES: tuple[str, ...] = (NONE, "SF", "COMPOSITE", "AGN")
WHAN_CLASSES: tuple[str, ...] = (NONE, "SF", "STRONG_AGN", "WEAK_AGN", "RETIRED")

MIN_CLASS_PROBABILITY = 0.01
"""Quantities of a class are given where the object's probability of that class is at least this."""

Z_MAX = 5.2
"""Upper end of the redshift grid."""

Z_QUANTILES = {"z_q02": 2.28, "z_q16": 15.87, "z_q50": 50.0, "z_q84": 84.13, "z_q98": 97.72}
"""Quantiles of the redshift PDF [percent]: the median, and one and two sigma of a Gaussian about it."""

PDF_BINS = 1825
"""Bins of a redshift PDF."""

PDF_STEP = 0.001
"""Width of those bins in ln(1 + z); the first begins at z = 0."""

PDF_MASS = 0.999
"""Least part of a redshift PDF that the stored bins hold."""

PDF_COLUMNS = {"GALAXY": "z_gal_pdf", "QSO": "z_qso_pdf"}
"""Columns of the redshift PDFs by class; those of their bins end in ``_bin``."""

PDF_GRID = {
    "grid": json.dumps({"quantity": "ln(1+z)", "start": 0.0, "step": PDF_STEP, "bins": PDF_BINS}),
    "mass": str(PDF_MASS),
}
"""Metadata of the columns of redshift PDFs: edge i of the bins is start + i step."""

EMBEDDING_WIDTH = 128
"""Length of the stored embedding."""

LINES: tuple[tuple[str, str, str], ...] = (
    ("hbeta", "H beta 4861", "spect.line.eqWidth;em.line.Hbeta"),
    ("oiii_5007", "[O III] 5007", "spect.line.eqWidth"),
    ("halpha", "H alpha 6563", "spect.line.eqWidth;em.line.Halpha"),
    ("nii_6584", "[N II] 6584", "spect.line.eqWidth"),
)

_CONDITIONAL = "given where p_{0} >= 0.01"


def _redshift(name: str, what: str, ucd: str = "src.redshift.phot") -> Column:
    return number(name, "", ucd, what, 0.0, Z_MAX)


def _lines() -> tuple[Column, ...]:
    columns: list[Column] = []
    for name, label, ucd in LINES:
        columns += measured(
            f"ew_{name}",
            "Angstrom",
            ucd,
            f"rest-frame equivalent width of {label}, positive in emission; {_CONDITIONAL.format('galaxy')}",
            -100.0,
            10000.0,
        )
    for name, label, _ in LINES:
        if name in ("hbeta", "halpha"):
            columns += measured(
                f"cont_{name}",
                "",
                "phot.flux.density;em.opt;arith.ratio",
                f"continuum f_lambda at {label} over f_lambda of iSDSS, both observed",
                0.0,
                100.0,
            )
    for name, label, ucd in LINES:
        columns += measured(
            f"f_{name}",
            "mW.m**-2",
            ucd.replace("spect.line.eqWidth", "phot.flux"),
            f"flux of {label}, corrected for Galactic extinction, not for internal dust; "
            "1 mW.m**-2 = 1 erg.s**-1.cm**-2",
        )
    return tuple(columns)


def _pdf(name: str, class_name: str) -> tuple[Column, Column]:
    """Bins of a redshift PDF that are stored, and their probabilities."""
    ucd = "stat.probability;src.redshift.phot"
    probability = Column(
        name,
        pa.list_(pa.float16()),
        "",
        ucd,
        f"p(z | {class_name}): probability of each of the bins in {name}_bin",
        nullable=False,
        metadata=PDF_GRID,
    )
    numbers = f"numbers, ascending, of the bins of width 0.001 in ln(1 + z) that {name} gives"
    bins = Column(f"{name}_bin", pa.list_(pa.int16()), "", ucd, numbers, nullable=False, metadata=PDF_GRID)
    return bins, probability


def _band_comparison() -> tuple[Column, ...]:
    """Comparison of the bands with their predictions."""
    asked = "null where bands were not asked for"
    return (
        number(
            "chi2_bands",
            "",
            "stat.fit.chi2",
            "sum over n_chi2_bands bands of ((measured - predicted) / error)^2, each predicted from other "
            "bands (see ojala_bands), the error that of measurement and prediction in quadrature; "
            f"n_chi2_bands on average where errors are right; {asked}",
            0.0,
        ),
        Column(
            "n_chi2_bands",
            pa.int16(),
            "",
            "meta.number",
            f"number of bands in chi2_bands: usable ones that others predict; {asked}",
            minimum=0,
            maximum=len(MODEL_BANDS),
        ),
        Column(
            "worst_band",
            pa.string(),
            "",
            "instr.bandpass",
            f"band whose measurement is farthest from its prediction; {NONE} without any, or where bands "
            "were not asked for",
            nullable=False,
            allowed=(NONE, *(band.name for band in MODEL_BANDS)),
        ),
        number(
            "worst_band_sigma",
            "",
            "stat.value",
            f"(measured - predicted) / error of worst_band, with its sign; {asked}",
        ),
    )


OJALA = Contract(
    name="ojala",
    version="2.0.0",
    title="OJALA value-added catalogue",
    description=(
        "One row per row of the photometry, in a partition of the same name, whatever is wrong with the "
        "object; `ojala_flags` says what is. Null (NONE in text columns, NaN in vectors) means not predicted "
        "or without meaning for the object. Errors are half-widths of the central 68.3 % interval of the "
        "predictive distribution: one standard deviation where that is Gaussian. Probabilities and errors "
        "are calibrated on held-out mock objects where the weights hold a calibration. Quantities of a class "
        "are given where the probability of the class is at least 0.01, as if the object were of that class: "
        "select on the probability."
    ),
    columns=(
        *KEY_COLUMNS,
        *class_columns(CLASSES, "ojala_class"),
        _redshift("z", "redshift of the most probable class: mean of the PDF's highest mode; null for stars"),
        _redshift("z_err", "half of the difference of z_q84 and z_q16", "stat.error;src.redshift.phot"),
        *(
            _redshift(
                name,
                f"{percent} % quantile of the redshift PDF of the most probable class",
                "stat.value;src.redshift.phot",
            )
            for name, percent in Z_QUANTILES.items()
        ),
        probability("z_odds", "part of the redshift PDF within 0.03 (1 + z) of z", "src.redshift.phot"),
        _redshift("z_mode2", "redshift of the PDF's second mode; null where there is none"),
        probability("z_mode2_p", "part of the redshift PDF in its second mode", "src.redshift.phot"),
        _redshift("z_gal", f"redshift if a galaxy; {_CONDITIONAL.format('galaxy')}"),
        _redshift(
            "z_gal_err", "half of the central 68.3 % interval of z_gal", "stat.error;src.redshift.phot"
        ),
        _redshift("z_qso", f"redshift if a quasar; {_CONDITIONAL.format('qso')}"),
        _redshift(
            "z_qso_err", "half of the central 68.3 % interval of z_qso", "stat.error;src.redshift.phot"
        ),
        *measured(
            "log_mass",
            "",
            "phys.mass",
            f"log10 of the living stellar mass in solar masses (Kroupa IMF); {_CONDITIONAL.format('galaxy')}",
            4.0,
            13.5,
        ),
        *measured(
            "log_sfr",
            "",
            "phys.SFR",
            "log10 of the star-formation rate in solar masses a year, mean of the last 100 Myr; "
            f"{_CONDITIONAL.format('galaxy')}",
            -8.0,
            5.0,
        ),
        *_lines(),
        *measured("ha_hb_ratio", "", "phot.flux;arith.ratio", "flux ratio of H alpha to H beta", 0.0, 1e4),
        *measured(
            "log_l_halpha_corr",
            "",
            "phys.luminosity;em.line.Halpha",
            "log10 of the H alpha luminosity in erg/s, corrected for Galactic and internal dust "
            "(Balmer decrement)",
            30.0,
            48.0,
        ),
        *measured(
            "log_sfr_halpha",
            "",
            "phys.SFR",
            "log10 of the star-formation rate in solar masses a year from log_l_halpha_corr",
            -12.0,
            7.0,
        ),
        words("bpt_class", "class in the [N II] BPT diagram; NONE outside its selection", BPT_CLASSES),
        words("whan_class", "class in the WHAN diagram; NONE outside its selection", WHAN_CLASSES),
        *measured(
            "teff",
            "K",
            "phys.temperature.effective",
            f"effective temperature; {_CONDITIONAL.format('star')}",
            1000.0,
            100000.0,
        ),
        *measured(
            "logg",
            "",
            "phys.gravity",
            f"log10 of the surface gravity in cm/s2; {_CONDITIONAL.format('star')}",
            -2.0,
            10.0,
        ),
        *measured("fe_h", "", "phys.abund.Fe", f"[Fe/H] in dex; {_CONDITIONAL.format('star')}", -6.0, 2.0),
        *measured(
            "alpha_fe", "", "phys.abund", f"[alpha/Fe] in dex; {_CONDITIONAL.format('star')}", -1.5, 2.0
        ),
        *measured(
            "log_mbh",
            "",
            "phys.mass",
            f"log10 of the black-hole mass in solar masses; {_CONDITIONAL.format('qso')} and the model has a "
            "head for it",
            3.0,
            13.0,
        ),
        number(
            "novelty",
            "",
            "stat.value",
            "distance from what the model was trained on, among objects as bright: 1 is exceeded by 1 % of "
            "them; null where the model does not know",
            0.0,
        ),
        *_band_comparison(),
        count("n_bands", pa.int16(), "number of usable bands, of 63", 63),
        flags("ojala"),
    ),
    flag_meanings=FLAG_MEANINGS,
    column_names={"class": "ojala_class", "flags": "ojala_flags"},
    default_columns=(
        *(column.name for column in KEY_COLUMNS),
        *("ojala_class", "p_galaxy", "p_star", "p_qso"),
        *("z", "z_err", "z_odds", "z_gal", "z_qso"),
        *("log_mass", "log_mass_err", "log_sfr", "log_sfr_err", "bpt_class"),
        *("teff", "logg", "fe_h", "log_mbh"),
        *("novelty", "n_bands", "ojala_flags"),
    ),
)
"""The value-added catalogue."""

OJALA_VECTORS = Contract(
    name="ojala_vectors",
    version="2.0.0",
    title="OJALA vectors",
    description=(
        "The redshift PDFs and the embedding of each row of the value-added catalogue, apart from it since "
        "they are large. The PDFs are those from which z_gal and z_qso and their errors come, each given "
        "where the probability of its class is at least 0.01, empty elsewhere. Bin i (0 to 1824) covers "
        "ln(1 + z) from 0.001 i to 0.001 (i + 1). Only the most probable bins are stored, which hold 99.9 % "
        "of the mass; the others are zero: divide by the sum."
    ),
    columns=(
        *KEY_COLUMNS,
        *_pdf("z_gal_pdf", "galaxy"),
        *_pdf("z_qso_pdf", "quasar"),
        vector(
            "embedding",
            pa.float16(),
            EMBEDDING_WIDTH,
            "",
            "stat.fit.param",
            "the network's mean-pooled encoding of the photometry",
        ),
    ),
)
"""Vectors that belong to the value-added catalogue."""


def predicted_flux(band: Band) -> str:
    """Column of a band's predicted flux density [uJy]; that of its error ends in ``_err``."""
    return f"pred_{band.flux_column}"


def _predicted_band(band: Band) -> tuple[Column, Column]:
    part = "em.IR" if band.system is System.WISE else "em.opt"
    what = f"predicted flux density in {band.name} ({band.system}), Galactic extinction included"
    return measured(predicted_flux(band), "uJy", f"phot.flux.density;{part};stat.fit", what)


OJALA_BANDS = Contract(
    name="ojala_bands",
    version="1.0.0",
    title="OJALA predicted bands",
    description=(
        "The flux density that each of the 63 bands would measure without noise, as the network predicts it: "
        "on the scale of the row's own photometry, to compare with its `flux_*` band by band. A band that "
        "was measured is predicted without its measurement: the bands are hidden in eight groups of every "
        "eighth in the order of wavelength, and a hidden group is predicted from the rest. A band that was "
        "not measured is predicted from all that were. Null where no band was left to predict from. Errors "
        "are half-widths of the central 68.3 % interval of the predictive distribution, calibrated on "
        "held-out mock objects where the weights hold a calibration; the error of the measurement is not "
        "part of them."
    ),
    columns=(*KEY_COLUMNS, *(column for band in MODEL_BANDS for column in _predicted_band(band))),
)
"""Predicted bands that belong to the value-added catalogue."""

PUBLISHED_NAMES: dict[str, str] = {
    "TILE_ID": "tile_id",
    "NUMBER": "number",
    "ALPHA_J2000": "ra",
    "DELTA_J2000": "dec",
    "CLASS": "ojala_class",
    "P_GALAXY": "p_galaxy",
    "P_STAR": "p_star",
    "P_QSO": "p_qso",
    "Z_GAL": "z_gal",
    "Z_QSO": "z_qso",
    "LOGM": "log_mass",
    "LOGSFR": "log_sfr",
    "HBETA_4861_EW": "ew_hbeta",
    "OIII_5007_EW": "ew_oiii_5007",
    "HALPHA_6562_EW": "ew_halpha",
    "NII_6584_EW": "ew_nii_6584",
    "HBETA_CONT": "cont_hbeta",
    "HALPHA_CONT": "cont_halpha",
    "FLUX_HBETA": "f_hbeta",
    "FLUX_OIII5007": "f_oiii_5007",
    "FLUX_HALPHA": "f_halpha",
    "FLUX_NII6584": "f_nii_6584",
    "HA_HB_RATIO": "ha_hb_ratio",
    "L_HALPHA_CORR": "log_l_halpha_corr",
    "LOGSFR_HA": "log_sfr_halpha",
    "TEFF": "teff",
    "LOGG": "logg",
    "FEH": "fe_h",
    "ALPHAFE": "alpha_fe",
}
"""Names of the catalogue published with arXiv:2604.00661 and ours; ``<NAME>_ERR`` is ``<name>_err``."""
