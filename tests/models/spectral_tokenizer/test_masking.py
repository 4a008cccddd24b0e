"""Masking leaves part of a spectrum visible, part of it is the target, bad pixels have no weight."""

import numpy as np
import pytest
import torch

from ojala.models.data import Spectra
from ojala.models.quantities import CLASSES
from ojala.models.spectral_tokenizer.heads import STELLAR, TokenizerWithHeads
from ojala.models.spectral_tokenizer.losses import HUBER, contrast, losses, reconstruction_loss
from ojala.models.spectral_tokenizer.masking import MaskingSettings, make_training_batch
from ojala.models.spectral_tokenizer.network import TokenizerConfig
from ojala.models.spectral_tokenizer.patches import patchify
from tests.models.spectral_tokenizer.spectra_of_kinds import GRIDS, as_spectra, one_spectrum

pytestmark = pytest.mark.processor

SMALL = TokenizerConfig(width=32, heads=2, encoder=1, decoder=1, patch=16)
N = 9


def drawn(n=N):
    rng = np.random.default_rng(5)
    spectra = as_spectra([one_spectrum(GRIDS["SDSS"], rng) for _ in range(n)])
    class_code = np.arange(n) % 3
    labels = {
        "z": np.full(n, 0.3),
        "teff": np.full(n, 5800.0),
        "logg": np.full(n, np.nan),
        "fe_h": np.zeros(n),
    }
    return spectra, class_code, labels


def batch_of(config=None, seed=0):
    return make_training_batch(*drawn(), SMALL, config or MaskingSettings(), np.random.default_rng(seed))


def test_a_part_is_shown_and_a_part_is_asked_for():
    batch = batch_of(MaskingSettings(p_unmasked=0.0))
    assert 0.25 * 72 - 1 <= batch.visible.valid.sum(dim=1).min() < 72
    assert batch.flux.shape == (N, round(0.34 * 72), SMALL.patch)
    everything = batch_of(MaskingSettings(p_unmasked=1.0))
    assert everything.visible.valid.sum(dim=1).tolist() == [72] * N


def test_an_arm_is_missing_from_many_lessons():
    """The places of what is shown, whole spectra aside: from the blue end, to the red end, or between."""
    first, last = [], []
    places = patchify(drawn(1)[0], SMALL.patch, SMALL.width)[0].code
    for seed in range(40):
        batch = batch_of(MaskingSettings(p_unmasked=0.0), seed)
        for code, valid in zip(batch.visible.code.numpy(), batch.visible.valid.numpy(), strict=True):
            seen = [int(np.abs(places - one).max(axis=1).argmin()) for one in code[valid]]
            if seen == list(range(seen[0], seen[-1] + 1)) and len(seen) < 72:
                first.append(seen[0] == 0)
                last.append(seen[-1] == 71)
    assert 0.65 < len(first) / (40 * N) < 0.85
    assert 0.2 < np.mean(first) < 0.45
    assert 0.2 < np.mean(last) < 0.45


def test_the_contrast_is_least_where_each_object_is_nearest_to_itself():
    one = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    same, moved = contrast(one, 2.0 * one + 5.0), contrast(one, one + 5.0)
    torch.testing.assert_close(same, moved)  # an instrument's own place and scale do not count
    assert same < 0.1 * np.log(64)
    assert contrast(one, one.roll(1, dims=0)) > np.log(64)


def test_what_is_not_shown_does_not_set_the_unit():
    spectra, class_code, labels = drawn(1)
    config, rng = MaskingSettings(p_unmasked=0.0), np.random.default_rng
    batch = make_training_batch(spectra, class_code, labels, SMALL, config, rng(4))
    places = list(batch.visible.code[0][batch.visible.valid[0]])
    own = patchify(spectra, SMALL.patch, SMALL.width)[0]
    shown = np.repeat([any(np.allclose(code, p) for p in places) for code in own.code], SMALL.patch)[:1150]
    assert 0 < shown.sum() < 1150
    brighter = Spectra(
        spectra.offsets, spectra.wavelength, np.where(shown, 1.0, 9.0) * spectra.flux, spectra.ivar
    )
    other = make_training_batch(brighter, class_code, labels, SMALL, config, rng(4))
    torch.testing.assert_close(other.visible.pixels, batch.visible.pixels, rtol=1e-5, atol=1e-5)


def test_the_redshift_of_a_star_is_not_asked_for():
    batch = batch_of()
    star = batch.class_code == CLASSES.index("STAR")
    assert torch.isnan(batch.redshift[star]).all()
    torch.testing.assert_close(batch.redshift[~star], torch.full((6,), np.log(1.3) / 0.001).float())


def test_spectra_that_cannot_be_read_are_left_out():
    spectra, class_code, labels = drawn(3)
    ivar = spectra.ivar.copy()
    ivar[spectra.offsets[1] : spectra.offsets[2]] = 0.0
    hidden = Spectra(spectra.offsets, spectra.wavelength, spectra.flux, ivar)
    batch = make_training_batch(
        hidden, class_code, labels, SMALL, MaskingSettings(), np.random.default_rng(0)
    )
    assert batch.class_code.tolist() == batch.row.tolist() == [0, 2]


def test_bad_pixels_and_single_pixels_do_not_rule():
    wanted, weight = torch.zeros(1, 1, 4), torch.tensor([[[1.0, 1.0, 1.0, 0.0]]])
    assert reconstruction_loss(torch.tensor([[[0.0, 0.0, 0.0, 1e9]]]), wanted, weight) == 0.0
    spike = reconstruction_loss(torch.tensor([[[0.0, 0.0, 100.0, 0.0]]]), wanted, weight)
    assert spike.item() == pytest.approx(HUBER * (100.0 - 0.5 * HUBER) / 3)


def test_a_spectrum_that_is_dark_but_for_some_pixels_does_not_rule_a_step():
    grid, flux, _ = one_spectrum(GRIDS["SDSS"], np.random.default_rng(2))
    freak = (grid, np.where(np.arange(len(grid)) < 900, 1e-6, flux), np.full(len(grid), 1e12))
    spectra, labels = (
        as_spectra([freak]),
        {"z": np.zeros(1), **dict.fromkeys(("teff", "logg", "fe_h"), np.ones(1))},
    )
    config = MaskingSettings(p_unmasked=1.0, target_fraction=1.0)
    batch = make_training_batch(spectra, np.array([1]), labels, SMALL, config, np.random.default_rng(0))
    assert reconstruction_loss(torch.zeros_like(batch.flux), batch.flux, batch.weight) < 200.0


@pytest.mark.parametrize("p_bottleneck", [0.0, 0.5, 1.0])
def test_every_loss_is_finite_and_reaches_what_it_shall_teach(p_bottleneck):
    torch.manual_seed(0)
    model = TokenizerWithHeads(SMALL)
    config = MaskingSettings(p_bottleneck=p_bottleneck)
    found, embedding = losses(model, batch_of(config), config)
    assert embedding.shape == (N, SMALL.width)
    assert set(found) == {"reconstruction", "class", "z", *(q.name for q in STELLAR)}
    assert found["logg"] == 0.0  # not known for any
    torch.stack(list(found.values())).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
