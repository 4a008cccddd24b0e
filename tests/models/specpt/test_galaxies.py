"""The classifier of galaxies: a fit that separates, a stored part, and the flag of its rows."""

import numpy as np
import pytest
import torch

from ojala.catalogs_schema.specpt import SpecPTFlag
from ojala.models.data import Spectra
from ojala.models.specpt.checkpoint import load, save
from ojala.models.specpt.galaxies import GalaxyClassifier, fit_classifier, token_features
from ojala.models.specpt.network import SpecPT
from ojala.models.specpt.predictor import SpecPTPredictor
from tests.models.specpt.small_network import SMALL


def test_the_fit_separates_rows_and_weights_decide_where_they_overlap():
    rng = np.random.default_rng(1)
    is_galaxy = torch.arange(400) % 2 == 0
    features = torch.from_numpy(rng.normal(0.0, 1.0, (400, 6))).float()
    features[:, 2] = 5.0 * features[:, 2] + 100.0 * is_galaxy
    even = torch.ones(400)
    fitted = fit_classifier(features, is_galaxy, even)
    p = (features @ fitted.weight + fitted.bias).sigmoid()
    assert ((p > 0.5) == is_galaxy).all()
    features[:, 2] = 0.0
    for heavy, expected in ((True, 1.0), (False, 0.0)):
        weight = torch.where(is_galaxy == heavy, 50.0, 1.0)
        fitted = fit_classifier(features, is_galaxy, weight)
        p = (features @ fitted.weight + fitted.bias).sigmoid()
        assert (p > 0.5).float().mean() == expected


def test_features_do_not_depend_on_the_other_rows():
    tokens = torch.randn(3, 5, 4)
    torch.testing.assert_close(token_features(tokens)[1:2], token_features(tokens[1:2]))
    assert token_features(tokens).shape == (3, 8)


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"weight": torch.ones(4)}, "lacks a tensor"),
        ({"weight": torch.ones(4), "bias": torch.ones(2)}, "do not fit each other"),
        ({"weight": torch.full((4,), torch.nan), "bias": torch.ones(1)}, "not finite"),
    ],
)
def test_a_damaged_part_is_refused(tensors, problem):
    with pytest.raises(ValueError, match=problem):
        GalaxyClassifier.from_tensors(tensors)


@pytest.mark.parametrize(("bias", "flagged"), [(9.0, False), (-9.0, True), (None, False)])
def test_rows_that_are_no_galaxies_are_flagged_where_there_is_a_classifier(tmp_path, bias, flagged):
    torch.manual_seed(1)
    part = None if bias is None else GalaxyClassifier(torch.zeros(32), torch.tensor([bias]))
    path = tmp_path / "small.safetensors"
    save(path, SpecPT(SMALL), name="small", version="1", training={}, galaxies=part)
    assert (load(path)[1].galaxies is None) == (bias is None)
    wavelength = 3600.0 + 0.8 * np.arange(7781)
    flux = 5.0 + np.random.default_rng(1).normal(0.0, 0.5, 7781)
    spectra = Spectra.from_arrays(
        [(wavelength, flux, np.full(7781, 4.0)), (wavelength, -flux, np.ones(7781))]
    )
    flags = SpecPTPredictor.load(path, batch_size=2).predict(spectra)["flags"]
    assert bool(flags[0] & SpecPTFlag.NO_GALAXY) == flagged
    assert not flags[1] & SpecPTFlag.NO_GALAXY, "nothing is said of a spectrum without a positive median"
