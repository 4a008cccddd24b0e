"""Photometry as a network reads it: what is measured in each band, on the object's own scale.

Training and serving both come through `tokenise`; there is no second way in. A row is worked on by
itself, so its tokens do not depend on the rows beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from catalogs_schema.bands import MODEL_BANDS

N_BANDS = len(MODEL_BANDS)
N_FEATURES = 3
"""Compressed flux, log error, compressed signal-to-noise ratio."""

ABSURD_FLUX = 1e9
"""A flux density beyond this [uJy] (AB magnitude 1.4) is not a measurement."""

CALIBRATION_FLOOR = 0.003
"""No band is calibrated better than this fraction of its flux; smaller errors are raised to it."""

MAX_EBV = 5.0
"""Galactic E(B-V) [mag] beyond which the dust map is not believed and no correction is made."""

_K_X = torch.tensor([band.k_x for band in MODEL_BANDS], dtype=torch.float32)


class Tokens(NamedTuple):
    """The photometry of N objects in S slots, one slot per band.

    Attributes
    ----------
    features : Tensor, shape (N, S, 3)
        arcsinh(flux / s), ln(error / s) and arcsinh(flux / error) of the dereddened flux, where s is the
        object's own scale; 0 in slots that are not valid.
    valid : Tensor of bool, shape (N, S)
        Whether the slot holds a measurement.
    brightness : Tensor, shape (N,)
        log10(s / uJy); 0 for an object without any measurement.
    """

    features: Tensor
    valid: Tensor
    brightness: Tensor

    def to(self, device: torch.device | str) -> Tokens:
        """The same tokens on another device."""
        return Tokens(*(part.to(device, non_blocking=True) for part in self))


def valid_bands(flux: Tensor, error: Tensor) -> Tensor:
    """Which entries are measurements: finite flux below 1e9 uJy in size, finite error above zero."""
    return torch.isfinite(flux) & torch.isfinite(error) & (error > 0) & (flux.abs() < ABSURD_FLUX)


def tokenise(flux: np.ndarray, error: np.ndarray, ebv: np.ndarray) -> Tokens:
    """Measured photometry -> tokens.

    The fluxes are corrected for Galactic extinction, then expressed in units of the object's scale s: the
    median of |flux| over its valid bands, or the median error where that is larger (a source lost in noise).
    A row without any valid band is legal and gives a row without any valid slot.

    Parameters
    ----------
    flux, error : ndarray, shape (N, 63)
        Flux densities f_nu and their standard errors [uJy] in the order of `MODEL_BANDS`; whatever cannot be
        a measurement (see `valid_bands`) counts as not observed.
    ebv : ndarray, shape (N,)
        Galactic E(B-V) [mag, SFD98 scale]; NaN, negative or beyond 5 mag counts as 0.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    if flux.ndim != 2 or flux.shape[1] != N_BANDS or error.shape != flux.shape or ebv.shape != flux.shape[:1]:
        raise ValueError(
            f"photometry must be flux (N, {N_BANDS}), error (N, {N_BANDS}) and ebv (N,), "
            f"not {flux.shape}, {error.shape} and {ebv.shape}"
        )
    measured = torch.from_numpy(np.array(flux, dtype=np.float32))
    sigma = torch.from_numpy(np.array(error, dtype=np.float32))
    dust = torch.from_numpy(np.array(ebv, dtype=np.float32))
    valid = valid_bands(measured, sigma)

    dust = torch.where((dust >= 0) & (dust <= MAX_EBV), dust, 0.0)
    correction = 10.0 ** (0.4 * dust[:, None] * _K_X)
    measured = torch.where(valid, measured, 0.0) * correction
    sigma = torch.where(valid, sigma, 1.0) * correction
    sigma = torch.maximum(sigma, CALIBRATION_FLOOR * measured.abs())

    nothing = torch.tensor(torch.nan)
    scale = torch.fmax(
        torch.where(valid, measured.abs(), nothing).nanmedian(dim=1).values,
        torch.where(valid, sigma, nothing).nanmedian(dim=1).values,
    )
    scale = torch.where(torch.isfinite(scale), scale, 1.0).clamp(1e-6, 1e12)
    relative, noise = measured / scale[:, None], sigma / scale[:, None]
    features = torch.stack(
        [
            torch.asinh(relative).clamp(-8.0, 8.0),
            torch.log(noise).clamp(-8.0, 8.0),
            torch.asinh(measured / sigma).clamp(-8.0, 8.0),
        ],
        dim=-1,
    )
    features = torch.where(valid[..., None], features, 0.0)
    return Tokens(features, valid, torch.log10(scale))
