"""The contract of the universal spectral tokenizer's catalogue."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import pyarrow as pa

from ojala.catalogs_schema.columns import (
    class_columns,
    count,
    flags,
    measured,
    number,
    probability,
    vector,
    without_prefix,
)
from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.ojala import CLASSES, MIN_CLASS_PROBABILITY, Z_MAX
from ojala.catalogs_schema.spectra import SPECTRA_KEYS

TOKENIZER_EMBEDDING_WIDTH = 192
"""Length of the stored embedding."""


TRAINED_RANGE = (3500.0, 10500.0)
"""Wavelengths of the spectra of the training [Angstrom], within rounding."""


class SpectrumFlag(enum.IntFlag):
    """Flags of a row. Bits are never reused for another meaning."""

    NO_PIXELS = 1 << 0
    FEW_PIXELS = 1 << 1
    LOW_SIGNAL = 1 << 2
    MEDIAN_NOT_POSITIVE = 1 << 3
    CLASS_UNCERTAIN = 1 << 4
    Z_UNCERTAIN = 1 << 5
    NOT_RECONSTRUCTED = 1 << 6
    OUT_OF_RANGE = 1 << 7
    NOT_PREDICTED = 1 << 8
    NOT_TRAINED = 1 << 9


FLAG_MEANINGS: Mapping[enum.IntFlag, str] = {
    SpectrumFlag.NO_PIXELS: "no patch with half of its pixels usable: nothing is predicted, every prediction "
    "is null",
    SpectrumFlag.FEW_PIXELS: "fewer than 500 usable pixels: the answer leans on the prior",
    SpectrumFlag.LOW_SIGNAL: "median signal-to-noise ratio of the usable pixels below 1",
    SpectrumFlag.MEDIAN_NOT_POSITIVE: "the median flux is zero or negative: the spectrum was read in "
    "units of its median error",
    SpectrumFlag.CLASS_UNCERTAIN: "the most probable class has a probability below 0.7",
    SpectrumFlag.Z_UNCERTAIN: "tokenizer_z_odds below 0.5",
    SpectrumFlag.NOT_RECONSTRUCTED: "tokenizer_reconstruction_chi2 above 9 and "
    "tokenizer_reconstruction_residual above 0.1: the network does not give the spectrum back, "
    "so that its answers may be wrong",
    SpectrumFlag.OUT_OF_RANGE: "a prediction fell outside its column's range and was set to null",
    SpectrumFlag.NOT_PREDICTED: "the model gave no finite answer: every prediction is null",
    SpectrumFlag.NOT_TRAINED: "fewer than half of the usable pixels lie between "
    f"{TRAINED_RANGE[0]:g} and {TRAINED_RANGE[1]:g} Angstrom, where the spectra of the training do: the "
    "predictions mean nothing",
}
"""One sentence per bit."""


_GIVEN = f"given where tokenizer_p_star >= {MIN_CLASS_PROBABILITY}"

_COLUMNS: tuple[Column, ...] = (
    *class_columns(CLASSES, "tokenizer_class", "tokenizer_"),
    number(
        "tokenizer_z",
        "",
        "src.redshift",
        "redshift: mean of the PDF's highest mode; null for stars",
        0.0,
        Z_MAX,
    ),
    number(
        "tokenizer_z_err",
        "",
        "stat.error;src.redshift",
        "half of the central 68.3 % interval of the redshift PDF; null for stars",
        0.0,
    ),
    probability(
        "tokenizer_z_odds",
        "part of the redshift PDF within 0.03 (1 + z) of z; null for stars",
        "src.redshift",
    ),
    *measured(
        "tokenizer_teff",
        "K",
        "phys.temperature.effective",
        f"effective temperature; {_GIVEN}",
        1000.0,
        100000.0,
    ),
    *measured(
        "tokenizer_logg", "", "phys.gravity", f"log10 of the surface gravity in cm/s2; {_GIVEN}", -2.0, 10.0
    ),
    *measured("tokenizer_fe_h", "", "phys.abund.Fe", f"[Fe/H] in dex; {_GIVEN}", -6.0, 2.0),
    number(
        "tokenizer_reconstruction_chi2",
        "",
        "stat.fit.chi2",
        "mean over the usable pixels of the squared residual of the reconstruction over its variance",
        0.0,
    ),
    number(
        "tokenizer_reconstruction_residual",
        "",
        "stat.fit.residual",
        "median modulus of the residual of the reconstruction over the spectrum's brightness (its median "
        "flux, or its median error where that is larger)",
        0.0,
    ),
    count("tokenizer_n_pixels", pa.int32(), "number of usable pixels"),
    flags("tokenizer"),
    vector(
        "tokenizer_embedding",
        pa.float16(),
        TOKENIZER_EMBEDDING_WIDTH,
        "",
        "stat.fit.param",
        "the network's encoding of the spectrum, mean over its patches",
    ),
)

SPECTRAL_TOKENIZER = Contract(
    name="spectral_tokenizer",
    version="2.1.0",
    title="Universal spectral tokenizer",
    description=(
        "One row per row of the spectra catalogue, in a partition of the same name, whatever is wrong with "
        "the spectrum; `tokenizer_flags` says what is. Null (NONE in text columns, NaN in vectors) means not "
        "predicted or without meaning for the object. Class, redshift and stellar parameters are read from "
        "the frozen encoding of the spectrum on its own wavelengths."
    ),
    columns=(
        *SPECTRA_KEYS,
        *_COLUMNS,
    ),
    flag_meanings=FLAG_MEANINGS,
    column_names=without_prefix("tokenizer_", _COLUMNS),
)
"""The catalogue of embeddings and of the quantities predicted from them."""
