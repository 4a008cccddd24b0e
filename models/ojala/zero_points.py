"""Zero points of a survey's bands, from measured fluxes against those predicted from the other bands.

Photometry differs from that of a network's training by a factor in each band. The median over objects of the
measured over the predicted flux is that factor, as far as the other bands are right; divided by it, the next
prediction is better. An overall factor is degenerate with the brightness and is not fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ojala.models.checkpoint import StoredPart
from ojala.models.ojala.tokens import N_BANDS

STEPS = 5
"""Rounds of prediction and comparison."""

SIGNAL = 5.0
"""Least signal-to-noise ratio of a measurement that counts; predictions need the same."""

FEWEST = 50
"""Measurements that the zero point of a band needs."""

PredictBands = Callable[[np.ndarray, np.ndarray, np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True, slots=True)
class ZeroPoints(StoredPart):
    """Factors of the fluxes of a survey.

    Attributes
    ----------
    factor : Tensor, shape (63,)
        Measured flux over that on the scale of the network's training; positive.
    """

    TITLE = "the zero points"

    factor: Tensor

    @classmethod
    def none(cls) -> ZeroPoints:
        """The zero points that change nothing."""
        return cls(torch.ones(N_BANDS))

    def check_shapes(self) -> None:
        """Check that there is a positive factor for each band."""
        if self.factor.shape != (N_BANDS,) or not bool((self.factor > 0.0).all()):
            raise ValueError(f"{self.TITLE} are not {N_BANDS} positive numbers")


def fit_zero_points(
    predict_bands: PredictBands, flux: np.ndarray, error: np.ndarray, ebv: np.ndarray
) -> ZeroPoints:
    """Fit the zero points of photometry.

    Parameters
    ----------
    predict_bands : callable
        `OjalaPredictor.predict_bands` of weights without zero points.
    flux, error : ndarray, shape (N, 63)
        Flux densities and standard errors [uJy], NaN where not observed.
    ebv : ndarray, shape (N,)
        Galactic E(B-V) [mag].
    """
    factor = np.ones(N_BANDS, np.float32)
    for _ in range(STEPS):
        measured = flux / factor
        found = predict_bands(measured, error / factor, ebv)
        with np.errstate(invalid="ignore", divide="ignore"):
            clear = (flux > SIGNAL * error) & (found["band_flux"] > SIGNAL * found["band_flux_err"])
            ratio = np.where(clear, measured / found["band_flux"], np.nan)
        enough = clear.sum(axis=0) >= FEWEST
        factor[enough] *= np.nanmedian(ratio[:, enough], axis=0)
    if enough.any():
        factor[enough] /= np.exp(np.median(np.log(factor[enough])))
    return ZeroPoints(torch.from_numpy(factor))
