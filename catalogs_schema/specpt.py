"""The contracts of SpecPT's catalogue: redshifts of spectra, and the spectra as the network has them."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import pyarrow as pa

from ojala.catalogs_schema.columns import count, flags, number, probability, vector, without_prefix
from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.spectra import SPECTRA_KEYS

SPECPT_Z_MAX = 1.72
"""Largest redshift of an answer."""

RECONSTRUCTED_FIRST, RECONSTRUCTED_STEP, RECONSTRUCTED_SIZE = 3600.0, 0.001, 1008
"""Grid of stored reconstructions: pixel i covers ln(wavelength / 3600 A) from i to i + 1 steps, to 9864 A."""


class SpecPTFlag(enum.IntFlag):
    """Flags of a row. Bits are never reused for another meaning."""

    NO_PIXELS = 1 << 0
    FEW_PIXELS = 1 << 1
    LOW_SNR = 1 << 2
    MEDIAN_NOT_POSITIVE = 1 << 3
    Z_MULTIMODAL = 1 << 4
    Z_UNCERTAIN = 1 << 5
    POOR_RECONSTRUCTION = 1 << 6
    OUT_OF_RANGE = 1 << 7
    OUT_OF_GRID = 1 << 8
    NOT_PREDICTED = 1 << 9
    NO_GALAXY = 1 << 10


FLAG_MEANINGS: Mapping[enum.IntFlag, str] = {
    SpecPTFlag.NO_PIXELS: "no usable pixel within 3600 to 9864 Angstrom: nothing is predicted, every "
    "prediction is null",
    SpecPTFlag.FEW_PIXELS: "usable pixels cover less than a third of 3600 to 9864 Angstrom: unlike what the "
    "network was trained on",
    SpecPTFlag.LOW_SNR: "median signal-to-noise ratio of a pixel below 0.3",
    SpecPTFlag.MEDIAN_NOT_POSITIVE: "the median flux is zero or negative: nothing is predicted, every "
    "prediction is null",
    SpecPTFlag.Z_MULTIMODAL: "a second redshift holds at least 10 % of the PDF",
    SpecPTFlag.Z_UNCERTAIN: "specpt_z_odds below 0.5",
    SpecPTFlag.POOR_RECONSTRUCTION: "specpt_reconstruction_chi2 above 2.5 (1 + (0.05 specpt_snr)^2), more "
    "than noise and an error of 5 % of the network explain: perhaps no galaxy, or a faulty spectrum",
    SpecPTFlag.OUT_OF_RANGE: "a prediction fell outside its column's range and was set to null",
    SpecPTFlag.OUT_OF_GRID: "more than a tenth of the usable pixels lie outside 3600 to 9864 Angstrom and "
    "were not read",
    SpecPTFlag.NOT_PREDICTED: "the model gave no finite answer: every prediction is null",
    SpecPTFlag.NO_GALAXY: "probably a star or a quasar (a classifier of the encoded spectrum gives a galaxy "
    "less than 0.5): the redshift is meaningless",
}
"""One sentence per bit."""


_COLUMNS: tuple[Column, ...] = (
    number(
        "specpt_z",
        "",
        "src.redshift",
        "redshift: mean of the PDF within 0.01 (1 + z) of its highest mode",
        0.0,
        SPECPT_Z_MAX,
    ),
    number(
        "specpt_z_err",
        "",
        "stat.error;src.redshift",
        "half of the central 68.3 % interval of the redshift PDF, less in quadrature the width that the "
        "training's labels had; at least 0.0001 (1 + z)",
        0.0,
    ),
    probability("specpt_z_odds", "part of the redshift PDF within 0.03 (1 + z) of z", "src.redshift"),
    number(
        "specpt_z_mode2",
        "",
        "src.redshift",
        "second solution: redshift of the PDF's second mode; null where there is none",
        0.0,
        SPECPT_Z_MAX,
    ),
    probability("specpt_z_mode2_p", "part of the redshift PDF in its second mode", "src.redshift"),
    number(
        "specpt_reconstruction_chi2",
        "",
        "stat.fit.chi2",
        "mean over the read pixels of the squared residual of the reconstruction over its variance",
        0.0,
    ),
    number(
        "specpt_reconstruction_nmad",
        "",
        "stat.fit.residual",
        "mean modulus of the residual of the reconstruction over the spectrum's median absolute "
        "deviation, noisy pixels counting less: the loss that the network was trained with",
        0.0,
    ),
    number("specpt_snr", "", "stat.snr", "median signal to noise of the usable pixels"),
    count("specpt_n_pixels", pa.int32(), "number of usable pixels"),
    flags("specpt"),
)

SPECPT = Contract(
    name="specpt",
    version="2.1.0",
    title="SpecPT redshifts",
    description=(
        "One row per row of the spectra catalogue, in a partition of the same name, whatever is wrong with "
        "the spectrum; `specpt_flags` says what is. Null means not predicted. The network was trained on "
        "galaxies at z < 1.28 alone: a star or a quasar is given the redshift of some galaxy."
    ),
    columns=(
        *SPECTRA_KEYS,
        *_COLUMNS,
    ),
    flag_meanings=FLAG_MEANINGS,
    column_names=without_prefix("specpt_", _COLUMNS),
)
"""The catalogue of redshifts."""

SPECPT_SPECTRA = Contract(
    name="specpt_spectra",
    version="1.0.0",
    title="SpecPT spectra",
    description=(
        "The reconstruction of each spectrum, apart from the redshifts since it is large. Element i of "
        "`reconstruction` is the mean flux at wavelengths from 3600 exp(0.001 i) to 3600 exp(0.001 (i + 1)) "
        "Angstrom, over the spectrum's median: times `flux_median` it is in the unit of the spectrum."
    ),
    columns=(
        *SPECTRA_KEYS,
        number(
            "flux_median",
            "10**-20.W.m**-2.Angstrom**-1",
            "phot.flux.density;em.wl;stat.median",
            "median flux density of the usable pixels on the network's grid; arbitrary scale where the "
            "spectrum has one; null where it is not positive",
            0.0,
        ),
        vector(
            "reconstruction",
            pa.float16(),
            RECONSTRUCTED_SIZE,
            "",
            "phot.flux.density;em.wl;arith.ratio",
            "flux density over its median on 1008 pixels of 0.001 in ln(wavelength) from 3600 Angstrom; NaN "
            "where not predicted",
        ),
    ),
)
"""Reconstructed spectra that belong to the catalogue."""
