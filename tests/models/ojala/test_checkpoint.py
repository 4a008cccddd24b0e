"""Weights on disk are whole, known and fit their network, or they are refused."""

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file

from ojala.models.checkpoint import WeightsError, file_sha256
from ojala.models.ojala.calibration import Calibration
from ojala.models.ojala.checkpoint import FORMAT, load, save
from ojala.models.ojala.network import Ojala, OjalaConfig

pytestmark = pytest.mark.processor

TINY = OjalaConfig(
    width=16, encoder=((2, 32),), decoder=((2, 32),), trunk=(16,), pre_norm=True, reads_errors=True
)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = Ojala(TINY)
    path = tmp_path / "weights" / "tiny.safetensors"
    save(path, model, name="tiny", version="0.1", training={"draws": 12})
    return model, path


def rewrite(path, change, **metadata):
    tensors = load_file(path)
    change(tensors)
    header = {
        "format": FORMAT.name,
        "name": "tiny",
        "version": "0.1",
        "config": json.dumps(asdict(TINY)),
        "training": "{}",
    }
    save_file(tensors, path, header | metadata)


def test_weights_survive_the_round_trip(saved):
    model, path = saved
    loaded, info = load(path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert (info.name, info.version, info.config, info.training) == ("tiny", "0.1", TINY, {"draws": 12})
    assert info.sha256 == file_sha256(path)
    assert not loaded.training


def test_nothing_but_the_weights_stays_in_the_folder(saved):
    _, path = saved
    assert [file.name for file in path.parent.iterdir()] == ["tiny.safetensors"]


def test_a_file_cut_short_is_refused(saved):
    _, path = saved
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"tiny\.safetensors: not a whole safetensors file"):
        load(path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "foreign.safetensors"
    path.write_text("flux, error\n1.0, 0.1\n" * 100)
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.safetensors: no such file"):
        load(tmp_path / "absent.safetensors")


def test_the_weights_of_another_program_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"layer.weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="format is None"):
        load(path)


def test_an_unreadable_header_is_refused(saved):
    _, path = saved
    rewrite(path, lambda tensors: None, config=json.dumps({"width": 16}))
    with pytest.raises(WeightsError, match="header cannot be read"):
        load(path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.update(surplus=torch.zeros(1)), "unknown tensor surplus"),
        (lambda t: t.pop("request"), "missing tensor request"),
        (lambda t: t.update(request=torch.zeros(3, 16)), r"request is \(3, 16\), not \(15, 16\)"),
        (lambda t: t["request"].fill_(torch.nan), "request holds values that are not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_named(saved, change, complaint):
    _, path = saved
    rewrite(path, change)
    with pytest.raises(WeightsError, match=complaint):
        load(path)


def test_a_calibration_is_stored_with_the_weights_and_refused_where_it_is_damaged(saved):
    model, path = saved
    assert load(path)[1].calibration is None
    stored = Calibration.none(torch.tensor([1.0, 3.0]))
    save(path, model, name="tiny", version="0.1", training={}, calibration=stored)
    again = load(path)[1].calibration
    assert again is not None
    assert torch.equal(again.knots, stored.knots)
    rewrite(path, lambda tensors: tensors.pop("calibration.class_bias"))
    with pytest.raises(WeightsError, match=r"tiny\.safetensors: the calibration lacks a tensor"):
        load(path)
