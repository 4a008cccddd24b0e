"""Training: it learns, goes on where it stopped, and keeps a frozen network as it is."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch

from ojala.models.data import LabelledSpectra
from ojala.models.spectral_tokenizer import training
from ojala.models.spectral_tokenizer.checkpoint import load
from ojala.models.spectral_tokenizer.losses import losses
from ojala.models.spectral_tokenizer.masking import MaskingSettings, make_training_batch
from ojala.models.spectral_tokenizer.network import PRESETS, TokenizerConfig
from ojala.models.spectral_tokenizer.training import TokenizerTraining, train
from ojala.models.training import trainer
from tests.models.clock import Clock
from tests.models.spectral_tokenizer.spectra_of_kinds import GRIDS, as_spectra, one_spectrum

pytestmark = [pytest.mark.integration, pytest.mark.processor]

SMALL = TokenizerConfig(width=32, heads=2, encoder=1, decoder=1, patch=16)


def draw_from(name):
    def draw(n, of, rng):
        spectra = as_spectra([one_spectrum(GRIDS[name][:320], rng) for _ in range(n)])
        labels = {
            key: np.full(n, value) for key, value in (("z", 0.1), ("teff", 5e3), ("logg", 4.0), ("fe_h", 0))
        }
        return LabelledSpectra(spectra, of.integers(0, 3, n), labels, np.zeros(n, np.int64))

    return draw


DRAWS = {name: draw_from(name) for name in ("DESI", "SDSS")}


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", SMALL)
    monkeypatch.setattr(trainer, "time", Clock())
    return TokenizerTraining(
        name="small", preset="small", batch_size=4, warm_up=10, minutes=1.0, checkpoint_minutes=0.5
    )


@torch.no_grad()
def reconstruction(model):
    drawn = DRAWS["SDSS"](32, *map(np.random.default_rng, (76, 77)))
    config = MaskingSettings(p_unmasked=1.0)
    rng = np.random.default_rng(78)
    batch = make_training_batch(drawn.spectra, drawn.class_code, drawn.labels, SMALL, config, rng)
    return {"reconstruction": losses(model, batch, config)[0]["reconstruction"].item()}


def run(config, folder):
    return train(config, DRAWS, reconstruction, folder)


def test_the_reconstruction_improves_and_the_weights_say_how_they_came_about(config, tmp_path):
    weights = run(dataclasses.replace(config, checkpoint_minutes=0.2), tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    found = [record["held_out"]["reconstruction"] for record in records if "held_out" in record]
    assert found[-1] < 0.7 * found[0]
    _, info = load(weights)
    assert info.training["instruments"] == ["DESI", "SDSS"]
    assert info.training["held_out"] == {"reconstruction": found[-1]}


def test_a_training_goes_on_from_its_last_save(config, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(state, *rest):
        if state.step == 17:
            raise Stop
        return step(state, *rest)

    step = training._step
    monkeypatch.setattr(training, "_step", stop)
    with pytest.raises(Stop):
        run(config, tmp_path)
    monkeypatch.setattr(training, "_step", step)
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert 0 < first < 17
    run(config, tmp_path)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] > 17
    with pytest.raises(ValueError, match="other settings"):
        run(dataclasses.replace(config, seed=9), tmp_path)


@pytest.mark.parametrize("contrast", [0.0, 0.5])
def test_batches_drawn_ahead_give_the_weights_of_batches_drawn_in_turn(
    config, tmp_path, monkeypatch, contrast
):
    config = dataclasses.replace(config, minutes=0.2, contrast=contrast)
    ahead = run(config, tmp_path / "ahead")
    monkeypatch.setattr(trainer, "time", Clock())
    monkeypatch.setattr(training, "prefetch", lambda make, first: map(make, itertools.count(first)))
    in_turn = run(config, tmp_path / "in turn")
    weights, others = (load(path)[0].state_dict() for path in (ahead, in_turn))
    torch.testing.assert_close(weights, others, rtol=0.0, atol=0.0)


def test_a_frozen_network_stays_as_it_is_while_its_heads_learn(config, tmp_path):
    weights = run(dataclasses.replace(config, minutes=0.2), tmp_path / "both")
    masking = MaskingSettings(target_fraction=0.0, p_bottleneck=0.0)
    frozen = dataclasses.replace(config, minutes=0.3, frozen=str(weights), masking=masking)
    after = run(frozen, tmp_path / "heads")
    (before, _), (model, _) = load(weights), load(after)
    for name, tensor in before.network.state_dict().items():
        torch.testing.assert_close(model.network.state_dict()[name], tensor, rtol=0.0, atol=0.0)
    assert not torch.equal(model.heads.queries, before.heads.queries)


def test_embeddings_of_one_object_are_pulled_together_from_given_weights_on(config, tmp_path):
    weights = run(dataclasses.replace(config, minutes=0.2), tmp_path / "first")
    going_on = dataclasses.replace(config, minutes=0.5, begin=str(weights), contrast=1.0)
    asked = []

    def noting(name):
        def draw(n, of, rng):
            asked.append((name, of.bit_generator.state["state"]["state"]))
            return DRAWS[name](n, of, rng)

        return draw

    after = train(going_on, {name: noting(name) for name in DRAWS}, reconstruction, tmp_path / "on")
    steps = [json.loads(line) for line in (tmp_path / "on" / "metrics.jsonl").read_text().splitlines()]
    assert "contrast" in steps[0]["loss"]
    for (one, of_one), (other, of_other) in zip(asked[::2], asked[1::2], strict=True):
        assert one != other
        assert of_one == of_other  # the same objects
    _, info = load(after)
    assert info.training["draws"] == 2 * steps[-1]["step"] * config.batch_size
    assert info.training["before"] == load(weights)[1].training


def test_a_frozen_network_cannot_be_contrasted():
    with pytest.raises(ValueError, match="frozen"):
        TokenizerTraining(frozen="some.safetensors", contrast=0.1)
