"""Training: both sides learn to agree, and it goes on where it stopped."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch

from ojala.models.avis import training
from ojala.models.avis.augmentation import AugmentationSettings
from ojala.models.avis.checkpoint import load
from ojala.models.avis.network import PRESETS
from ojala.models.avis.predictor import AvisPredictor
from ojala.models.avis.training import AvisTraining, train
from ojala.models.spectral_tokenizer.checkpoint import load as load_tokenizer
from ojala.models.spectral_tokenizer.checkpoint import save as save_tokenizer
from ojala.models.spectral_tokenizer.evaluation import retrieval
from ojala.models.spectral_tokenizer.heads import TokenizerWithHeads
from ojala.models.training import trainer
from tests.models.avis.pairs_of_kinds import SMALL, alike
from tests.models.clock import Clock

pytestmark = [pytest.mark.integration, pytest.mark.processor]


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", SMALL)
    monkeypatch.setattr(trainer, "time", Clock())
    return AvisTraining(
        name="small",
        preset="small",
        batch_size=16,
        warm_up=5,
        minutes=1.0,
        checkpoint_minutes=0.5,
        ema_decay=0.9,
        masking=AugmentationSettings(spectrum_visible=(0.8, 1.0), image_visible=(0.5, 0.8), move=0, tilt=0.0),
    )


def draw(step, n):
    return alike(n, step + 100)


def no_check(model):
    return {}


def ranks(path):
    answers = AvisPredictor.load(path).predict(alike(64, 7))
    return retrieval(answers["embedding_spectrum"], answers["embedding_image"])


def test_an_image_learns_to_find_its_spectrum(config, tmp_path):
    config = dataclasses.replace(
        config, objective="contrastive", second_view=0.1, spectrum=0.1, image=0.1, minutes=1.5
    )
    assert ranks(train(config, draw, no_check, tmp_path))["median_rank"] < 20.0  # by chance 32


def test_the_training_before_is_remembered(config, tmp_path):
    before = dataclasses.replace(config, minutes=0.1)
    towers = train(before, draw, lambda model: {"seen": 1.0}, tmp_path / "towers")
    after = dataclasses.replace(config, objective="variance", start=str(towers), minutes=0.1)
    *_, info = load(train(after, draw, no_check, tmp_path / "after"))
    assert info.training["before"]["held_out"] == {"seen": 1.0}
    assert info.training["config"]["start"] == "small.safetensors"


def test_an_interrupted_training_goes_on_with_the_next_step(config, tmp_path):
    steps, broken = [], []

    class Interrupted(Exception):
        pass

    def breaks(step, n):
        steps.append(step)
        if step == 20 and not broken:
            broken.append(step)
            raise Interrupted
        return draw(step, n)

    with pytest.raises(Interrupted):
        train(config, breaks, no_check, tmp_path)
    steps.clear()
    train(config, breaks, no_check, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    saved = [record["step"] for record in records if "held_out" in record]
    assert steps[: saved[-1] - saved[0]] == list(range(saved[0], saved[-1]))  # further ones are drawn ahead
    assert saved[0] < 20 < saved[-1]


def test_batches_drawn_ahead_give_the_weights_of_batches_drawn_in_turn(config, tmp_path, monkeypatch):
    config = dataclasses.replace(config, minutes=0.2, objective="contrastive", second_view=0.3)
    ahead = train(config, draw, no_check, tmp_path / "ahead")
    monkeypatch.setattr(trainer, "time", Clock())
    monkeypatch.setattr(training, "prefetch", lambda make, first: map(make, itertools.count(first)))
    in_turn = train(config, draw, no_check, tmp_path / "in turn")
    weights, others = (load(path)[0].state_dict() for path in (ahead, in_turn))
    torch.testing.assert_close(weights, others, rtol=0.0, atol=0.0)


def test_another_training_s_folder_is_refused(config, tmp_path):
    train(dataclasses.replace(config, minutes=0.05), draw, no_check, tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        train(dataclasses.replace(config, seed=1), draw, no_check, tmp_path)


@pytest.fixture
def tokenizer(tmp_path):
    torch.manual_seed(5)
    path = tmp_path / "tokenizer.safetensors"
    save_tokenizer(path, TokenizerWithHeads(SMALL.spectrum), name="t", version="0", training={})
    return path


def test_a_locked_tokenizer_stays_as_it_is_while_images_learn(config, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "small", dataclasses.replace(SMALL, pooling="mean"))
    monkeypatch.setattr(training, "FITTED", 64)
    config = dataclasses.replace(config, objective="contrastive", tokenizer=str(tokenizer), minutes=0.05)
    path = train(config, draw, no_check, tmp_path / "locked")
    network, info = load(path)
    assert info.training["config"]["tokenizer"] == "tokenizer.safetensors"
    for name, tensor in load_tokenizer(tokenizer)[0].network.state_dict().items():
        torch.testing.assert_close(network.spectrum.state_dict()[name], tensor, rtol=2e-3, atol=2e-3)
    records = [json.loads(line) for line in (tmp_path / "locked" / "metrics.jsonl").open()]
    assert {"image", "joint", "norm"} == records[0]["loss"].keys()


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="unknown objective 'guess'; choose one of towers"):
        AvisTraining(objective="guess")
    with pytest.raises(ValueError, match="unknown preset 'huge'"):
        AvisTraining(preset="huge")


def test_steps_read_other_pairs(config, tmp_path):
    seen = []

    def watched(step, n):
        seen.append(step)
        return draw(step, n)

    train(dataclasses.replace(config, minutes=0.2), watched, no_check, tmp_path)
    assert seen == list(range(len(seen)))
    assert len(np.unique(seen)) > 3
