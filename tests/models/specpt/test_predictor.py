from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ojala.catalogs_schema.specpt import FLAG_MEANINGS, RECONSTRUCTED_SIZE, SPECPT, SPECPT_SPECTRA, SpecPTFlag
from ojala.catalogs_schema.spectra import KEY_NAMES
from ojala.models.checkpoint import WeightsError
from ojala.models.data import Spectra
from ojala.models.specpt.checkpoint import load, save
from ojala.models.specpt.network import N_BINS, PRESETS, SpecPT
from ojala.models.specpt.predictor import SpecPTPredictor, _redshifts

pytestmark = pytest.mark.processor

SMALL = dataclasses.replace(
    PRESETS["base"], channels=(8, 8, 16), width=32, hidden=64, encoder=1, decoder=1, evidence=4, rest=3
)
DESI = 3600.0 + 0.8 * np.arange(7781)
SDSS = 10.0 ** np.arange(3.5563, 4.0170, 1e-4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("specpt") / "small.safetensors"
    save(path, SpecPT(SMALL), name="small", version="1", training={})
    return path


@pytest.fixture(scope="module")
def predictor(weights: Path) -> SpecPTPredictor:
    return SpecPTPredictor.load(weights, batch_size=4)


def spectrum(seed: int = 1, wavelength: np.ndarray = DESI) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    flux = 5.0 + rng.normal(0.0, 0.5, len(wavelength))
    return wavelength, flux, np.full(len(wavelength), 4.0)


def flags_of(answers: dict[str, np.ndarray], row: int) -> SpecPTFlag:
    return SpecPTFlag(int(answers["flags"][row]))


def test_answers_have_the_columns_of_the_contracts(predictor):
    answers = predictor.predict(Spectra.from_arrays([spectrum(k) for k in range(5)]))
    assert {SPECPT_SPECTRA.name_of(SPECPT.name_of(name)) for name in answers} == (
        {*SPECPT.names, *SPECPT_SPECTRA.names} - set(KEY_NAMES)
    )
    assert answers["reconstruction"].shape == (5, RECONSTRUCTED_SIZE)
    assert answers["reconstruction"].dtype == np.float16
    assert (answers["n_pixels"] == 7781).all()
    np.testing.assert_allclose(answers["snr"], 10.0, rtol=0.05)
    np.testing.assert_allclose(answers["flux_median"], 5.0, rtol=0.05)
    for name in ("z", "z_err", "z_odds", "reconstruction_chi2", "reconstruction_nmad", "reconstruction"):
        assert np.isfinite(answers[name]).all(), name


def test_nothing_asked_is_nothing_answered(predictor):
    answers = predictor.predict(Spectra.from_arrays([]))
    assert all(len(values) == 0 for values in answers.values())


def test_a_row_alone_is_answered_as_among_others(predictor):
    rows = [spectrum(k, SDSS if k % 2 else DESI) for k in range(7)]
    together = predictor.predict(Spectra.from_arrays(rows))
    for k in (0, 3, 6):
        alone = predictor.predict(Spectra.from_arrays([rows[k]]))
        for name, values in together.items():
            np.testing.assert_allclose(alone[name][0], values[k], rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_smaller_batch_changes_answers_by_rounding_alone(weights):
    predictor = SpecPTPredictor.load(weights, batch_size=4)
    rows = Spectra.from_arrays([spectrum(k) for k in range(3)])
    before = predictor.predict(rows)
    predictor.halve_batch()
    assert predictor.batch_size == 2
    np.testing.assert_allclose(predictor.predict(rows)["z"], before["z"], rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "flag"),
    [
        ("empty", SpecPTFlag.NO_PIXELS),
        ("one pixel long", SpecPTFlag.NO_PIXELS),
        ("masked", SpecPTFlag.NO_PIXELS),
        ("NaN", SpecPTFlag.NO_PIXELS),
        ("infrared", SpecPTFlag.NO_PIXELS),
        ("NaN wavelengths", SpecPTFlag.NO_PIXELS),
        ("negative", SpecPTFlag.MEDIAN_NOT_POSITIVE),
        ("zero", SpecPTFlag.MEDIAN_NOT_POSITIVE),
    ],
)
def test_a_spectrum_without_a_brightness_is_flagged_and_not_answered(predictor, kind, flag):
    wavelength, flux, ivar = spectrum()
    bad = {
        "empty": (np.empty(0), np.empty(0), np.empty(0)),
        "one pixel long": (wavelength[:1], flux[:1], ivar[:1]),
        "masked": (wavelength, flux, np.zeros_like(ivar)),
        "NaN": (wavelength, np.full_like(flux, np.nan), ivar),
        "infrared": (wavelength + 20000.0, flux, ivar),
        "NaN wavelengths": (np.full_like(wavelength, np.nan), flux, ivar),
        "negative": (wavelength, -flux, ivar),
        "zero": (wavelength, np.zeros_like(flux), ivar),
    }[kind]
    answers = predictor.predict(Spectra.from_arrays([spectrum(), bad, spectrum(2)]))
    assert flag in flags_of(answers, 1)
    for name in ("z", "z_err", "z_odds", "reconstruction_chi2", "flux_median"):
        assert np.isnan(answers[name][1]), name
        assert np.isfinite(answers[name][[0, 2]]).all(), name
    assert np.isnan(answers["reconstruction"][1]).all()


def test_extreme_numbers_are_answered_or_flagged(predictor):
    wavelength, flux, ivar = spectrum()
    rows = [(wavelength, flux * scale, ivar / scale**2) for scale in (1e-12, 1e-6, 1e6, 1e12)]
    spike = flux.copy()
    spike[4000] = 1e30
    answers = predictor.predict(Spectra.from_arrays([spectrum(), *rows, (wavelength, spike, ivar)]))
    for row in range(1, 4):
        np.testing.assert_allclose(answers["z"][row], answers["z"][0], atol=2e-3)
    none = np.isnan(answers["z"])
    assert (answers["flags"][none] & int(SpecPTFlag.NOT_PREDICTED | SpecPTFlag.NO_PIXELS)).all()


def test_few_faint_and_far_pixels_are_remarked_on(predictor):
    wavelength, flux, ivar = spectrum()
    few = (wavelength[:1500], flux[:1500], ivar[:1500])
    faint = (wavelength, flux, ivar / 2500.0)
    beyond = np.linspace(5000.0, 15000.0, 5000)
    answers = predictor.predict(Spectra.from_arrays([few, faint, (beyond, np.ones(5000), np.ones(5000))]))
    assert SpecPTFlag.FEW_PIXELS in flags_of(answers, 0)
    assert SpecPTFlag.LOW_SNR in flags_of(answers, 1)
    assert SpecPTFlag.OUT_OF_GRID in flags_of(answers, 2)
    assert SpecPTFlag.LOW_SNR not in flags_of(answers, 0)


def test_the_published_head_answers_without_an_error(tmp_path):
    config = dataclasses.replace(SMALL, redshift=("softplus", "bins"))
    path = tmp_path / "published.safetensors"
    save(path, SpecPT(config), name="published", version="1", training={})
    answers = SpecPTPredictor.load(path).predict(Spectra.from_arrays([spectrum()]))
    assert np.isfinite(answers["z"]).all()
    assert np.isnan(answers["z_err"]).all()


def test_the_error_of_a_redshift_is_without_the_spread_of_the_labels():
    bins = torch.arange(N_BINS)
    logits = torch.stack([-0.5 * ((bins + 0.5 - 300.2) / width) ** 2 for width in (0.7, 0.7 * 5**0.5)])
    found = _redshifts(logits)
    torch.testing.assert_close(found["z"], torch.expm1(torch.full((2,), 0.3002)), atol=1e-5, rtol=0.0)
    exact, uncertain = (found["z_err"] / (1.0 + found["z"])).tolist()
    assert exact < 2e-4
    assert uncertain == pytest.approx(1.4e-3, rel=0.05)


def test_every_flag_has_one_bit_of_its_own_and_a_meaning():
    assert set(FLAG_MEANINGS) == set(SpecPTFlag)
    assert [flag.value for flag in SpecPTFlag] == [1 << bit for bit in range(len(SpecPTFlag))]


def test_weights_come_back_as_they_were_written(weights):
    model, info = load(weights)
    assert (info.name, info.version, info.config) == ("small", "1", SMALL)
    torch.manual_seed(1)
    for name, tensor in SpecPT(SMALL).state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor)


