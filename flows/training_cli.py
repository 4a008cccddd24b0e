"""The commands that lead from spectra to weights: library, synthesise, train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from upath import UPath

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
    spectra: Annotated[
        Path, typer.Option(help="Spectra catalogue, or a folder with SDSS, DESI and LAMOST spectra.")
    ],
    curves: Curves,
    out: Annotated[Path, typer.Option(help="Folder for photometry and truth.")],
    draws: Annotated[
        int | None,
        typer.Option(help="Objects to draw from a spectra catalogue (made by `ojala spectra`).", min=1),
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Draw from the objects and cells that are never trained on.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 1,
    magnitude: Annotated[float, typer.Option(help="Of a folder: iSDSS magnitude of all objects.")] = 20.0,
    moved: Annotated[
        bool, typer.Option("--moved", help="Of a folder: move galaxies to redshifts from 0.08 to 0.40.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Derive J-PAS photometry with survey noise from observed spectra.

    With --draws from a spectra catalogue: mock photometry without end, at magnitudes to i = 22.5, as Parquet;
    the same command goes on where it was stopped. Without: each object of a folder once, at one magnitude, in
    the archive's CSV.
    """
    if draws is None:
        _each_once(spectra, curves, out, magnitude, moved=moved, as_json=as_json)
        return
    from flows.draws import write_draws

    def show(done: int) -> None:
        if not as_json:
            print(f"{done:,} draws", flush=True)

    with errors(RUN_INTERRUPTED):
        files = write_draws(
            UPath(spectra),
            curves,
            UPath(out),
            draws=draws,
            held_out=held_out,
            seed=seed,
            report=_telling(as_json),
        )
    say(
        f"{draws:,} draws: {out} ({files} files written)",
        {"draws": draws, "files_written": files, "out": str(out), "held_out": held_out},
        as_json,
    )


def _each_once(
    spectra: Path, curves: Path, out: Path, magnitude: float, *, moved: bool, as_json: bool
) -> None:
    from flows.real_objects import write_real_table

    photometry, truth = out / "photometry.csv", out / "truth.csv"
    with errors():
        if (spectra / "hats.properties").exists():
            raise ValueError(f"{spectra} is a spectra catalogue: say with --draws how many objects to draw")
        out.mkdir(parents=True, exist_ok=True)
        objects = write_real_table(
            spectra, curves, photometry, truth, magnitude=magnitude, galaxies_moved=moved
        )
    facts = {"objects": len(objects.spectra), "photometry": str(photometry), "truth": str(truth)}
    say(f"{len(objects.spectra):,} objects: {photometry}, {truth}", facts, as_json)


def _telling(as_json: bool) -> Callable[[dict[str, object]], None]:
    """Says how far a training is, unless the answer is to be JSON alone."""

    def tell(record: dict[str, object]) -> None:
        if not as_json:
            print(f"step {record['step']}, {record['seconds']} s", flush=True)

    return tell


@app.command()
def train(
    settings: Annotated[Path, typer.Argument(help="TOML file, such as flows/training.toml.")],
    library: Annotated[Path, typer.Option(help="Library of spectra, made by `ojala library`.")],
    out: Annotated[Path, typer.Option(help="Folder of the training; one that is there is gone on with.")],
    unlabelled: Annotated[
        str | None, typer.Option(help="Photometry catalogue to adapt to (setting `discrepancy`).")
    ] = None,
    spectra: Annotated[
        str | None, typer.Option(help="Spectra catalogue to draw from as well, made by `ojala spectra`.")
    ] = None,
    curves: Annotated[
        Path | None, typer.Option(help="Folder with the curves that those are seen through.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train OJALA on mock photometry drawn on the fly; writes weights and their model card."""
    from flows.training import train_from

    with errors(RUN_INTERRUPTED):
        observed = UPath(unlabelled) if unlabelled else None
        weights = train_from(
            settings,
            library=library,
            folder=out,
            report=_telling(as_json),
            unlabelled=observed,
            spectra=UPath(spectra) if spectra else None,
            curves=curves,
        )
    say(f"weights: {weights}", {"weights": str(weights)}, as_json)


@app.command()
def train_specpt(
    settings: Annotated[Path, typer.Argument(help="TOML file, such as flows/specpt.toml.")],
    library: Annotated[Path, typer.Option(help="Library of spectra, made by `ojala library`.")],
    out: Annotated[Path, typer.Option(help="Folder of the training; one that is there is gone on with.")],
    as_json: AsJson = False,
) -> None:
    """Train SpecPT on mock spectra drawn on the fly; writes weights."""
    from flows.specpt_training import train_specpt_from

    with errors(RUN_INTERRUPTED):
        weights = train_specpt_from(settings, library=library, folder=out, report=_telling(as_json))
    say(f"weights: {weights}", {"weights": str(weights)}, as_json)


@app.command()
def train_tokenizer(
    settings: Annotated[Path, typer.Argument(help="TOML file, such as flows/tokenizer.toml.")],
    library: Annotated[Path, typer.Option(help="Library of spectra, made by `ojala library`.")],
    out: Annotated[Path, typer.Option(help="Folder of the training; one that is there is gone on with.")],
    as_json: AsJson = False,
) -> None:
    """Train the spectral tokenizer on mock spectra of four surveys; writes weights with calibrated errors."""
    from flows.tokenizer_training import train_tokenizer_from

    with errors(RUN_INTERRUPTED):
        weights = train_tokenizer_from(settings, library=library, folder=out, report=_telling(as_json))
    say(f"weights: {weights}", {"weights": str(weights)}, as_json)
