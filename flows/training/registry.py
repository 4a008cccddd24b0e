"""Registry of the trainings that `ojala train` and the flow `train` start."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from ojala.catalogs_schema.errors import InputError

TRAININGS: Mapping[str, str] = {
    "ojala": "ojala.flows.training.ojala:train_from",
    "specpt": "ojala.flows.training.specpt:train_from",
    "spectral-tokenizer": "ojala.flows.training.spectral_tokenizer:train_from",
    "avis": "ojala.flows.training.avis:train_from",
}
"""``module:function`` by name of the model. A function has the parameters of `start_training` but ``model``,
and returns the path of the weights."""

DEFAULT = next(iter(TRAININGS))


def start_training(
    model: str,
    settings: Path,
    *,
    library: Path,
    folder: Path,
    report: Callable[[dict[str, object]], None] = lambda record: None,
    **inputs: object,
) -> Path:
    """Train a model with the settings of a TOML file, or resume the training in ``folder``.

    Parameters
    ----------
    model : str
        Name in `TRAININGS`.
    settings : Path
        TOML file.
    library : Path
        Library of spectra, made by `ojala.flows.mocks.library.build_library`.
    folder : Path
        Folder for weights, state, metrics and the model card ``<name>.md`` with its numbers ``<name>.json``.
    report : callable
        Receives each record of the metrics.
    **inputs
        Further inputs of the training, such as ``unlabelled``; those that are None are left out.

    Returns
    -------
    Path
        File of the weights.

    Raises
    ------
    InputError
        The model has no training, or not with one of the inputs; a setting is unknown or wrong; or the folder
        holds a training with other settings.
    """
    if model not in TRAININGS:
        raise InputError(f"there is no training of {model!r}: choose from {', '.join(TRAININGS)}")
    module, _, function = TRAININGS[model].partition(":")
    training: Callable[..., Path] = getattr(import_module(module), function)
    given = {name: value for name, value in inputs.items() if value is not None}
    if unused := given.keys() - inspect.signature(training).parameters:
        raise InputError(f"the training of {model} takes no --{', --'.join(sorted(unused))}: leave it out")
    return training(settings, library=library, folder=folder, report=report, **given)