def test_damaged_and_foreign_weights_are_refused(weights, tmp_path):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(WeightsError):
        load(cut)
    ojala = Path(__file__).parents[3] / "models" / "weights" / "ojala-base.safetensors"
    with pytest.raises(WeightsError, match="this program reads 'specpt-weights/1'"):
        load(ojala)


@pytest.mark.parametrize(("wavelength", "z"), [(DESI, 0.31), (DESI, 0.9), (SDSS, 0.12)])
def test_the_weights_that_come_along_find_the_redshift_of_an_emission_line_galaxy(wavelength, z):
    rng = np.random.default_rng(5)
    flux = np.full(len(wavelength), 1.0)
    for line, strength in ((3728.5, 8.0), (4862.7, 3.0), (4960.3, 4.0), (5008.2, 12.0), (6564.6, 10.0)):
        flux += strength * np.exp(-0.5 * ((wavelength / (line * (1.0 + z)) - 1.0) / 4e-4) ** 2)
    observed = flux + rng.normal(0.0, 0.4, len(wavelength))
    weights = Path(__file__).parents[3] / "models" / "weights" / "specpt-base.safetensors"
    spectra = Spectra.from_arrays([(wavelength, observed, np.full(len(wavelength), 0.4**-2))])
    answers = SpecPTPredictor.load(weights, batch_size=1).predict(spectra)
    assert answers["z"][0] == pytest.approx(z, abs=1e-3)
    assert answers["z_odds"][0] > 0.9
