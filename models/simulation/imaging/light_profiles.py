"""Light profiles as sums of Gaussians, which convolve by adding covariances.

After Hogg & Lang (2013, PASP 125, 719). Widths are in geometric steps; amplitudes are fitted by non-negative
least squares and normalised. Profiles end with the widest Gaussian: about 2 % of the light of a de
Vaucouleurs profile, in the far wings, is redistributed by the normalisation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.special import gamma, gammaincinv

MOFFAT_BETAS = (2.5, 3.0, 3.5, 4.0)
"""Slopes of the Moffat profiles."""


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """A round profile with unit flux.

    Attributes
    ----------
    amplitude : ndarray, shape (K,)
        Fraction of the flux in each Gaussian.
    variance : ndarray, shape (K,)
        Variance of each Gaussian along an axis, for a profile of unit half-light radius (Sersic) or width
        (Moffat).
    """

    amplitude: np.ndarray
    variance: np.ndarray


@functools.cache
def sersic(n: int) -> Mixture:
    """An exponential (1) or de Vaucouleurs (4) profile of half-light radius 1."""
    b = gammaincinv(2 * n, 0.5)
    total = 2.0 * np.pi * n * gamma(2 * n) / b ** (2 * n)
    sigma = {1: np.geomspace(0.1, 1.7, 7), 4: np.geomspace(0.02, 10.0, 10)}[n]
    return _fitted(lambda radius: np.exp(-b * radius ** (1.0 / n)) / total, sigma)


@functools.cache
def moffat(beta: float) -> Mixture:
    """A Moffat profile with a full width at half maximum of 1."""
    scale = 0.5 / np.sqrt(2.0 ** (1.0 / beta) - 1.0)
    peak = (beta - 1.0) / (np.pi * scale**2)
    return _fitted(lambda radius: peak * (1.0 + (radius / scale) ** 2) ** -beta, np.geomspace(0.28, 2.0, 5))


def _fitted(profile: Callable[[np.ndarray], np.ndarray], sigma: np.ndarray) -> Mixture:
    """Fit by least squares over the plane: residuals weighted by r^1.5 on a geometric grid of radii."""
    radius = np.geomspace(0.3 * sigma[0], 2.5 * sigma[-1], 600)
    weight = radius**1.5
    gaussians = np.exp(-0.5 * (radius[:, None] / sigma) ** 2) / (2.0 * np.pi * sigma**2)
    amplitude, _ = nnls(gaussians * weight[:, None], profile(radius) * weight)
    return Mixture(amplitude / amplitude.sum(), sigma**2)


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """Source as K elliptical Gaussians in B bands.

    Attributes
    ----------
    flux : ndarray, shape (B, K)
        Flux of each in each band.
    covariance : ndarray, shape (K, 3)
        xx, xy and yy [pixel2].
    centre : ndarray, shape (K, 2)
        Column and row [pixel].
    """

    flux: np.ndarray
    covariance: np.ndarray
    centre: np.ndarray

    @classmethod
    def point(cls, flux: np.ndarray, centre: np.ndarray) -> Light:
        """Make a point source with a flux in each band."""
        return cls(flux[:, None], np.zeros((1, 3)), centre[None])

    @classmethod
    def ellipse(
        cls,
        flux: np.ndarray,
        mixture: Mixture,
        radius: float,
        axis_ratio: float,
        angle: float,
        centre: np.ndarray,
    ) -> Light:
        """Make an elliptical profile with a major-axis radius [pixel] and an angle [rad] from the rows."""
        major, minor = radius**2, (radius * axis_ratio) ** 2
        c, s = np.cos(angle), np.sin(angle)
        shape = np.array([major * c**2 + minor * s**2, (major - minor) * c * s, major * s**2 + minor * c**2])
        return cls(
            flux[:, None] * mixture.amplitude,
            mixture.variance[:, None] * shape,
            np.broadcast_to(centre, (len(mixture.variance), 2)),
        )

    @classmethod
    def concatenate(cls, parts: list[Light]) -> Light:
        """Combine sources."""
        return cls(
            np.concatenate([part.flux for part in parts], axis=1),
            np.concatenate([part.covariance for part in parts]),
            np.concatenate([part.centre for part in parts]),
        )


def draw_light(light: Light, psf: list[Mixture], fwhm: np.ndarray, size: int) -> np.ndarray:
    """Draw images of a source with a point-spread function.

    The point-spread function includes the pixel response, as surveys measure it.

    Parameters
    ----------
    light : Light
        The source.
    psf : list of Mixture
        Profile of the point-spread function in each of B bands.
    fwhm : ndarray, shape (B,)
        Its full width at half maximum [pixel].
    size : int
        Pixels along a side.

    Returns
    -------
    ndarray of float32, shape (B, size, size)
        Flux in each pixel.
    """
    monomials = _monomials(size)
    images = np.empty((len(psf), size, size), np.float32)
    for k, (mixture, width) in enumerate(zip(psf, fwhm, strict=True)):
        blur = mixture.variance * width**2
        xx = (light.covariance[:, :1] + blur).ravel()
        yy = (light.covariance[:, 2:] + blur).ravel()
        xy = np.repeat(light.covariance[:, 1], len(blur))
        x0, y0 = (np.repeat(light.centre[:, axis], len(blur)) - (size - 1) / 2 for axis in (0, 1))
        flux = (light.flux[k][:, None] * mixture.amplitude).ravel()
        determinant = xx * yy - xy**2
        a, b, c = -0.5 * yy / determinant, xy / determinant, -0.5 * xx / determinant
        constant = a * x0**2 + b * x0 * y0 + c * y0**2
        exponent = np.stack([a, b, c, -2.0 * a * x0 - b * y0, -2.0 * c * y0 - b * x0, constant], axis=1)
        gaussians = exponent.astype(np.float32) @ monomials
        np.exp(gaussians, out=gaussians)
        peak = flux / (2.0 * np.pi * np.sqrt(determinant))
        images[k] = (peak.astype(np.float32) @ gaussians).reshape(size, size)
    return images


@functools.cache
def _monomials(size: int) -> np.ndarray:
    """Compute x^2, xy, y^2, x, y and 1 of each pixel, from the centre; float32, shape (6, size**2)."""
    y, x = np.indices((size, size), np.float32).reshape(2, -1) - np.float32((size - 1) / 2)
    return np.stack([x * x, x * y, y * y, x, y, np.ones_like(x)])
