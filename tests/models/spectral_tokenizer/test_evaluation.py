"""The measures of answers and embeddings."""

import numpy as np
import pytest

from ojala.models.data import Spectra
from ojala.models.spectral_tokenizer.evaluation import crop, quality, reconstruction_quality, retrieval

pytestmark = pytest.mark.processor

NAN = np.nan


def test_classes_redshifts_and_parameters_are_judged_each_on_its_own_objects():
    n = np.full
    answers = {"class": np.array(["GALAXY", "STAR", "QSO", "GALAXY", "NONE", "STAR"])}
    answers |= {"z": np.array([0.11, NAN, 2.0, 0.5, NAN, NAN]), "z_err": n(6, 0.02)}
    for name in ("teff", "logg", "fe_h"):
        answers |= {name: np.array([NAN, 5100.0, NAN, NAN, NAN, 5300.0]), f"{name}_err": n(6, 150.0)}
    labels = {"z": np.array([0.1, 0.1, 2.0, 0.1, 0.1, 0.0]), "teff": n(6, 5000.0)}
    found = quality(answers, np.array([0, 0, 2, 0, 0, 1]), labels)
    assert (found["class_galaxy"], found["class_star"], found["class_qso"]) == (0.5, 1.0, 1.0)
    assert found["class_mean"] == pytest.approx(2.5 / 3)
    assert found["z_galaxy_outliers_15"] == 0.5
    assert found["z_galaxy_within"] == 0.5
    assert found["z_qso_bias"] == 0.0
    assert found["teff_bias"] == 300.0
    assert found["teff_within"] == 0.0
    assert "logg_bias" not in found


def test_an_object_is_found_again_where_embeddings_agree_but_for_an_offset():
    rng = np.random.default_rng(1)
    one = rng.standard_normal((300, 16))
    again = one + 5.0 + 0.1 * rng.standard_normal(one.shape)
    one[7] = NAN
    assert retrieval(one, again) == {"n": 299.0, "median_rank": 1.0, "top_1": 1.0, "top_10": 1.0}
    chance = retrieval(one, rng.standard_normal(one.shape))
    assert 120 < chance["median_rank"] < 180


def test_a_range_is_kept_and_judged():
    grid = np.linspace(4000.0, 8000.0, 400)
    flux = np.linspace(1.0, 3.0, 400)
    spectra = Spectra.from_arrays([(grid, flux, np.full(400, 100.0)), (grid, 2.0 * flux, np.full(400, 25.0))])
    left = crop(spectra, 5000.0, 6000.0)
    assert left.sizes.tolist() == [100, 100]
    assert left.wavelength.min() >= 5000.0
    wrong = [np.where(grid < 6000.0, 1.0, 1.1) * f for _, f, _ in spectra]
    assert reconstruction_quality(spectra, wrong, 0.0, 6000.0) == {"chi2": 0.0, "residual": 0.0}
    beyond = reconstruction_quality(spectra, wrong, 6000.0, 9000.0)
    assert beyond["residual"] == pytest.approx(0.1, rel=1e-3)
    assert beyond["chi2"] == pytest.approx(np.mean((0.1 * flux[200:]) ** 2) * 100.0, rel=1e-3)
