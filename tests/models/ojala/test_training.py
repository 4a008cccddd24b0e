"""A training learns, resumes as if it had never stopped, and leaves whole files."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ojala.models.checkpoint import WeightsError, file_sha256
from ojala.models.data import LabelledPhotometry
from ojala.models.evaluation.card import card, card_record
from ojala.models.ojala.checkpoint import load
from ojala.models.ojala.network import PRESETS, Ojala, OjalaConfig
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.ojala.tokens import N_BANDS, WAVELENGTH_RANK, tokenise
from ojala.models.ojala.training import (
    FULL_CONTEXT,
    HIDDEN_GROUPS,
    TARGET_BANDS,
    OjalaTraining,
    batches,
    draw_band_targets,
    drop_bands,
    evaluate,
    hide_groups,
    train,
)
from ojala.models.settings import from_mapping
from ojala.models.training.trainer import METRICS_FILE, STATE_FILE, Muon, Trainer
from tests.helpers.pace import scaled

pytestmark = [pytest.mark.integration, pytest.mark.processor]

TINY = OjalaConfig(
    width=16, encoder=((2, 32),), decoder=((2, 32),), trunk=(32,), pre_norm=True, reads_errors=True
)


class TwoColours:
    """A toy sky: galaxies are red and quasars blue, a galaxy's mass is its slope."""

    def draw(self, n: int, rng: np.random.Generator) -> LabelledPhotometry:
        slope = rng.uniform(0.5, 2.0, n)
        is_qso = rng.random(n) < 0.4
        position = np.linspace(-1.0, 1.0, N_BANDS)
        true = (20.0 * np.exp(np.where(is_qso, -slope, slope)[:, None] * position)).astype(np.float32)
        flux = (true + rng.normal(0.0, 0.2, true.shape)).astype(np.float32)
        labels = {
            "z_gal": np.where(is_qso, np.nan, slope / 3).astype(np.float32),
            "z_qso": np.where(is_qso, slope, np.nan).astype(np.float32),
            "log_mass": np.where(is_qso, np.nan, 9.5 + slope).astype(np.float32),
        }
        return LabelledPhotometry(
            flux,
            np.full_like(flux, 0.2),
            np.zeros(n, np.float32),
            np.where(is_qso, 2, 0),
            labels,
            true,
            np.zeros_like(true),
        )


@pytest.fixture
def config(monkeypatch) -> OjalaTraining:
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    return OjalaTraining(
        name="toy", preset="tiny", steps=60, batch_size=64, learning_rate=5e-3, warm_up=5, bf16=False,
        compiled=False, ema_decay=0.9, held_out=128, checkpoint_minutes=1e9,
    )  # fmt: skip


def test_a_check_in_short_numbers_leaves_the_network_as_it_is():
    torch.manual_seed(0)
    model = Ojala(TINY)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, TwoColours().draw(20, np.random.default_rng(1)), precision="bf16")
    after = model.state_dict()
    assert {tensor.dtype for tensor in after.values() if tensor.is_floating_point()} == {torch.float32}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


class StoppedError(Exception):
    """The training was stopped from outside."""


def stop_at(step: int):
    def report(record):
        if record["step"] == step and "loss" in record:
            raise StoppedError

    return report


def records_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]


def test_a_training_learns_and_its_weights_serve(config, tmp_path):
    weights = train(config, TwoColours(), TwoColours(), tmp_path)
    records = records_of(tmp_path)
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[-1]["class"] < 0.5 * losses[0]["class"]
    assert losses[-1]["log_mass"] < losses[0]["log_mass"]
    assert losses[-1]["z_gal"] < losses[0]["z_gal"]
    drawn = TwoColours().draw(200, np.random.default_rng(8))
    found = OjalaPredictor.load(weights).predict(drawn.flux, drawn.error, drawn.ebv)
    assert (found["class_code"] == drawn.class_code).mean() > 0.9
    assert records[-1]["held_out"]["class"]["accuracy"] > 0.9
    assert {file.name for file in tmp_path.iterdir()} == {"toy.safetensors", STATE_FILE, METRICS_FILE}


@pytest.mark.parametrize("teaches", ["labels", "bands"])
def test_a_training_that_was_stopped_ends_with_the_same_weights(config, teaches, monkeypatch, tmp_path):
    if teaches == "bands":
        monkeypatch.setitem(PRESETS, "tiny", dataclasses.replace(TINY, chain=True, band_requests=True))
    monkeypatch.setitem(Trainer.run.__kwdefaults__, "every", 5)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    config = dataclasses.replace(config, steps=8, batch_size=16, held_out=16)
    train(config, TwoColours(), TwoColours(), whole)
    often = dataclasses.replace(config, checkpoint_minutes=0.0)  # checks and saves after every step
    with pytest.raises(StoppedError):
        train(often, TwoColours(), TwoColours(), stopped, stop_at(5))
    assert [r["step"] for r in records_of(stopped) if "loss" in r] == [1, 5]
    train(config, TwoColours(), TwoColours(), stopped)
    first, second = (load(folder / "toy.safetensors")[0].state_dict() for folder in (whole, stopped))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    steps = [record["step"] for record in records_of(stopped) if "loss" in record]
    assert steps == [1, 5], "records of steps that were taken again are not doubled"


