"""Commands for mock catalogues, trainings, calibration and fine-tuned heads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.flows.cli.errors import Commands, Panel
from ojala.flows.cli.options import AsJson
from ojala.flows.cli.output import echo
from ojala.flows.training.registry import DEFAULT, TRAININGS, start_training

app = Commands(Panel.MODELS)

Curves = Annotated[Path, typer.Option(help="Folder with the transmission curves.")]
Library = Annotated[Path, typer.Option(help="Library of spectra, made by `ojala library`.")]
Training = Annotated[Path, typer.Option(help="Folder of the training; an unfinished one is resumed.")]


@app.command()
def library(
    templates: Annotated[Path, typer.Option(help="Folder with stellar and quasar templates.")],
    curves: Curves,
    out: Annotated[Path | None, typer.Option(help="File to write (.npz).")] = None,
    galaxies: Annotated[int, typer.Option(help="Galaxies to simulate.", min=1)] = 24_000,
    check: Annotated[
        bool, typer.Option("--check", help="Read templates and curves, say what is missing, write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the library of spectra for mock photometry (extra `training`: bagpipes)."""
    from ojala.flows.mocks.library import build_library, check_sources

    if check:
        problems = check_sources(templates, curves)
        echo("\n".join(f"{name}: {text or 'found'}" for name, text in problems.items()), problems, as_json)
        if any(problems.values()):
            raise InputError("a library cannot be made: see docs/training.md for each file and its source")
        return
    if out is None:
        raise InputError("--out is missing: name the file to write, or give --check")
    build_library(out, templates=templates, curves=curves, n_galaxies=galaxies)
    echo(f"library: {out}", {"library": str(out)}, as_json)


