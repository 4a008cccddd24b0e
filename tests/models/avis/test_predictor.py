"""Embeddings: one for each row, its own, and of what there is of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ojala.catalogs_schema.avis import EMBEDDING_SIZE
from ojala.models import WEIGHTS_FOLDER
from ojala.models.avis.checkpoint import save
from ojala.models.avis.network import PRESETS, Avis
from ojala.models.avis.predictor import AvisPredictor
from ojala.models.checkpoint import WeightsError, read_tensors, write_tensors
from ojala.models.data import Images, Pairs, Spectra
from tests.models.avis.pairs_of_kinds import SMALL, blobs, mixed_pairs
from tests.models.spectral_tokenizer.spectra_of_kinds import as_spectra, mixed_spectra

pytestmark = pytest.mark.processor


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save(path, Avis(SMALL), name="small", version="9", training={})
    return path


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def predictor(request, weights):
    return AvisPredictor.load(weights, precision=request.param, batch_size=4)


def picked(pairs, rows):
    spectra = list(pairs.spectra)
    images = Images(*(getattr(pairs.images, name)[rows] for name in ("flux", "ivar", "psf_fwhm")))
    return Pairs(Spectra.from_arrays([spectra[row] for row in rows]), images)


def test_embeddings_are_unit_vectors_of_single_precision(predictor):
    answers = predictor.predict(mixed_pairs(7))
    assert set(answers) == {"embedding", "embedding_spectrum", "embedding_image"}
    for values in answers.values():
        assert values.shape == (7, SMALL.size)
        assert values.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1.0, atol=1e-6)


def test_the_joint_embedding_lies_between_those_of_the_sides(predictor):
    answers = predictor.predict(mixed_pairs(5))
    to = {
        side: (answers["embedding"] * answers[f"embedding_{side}"]).sum(1) for side in ("spectrum", "image")
    }
    np.testing.assert_allclose(to["spectrum"], to["image"], atol=1e-5)


def test_a_row_is_the_same_alone_in_company_and_in_another_order(predictor):
    pairs = mixed_pairs(11)
    together = predictor.predict(pairs)
    order = np.random.default_rng(1).permutation(11)
    for rows in (np.array([4]), order, np.arange(3, 9)):
        for name, values in predictor.predict(picked(pairs, rows)).items():
            np.testing.assert_array_equal(values, together[name][rows], err_msg=name)


def test_where_one_side_is_missing_the_other_is_the_joint_embedding(predictor):
    pairs = mixed_pairs(4)
    ivar = pairs.images.ivar.copy()
    ivar[[1, 3]] = 0.0
    spectra = [(w, f, i * (row not in (2, 3))) for row, (w, f, i) in enumerate(pairs.spectra)]
    answers = predictor.predict(Pairs(Spectra.from_arrays(spectra), replace(pairs.images, ivar=ivar)))
    whole = predictor.predict(pairs)
    known = {name: np.isfinite(values).all(axis=1).tolist() for name, values in answers.items()}
    assert known == {
        "embedding": [True, True, True, False],
        "embedding_spectrum": [True, True, False, False],
        "embedding_image": [True, False, True, False],
    }
    np.testing.assert_allclose(answers["embedding"][1], whole["embedding_spectrum"][1], atol=1e-6)
    np.testing.assert_allclose(answers["embedding"][2], whole["embedding_image"][2], atol=1e-6)
    assert np.isnan(answers["embedding"][3]).all()


def test_pixels_that_must_not_be_used_are_not_felt(predictor):
    """Nor whatever numbers stand there."""
    pairs = mixed_pairs(3)
    ivar, flux = pairs.images.ivar.copy(), pairs.images.flux.copy()
    ivar[:, 0], ivar[:, :, :5] = 0.0, 0.0
    before = predictor.predict(Pairs(pairs.spectra, Images(flux, ivar, pairs.images.psf_fwhm)))
    flux[:, 0], flux[:, :, :5] = np.nan, 1e30
    after = predictor.predict(Pairs(pairs.spectra, Images(flux, ivar, pairs.images.psf_fwhm)))
    np.testing.assert_array_equal(after["embedding"], before["embedding"])


def test_the_brightness_of_a_spectrum_is_felt(predictor):
    pairs = mixed_pairs(3)
    fainter = Spectra.from_arrays([(w, 0.1 * f, 100.0 * i) for w, f, i in pairs.spectra])
    before = predictor.predict(pairs)["embedding_spectrum"]
    after = predictor.predict(Pairs(fainter, pairs.images))["embedding_spectrum"]
    assert np.abs(after - before).max() > 1e-4


def test_the_brightness_of_a_spectrum_of_arbitrary_scale_is_not_felt(predictor):
    pairs, relative = mixed_pairs(3), np.array([True, True, False])
    fainter = Spectra.from_arrays([(w, 0.1 * f, 100.0 * i) for w, f, i in pairs.spectra])
    before, after = (
        predictor.predict(Pairs(spectra, pairs.images, relative))["embedding_spectrum"]
        for spectra in (pairs.spectra, fainter)
    )
    np.testing.assert_allclose(after[relative], before[relative], atol=1e-5)
    assert np.abs(after - before)[~relative].max() > 1e-4


def test_nothing_is_asked_of_nothing(predictor):
    none = Pairs(
        as_spectra([]), Images(*(part[:0] for part in (blobs(1).flux, blobs(1).ivar, blobs(1).psf_fwhm)))
    )
    assert {values.shape for values in predictor.predict(none).values()} == {(0, SMALL.size)}


def test_smaller_batches_change_no_more_than_rounding(weights):
    predictor = AvisPredictor.load(weights, batch_size=8)
    pairs = mixed_pairs(9)
    before = predictor.predict(pairs)["embedding"]
    predictor.halve_batch()
    assert predictor.batch_size == 4
    np.testing.assert_allclose(predictor.predict(pairs)["embedding"], before, atol=1e-4)


def test_it_says_what_it_is(weights):
    predictor = AvisPredictor.load(weights, batch_size=4)
    assert (predictor.name, predictor.version, predictor.batch_size) == ("small", "9", 4)
    assert len(predictor.weights_sha256) == 64


def test_damaged_weights_are_refused(weights, tmp_path):
    tensors, header = read_tensors(weights)
    del tensors["image.place"]
    write_tensors(tmp_path / "less.safetensors", tensors, header)
    with pytest.raises(WeightsError, match=r"missing tensor image\.place"):
        AvisPredictor.load(tmp_path / "less.safetensors")


def test_the_card_is_that_of_the_weights_that_come_with_the_program():
    path = WEIGHTS_FOLDER / "avis-base.safetensors"
    predictor = AvisPredictor.load(path)
    card = path.with_suffix(".md").read_text()
    assert predictor.weights_sha256 in card
    assert card.startswith(f"# {predictor.name} {predictor.version}\n")
    assert path.stat().st_size < 16 * 2**20


def test_the_contract_has_room_for_the_embeddings():
    assert {config.size for config in PRESETS.values()} == {EMBEDDING_SIZE}


def test_there_is_one_image_for_each_spectrum():
    with pytest.raises(ValueError, match="2 spectra, but 3 images"):
        Pairs(as_spectra(mixed_spectra(2)), blobs(3))
