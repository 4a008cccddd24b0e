"""Images as patches: what lies where, what a missing pixel is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ojala.models.avis.inputs import UNIT, patchify_images, scaled_pixels, to_patches
from tests.models.avis.pairs_of_kinds import blobs

pytestmark = pytest.mark.processor


def test_a_patch_is_a_square_of_all_bands():
    pixels = np.arange(2 * 3 * 64 * 64).reshape(2, 3, 64, 64)
    patch = to_patches(pixels)[1, 8 * 2 + 5].reshape(3, 8, 8)
    np.testing.assert_array_equal(patch, pixels[1, :, 16:24, 40:48])


def test_a_bad_pixel_is_one_of_endless_noise():
    images = blobs(1)
    ivar = images.ivar.copy()
    ivar[0, 1, 0, 0] = 0.0
    bad = patchify_images(replace(images, ivar=ivar)).pixels[0, 0].reshape(2, 3, 64)[:, 1, 0]
    ivar[0, 1, 0, 0] = 1e-20
    noisy = patchify_images(replace(images, ivar=ivar)).pixels[0, 0].reshape(2, 3, 64)[:, 1, 0]
    assert bad.tolist() == [0.0, 0.0]
    torch.testing.assert_close(noisy, bad, atol=1e-6, rtol=0.0)


def test_flux_is_absolute_whatever_the_noise():
    images = blobs(1)
    bright = np.s_[0, :, 31, 31]
    deeper = replace(images, ivar=10.0 * images.ivar)
    np.testing.assert_array_equal(scaled_pixels(deeper)[0][bright], images.flux[bright] / UNIT)
    assert (scaled_pixels(deeper)[1] < scaled_pixels(images)[1]).all()


def test_a_patch_without_usable_pixel_is_not_valid_and_an_exposure_knows_its_bands():
    images = blobs(2)
    ivar, psf = images.ivar.copy(), images.psf_fwhm.copy()
    ivar[0, :, 8:16, 0:8], ivar[1, 2], psf[1, 0] = 0.0, 0.0, np.nan
    patches = patchify_images(replace(images, ivar=ivar, psf_fwhm=psf))
    assert np.flatnonzero(~patches.valid[0].numpy()).tolist() == [8]
    assert patches.valid[1].all()
    assert patches.exposure[1].tolist() == [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0]
