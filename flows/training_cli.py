"""The commands that lead from spectra to weights: library, synthesise, train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.console import RUN_INTERRUPTED, AsJson, errors, say

app = typer.Typer()

Curves = Annotated[Path, typer.Option(help="Folder with the transmission curves.")]


@app.command()
def library(
    templates: Annotated[Path, typer.Option(help="Folder with stellar and quasar templates.")],
    curves: Curves,
    out: Annotated[Path, typer.Option(help="File to write (.npz).")],
    galaxies: Annotated[int, typer.Option(help="Galaxies to simulate.", min=1)] = 24_000,
    as_json: AsJson = False,
) -> None:
    """Make the library of spectra that mock photometry is drawn from (extra `training`: bagpipes)."""
    from flows.synthesis import build_library

    with errors():
        build_library(out, templates=templates, curves=curves, n_galaxies=galaxies)
    say(f"library: {out}", {"library": str(out)}, as_json)


@app.command()
def synthesise(
    spectra: Annotated[Path, typer.Option(help="Folder with SDSS, DESI and LAMOST spectra.")],
    curves: Curves,
    out: Annotated[Path, typer.Option(help="Folder for photometry.csv and truth.csv.")],
    magnitude: Annotated[float, typer.Option(help="iSDSS magnitude that all objects are given.")] = 20.0,
    moved: Annotated[
        bool, typer.Option("--moved", help="Move galaxies to redshifts from 0.08 to 0.40.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Derive J-PAS photometry with survey noise from observed spectra, in the archive's CSV."""
    from flows.real_objects import write_real_table

    photometry, truth = out / "photometry.csv", out / "truth.csv"
    with errors():
        out.mkdir(parents=True, exist_ok=True)
        objects = write_real_table(
            spectra, curves, photometry, truth, magnitude=magnitude, galaxies_moved=moved
        )
    facts = {"objects": len(objects.spectra), "photometry": str(photometry), "truth": str(truth)}
    say(f"{len(objects.spectra):,} objects: {photometry}, {truth}", facts, as_json)


@app.command()
def train(
    settings: Annotated[Path, typer.Argument(help="TOML file, such as flows/training.toml.")],
    library: Annotated[Path, typer.Option(help="Library of spectra, made by `ojala library`.")],
    out: Annotated[Path, typer.Option(help="Folder of the training; one that is there is gone on with.")],
    as_json: AsJson = False,
) -> None:
    """Train OJALA on mock photometry drawn on the fly; writes weights and their model card."""
    from flows.training import train_from

    def show(record: dict[str, object]) -> None:
        if not as_json:
            print(f"step {record['step']}, {record['seconds']} s", flush=True)

    with errors(RUN_INTERRUPTED):
        weights = train_from(settings, library=library, folder=out, report=show)
    say(f"weights: {weights}", {"weights": str(weights)}, as_json)
