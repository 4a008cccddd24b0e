"""Patches: a spectrum on its own wavelengths, whatever its unit, gaps and bad pixels."""

import numpy as np
import pytest
import torch

from ojala.models.data import Spectra
from ojala.models.spectral_tokenizer.patches import MAX_FLUX, PERIODS, collate, patchify, wavelength_code

pytestmark = pytest.mark.processor

WAVELENGTH = np.linspace(4000.0, 5000.0, 100)


def patched(flux, ivar, wavelength=WAVELENGTH):
    return patchify(Spectra.from_arrays([(wavelength, flux, ivar)]), 16, 32)[0]


def test_pixels_keep_their_order_and_the_last_patch_is_filled_with_bad_ones():
    one = patched(np.arange(1.0, 101.0), np.ones(100))
    assert one.flux.shape == (7, 16)
    np.testing.assert_allclose(one.flux.ravel()[:100] * one.brightness, np.arange(1.0, 101.0), rtol=1e-6)
    assert np.isinf(one.error.ravel()[100:]).all()
    assert one.n_pixels == 100


@pytest.mark.parametrize("scale", [1e-17, 1.0, 1e6])
def test_the_unit_of_the_flux_does_not_matter(scale):
    flux = 5.0 + np.sin(WAVELENGTH / 30.0)
    plain, scaled = patched(flux, np.full(100, 4.0)), patched(scale * flux, np.full(100, 4.0) / scale**2)
    for one, other in zip(collate([plain], 7), collate([scaled], 7), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_spectrum_with_signal_is_divided_by_its_median_and_one_without_by_its_noise():
    assert patched(np.full(100, 8.0), np.full(100, 1.0)).brightness == 8.0
    assert patched(np.full(100, -8.0), np.full(100, 0.25)).brightness == 2.0
    assert not patched(np.full(100, -8.0), np.full(100, 0.25)).positive


@pytest.mark.parametrize(
    ("flux", "ivar"),
    [(1e30, 0.0), (np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan), (1.0, np.inf), (1.0, -1.0)],
)
def test_what_a_bad_pixel_says_is_not_read(flux, ivar):
    clean, spoilt = (np.full(100, 3.0), np.ones(100)), (np.full(100, 3.0), np.ones(100))
    clean[1][40] = 0.0
    spoilt[0][40], spoilt[1][40] = flux, ivar
    for one, other in zip(collate([patched(*clean)], 7), collate([patched(*spoilt)], 7), strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)


def test_a_patch_with_more_than_half_bad_pixels_is_not_valid():
    ivar = np.ones(100)
    ivar[:8] = ivar[16:25] = 0.0
    assert patched(np.ones(100), ivar).valid.tolist() == [True, False, True, True, True, True, False]


def test_what_is_read_is_bounded_and_finite_however_wild_the_numbers():
    rng = np.random.default_rng(3)
    flux = rng.standard_normal(100) * 10.0 ** rng.uniform(-30, 30, 100)
    ivar = 10.0 ** rng.uniform(-30, 30, 100)
    pixels = collate([patched(flux, ivar)], 7).pixels
    assert torch.isfinite(pixels).all()
    assert pixels.abs().max() <= MAX_FLUX


def test_the_wavelength_code_tells_places_apart_and_is_the_mean_over_the_pixels():
    code = wavelength_code(WAVELENGTH, 16, 32)
    assert code.shape == (7, 32)
    assert np.abs(np.diff(code, axis=0)).max(axis=1).min() > 0.1
    phase = 2.0 * np.pi * WAVELENGTH[96:, None] / np.geomspace(*PERIODS, 16)
    np.testing.assert_allclose(
        code[6], np.r_[np.sin(phase).mean(axis=0), np.cos(phase).mean(axis=0)], atol=1e-4
    )


def test_spectra_of_several_lengths_make_one_batch():
    short, long = patched(np.ones(20), np.ones(20), WAVELENGTH[:20]), patched(np.ones(100), np.ones(100))
    batch = collate([short, long], 8)
    assert batch.valid.sum(dim=1).tolist() == [1, 6]
    assert batch.pixels.shape == (2, 8, 32)
    assert not batch.pixels[0, 2:].any()