def test_a_folder_of_another_training_is_refused(config, tmp_path):
    short = dataclasses.replace(config, steps=2)
    train(short, TwoColours(), TwoColours(), tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        train(dataclasses.replace(short, learning_rate=1e-4), TwoColours(), TwoColours(), tmp_path)


def test_a_damaged_state_is_refused(config, tmp_path):
    short = dataclasses.replace(config, steps=2)
    train(short, TwoColours(), TwoColours(), tmp_path)
    state = tmp_path / STATE_FILE
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        train(short, TwoColours(), TwoColours(), tmp_path)


def test_a_training_can_start_from_weights_without_the_chain(config, monkeypatch, tmp_path):
    config = dataclasses.replace(config, steps=10)
    first = train(config, TwoColours(), TwoColours(), tmp_path / "first")
    monkeypatch.setitem(PRESETS, "chain", dataclasses.replace(TINY, chain=True))
    goes_on = dataclasses.replace(config, preset="chain", start=str(first), steps=1, learning_rate=1e-6)
    second = train(goes_on, TwoColours(), TwoColours(), tmp_path / "second")
    text = card(card_record(second))
    assert f"began with the weights toy.safetensors (SHA-256 {file_sha256(first)})" in text
    assert str(tmp_path) not in text
    drawn = TwoColours().draw(100, np.random.default_rng(8))
    before, after = (
        OjalaPredictor.load(w).predict(drawn.flux, drawn.error, drawn.ebv) for w in (first, second)
    )
    np.testing.assert_allclose(after["p_qso"], before["p_qso"], atol=1e-3)
    monkeypatch.setitem(PRESETS, "wide", dataclasses.replace(TINY, width=32))
    with pytest.raises(ValueError, match="weights of another shape"):
        train(dataclasses.replace(goes_on, preset="wide"), TwoColours(), TwoColours(), tmp_path / "third")


def test_observed_photometry_without_labels_is_drawn_to_the_mocks(config, tmp_path):
    class Observed(TwoColours):
        """The same objects through a camera that sees everything a fifth brighter in the red."""

        def draw(self, n, rng):
            drawn = super().draw(n, rng)
            tilt = np.linspace(0.8, 1.2, N_BANDS, dtype=np.float32)
            return dataclasses.replace(drawn, flux=drawn.flux * tilt, labels={}, class_code=np.full(n, -1))

    adapted = dataclasses.replace(config, discrepancy=5.0)
    train(adapted, TwoColours(), TwoColours(), tmp_path, unlabelled=Observed())
    found = [record["loss"]["discrepancy"] for record in records_of(tmp_path) if "loss" in record]
    assert found[-1] < found[0]
    with pytest.raises(ValueError, match="discrepancy needs observed photometry"):
        train(adapted, TwoColours(), TwoColours(), tmp_path)


def test_a_training_by_the_clock_ends_with_it(config, tmp_path):
    timed = dataclasses.replace(config, minutes=0.02, steps=10**6)
    train(timed, TwoColours(), TwoColours(), tmp_path)
    last = records_of(tmp_path)[-1]
    assert 1 < last["step"] < 10**6
    assert last["seconds"] < scaled(30)


def test_a_failing_sky_fails_the_training(config, tmp_path):
    class Broken(TwoColours):
        def draw(self, n, rng):
            if n == config.batch_size:
                raise OSError("library.npz: the disk is gone")
            return super().draw(n, rng)

    with pytest.raises(OSError, match="the disk is gone"):
        train(config, Broken(), TwoColours(), tmp_path)


def test_dropping_bands_leaves_most_rows_whole_and_five_slots_at_least():
    n = 4000
    drawn = TwoColours().draw(n, np.random.default_rng(1))
    count = np.isfinite(drop_bands(drawn, np.random.default_rng(2)).flux).sum(axis=1)
    assert count.min() == 5
    assert (count == N_BANDS).mean() == pytest.approx(FULL_CONTEXT, abs=0.03)
    dropped = count[count < N_BANDS]
    assert np.median(dropped) == pytest.approx(N_BANDS / 2, abs=3)
    assert np.isfinite(drawn.flux).all(), "the draw itself is left as it was"


def test_the_rate_rises_then_falls_to_a_hundredth():
    config = OjalaTraining(steps=1000, warm_up=100, learning_rate=1e-3)
    rates = np.array([config.rate(step, 0.0) for step in range(1001)])
    assert rates[0] == pytest.approx(1e-5)
    assert rates.argmax() in range(95, 105)
    assert (np.diff(rates[100:]) < 0).all()
    assert rates[1000] == pytest.approx(1e-5)


def test_the_rate_follows_the_clock_where_minutes_are_given():
    config = OjalaTraining(steps=10**6, minutes=10.0, warm_up=1, learning_rate=1e-3)
    assert config.rate(500, 300.0) == pytest.approx(0.505e-3, rel=1e-3)
    assert config.rate(900, 600.0) == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"stesp": 5}, "unknown settings: stesp"),
        ({"preset": "huge"}, "unknown preset 'huge'"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        from_mapping(OjalaTraining, settings)


def test_the_model_card_states_budget_and_figures(config, tmp_path):
    noted = dataclasses.replace(config, steps=3, note="The sky was a toy.")
    weights = train(noted, TwoColours(), TwoColours(), tmp_path)
    info = load(weights)[1]
    text = card(card_record(weights))
    assert text.startswith("# toy 0.1\n")
    assert "192 draws" in text
    assert "The sky was a toy." in text
    assert info.sha256 in text
    held_out = info.training["held_out"]
    assert f"{held_out['class']['f1_weighted']:.3f}" in text
    assert "| log_mass |" in text


def test_bands_are_hidden_in_groups_that_leave_their_neighbours():
    drawn = TwoColours().draw(2000, np.random.default_rng(1))
    hidden = np.isnan(hide_groups(drawn, np.random.default_rng(2)).flux)[:, np.argsort(WAVELENGTH_RANK)]
    count = hidden.sum(axis=1)
    assert (count > 12).mean() == pytest.approx(HIDDEN_GROUPS[0], abs=0.03)
    assert ((count > 0) & (count < 10)).mean() == pytest.approx(HIDDEN_GROUPS[1], abs=0.03)
    assert not (hidden[:, 1:] & hidden[:, :-1]).any()


def test_only_bands_that_the_network_does_not_see_are_asked_for():
    drawn = TwoColours().draw(300, np.random.default_rng(1))
    drawn.noiseless[:, 7] = np.nan
    seen = drop_bands(drawn, np.random.default_rng(2))
    seen.flux[0] = np.nan
    tokens = tokenise(seen.flux, seen.error, seen.ebv)
    band, value, error = draw_band_targets(drawn, tokens, np.random.default_rng(3))
    known = torch.isfinite(value)
    assert not tokens.valid.gather(1, band)[known].any()
    assert (band[known] != 7).all()
    assert not known[0].any(), "nothing can be said of an object without any band"
    hidden = (~tokens.valid).sum(dim=1)
    assert (known.sum(dim=1) >= (hidden - 1).clamp(max=TARGET_BANDS))[1:].all()
    assert (error[known] == 0).all()
    expected = np.arcsinh(drawn.noiseless / 10.0 ** tokens.brightness.numpy()[:, None])
    np.testing.assert_allclose(value[known], torch.from_numpy(expected).gather(1, band)[known], rtol=1e-5)


def test_the_parts_of_a_batch_hold_its_rows_in_fewer_slots(config, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", dataclasses.replace(TINY, band_requests=True))
    batch = next(batches(TwoColours(), config, 0))
    slots = [part.packed.bands.shape[1] for part in batch.parts]
    assert slots == sorted(slots)
    assert slots[0] < slots[-1]
    assert sum(len(part.packed.bands) for part in batch.parts) == config.batch_size
    targets = [part.targets.class_code for part in batch.parts]
    assert sum(int((code >= 0).sum()) for code in targets) == batch.counts["class"]


def test_a_training_teaches_bands(config, monkeypatch, tmp_path):
    monkeypatch.setitem(PRESETS, "tiny", dataclasses.replace(TINY, chain=True, band_requests=True))
    train(dataclasses.replace(config, held_out=16), TwoColours(), TwoColours(), tmp_path)
    losses = [record["loss"] for record in records_of(tmp_path) if "loss" in record]
    assert losses[-1]["bands"] < losses[0]["bands"] - 0.3


def test_muon_steps_as_that_of_torch_does_but_for_its_rounding():
    torch.manual_seed(0)
    for shape in ((24, 40), (40, 24)):
        here, there = ([torch.nn.Parameter(torch.ones(shape)) for _ in range(2)] for _ in range(2))
        ours = Muon(here, weight_decay=0.1)
        theirs = torch.optim.Muon(there, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["lr"] = 1e-2
        for _ in range(3):
            for one, other in zip(here, there, strict=True):
                one.grad = torch.randn(shape)
                other.grad = one.grad.clone()
            ours.step()
            theirs.step()
        for one, other in zip(here, there, strict=True):
            assert (one - other).norm() < 0.03 * (other - 1.0).norm()
