"""The contract of what a user's own heads answer; it is made from what the heads say of themselves."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.ojala import MIN_CLASS_PROBABILITY, OJALA, OJALA_VECTORS
from ojala.catalogs_schema.photometry import KEY_COLUMNS

OWN_HEADS = "ojala_heads"
"""Name of the product."""


class FinetunedHead(BaseModel):
    """What a head says of the quantity that it answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="of the column")
    unit: str = Field(description="VOUnits string")
    ucd: str = Field(description="UCD1+ word(s)")
    description: str = Field(description="of the column, one sentence")
    object_class: str = Field(description="class of object that the quantity belongs to")
    sha256: str = Field(description="SHA-256 of the head's file")


def own_heads_contract(heads: Sequence[FinetunedHead]) -> Contract:
    """Keys, and for each head its quantity and the quantity's error.

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
        name=OWN_HEADS,
        version="1.0.0",
        title="Quantities of own heads on OJALA",
        description=(
            "What heads that were fine-tuned on the frozen network say of each row of the value-added "
            "catalogue, in partitions of the same name. Null where the object is hardly of the class that "
            "the quantity belongs to."
        ),
        columns=(*KEY_COLUMNS, *(column for head in heads for column in _columns(head))),
    )


def _columns(head: FinetunedHead) -> tuple[Column, Column]:
    given = f"given where p_{head.object_class.lower()} >= {MIN_CLASS_PROBABILITY:g}"
    text = f"{head.description.rstrip('.')}; {given}"
    error = f"half-width of the central 68.3 % interval of {head.name}"
    ucd = ";".join(filter(None, ("stat.error", head.ucd)))
    return (
        Column(head.name, pa.float32(), head.unit, head.ucd, text),
        Column(f"{head.name}_err", pa.float32(), head.unit, ucd, error, minimum=0.0),
    )
