"""The commands that work on trained weights: calibrate, finetune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from upath import UPath

from flows.console import AsJson, errors, say

app = typer.Typer()

Library = Annotated[Path, typer.Option(help="Library of spectra, made by `ojala library`.")]


@app.command()
def calibrate(
    weights: Annotated[Path, typer.Argument(help="Weights; renewed whole, with what was fitted inside.")],
    library: Library,
    draws: Annotated[int, typer.Option(help="Held-out mock objects.", min=1000)] = 18_000,
    as_json: AsJson = False,
) -> None:
    """Calibrate probabilities and errors, and record what known objects look like (novelty).

    Both are stored with the weights, whose hash changes: heads for them have to be made again.
    """
    from flows.calibration import calibrate_weights
    from flows.synthesis import load_sky
    from models.card import calibration_table

    with errors():
        measures = calibrate_weights(weights, load_sky(library), draws=draws)
    say(f"{calibration_table(measures)}\nweights: {weights}", measures, as_json)


@app.command()
def finetune(
    settings: Annotated[Path, typer.Argument(help="TOML file, such as flows/finetune_log_mbh.toml.")],
    weights: Annotated[Path, typer.Option(help="Weights of the network, which stays as it is.")],
    out: Annotated[Path, typer.Option(help="Head to write (.safetensors); its card is written beside it.")],
    library: Annotated[
        Path | None, typer.Option(help="Learn from mock objects of this library of spectra.")
    ] = None,
    photometry: Annotated[str | None, typer.Option(help="Learn from this photometry catalogue ...")] = None,
    truth: Annotated[Path | None, typer.Option(help="... whose labels are in this file, by key.")] = None,
    as_json: AsJson = False,
) -> None:
    """Learn a property of your own from the frozen network: a head on its embedding.

    Labels come from a library of spectra, or from a photometry catalogue and a truth file with the
    property's column and, if known, its `_err`. `ojala run --head` writes the property as a product.
    """
    from flows.finetuning import finetune as train_head
    from flows.finetuning import head_card, mock_labels, read_settings, table_labels
    from flows.synthesis import load_sky
    from models.ojala_weights import load_weights

    with errors():
        tuning = read_settings(settings)
        if library is not None and photometry is None and truth is None:
            labels = mock_labels(load_sky(library), tuning)
        elif library is None and photometry is not None and truth is not None:
            labels = table_labels(UPath(photometry), truth, tuning)
        else:
            raise ValueError("give either --library, or --photometry and --truth")
        head = train_head(tuning, labels, weights=weights, out=out)
        card = head_card(head, load_weights(weights)[1])
    say(f"{card}\nhead: {out}", {"head": str(out), "sha256": head.sha256, **head.measures}, as_json)
