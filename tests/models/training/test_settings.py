"""Settings are checked when they are read, and former names are understood."""

import json
from dataclasses import asdict, replace

import pytest

from ojala.catalogs_schema.errors import InputError
from ojala.models.avis.training import AvisTraining
from ojala.models.ojala.training import OjalaTraining
from ojala.models.settings import from_mapping, read_settings
from ojala.models.specpt.training import SpecPTTraining
from ojala.models.spectral_tokenizer.training import TokenizerTraining

pytestmark = pytest.mark.processor

ALL = (AvisTraining, OjalaTraining, SpecPTTraining, TokenizerTraining)


@pytest.mark.parametrize("kind", ALL)
def test_settings_survive_json(kind):
    assert from_mapping(kind, json.loads(json.dumps(asdict(kind())))) == kind()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"epochs": 3, "stesp": 1}, "unknown settings: epochs, stesp"),
        ({"batch_size": "many"}, "batch_size: .*not 'many'"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"minutes": -1.0}, "minutes must be more than 0"),
        ({"masking": {"hidden": 0.5}}, "unknown settings: masking.hidden"),
    ],
)
def test_wrong_settings_are_named_with_their_file(given, problem, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(
        "\n".join(
            f"[{name}]\n" + "\n".join(f"{key} = {value}" for key, value in values.items())
            if isinstance(values, dict)
            else f"{name} = {json.dumps(values)}"
            for name, values in given.items()
        )
    )
    with pytest.raises(InputError, match=rf"settings\.toml: {problem}"):
        read_settings(TokenizerTraining, path)


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: cannot be read"):
        read_settings(OjalaTraining, tmp_path / "none.toml")
    (tmp_path / "no.toml").write_text("= 3")
    with pytest.raises(InputError, match=r"no\.toml: cannot be read"):
        read_settings(OjalaTraining, tmp_path / "no.toml")


def test_former_names_of_settings_are_understood():
    lesson = {"whole": 0.5, "asked": 0.1, "least_shown": 0.3, "from_embedding": 0.2}
    settings = from_mapping(TokenizerTraining, {"averaging": 0.9, "lesson": lesson})
    assert settings.ema_decay == 0.9
    assert settings.masking.p_unmasked == 0.5
    assert settings.masking.target_fraction == 0.1
    assert settings.masking.min_visible == 0.3
    assert settings.masking.p_bottleneck == 0.2


def test_a_training_continues_with_the_same_settings_but_for_the_time_between_saves():
    settings = SpecPTTraining(seed=3)
    saved = json.loads(json.dumps(asdict(settings)))
    assert replace(settings, checkpoint_minutes=1.0).continues(saved)
    assert not replace(settings, seed=4).continues(saved)
    assert not settings.continues(saved | {"dropped": 1})
