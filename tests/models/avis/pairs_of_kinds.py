"""Plausible pairs, made of arithmetic alone."""

from __future__ import annotations

import numpy as np

from ojala.models.avis.network import AvisConfig
from ojala.models.data import Images, Pairs, Spectra
from ojala.models.spectral_tokenizer.network import TokenizerConfig
from tests.models.spectral_tokenizer.spectra_of_kinds import GRIDS, as_spectra, mixed_spectra

SMALL = AvisConfig(
    TokenizerConfig(width=32, heads=2, encoder=1, decoder=1, patch=16),
    image_width=32,
    image_heads=2,
    image_encoder=1,
    image_decoder=1,
    size=16,
)

Y, X = np.indices((64, 64)) - 31.5


def blobs(n: int, seed: int = 3) -> Images:
    """Round sources of several widths, brightnesses and colours, in noise."""
    rng = np.random.default_rng(seed)
    sigma = np.array([0.01, 0.02, 0.06], np.float32)[:, None, None]
    width = rng.uniform(1.5, 6.0, (n, 1, 1, 1))
    peak = 10.0 ** rng.uniform(-1.0, 1.5, (n, 3, 1, 1))
    flux = peak * np.exp(-0.5 * (X**2 + Y**2) / width**2) + sigma * rng.standard_normal((n, 3, 64, 64))
    ivar = np.broadcast_to(sigma**-2, flux.shape).astype(np.float32)
    return Images(flux.astype(np.float32), ivar, np.full((n, 3), 1.2, np.float32))


def mixed_pairs(n: int, seed: int = 3) -> Pairs:
    """Spectra of several instruments with images."""
    return Pairs(as_spectra(mixed_spectra(n, seed)), blobs(n, seed))


def alike(n: int, seed: int = 3) -> Pairs:
    """Spectra of one length, whose line lies the redder and whose image is the wider the same number is."""
    rng = np.random.default_rng(seed)
    grid, share = GRIDS["DESI"][:320], rng.random(n)
    centre = grid[0] + (grid[-1] - grid[0]) * share
    flux = 1.0 + 3.0 * np.exp(-0.5 * ((grid - centre[:, None]) / 60.0) ** 2)
    flux += 0.05 * rng.standard_normal(flux.shape)
    images, wide = blobs(n, seed), 2.0 + 8.0 * share
    profile = np.exp(-0.5 * (X**2 + Y**2) / wide[:, None, None] ** 2)[:, None]
    seen = Images((profile + 0.02 * images.flux).astype(np.float32), images.ivar, images.psf_fwhm)
    return Pairs(Spectra.from_arrays([(grid, one, np.full(len(grid), 400.0)) for one in flux]), seen)
