"""Photometry as a network reads it: what is measured in each band, on the object's own scale.

Training and serving both come through `tokenise`; there is no second way in. A row is worked on by
itself, so its tokens do not depend on the rows beside it.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ojala.catalogs_schema.bands import MODEL_BANDS

N_BANDS = len(MODEL_BANDS)
N_FEATURES = 3
"""Compressed flux, log error, compressed signal-to-noise ratio."""

ABSURD_FLUX = 1e9
"""A flux density beyond this [uJy] (AB magnitude 1.4) is not a measurement."""

CALIBRATION_FLOOR = 0.003
"""No band is calibrated better than this fraction of its flux; smaller errors are raised to it."""

MAX_EBV = 5.0
"""Galactic E(B-V) [mag] beyond which the dust map is not believed and no correction is made."""


@functools.cache
def _k_x(device: torch.device) -> Tensor:
    """Extinction of each band [mag] for E(B-V) = 1, on a device."""
    return torch.tensor([band.k_x for band in MODEL_BANDS], dtype=torch.float32, device=device)


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

    See `tokens_of` for what is done.

    Parameters
    ----------
    flux, error, ebv : ndarray
        As in `tokens_of`.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    require_photometry(flux, error, ebv)
    return tokens_of(*(torch.from_numpy(np.array(part, dtype=np.float32)) for part in (flux, error, ebv)))


def require_photometry(flux: np.ndarray, error: np.ndarray, ebv: np.ndarray) -> None:
    """Refuse arrays whose shapes are not those of photometry (see `tokens_of`) by a ValueError."""
    if flux.ndim != 2 or flux.shape[1] != N_BANDS or error.shape != flux.shape or ebv.shape != flux.shape[:1]:
        raise ValueError(
            f"photometry must be flux (N, {N_BANDS}), error (N, {N_BANDS}) and ebv (N,), "
            f"not {flux.shape}, {error.shape} and {ebv.shape}"
        )


def tokens_of(flux: Tensor, error: Tensor, ebv: Tensor) -> Tokens:
    """Measured photometry -> tokens, on the device where it is.

    The fluxes are corrected for Galactic extinction, then expressed in units of the object's scale s: the
    median of |flux| over its valid bands, or the median error where that is larger (a source lost in noise).
    A row without any valid band is legal and gives a row without any valid slot.

    Parameters
    ----------
    flux, error : Tensor, shape (N, 63)
        Flux densities f_nu and their standard errors [uJy] in the order of `MODEL_BANDS`; whatever cannot be
        a measurement (see `valid_bands`) counts as not observed.
    ebv : Tensor, shape (N,)
        Galactic E(B-V) [mag, SFD98 scale]; NaN, negative or beyond 5 mag counts as 0.
    """
    valid = valid_bands(flux, error)
    dust = torch.where((ebv >= 0) & (ebv <= MAX_EBV), ebv, 0.0)
    correction = 10.0 ** (0.4 * dust[:, None] * _k_x(flux.device))
    measured = torch.where(valid, flux, 0.0) * correction
    sigma = torch.where(valid, error, 1.0) * correction
    sigma = torch.maximum(sigma, CALIBRATION_FLOOR * measured.abs())

    scale = torch.fmax(
        torch.where(valid, measured.abs(), torch.nan).nanmedian(dim=1).values,
        torch.where(valid, sigma, torch.nan).nanmedian(dim=1).values,
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
