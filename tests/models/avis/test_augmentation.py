"""Lessons: made of pixels alone, each side observed anew, part of it hidden."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from ojala.models.avis.augmentation import AugmentationSettings, make_training_batch
from ojala.models.avis.inputs import scaled_pixels
from ojala.models.data import Pairs, Spectra
from tests.models.avis.pairs_of_kinds import SMALL, alike

pytestmark = pytest.mark.processor

AS_THEY_ARE = AugmentationSettings(
    p_unmasked=1.0,
    target_fraction=1.0,
    noise=0.0,
    tilt=0.0,
    no_brightness=0.0,
    no_psf=0.0,
    no_band=0.0,
    move=0,
)


def batch(config, pairs=None, seed=1):
    return make_training_batch(pairs or alike(6), SMALL.spectrum, config, np.random.default_rng(seed))


def test_no_label_goes_into_a_lesson():
    assert {field.name for field in fields(Pairs)} == {"spectra", "images", "relative_flux"}


def test_what_is_asked_are_the_pixels_of_the_same_objects():
    pairs, made = alike(6), batch(AS_THEY_ARE)
    median = np.array([np.median(flux) for _, flux, _ in pairs.spectra])
    np.testing.assert_allclose(
        made.of_spectra.flux.flatten(1)[:, :320],
        pairs.spectra.flux.reshape(6, 320) / median[:, None],
        rtol=1e-5,
    )
    np.testing.assert_allclose(made.brightness[:, 0], np.log10(median), rtol=1e-5, atol=1e-6)
    # Images are turned: the pixels are the same, in some order of the eight.
    pixels = np.sort(np.arcsinh(scaled_pixels(pairs.images)[0]).reshape(6, -1), axis=1)
    np.testing.assert_allclose(np.sort(made.of_images.flux.flatten(1), axis=1), pixels, rtol=1e-5, atol=1e-5)


def test_part_is_hidden_but_not_the_object():
    config = replace(
        AugmentationSettings(), p_unmasked=0.0, spectrum_visible=(0.5, 0.5), image_visible=(0.5, 0.5)
    )
    made = batch(config)
    assert made.spectra.valid.sum(dim=1).tolist() == [10] * 6
    assert made.images.place.shape == (6, 32)
    centre = {8 * row + column for row in (3, 4) for column in (3, 4)}
    assert all(centre <= set(places) for places in made.images.place.tolist())


def test_more_noise_is_also_said_to_be_there():
    """Residuals from the truth, in errors, keep a scatter of one."""
    pairs = alike(40)
    truth = np.ones_like(pairs.spectra.flux)
    noisy = Pairs(
        Spectra(
            pairs.spectra.offsets,
            pairs.spectra.wavelength,
            (truth + 0.05 * np.random.default_rng(1).standard_normal(len(truth))).astype(np.float32),
            pairs.spectra.ivar,
        ),
        pairs.images,
    )
    made = batch(replace(AS_THEY_ARE, noise=2.0), noisy)
    flux, weight = made.of_spectra.flux, made.of_spectra.weight
    residual = (flux - flux.median(dim=1, keepdim=True).values.median(dim=2, keepdim=True).values) * weight
    scatter = residual.flatten(1).std(dim=1)
    assert weight.flatten(1).mean(dim=1).max() > 1.5 * weight.flatten(1).mean(dim=1).min()
    assert ((scatter > 0.7) & (scatter < 1.2)).all()


def test_an_image_that_is_moved_has_no_pixels_where_nothing_moves_in():
    made = batch(replace(AS_THEY_ARE, move=3), alike(20))
    weight = made.of_images.weight
    assert (weight == 0.0).any()
    assert (made.of_images.flux[weight == 0.0] == 0.0).all()


def test_an_image_that_is_off_centre_keeps_all_of_its_pixels():
    made = batch(replace(AS_THEY_ARE, off_centre=1.0))
    pixels = np.sort(np.arcsinh(scaled_pixels(alike(6).images)[0]).reshape(6, -1), axis=1)
    np.testing.assert_allclose(np.sort(made.of_images.flux.flatten(1), axis=1), pixels, rtol=1e-5, atol=1e-5)
    brightest = batch(replace(AS_THEY_ARE, off_centre=1.0), alike(40)).of_images
    places = brightest.flux.flatten(2).sum(dim=2).argmax(dim=1)
    centre = {8 * row + column for row in (3, 4) for column in (3, 4)}
    assert len(set(brightest.where.gather(1, places[:, None]).ravel().tolist()) - centre) > 10


def test_lost_pixels_are_a_rectangle_of_one_band():
    weight = batch(replace(AS_THEY_ARE, lost=1.0), alike(20)).of_images.weight.unflatten(2, (3, 64))
    assert ((weight == 0.0).any(dim=3).any(dim=1).sum(dim=1) <= 1).all()
    assert (weight == 0.0).any()


def test_a_pair_that_shows_nothing_on_a_side_is_left_out():
    pairs = alike(4)
    ivar = pairs.images.ivar.copy()
    ivar[2] = 0.0
    unseen = Pairs(pairs.spectra, replace(pairs.images, ivar=ivar))
    assert len(batch(AugmentationSettings(), unseen).brightness) == 3


@pytest.mark.parametrize("seed", [1, 2])
def test_the_generator_decides(seed):
    one, same, other = (batch(AugmentationSettings(), seed=k) for k in (seed, seed, seed + 10))
    torch.testing.assert_close(one.images.pixels, same.images.pixels)
    assert one.images.pixels.shape != other.images.pixels.shape or not torch.equal(
        one.images.pixels, other.images.pixels
    )
