"""Options of the commands that plan or make a run, derived from `RunConfig`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ojala.flows.cli.errors import require_inputs
from ojala.pipeline.runs.config import RunConfig, read_config, read_settings

CONFIG = "config"
"""Parameter of a command that takes the configuration."""

WHAT_IF = "what_if"
"""Option of a command that asks about a survey which is not there: inputs and output need no names then."""


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a run: one for each field of `RunConfig`, and ``--config FILE``.

    The command takes the `RunConfig` as its first parameter, `CONFIG`; its other parameters are options of
    its own. Inputs that are missing are refused before the settings are checked, which can import torch.
    """
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    options = {
        name: _option(name, field) for name, field in RunConfig.model_fields.items() if _is_option(field)
    }
    file = _parameter(CONFIG, Path | None, typer.Option(help="TOML file of settings; options override it."))

    @functools.wraps(command)
    def wrapper(**given: object) -> None:
        settings = {name: _plain(given.pop(name)) for name in options}
        file = cast(Path | None, given.pop(CONFIG))
        asked = read_settings(file, settings)
        if given.get(WHAT_IF) is None:
            require_inputs(asked)
        else:
            settings |= {name: asked.get(name, "survey") for name in ("out", "photometry")}
        command(read_config(file, settings), **given)

    parameters = [*options.values(), file, *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own)]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions take attributes
    wrapper.__annotations__ = {one.name: one.annotation for one in parameters}
    return wrapper


def _is_option(field: FieldInfo) -> bool:
    """Whether a field has an option; nested settings have none."""
    return not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """Parameter of a command for a field; None where it is not given."""
    kind: Any = next((one for one in get_args(field.annotation) if one is not NoneType), field.annotation)
    names: tuple[str, ...] = ()
    extra = field.json_schema_extra
    choices = extra.get("enum") if isinstance(extra, dict) else None
    if get_origin(field.annotation) is Literal:
        choices = list(get_args(field.annotation))
    if isinstance(choices, list):
        kind = _enumeration(name, choices)
    elif get_origin(field.annotation) is tuple:
        kind, names = list[str], (f"--{name.removesuffix('s').replace('_', '-')}",)
    elif kind is bool:
        option = name.replace("_", "-")
        names = (f"--{option}/--no-{option}" if field.default else f"--{option}",)
    return _parameter(name, kind | None, typer.Option(*names, help=_help(field)))


def _enumeration(name: str, choices: Sequence[object]) -> type:
    functional: Any = Enum
    made: type = functional(name, [(str(one), str(one)) for one in choices], type=str)
    return made


def _parameter(name: str, annotation: object, option: object) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, option]
    )


def _help(field: FieldInfo) -> str:
    """Help text: the description of the field, and its default where the description has none."""
    text = field.description or ""
    if "default" not in text and field.default and isinstance(field.default, str | int | float):
        text += f"; default: {field.default}"
    return f"{text[:1].upper()}{text[1:]}."


def _plain(value: object) -> object:
    """A value as `RunConfig` takes it; an option that may be repeated and is not given is None."""
    if isinstance(value, Enum):
        return value.value
    return None if value == [] or value == () else value
