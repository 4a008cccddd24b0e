"""Photometry becomes tokens row by row, whatever is in it."""

import warnings

import numpy as np
import pytest
import torch

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.models.data import CALIBRATION_FLOOR
from ojala.models.ojala.tokens import N_BANDS, compress, expand, pack, tokenise

pytestmark = pytest.mark.processor

FLUX = np.linspace(8.0, 40.0, N_BANDS, dtype=np.float32)[None]
ERROR = np.full_like(FLUX, 0.8)
NO_DUST = np.zeros(1, dtype=np.float32)


def test_features_are_relative_to_the_median_flux():
    tokens = tokenise(FLUX, ERROR, NO_DUST)
    scale = np.median(FLUX)
    assert tokens.brightness.item() == pytest.approx(np.log10(scale), rel=1e-5)
    np.testing.assert_allclose(tokens.features[0, :, 0], np.arcsinh(FLUX[0] / scale), rtol=1e-5)
    np.testing.assert_allclose(tokens.features[0, :, 1], np.log(0.8 / scale), rtol=1e-5)
    np.testing.assert_allclose(tokens.features[0, :, 2], np.arcsinh(FLUX[0] / 0.8), rtol=1e-5)


def test_the_same_source_ten_times_brighter_differs_in_brightness_alone():
    faint, bright = tokenise(FLUX, ERROR, NO_DUST), tokenise(10 * FLUX, 10 * ERROR, NO_DUST)
    torch.testing.assert_close(bright.features, faint.features)
    assert (bright.brightness - faint.brightness).item() == pytest.approx(1.0, abs=1e-5)


def test_a_reddened_source_gets_the_tokens_of_the_source_without_dust():
    k_x = np.array([band.k_x for band in MODEL_BANDS])
    dimming = 10 ** (-0.4 * 0.2 * k_x)
    seen = tokenise(FLUX * dimming, ERROR * dimming, np.array([0.2]))
    torch.testing.assert_close(seen.features, tokenise(FLUX, ERROR, NO_DUST).features, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ebv", [np.nan, -1.0, np.inf, 99.0])
def test_an_unbelievable_reddening_is_not_applied(ebv):
    seen = tokenise(FLUX, ERROR, np.array([ebv]))
    torch.testing.assert_close(seen.features, tokenise(FLUX, ERROR, NO_DUST).features)


@pytest.mark.parametrize(
    ("flux", "error"),
    [(np.nan, 1.0), (np.inf, 1.0), (3e9, 1.0), (10.0, np.nan), (10.0, 0.0), (10.0, -1.0), (10.0, np.inf)],
)
def test_what_cannot_be_a_measurement_is_not_valid(flux, error):
    fluxes, errors = FLUX.copy(), ERROR.copy()
    fluxes[0, 7], errors[0, 7] = flux, error
    tokens = tokenise(fluxes, errors, NO_DUST)
    assert not tokens.valid[0, 7]
    assert tokens.valid.sum() == N_BANDS - 1
    assert (tokens.features[0, 7] == 0).all()


def test_a_negative_flux_is_a_measurement():
    fluxes = FLUX.copy()
    fluxes[0, 3] = -0.5
    tokens = tokenise(fluxes, ERROR, NO_DUST)
    assert tokens.valid[0, 3]
    assert tokens.features[0, 3, 0] < 0


def test_an_error_below_the_calibration_floor_is_raised_to_it():
    tokens = tokenise(FLUX, ERROR * 1e-6, NO_DUST)
    expected = np.full(N_BANDS, np.arcsinh(1 / CALIBRATION_FLOOR), dtype=np.float32)
    np.testing.assert_allclose(tokens.features[0, :, 2], expected, rtol=1e-5)


def test_a_row_without_any_band_is_legal():
    nothing = np.full((2, N_BANDS), np.nan, dtype=np.float32)
    tokens = tokenise(nothing, nothing, np.zeros(2))
    assert not tokens.valid.any()
    assert (tokens.features == 0).all()
    assert (tokens.brightness == 0).all()


def test_tokens_do_not_depend_on_the_rows_beside():
    rng = np.random.default_rng(4)
    flux = rng.lognormal(2.0, 1.0, (6, N_BANDS)).astype(np.float32)
    error = rng.lognormal(-1.0, 0.5, (6, N_BANDS)).astype(np.float32)
    together = tokenise(flux, error, np.full(6, 0.03))
    for row in range(6):
        alone = tokenise(flux[row : row + 1], error[row : row + 1], np.full(1, 0.03))
        for part, whole in zip(alone, together, strict=True):
            assert torch.equal(part[0], whole[row])


def test_photometry_that_is_read_only_is_left_alone():
    flux = FLUX.copy()
    flux.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenise(flux, ERROR, NO_DUST)


def test_the_wrong_number_of_bands_is_refused():
    with pytest.raises(ValueError, match=r"flux \(N, 63\)"):
        tokenise(FLUX[:, :57], ERROR[:, :57], NO_DUST)


def test_fluxes_are_compressed_to_the_scale_of_the_tokens_and_back():
    ebv = np.array([0.1], np.float32)
    tokens = tokenise(FLUX, ERROR, ebv)
    flux, error, dust = (torch.from_numpy(part) for part in (FLUX, ERROR, ebv))
    value, of_error = compress(flux, error, dust, tokens.brightness[:, None])
    torch.testing.assert_close(value, tokens.features[..., 0])
    torch.testing.assert_close(expand(value, dust, tokens.brightness[:, None]), flux)
    nearby, _ = compress(flux + 1e-2 * error, error, dust, tokens.brightness[:, None])
    torch.testing.assert_close((nearby - value) / 1e-2, of_error, rtol=2e-2, atol=0.0)


def test_packing_keeps_the_valid_slots_of_each_row_in_order():
    flux = np.repeat(FLUX, 3, axis=0)
    flux[0, 5:] = flux[1, ::2] = flux[2] = np.nan
    tokens = tokenise(flux, np.full_like(flux, 0.8), np.zeros(3, np.float32))
    packed, bands = pack(tokens, multiple=4)
    assert packed.features.shape == (3, 32, 3), "31 bands of the second row, in a multiple of four slots"
    assert bands[0, :5].tolist() == [0, 1, 2, 3, 4]
    assert bands[1, :31].tolist() == list(range(1, 63, 2))
    assert packed.valid.sum(dim=1).tolist() == [5, 31, 0]
    torch.testing.assert_close(packed.features[1, :31], tokens.features[1, 1::2])


def test_packing_nothing_leaves_a_slot():
    nothing = np.full((2, N_BANDS), np.nan, np.float32)
    assert pack(tokenise(nothing, nothing, np.zeros(2, np.float32))).bands.shape == (2, 1)
