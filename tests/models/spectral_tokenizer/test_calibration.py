"""Errors that are stated in a wrong measure come true as often as they say, once they are scaled."""

import numpy as np
import pytest
import torch

from ojala.models.checkpoint import WeightsError
from ojala.models.quantities import CLASSES
from ojala.models.spectral_tokenizer.calibration import (
    CALIBRATED,
    CALIBRATED_TEFF,
    SCALED,
    ErrorScales,
    StellarCalibration,
    coverage,
    fit_error_scales,
    fit_stellar_calibration,
)
from ojala.models.spectral_tokenizer.checkpoint import load, save
from ojala.models.spectral_tokenizer.heads import STELLAR, TokenizerWithHeads
from ojala.models.spectral_tokenizer.network import TokenizerConfig
from ojala.models.spectral_tokenizer.predictor import SpectralTokenizerPredictor
from tests.models.spectral_tokenizer.spectra_of_kinds import GRIDS, as_spectra, one_spectrum

pytestmark = pytest.mark.processor

SMALL = TokenizerConfig(width=32, heads=2, encoder=1, decoder=1, patch=16)
N = 6000


def stated(seed):
    """Answers to galaxies, stars and quasars whose errors are half of what they should be; of stars, t(3)."""
    rng = np.random.default_rng(seed)
    code = rng.integers(0, 3, N)
    labels = {name: rng.normal(0.0, 1.0, N) for name in ("z", *(q.name for q in STELLAR))}
    answers = {"class": np.array(CLASSES)[code]}
    for name, truth in labels.items():
        error = rng.uniform(0.5, 2.0, N)
        answers[f"{name}_err"] = (0.5 * error).astype(np.float32)
        noise = rng.normal(0.0, 1.0, N) if name == "z" else rng.standard_t(3, N) / 1.1969
        answers[name] = truth + error * noise
    star = code == CLASSES.index("STAR")
    answers["z"][star] = answers["z_err"][star] = np.nan
    return answers, code, labels


def test_scaled_errors_come_true_on_others():
    scales = fit_error_scales(*stated(1))
    np.testing.assert_allclose(scales.factor.numpy(), 2.0, rtol=0.08)
    answers, code, labels = stated(2)
    before = coverage(answers, code, labels)
    scales.apply(answers)
    after = coverage(answers, code, labels)
    assert set(after) == {f"{name} of {kind}" for name, kind in SCALED}
    for name, share in after.items():
        assert before[name]["within_68"] < 0.5
        assert share["within_68"] == pytest.approx(0.683, abs=0.04)
        assert share["within_95"] == pytest.approx(0.954, abs=0.02)


def test_what_was_taken_for_something_else_is_not_judged():
    answers, code, labels = stated(3)
    answers["z"] = answers["z"] + np.where(code == CLASSES.index("QSO"), 100.0, 0.0)
    answers["class"] = np.where(code == CLASSES.index("QSO"), "GALAXY", answers["class"])
    scales = fit_error_scales(answers, code, labels)
    assert scales.factor[0].item() == pytest.approx(2.0, rel=0.1)
    assert scales.factor[1].item() == 1.0  # of quasars nothing is known


@pytest.fixture
def model():
    torch.manual_seed(2)
    return TokenizerWithHeads(SMALL)


def test_weights_keep_them_and_the_predictor_applies_them(model, tmp_path):
    scales = ErrorScales(torch.tensor([2.0, 3.0, 0.5, 4.0, 1.5]))
    for name, kept in (("plain", None), ("scaled", scales)):
        save(tmp_path / name, model, name="t", version="1", training={}, error_scales=kept)
    assert load(tmp_path / "plain")[1].error_scales is None
    rng = np.random.default_rng(4)
    spectra = as_spectra([one_spectrum(GRIDS["SDSS"], rng) for _ in range(4)])
    plain, scaled = (
        SpectralTokenizerPredictor.load(tmp_path / name).predict(spectra) for name in ("plain", "scaled")
    )
    for column, factor in zip(("teff_err", "logg_err", "fe_h_err"), (0.5, 4.0, 1.5), strict=True):
        np.testing.assert_allclose(scaled[column], factor * plain[column], rtol=1e-5)
    of_class = np.select([plain["class"] == "GALAXY", plain["class"] == "QSO"], [2.0, 3.0], np.nan)
    np.testing.assert_allclose(scaled["z_err"], of_class * plain["z_err"], rtol=1e-5)
    np.testing.assert_array_equal(scaled["z"], plain["z"])


