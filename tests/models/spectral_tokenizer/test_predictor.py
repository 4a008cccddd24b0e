"""A catalogue's numbers: one row per spectrum, complete, and each row's own."""

import numpy as np
import pytest
import torch

from ojala.catalogs_schema.spectra import KEY_NAMES
from ojala.catalogs_schema.spectral_tokenizer import SPECTRAL_TOKENIZER, SpectrumFlag
from ojala.models.checkpoint import WeightsError, read_tensors, write_tensors
from ojala.models.spectral_tokenizer.checkpoint import save
from ojala.models.spectral_tokenizer.heads import Heads, TokenizerWithHeads
from ojala.models.spectral_tokenizer.network import TokenizerConfig
from ojala.models.spectral_tokenizer.predictor import SpectralTokenizerPredictor
from tests.models.spectral_tokenizer.spectra_of_kinds import GRIDS, as_spectra, mixed_spectra

pytestmark = pytest.mark.processor

SMALL = TokenizerConfig(width=32, heads=2, encoder=2, decoder=1, patch=16)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(2)
    heads = Heads(SMALL.width, SMALL.heads)
    with torch.no_grad():  # so that all classes occur
        heads.object_class[-1].weight.mul_(30.0)
        heads.object_class[-1].bias.zero_()
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    model = TokenizerWithHeads(SMALL)
    model.heads = heads
    save(path, model, name="small", version="9", training={})
    return path


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def predictor(request, weights):
    return SpectralTokenizerPredictor.load(weights, precision=request.param, batch_size=4)


def assert_rows_equal(some, others, rows):
    for name, values in some.items():
        np.testing.assert_array_equal(values, others[name][rows], err_msg=name)


def test_the_answers_are_the_columns_of_the_contract(predictor):
    answers = predictor.predict(as_spectra(mixed_spectra(5)))
    names = {SPECTRAL_TOKENIZER.name_of(name) for name in answers}
    assert names == set(SPECTRAL_TOKENIZER.names) - set(KEY_NAMES)
    assert {len(values) for values in answers.values()} == {5}
    assert answers["flags"].dtype == np.int32
    assert answers["embedding"].shape == (5, SMALL.width)


def test_a_row_is_the_same_alone_in_company_and_in_another_order(predictor):
    spectra = mixed_spectra(11)
    together = predictor.predict(as_spectra(spectra))
    assert_rows_equal(predictor.predict(as_spectra(spectra[4:5])), together, slice(4, 5))
    order = np.random.default_rng(1).permutation(11)
    assert_rows_equal(predictor.predict(as_spectra([spectra[k] for k in order])), together, order)


def test_answers_have_meaning_for_the_class(predictor):
    answers = predictor.predict(as_spectra(mixed_spectra(40)))
    star = answers["class"] == "STAR"
    assert star.any()
    assert not star.all()
    assert np.isnan(answers["z"][star]).all()
    assert np.isfinite(answers["z"][~star]).all()
    np.testing.assert_array_equal(np.isfinite(answers["teff"]), answers["p_star"] >= 0.01)


def test_spectra_without_a_readable_patch_are_flagged_and_have_no_answer(predictor):
    grid, flux, ivar = mixed_spectra(1)[0]
    sparse = np.where(np.arange(len(grid)) % 16 < 3, ivar, 0.0)
    hopeless = [
        (grid, flux, np.zeros(len(grid))),
        (grid, np.full(len(grid), np.nan), ivar),
        (grid[:0], flux[:0], ivar[:0]),
        (grid, flux, sparse),
    ]
    answers = predictor.predict(as_spectra([*hopeless, *mixed_spectra(1)]))
    assert (answers["flags"][:4] & SpectrumFlag.NO_PIXELS != 0).all()
    assert answers["flags"][4] & SpectrumFlag.NO_PIXELS == 0
    assert answers["class"][:4].tolist() == ["NONE"] * 4
    assert answers["n_pixels"].tolist() == [0, 0, 0, (sparse > 0).sum(), len(grid)]
    for name in set(answers) - {"class", "flags", "n_pixels"}:
        assert np.isnan(answers[name][:4]).all(), name
    assert np.isfinite(answers["embedding"][4]).all()


def test_no_spectra_give_no_rows(predictor):
    answers = predictor.predict(as_spectra([]))
    assert {len(values) for values in answers.values()} == {0}


def test_weak_and_negative_spectra_are_remarked(predictor):
    grid, flux, ivar = mixed_spectra(1)[0]
    answers = predictor.predict(as_spectra([(grid, -flux, ivar), (grid[:100], flux[:100], ivar[:100])]))
    assert answers["flags"][0] & SpectrumFlag.MEDIAN_NOT_POSITIVE
    assert answers["flags"][0] & SpectrumFlag.LOW_SIGNAL
    assert answers["flags"][1] & SpectrumFlag.FEW_PIXELS


def test_spectra_beyond_the_wavelengths_of_the_training_are_remarked(predictor):
    grid, flux, ivar = mixed_spectra(1)[0]
    masked = np.where(grid > np.median(grid), 0.0, ivar)
    made = [(grid, flux, ivar), (grid + 11_000.0, flux, ivar), (grid + 11_000.0, flux, 0.0 * ivar)]
    straddling = np.linspace(9_000.0, 14_000.0, len(grid))
    made += [(straddling, flux, ivar), (straddling, flux, np.where(straddling < 10_000.0, ivar, 0.0))]
    flags = predictor.predict(as_spectra([*made, (grid, flux, masked)]))["flags"]
    untrained = (flags & SpectrumFlag.NOT_TRAINED) != 0
    assert untrained.tolist() == [False, True, False, True, False, False]


def test_a_spectrum_is_reconstructed_on_any_wavelengths(predictor):
    spectra = mixed_spectra(3)
    wanted = [GRIDS["SDSS"], GRIDS["DESI"][100:333], np.empty(0)]
    made = predictor.reconstruct(as_spectra(spectra), wanted)
    assert [len(flux) for flux in made] == [len(grid) for grid in wanted]
    assert all(np.isfinite(flux).all() for flux in made)


def test_a_smaller_batch_gives_the_same_answers_but_for_rounding(weights):
    predictor = SpectralTokenizerPredictor.load(weights, batch_size=8)
    spectra = as_spectra(mixed_spectra(9))
    before = predictor.predict(spectra)
    predictor.halve_batch()
    assert predictor.batch_size == 4
    for name, values in predictor.predict(spectra).items():
        if name != "class":
            np.testing.assert_allclose(values, before[name], rtol=5e-3, atol=5e-3, err_msg=name)


def test_weights_of_another_network_are_refused(weights, tmp_path):
    tensors, metadata = read_tensors(weights)
    tensors["network.write.bias"] = tensors["network.write.bias"][:3].clone()
    write_tensors(tmp_path / "other.safetensors", tensors, metadata)
    with pytest.raises(WeightsError, match=r"network.write.bias is \(3,\), not \(16,\)"):
        SpectralTokenizerPredictor.load(tmp_path / "other.safetensors")
