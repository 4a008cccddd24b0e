import pytest
from pydantic import ValidationError

from ojala.catalogs_schema.receipt import Attempt, Fingerprint, Receipt

INGREDIENTS = Fingerprint(
    input_sha256="a", weights_sha256="b", config_sha256="c", code_version="1", contract_version="ojala 1.0.0"
)
RECEIPT = Receipt(
    partition="5/1234",
    status="failed",
    key=INGREDIENTS.key(),
    ingredients=INGREDIENTS,
    model="ojala 1",
    rows_in=3,
    rows_out=0,
    leaves=[],
    summary=None,
    attempts=[Attempt(host="h", pid=1, started="2026-01-01T00:00:00", seconds=0.5, error="OSError: full")],
    device="cpu",
    seconds={"read": 0.1},
    peak_rss=1,
)


@pytest.mark.parametrize("name", list(Fingerprint.model_fields))
def test_the_key_changes_with_every_ingredient(name):
    assert INGREDIENTS.model_copy(update={name: "other"}).key() != INGREDIENTS.key()


def test_the_key_is_the_same_for_the_same_ingredients():
    assert Fingerprint(**INGREDIENTS.model_dump()).key() == INGREDIENTS.key()


def test_a_receipt_survives_its_file():
    assert Receipt.model_validate_json(RECEIPT.model_dump_json()) == RECEIPT


def test_a_receipt_with_an_unknown_field_is_refused():
    with pytest.raises(ValidationError, match="colour"):
        Receipt.model_validate(RECEIPT.model_dump() | {"colour": "red"})
