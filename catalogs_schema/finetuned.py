"""Contract of the product of fine-tuned heads, made from their descriptions."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from ojala.catalogs_schema.columns import measured
from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.ojala import MIN_CLASS_PROBABILITY, OJALA, OJALA_VECTORS
from ojala.catalogs_schema.photometry import KEY_COLUMNS

HEADS_PRODUCT = "ojala_heads"
"""Name of the product."""


class FinetunedHead(BaseModel):
    """Description of a fine-tuned head and of the quantity that it predicts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="of the column")
    unit: str = Field(description="VOUnits string")
    ucd: str = Field(description="UCD1+ word(s)")
    description: str = Field(description="of the column, one sentence")
    object_class: str = Field(description="class of object that the quantity belongs to")
    sha256: str = Field(description="SHA-256 of the head's file")


def heads_contract(heads: Sequence[FinetunedHead]) -> Contract:
    """Contract with keys, and for each head its quantity and the error of that.

    Raises
    ------
    InputError
        If two heads answer the same quantity, or one has the name of a column that the catalogue has.
    """
    taken = {*OJALA.names, *OJALA_VECTORS.names}
    for head in heads:
        names = {head.name, f"{head.name}_err"}
        if both := sorted(names & taken):
            raise InputError(
                f"the catalogue has a column {both[0]} without the head for {head.name}: fine-tune again "
                "under another name, or leave one of the heads out"
            )
        taken |= names
    return Contract(
        name=HEADS_PRODUCT,
        version="1.0.0",
        title="Quantities of fine-tuned heads on OJALA",
        description=(
            "Predictions of heads that were fine-tuned on the frozen network for each row of the "
            "value-added catalogue, in partitions of the same name. Null where the object is hardly of the "
            "class that the quantity belongs to."
        ),
        columns=(*KEY_COLUMNS, *(column for head in heads for column in _columns(head))),
    )


def _columns(head: FinetunedHead) -> tuple[Column, Column]:
    given = f"given where p_{head.object_class.lower()} >= {MIN_CLASS_PROBABILITY:g}"
    return measured(head.name, head.unit, head.ucd, f"{head.description.rstrip('.')}; {given}")
