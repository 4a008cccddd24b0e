"""Registry of the trainings that `ojala train` and the flow `train` start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from ojala.catalogs_schema.errors import InputError

TRAININGS: Mapping[str, str] = {
    "ojala": "ojala.flows.training.ojala:train_from",
    "specpt": "ojala.flows.training.specpt:train_specpt_from",
    "spectral-tokenizer": "ojala.flows.training.spectral_tokenizer:train_tokenizer_from",
}
"""``module:function`` by name of the model. The function takes the TOML file of settings, ``library``,
``folder``, ``report`` and further inputs by name, and returns the path of the weights."""

DEFAULT = next(iter(TRAININGS))


def find_training(model: str) -> Callable[..., Path]:
    """Function that trains a model.

    Raises
    ------
    InputError
        If the model has no training.
    """
    if model not in TRAININGS:
        raise InputError(f"there is no training of {model!r}: choose from {', '.join(TRAININGS)}")
    module, _, function = TRAININGS[model].partition(":")
    found: Callable[..., Path] = getattr(import_module(module), function)
    return found
