from __future__ import annotations

import dataclasses
import itertools
import json
import types

import numpy as np
import pytest
import torch

from ojala.models.data import LabelledSpectra, Spectra
from ojala.models.settings import from_mapping
from ojala.models.specpt import losses as specpt_training_losses
from ojala.models.specpt import network, training
from ojala.models.specpt.checkpoint import load
from ojala.models.specpt.losses import nmad_loss, redshift_losses, total_loss
from ojala.models.specpt.network import N_BINS
from ojala.models.specpt.training import Batch, SpecPTTraining, losses, train
from ojala.models.training import trainer
from tests.models.specpt.small_network import SMALL

pytestmark = [pytest.mark.integration, pytest.mark.processor]

CONFIG = SpecPTTraining(name="tiny", minutes=10.0, reconstruction=0.2, batch_size=4, decoded=2, seed=3)
WAVELENGTH = (3600.0 + 2.0 * np.arange(3112)).astype(np.float32)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "PRESETS", {"base": SMALL})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute passes each time that the training looks at its clock: a minute for each step."""
    ticks = itertools.count(0.0, 30.0)
    monkeypatch.setattr(trainer, "time", types.SimpleNamespace(monotonic=lambda: next(ticks)))


def draw(n: int, rng: np.random.Generator) -> LabelledSpectra:
    """Spectra with one line, at 3000 A at rest."""
    z = rng.uniform(0.3, 1.5, n)
    line = np.exp(-0.5 * ((WAVELENGTH - 3000.0 * (1.0 + z[:, None])) / 8.0) ** 2)
    flux = (1.0 + 4.0 * line + rng.normal(0.0, 0.2, line.shape)).astype(np.float32)
    spectra = Spectra(
        np.arange(n + 1) * len(WAVELENGTH),
        np.tile(WAVELENGTH, n),
        flux.ravel(),
        np.full(flux.size, 25.0, np.float32),
    )
    return LabelledSpectra(spectra, np.zeros(n, np.int64), {"z": z.astype(np.float32)}, np.arange(n))


def test_a_training_writes_weights_measures_and_one_file_of_metrics(tmp_path, clock):
    checks = {"lines": draw(6, np.random.default_rng(1))}
    path = train(CONFIG, draw, checks, tmp_path)
    _, info = load(path)
    assert (info.name, info.config.width) == ("tiny", 16)
    assert info.training["held_out"]["lines"]["bins n"] == 6
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["held_out"] == info.training["held_out"]


def test_a_training_that_was_interrupted_goes_on_where_it_was_saved(tmp_path, clock):
    class Stop(Exception):
        pass

    saves: list[dict[str, object]] = []

    def stop_at_the_second_save(record: dict[str, object]) -> None:
        saves.extend([record] if "held_out" in record else [])
        if len(saves) == 2:
            raise Stop

    with pytest.raises(Stop):
        train(CONFIG, draw, {}, tmp_path, stop_at_the_second_save)
    assert saves[0]["step"] > 2
    last: list[dict[str, object]] = []
    path = train(CONFIG, draw, {}, tmp_path, last.append)
    assert last[0]["step"] > saves[0]["step"]
    steps = load(path)[1].training["draws"] / CONFIG.batch_size
    assert saves[0]["step"] < steps <= 12, "the first step of each of two sessions does not count"


def test_a_training_with_other_settings_is_not_gone_on_with(tmp_path, clock):
    train(CONFIG, draw, {}, tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        train(dataclasses.replace(CONFIG, seed=4), draw, {}, tmp_path)


def test_the_published_head_learns_on_desi_s_own_pixels():
    shape = dataclasses.replace(
        training.PRESETS["base"],
        grid="desi",
        strides=(2, 2, 2),
        redshift=("softplus",),
        evidence=0,
        rest=0,
    )
    model = network.SpecPT(shape)
    batch = Batch.from_spectra(draw(3, np.random.default_rng(2)), model.grid)
    found = losses(model, batch, decoded=2, redshift=True)
    assert set(found) == {"nmad", "residual", "softplus"}
    total_loss(found).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_parts_of_the_range_are_lost_at_random_and_the_redshift_is_not():
    drawn = draw(200, np.random.default_rng(3))
    grid = network.GRIDS["log"]
    whole, cut = (
        Batch.from_spectra(drawn, grid),
        Batch.from_spectra(drawn, grid, masking=np.random.default_rng(4)),
    )
    kept = (cut.ivar > 0.0).sum(dim=1) / (whole.ivar > 0.0).sum(dim=1)
    assert 0.6 < (kept == 1.0).float().mean() < 0.8
    assert 0.45 < kept.min() < 0.75
    torch.testing.assert_close(cut.z, whole.z)


def test_unknown_settings_are_named():
    with pytest.raises(ValueError, match="unknown settings: epochs"):
        from_mapping(SpecPTTraining, {"epochs": 3})


def test_the_loss_of_a_reconstruction_is_the_mean_deviation_over_the_mad():
    flux = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 99.0]])
    ivar = torch.tensor([[1e6, 1e6, 1e6, 1e6, 1e6, 0.0]])
    assert nmad_loss(flux, ivar, flux + 0.5).item() == pytest.approx(0.5)  # the MAD is 1
    assert nmad_loss(flux, ivar, flux).item() == 0.0


def test_noisy_pixels_count_less_in_the_loss():
    flux = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    ivar = torch.tensor([[1e6, 1e6, 1e6, 1e6, 1e-2]])  # the last has an error of ten times the MAD
    wrong = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0]])
    assert nmad_loss(flux, ivar, flux + wrong).item() == pytest.approx(0.1 / 4.1, rel=1e-3)


def test_the_best_answer_of_the_bins_is_the_label():
    z = torch.tensor([0.1, 0.8])
    position = torch.log1p(z) / 0.001 - 0.5
    at = -0.5 * ((torch.arange(N_BINS) - position[:, None]) / specpt_training_losses.LABEL_WIDTH) ** 2
    best = redshift_losses({"bins": at}, z)["bins"]
    assert best < redshift_losses({"bins": at.roll(1, dims=1)}, z)["bins"]
    assert best.item() == pytest.approx(
        np.log(specpt_training_losses.LABEL_WIDTH * np.sqrt(2 * np.pi * np.e)), abs=0.01
    )
