"""Prefect flow of a training, for deployments; `ojala train` trains without Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from upath import UPath

from ojala.flows.survey import parameter
from ojala.flows.training.registry import DEFAULT, TRAININGS, start_training


@flow(name="train")
def train(
    settings: Annotated[Path, parameter("string", "TOML file with the settings of the training")],
    library: Annotated[Path, parameter("string", "library of spectra, made by ojala library")],
    folder: Annotated[
        Path,
        parameter(
            "string",
            "folder for weights, state and metrics; a training in it is resumed",
        ),
    ],
    unlabelled: Annotated[
        str, parameter("string", "photometry catalogue to adapt to (setting discrepancy); empty for none")
    ] = "",
    spectra: Annotated[
        str,
        parameter("string", "spectra catalogue to draw from as well, made by ojala spectra; empty for none"),
    ] = "",
    curves: Annotated[
        str, parameter("string", "folder with the transmission curves for these spectra; empty for none")
    ] = "",
    without_fold: Annotated[
        int, parameter("integer", "fold of their objects, 0 to 3, to leave out; -1 for none")
    ] = -1,
    pairs: Annotated[
        str, parameter("string", "folder of stored pairs for avis; empty to draw pairs on the fly")
    ] = "",
    model: Annotated[str, parameter("string", f"model to train: {', '.join(TRAININGS)}")] = DEFAULT,
) -> str:
    """Train a model on a library of spectra, or resume an interrupted training.

    Parameters
    ----------
    settings : Path
        TOML file of settings.
    library : Path
        Library of spectra.
    folder : Path
        Folder for weights, state, metrics and the model card.
    unlabelled : str
        Photometry catalogue to adapt to; empty for none.
    spectra : str
        Spectra catalogue to draw from as well; empty for none.
    curves : str
        Folder with the transmission curves for these spectra; empty for none.
    without_fold : int
        Fold of their objects, 0 to 3, that is left out for cross-validation; -1 for none.
    pairs : str
        Folder of stored pairs for AVIS; empty to draw pairs on the fly.
    model : str
        Name in `ojala.flows.training.registry.TRAININGS`.

    Returns
    -------
    str
        Path of the weights.
    """
    logger = get_run_logger()
    weights = start_training(
        model,
        settings,
        library=library,
        folder=folder,
        report=lambda record: logger.info("%s", record),
        unlabelled=UPath(unlabelled) if unlabelled else None,
        spectra=UPath(spectra) if spectra else None,
        curves=Path(curves) if curves else None,
        without_fold=None if without_fold < 0 else without_fold,
        pairs=Path(pairs) if pairs else None,
    )
    card = weights.with_suffix(".md")
    if card.exists():
        create_markdown_artifact(
            card.read_text(), key="model-card", description=f"Model card of {weights.name}"
        )
    return str(weights)