@app.command(resumable=True)
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
        bool,
        typer.Option("--held-out", help="Draw from the objects and cells that are excluded from trainings."),
    ] = False,
    fold: Annotated[
        int | None,
        typer.Option(help="Draw from one fold of the objects, as `ojala train --without-fold` leaves out."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 1,
    magnitude: Annotated[
        float, typer.Option(help="For a folder of spectra: iSDSS magnitude of all objects.")
    ] = 20.0,
    moved: Annotated[
        bool,
        typer.Option(
            "--moved", help="For a folder of spectra: move galaxies to redshifts from 0.08 to 0.40."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Derive J-PAS photometry with survey noise from observed spectra.

    With --draws, from a spectra catalogue: any number of mock objects, at magnitudes to i = 22.5, as Parquet;
    the same command resumes. Without: each object of a folder once, at one magnitude, in the archive's CSV.
    """
    if draws is None:
        _each_once(spectra, curves, out, magnitude, moved=moved, as_json=as_json)
        return
    from ojala.flows.mocks.draws import write_draws

    files = write_draws(
        UPath(spectra),
        curves,
        UPath(out),
        draws=draws,
        held_out=held_out,
        fold=fold,
        seed=seed,
        report=lambda done: None if as_json else print(f"{done:,} draws", flush=True),
    )
    echo(
        f"{draws:,} draws: {out} ({files} files written)",
        {"draws": draws, "files_written": files, "out": str(out), "held_out": held_out},
        as_json,
    )


def _each_once(
    spectra: Path, curves: Path, out: Path, magnitude: float, *, moved: bool, as_json: bool
) -> None:
    from ojala.flows.mocks.real_objects import write_real_table

    photometry, truth = out / "photometry.csv", out / "truth.csv"
    if (spectra / "hats.properties").exists():
        raise InputError(f"{spectra} is a spectra catalogue: give the number of objects with --draws")
    out.mkdir(parents=True, exist_ok=True)
    objects = write_real_table(spectra, curves, photometry, truth, magnitude=magnitude, galaxies_moved=moved)
    facts = {"objects": len(objects.spectra), "photometry": str(photometry), "truth": str(truth)}
    echo(f"{len(objects.spectra):,} objects: {photometry}, {truth}", facts, as_json)


_SHOWN_LOSSES = 5


def _show_progress(record: dict[str, object]) -> None:
    """Print step, time and the first losses of a record of a training."""
    losses = cast("dict[str, float]", record.get("loss", {}))
    shown = [f"{name} {value:.3g}" for name, value in list(losses.items())[:_SHOWN_LOSSES]]
    if more := len(losses) - len(shown):
        shown.append(f"and {more} more in metrics.jsonl")
    text = f"loss: {', '.join(shown)}" if shown else "saved, measured on held-out objects"
    print(f"step {record['step']}, {record['seconds']} s, {text}", flush=True)


@app.command(resumable=True)
def train(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] SETTINGS",
            help=f"Model ({', '.join(TRAININGS)}; default: {DEFAULT}) and TOML file with the settings of its "
            "training, such as flows/training/configs/ojala.toml.",
        ),
    ],
    library: Library,
    out: Training,
    unlabelled: Annotated[
        str | None, typer.Option(help="Photometry catalogue to adapt to (setting `discrepancy`).")
    ] = None,
    spectra: Annotated[
        str | None, typer.Option(help="Spectra catalogue to draw from as well, made by `ojala spectra`.")
    ] = None,
    curves: Annotated[
        Path | None, typer.Option(help="Folder with the transmission curves for these spectra.")
    ] = None,
    without_fold: Annotated[
        int | None,
        typer.Option(help="Fold of their objects (0 to 3) to leave out, for cross-validation.", min=0, max=3),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Folder of stored pairs for avis (`python -m ojala.flows.mocks.pairs`)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a model on mock objects drawn on the fly; writes weights. The same command resumes a training."""
    if len(arguments) > 2:
        raise InputError(f"expected [MODEL] SETTINGS, not {len(arguments)} arguments: {' '.join(arguments)}")
    *model, settings = arguments
    weights = start_training(
        model[0] if model else DEFAULT,
        Path(settings),
        library=library,
        folder=out,
        report=(lambda record: None) if as_json else _show_progress,
        unlabelled=UPath(unlabelled) if unlabelled else None,
        spectra=UPath(spectra) if spectra else None,
        curves=curves,
        without_fold=without_fold,
        pairs=pairs,
    )
    echo(f"weights: {weights}", {"weights": str(weights)}, as_json)


@app.command(resumable=True)
def adapt(
    settings: Annotated[
        Path, typer.Argument(help="TOML file with the settings, such as flows/training/configs/adapt.toml.")
    ],
    weights: Annotated[Path, typer.Option(help="Weights of OJALÁ to start from; they are not changed.")],
    photometry: Annotated[str, typer.Option(help="Photometry catalogue to adapt to.")],
    truth: Annotated[
        Path, typer.Option(help="Parquet or CSV with the key, class and z of some of its objects.")
    ],
    library: Library,
    out: Training,
    as_json: AsJson = False,
) -> None:
    """Adapt weights to a survey's photometry by objects of known class and redshift, and calibrate them.

    Some hundred labels are enough; mocks are drawn beside them, so that nothing is forgotten. The card states
    what was gained, on labelled objects that were kept apart, and what it cost on mocks.
    """
    from ojala.flows.training.adapt import adapt as adapt_weights

    adapted = adapt_weights(
        settings,
        weights=weights,
        photometry=UPath(photometry),
        truth=truth,
        library=library,
        folder=out,
        report=(lambda record: None) if as_json else _show_progress,
    )
    echo(f"weights: {adapted}", {"weights": str(adapted)}, as_json)


@app.command()
def calibrate(
    weights: Annotated[
        Path, typer.Argument(help="Weights; replaced by a file that also holds the calibration.")
    ],
    library: Library,
    photometry: Annotated[
        str | None,
        typer.Option(help="Photometry catalogue of observed objects, which the training did not see ..."),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="... whose class, z and labels are in this file, by key.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Held-out mock objects.", min=1000)] = 18_000,
    as_json: AsJson = False,
) -> None:
    """Calibrate probabilities, errors and the novelty score.

    Observed objects tell how far errors are from the truth beyond what mocks know. The calibration is stored
    in the weights, whose hash changes: heads for them have to be made again.
    """
    from ojala.flows.mocks.library import load_sky
    from ojala.flows.training.calibrate import calibrate_weights
    from ojala.flows.training.labelled import labelled_rows
    from ojala.models.evaluation.card import render
    from ojala.pipeline.quality.validation.truth import read_truth

    if (photometry is None) != (truth is None):
        raise InputError("observed objects need both --photometry and --truth")
    observed = labelled_rows(UPath(photometry), read_truth(UPath(truth))) if photometry and truth else None
    measures = calibrate_weights(weights, load_sky(library), observed=observed, draws=draws)
    table = render("ojala/calibration.md.j2", measures=measures)
    echo(f"{table}weights: {weights}", measures, as_json)


@app.command()
def finetune(
    settings: Annotated[
        Path, typer.Argument(help="TOML file, such as flows/training/configs/finetune_log_mbh.toml.")
    ],
    weights: Annotated[Path, typer.Option(help="Weights of the network, which is not changed.")],
    out: Annotated[Path, typer.Option(help="Head to write (.safetensors); its card is written next to it.")],
    library: Annotated[
        Path | None, typer.Option(help="Train on mock objects of this library of spectra.")
    ] = None,
    photometry: Annotated[str | None, typer.Option(help="Train on this photometry catalogue ...")] = None,
    truth: Annotated[Path | None, typer.Option(help="... whose labels are in this file, by key.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a head on the embedding of the frozen network, for a property of your own.

    Labels come from a library of spectra, or from a photometry catalogue and a truth file with the
    property's column and, if known, its `_err`. `ojala run --head` writes the property as a product.
    """
    from ojala.flows.mocks.library import load_sky
    from ojala.flows.training.finetune import finetune as train_head
    from ojala.flows.training.finetune import head_card, mock_labels, table_labels
    from ojala.models.ojala.checkpoint import load as load_weights
    from ojala.models.ojala.heads import FineTuning
    from ojala.models.settings import read_settings

    tuning = read_settings(FineTuning, settings)
    if library is not None and photometry is None and truth is None:
        labels = mock_labels(load_sky(library), tuning)
    elif library is None and photometry is not None and truth is not None:
        labels = table_labels(UPath(photometry), truth, tuning)
    else:
        raise InputError("give either --library, or --photometry and --truth")
    head = train_head(tuning, labels, weights=weights, out=out)
    card = head_card(head, load_weights(weights)[1])
    echo(f"{card}\nhead: {out}", {"head": str(out), "sha256": head.sha256, **head.measures}, as_json)
