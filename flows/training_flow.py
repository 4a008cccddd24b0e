"""The Prefect flow of a training, for runs that a server starts; `ojala train` does without it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from pydantic import WithJsonSchema

from flows.training import train_from


def _path(description: str) -> WithJsonSchema:
    """How Prefect's pages show a parameter that is a path on the worker's machine."""
    return WithJsonSchema({"type": "string", "description": description})


@flow(name="train")
def train(
    settings: Annotated[Path, _path("TOML file with the settings of the training")],
    library: Annotated[Path, _path("library of spectra, made by ojala spectra")],
    folder: Annotated[Path, _path("gets weights, state, metrics and model card; goes on with what it holds")],
) -> str:
    """Train a model on a library of spectra, or go on with a training that was interrupted.

    Parameters
    ----------
    settings : Path
        TOML with fields of `models.training.TrainingConfig`.
    library : Path
        Library of spectra.
    folder : Path
        Gets weights, state, metrics and the model card.

    Returns
    -------
    str
        Path of the weights.
    """
    logger = get_run_logger()
    weights = train_from(
        settings, library=library, folder=folder, report=lambda record: logger.info("%s", record)
    )
    create_markdown_artifact(
        weights.with_suffix(".md").read_text(), key="model-card", description=f"Model card of {weights.name}"
    )
    return str(weights)
