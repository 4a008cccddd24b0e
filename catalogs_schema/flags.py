"""The bit mask that every row of a value-added catalogue carries. Zero means nothing to remark."""

from __future__ import annotations

import enum
from collections.abc import Mapping


class Flag(enum.IntFlag):
    """What is to be known of a row. Bits are never reused for another meaning."""

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


MEANING: Mapping[enum.IntFlag, str] = {
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
