"""Photometry as tokens of a network: the measurement in each band, on the object's own scale.

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
from ojala.models.data import CALIBRATION_FLOOR, MAX_EBV, valid_bands

N_BANDS = len(MODEL_BANDS)
N_FEATURES = 3
"""Compressed flux, log error, compressed signal-to-noise ratio."""

WAVELENGTH_RANK = np.argsort(np.argsort([band.pivot for band in MODEL_BANDS]))
"""Place of each band in the order of wavelengths."""


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


def dust_correction(ebv: Tensor) -> Tensor:
    """Factors (N, 63) that take Galactic extinction off the fluxes; for E(B-V) as in `tokens_of`."""
    dust = torch.where((ebv >= 0) & (ebv <= MAX_EBV), ebv, 0.0)
    return torch.as_tensor(10.0 ** (0.4 * dust[:, None] * _k_x(ebv.device)))


def compress(flux: Tensor, error: Tensor, ebv: Tensor, brightness: Tensor) -> tuple[Tensor, Tensor]:
    """Flux densities on the scale of an object's tokens.

    Parameters
    ----------
    flux, error : Tensor, shape (N, 63)
        f_nu and standard errors [uJy].
    ebv : Tensor, shape (N,)
        As in `tokens_of`.
    brightness : Tensor, shape (N, 1) or (N, 63)
        Of the tokens.

    Returns
    -------
    value, error : Tensor, shape (N, 63)
        arcsinh(flux / s) of the dereddened flux, and its standard error to first order.
    """
    unit = dust_correction(ebv) / 10.0**brightness
    relative = flux * unit
    return torch.asinh(relative), error * unit / torch.sqrt(1.0 + relative**2)


def expand(value: Tensor, ebv: Tensor, brightness: Tensor) -> Tensor:
    """Flux densities [uJy] from arcsinh(flux / s): the inverse of `compress`."""
    return torch.sinh(value) * 10.0**brightness / dust_correction(ebv)


class Packed(NamedTuple):
    """Tokens without most of their empty slots.

    Attributes
    ----------
    tokens : Tokens
        In S slots.
    bands : Tensor of int64, shape (N, S)
        The band in each slot.
    """

    tokens: Tokens
    bands: Tensor

    def to(self, device: torch.device | str) -> Packed:
        """The same on another device."""
        return Packed(self.tokens.to(device), self.bands.to(device, non_blocking=True))


def pack(tokens: Tokens, multiple: int = 1) -> Packed:
    """Take out the slots that are empty in every row, each row for itself.

    Parameters
    ----------
    tokens : Tokens
        In 63 slots.
    multiple : int
        The slots that stay are the valid ones of the row with most, rounded up to a multiple of this.
    """
    most = int(tokens.valid.sum(dim=1).max()) if len(tokens.valid) else 0
    slots = min(N_BANDS, max(1, -(-most // multiple)) * multiple)
    bands = (~tokens.valid).to(torch.int8).argsort(dim=1, stable=True)[:, :slots]
    features = tokens.features.gather(1, bands[..., None].expand(-1, -1, N_FEATURES))
    return Packed(Tokens(features, tokens.valid.gather(1, bands), tokens.brightness), bands)


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
    correction = dust_correction(ebv)
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