@pytest.mark.parametrize("factor", [torch.ones(3), torch.tensor([1.0, 1.0, 1.0, -1.0, 1.0])])
def test_factors_that_are_none_are_refused(model, tmp_path, factor):
    save(tmp_path / "w", model, name="t", version="1", training={}, error_scales=ErrorScales(factor))
    with pytest.raises(WeightsError, match="5 positive numbers"):
        load(tmp_path / "w")


def stars_with_a_bias(n, seed):
    """Parameters that are linear in the features, while the network's own are off by one unit."""
    rng = torch.Generator().manual_seed(seed)
    found = torch.randn(n, 12, generator=rng)
    target = 0.1 * found @ torch.linspace(-1.0, 1.0, 36).view(12, 3)
    own = torch.stack([target + 1.0, torch.full_like(target, -2.0)], dim=-1)
    return found, target, own


def test_a_bias_of_stars_is_gone_on_others_and_their_stated_error_stays():
    found, target, _ = stars_with_a_bias(20_000, 1)
    calibration = fit_stellar_calibration(found, target, torch.ones(len(found)))
    found, target, own = stars_with_a_bias(500, 2)
    calibrated = calibration.apply(own, found, torch.ones(len(found), dtype=torch.bool))
    assert (calibrated[:, [0, 2], 0] - target[:, [0, 2]]).abs().max() < 0.15
    torch.testing.assert_close(calibrated[:, 1], own[:, 1], rtol=0.0, atol=0.0)
    torch.testing.assert_close(calibrated[..., 1], own[..., 1], rtol=0.0, atol=0.0)


def test_a_spectrum_of_no_weight_does_not_count():
    found, target, _ = stars_with_a_bias(2000, 3)
    weight = torch.ones(2000)
    weight[1000:] = 0.0
    wrong = torch.where(weight[:, None] > 0.0, target, 50.0)
    calibration = fit_stellar_calibration(found, wrong, weight)
    assert (calibration.offset - target[:1000].mean(dim=0)).abs().max() < 1e-4


def test_stars_hotter_than_those_of_the_fit_keep_the_networks_own_parameters():
    teff = STELLAR[0]
    cool, hot = (teff.standardise(np.array(value)).item() for value in CALIBRATED_TEFF)
    own = torch.zeros(3, 3, 2)
    own[:, 0, 0] = torch.tensor([cool - 1.0, hot + 0.1, 0.5 * (cool + hot)])
    calibration = StellarCalibration(torch.zeros(4), torch.zeros(4, 3), torch.full((3,), 7.0), torch.ones(3))
    fe_h = calibration.apply(own, torch.ones(3, 4), torch.ones(3, dtype=torch.bool))[:, 2, 0]
    assert fe_h[:2].tolist() == [7.0, 0.0]
    assert 0.0 < fe_h[2] < 7.0
    fine = calibration.apply(own, torch.ones(3, 4), torch.zeros(3, dtype=torch.bool))
    torch.testing.assert_close(fine, own, rtol=0.0, atol=0.0)


def test_the_predictor_calibrates_stars_and_nothing_else(model, tmp_path):
    width = SMALL.width * 9  # eight queries and the embedding
    rng = np.random.default_rng(5)
    weight = torch.from_numpy(rng.normal(0.0, 0.1, (width, 3))).float()
    calibration = StellarCalibration(torch.zeros(width), weight, torch.zeros(3), torch.full((3,), 2.0))
    for name, kept in (("plain", None), ("calibrated", calibration)):
        save(tmp_path / name, model, name="t", version="1", training={}, stellar_calibration=kept)
    spectra = as_spectra([one_spectrum(GRIDS["SDSS"], rng) for _ in range(5)])
    plain, calibrated = (
        SpectralTokenizerPredictor.load(tmp_path / name).predict(spectra) for name in ("plain", "calibrated")
    )
    for name, values in calibrated.items():
        same = np.array_equal(values, plain[name], equal_nan=values.dtype.kind == "f")
        assert same is (name.removesuffix("_err") not in CALIBRATED), name


def test_a_calibration_of_other_features_is_refused(model, tmp_path):
    wrong = StellarCalibration(torch.zeros(4), torch.zeros(5, 3), torch.zeros(3), torch.ones(3))
    save(tmp_path / "w", model, name="t", version="1", training={}, stellar_calibration=wrong)
    with pytest.raises(WeightsError, match="shapes that do not fit"):
        load(tmp_path / "w")
