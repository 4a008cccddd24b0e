"""Settings as dataclasses with validation, from TOML or JSON."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from ojala.catalogs_schema.errors import InputError

Settings = TypeVar("Settings")
"""A dataclass of settings."""

checked = with_config(ConfigDict(extra="forbid"))
"""Class decorator, above ``@dataclass``, that refuses names without a field."""

_FORMER_NAMES = {
    "averaging": "ema_decay",
    "lesson": "masking",
    "whole": "p_unmasked",
    "asked": "target_fraction",
    "least_shown": "min_visible",
    "from_embedding": "p_bottleneck",
    "spectrum_shown": "spectrum_visible",
    "image_shown": "image_visible",
    "again": "second_view",
}
"""Names of settings in older files, and their present names."""


def from_mapping(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Validate settings and build their dataclass; former names of settings are accepted.

    Raises
    ------
    InputError
        A setting is unknown, missing, of the wrong type or out of range.
    """
    try:
        return TypeAdapter(kind).validate_python(present_names(values))
    except ValidationError as error:
        raise InputError(_describe(error)) from error


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    InputError
        There is no such file, or it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as TOML ({error})") from error


def read_settings(kind: type[Settings], path: Path) -> Settings:
    """Read a dataclass of settings from a TOML file.

    Raises
    ------
    InputError
        The file cannot be read, or a setting is unknown, missing, of the wrong type or out of range.
    """
    values = read_toml(path)
    try:
        return from_mapping(kind, values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def present_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace former names of settings by the present ones, also in tables."""
    return {
        _FORMER_NAMES.get(name, name): present_names(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
    }


def _describe(error: ValidationError) -> str:
    problems: dict[str, list[str]] = {"unknown settings": [], "missing settings": []}
    others = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        match problem["type"]:
            case "unexpected_keyword_argument":
                problems["unknown settings"].append(place)
            case "missing":
                problems["missing settings"].append(place)
            case "value_error":
                others.append(f"{place}: " * bool(place) + str(problem["ctx"]["error"]))
            case _:
                others.append(f"{place}: {problem['msg']}, not {problem['input']!r}")
    listed = [f"{kind}: {', '.join(sorted(names))}" for kind, names in problems.items() if names]
    return "; ".join([*listed, *others])
