"""Model cards are made of the stored numbers and the hand-written limitations, and of nothing else."""

import json
import shutil

import pytest

from ojala.models import WEIGHTS_FOLDER
from ojala.models.checkpoint import file_sha256
from ojala.models.evaluation.card import card, write_card

NAMES = ("avis-base", "ojala-base", "specpt-base", "spectral-tokenizer-base")


@pytest.mark.parametrize("name", NAMES)
def test_the_cards_that_come_with_the_program_are_made_of_their_numbers_and_limitations(name):
    numbers, limitations, text = (
        (WEIGHTS_FOLDER / f"{name}{suffix}").read_text() for suffix in (".json", ".limitations.md", ".md")
    )
    record = json.loads(numbers)
    assert record["sha256"] == file_sha256(WEIGHTS_FOLDER / f"{name}.safetensors")
    assert card(record, limitations) == text
    assert "\n\n\n" not in text


def test_measures_of_other_weights_do_not_stay_in_a_card(tmp_path):
    weights = tmp_path / "specpt-base.safetensors"
    shutil.copyfile(WEIGHTS_FOLDER / weights.name, weights)
    stored = json.loads((WEIGHTS_FOLDER / "specpt-base.json").read_text())
    numbers = weights.with_suffix(".json")
    numbers.write_text(json.dumps(stored))
    assert "| SDSS GALAXY |" in write_card(weights).read_text()
    numbers.write_text(json.dumps(stored | {"sha256": "0" * 64}))
    assert "| SDSS GALAXY |" not in write_card(weights).read_text()
