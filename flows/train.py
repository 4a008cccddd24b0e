"""The Prefect flow of a training, for runs that a server starts; `ojala train` does without it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from upath import UPath

from ojala.flows.survey import shown
from ojala.flows.training.ojala import train_from


@flow(name="train")
def train(
    settings: Annotated[Path, shown("string", "TOML file with the settings of the training")],
    library: Annotated[Path, shown("string", "library of spectra, made by ojala library")],
    folder: Annotated[
        Path, shown("string", "gets weights, state, metrics and model card; goes on with what it holds")
    ],
    unlabelled: Annotated[
        str, shown("string", "photometry catalogue to adapt to (setting discrepancy); empty for none")
    ] = "",
    spectra: Annotated[
        str,
        shown("string", "spectra catalogue to draw from as well, made by ojala spectra; empty for none"),
    ] = "",
    curves: Annotated[
        str, shown("string", "folder with the curves that those are seen through; empty for none")
    ] = "",
    without_fold: Annotated[
        int, shown("integer", "fold of their objects, 0 to 3, to leave out; -1 for none")
    ] = -1,
) -> str:
    """Train a model on a library of spectra, or go on with a training that was interrupted.

    Parameters
    ----------
    settings : Path
        TOML with fields of `ojala.models.ojala.training.OjalaTraining`.
    library : Path
        Library of spectra.
    folder : Path
        Gets weights, state, metrics and the model card.
    unlabelled : str
        Photometry catalogue that the encodings are adapted to; empty for none.
    spectra : str
        Spectra catalogue of which a part of the draws is; empty for none.
    curves : str
        Folder with the transmission curves that those are seen through; empty for none.
    without_fold : int
        Fold of their objects, 0 to 3, that is left out for cross-validation; -1 for none.

    Returns
    -------
    str
        Path of the weights.
    """
    logger = get_run_logger()
    weights = train_from(
        settings,
        library=library,
        folder=folder,
        report=lambda record: logger.info("%s", record),
        unlabelled=UPath(unlabelled) if unlabelled else None,
        spectra=UPath(spectra) if spectra else None,
        curves=Path(curves) if curves else None,
        without_fold=None if without_fold < 0 else without_fold,
    )
    create_markdown_artifact(
        weights.with_suffix(".md").read_text(), key="model-card", description=f"Model card of {weights.name}"
    )
    return str(weights)
