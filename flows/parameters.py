"""How Prefect's pages show the parameters of a flow."""

from __future__ import annotations

from typing import Literal

from pydantic import WithJsonSchema


def shown(kind: Literal["string", "boolean"], description: str) -> WithJsonSchema:
    """The type and the description of a parameter, for use in `typing.Annotated`.

    Prefect reads descriptions from docstrings of another style than ours, and overwrites those of pydantic's
    fields; those of a JSON schema it leaves alone.
    """
    return WithJsonSchema({"type": kind, "description": description})
