"""Training of OJALA from a library of spectra and a TOML file; writes weights and their model card.

settings = Path("flows/training/configs/ojala.toml")
weights = train_from(settings, library=Path("library.npz"), folder=Path("runs/ojala-base"))
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.files import atomic_file
from ojala.flows.mocks.library import load_sky
from ojala.flows.mocks.observed import open_observed_sky
from ojala.models.data import LabelledPhotometry, Sky
from ojala.models.evaluation.card import write_card
from ojala.models.ojala.training import OjalaTraining, train
from ojala.models.settings import read_settings
from ojala.models.simulation.skies.mixed import MixedSky
from ojala.models.simulation.skies.observed import FOLDS
from ojala.models.simulation.skies.photometric import CLASS_WEIGHTS, SURVEY_SHARES, MockSky
from ojala.models.training.trainer import METRICS_FILE, Record, Report, ignore
from ojala.pipeline.inference.photometry import read_photometry
from ojala.pipeline.inference.products.ojala import FEW_BANDS
from ojala.pipeline.storage import progress
from ojala.pipeline.storage.hats import read_leaves

OBSERVED_SHARE = 0.1
"""Share of observed spectra in the draws of a training with observed spectra."""


@dataclass(frozen=True)
class HeldOutSky:
    """Sampler of the held-out members of a mock sky, in the mix of a survey."""

    sky: MockSky

    def draw(self, n: int, rng: np.random.Generator) -> LabelledPhotometry:
        """Draw n objects that share no spectrum with the training."""
        return self.sky.draw(n, rng, held_out=True, shares=SURVEY_SHARES)


class ObservedPhotometry:
    """Sampler of the rows of a photometry catalogue, without labels.

    Parameters
    ----------
    catalogue : UPath
        Made by `ojala ingest`; its partitions are read in random order up to ``most`` rows.
    most : int
        Largest number of rows in memory.
    """

    def __init__(self, catalogue: UPath, most: int = 200_000) -> None:
        partitions = list(read_leaves(catalogue))
        tables, rows = list[pa.Table](), 0
        for k in np.random.default_rng(0).permutation(len(partitions)):
            if rows >= most:
                break
            with (catalogue / partitions[k].leaf).open("rb") as file:
                tables.append(pq.read_table(file))
            rows += tables[-1].num_rows
        photometry = read_photometry(pa.concat_tables(tables))
        usable = np.flatnonzero(photometry.usable.sum(axis=1) >= FEW_BANDS)
        if len(usable) == 0:
            raise InputError(f"{catalogue}: no row has {FEW_BANDS} usable bands, nothing to adapt to")
        self._flux, self._error, self._ebv = (
            part[usable] for part in (photometry.flux, photometry.error, photometry.ebv)
        )

    def draw(self, n: int, rng: np.random.Generator) -> LabelledPhotometry:
        """Draw n random rows."""
        row = rng.integers(0, len(self._flux), n)
        unknown = np.full(n, -1, np.int64)
        return LabelledPhotometry(self._flux[row], self._error[row], self._ebv[row], unknown, {})


def sky_to_train_on(
    mock: MockSky, spectra: UPath | None, curves: Path | None, without_fold: int | None = None
) -> tuple[Sky, str]:
    """Make the sampler of a training and its description for the model card.

    Parameters
    ----------
    mock : MockSky
        Simulated objects.
    spectra : UPath or None
        Spectra catalogue; held-out objects and cells are left out.
    curves : Path or None
        Folder of the transmission curves for its spectra.
    without_fold : int or None
        Fold of its objects to leave out, for cross-validation.

    Raises
    ------
    InputError
        There are spectra but no curves, no such fold, or a fold but no spectra.
    """
    if without_fold is not None and (spectra is None or without_fold not in range(FOLDS)):
        raise InputError(f"a fold to leave out is one of 0 to {FOLDS - 1}, of observed spectra")
    if spectra is None:
        return mock, ""
    if curves is None:
        raise InputError("spectra are drawn through transmission curves: give their folder as well")
    folds = [fold for fold in range(FOLDS) if fold != without_fold]
    observed = open_observed_sky(spectra, curves, held_out=False, folds=folds)
    objects = len(np.unique(observed.members.primary_id))
    note = f"{OBSERVED_SHARE:.0%} of the draws are from the observed spectra of {objects:,} objects"
    note += f"; fold {without_fold} of {FOLDS} was left out." if without_fold is not None else "."
    return MixedSky(mock, observed, OBSERVED_SHARE), note


def train_from(
    settings: Path,
    *,
    library: Path,
    folder: Path,
    report: Report = ignore,
    unlabelled: UPath | None = None,
    spectra: UPath | None = None,
    curves: Path | None = None,
    without_fold: int | None = None,
) -> Path:
    """Train OJALA; also writes the learning curve ``<name>.svg``, anew at each save.

    See `ojala.flows.training.registry.start_training` for the other parameters, the result and the errors.

    Parameters
    ----------
    settings : Path
        TOML with fields of `ojala.models.ojala.training.OjalaTraining`.
    unlabelled : UPath, optional
        Photometry catalogue for the setting ``discrepancy``.
    spectra : UPath, optional
        Spectra catalogue; `OBSERVED_SHARE` of the draws are from its training side.
    curves : Path, optional
        Folder of the transmission curves for those spectra.
    without_fold : int, optional
        Fold of its objects, 0 to 3, to leave out for cross-validation.
    """
    config = read_settings(OjalaTraining, settings)
    config = replace(config, class_weights=CLASS_WEIGHTS)
    mock = load_sky(library)
    sky, sky_note = sky_to_train_on(mock, spectra, curves, without_fold)
    config = replace(config, note=f"{config.note} {sky_note}".strip())
    observed = None if unlabelled is None else ObservedPhotometry(unlabelled)
    if config.compiles:
        progress.report(
            "torch compiles the network at the first step, which may take minutes and does not count as "
            "training time; compiled = false in the settings does without"
        )

    def follow(record: Record) -> None:
        report(record)
        if "held_out" in record:
            write_curve(folder / f"{config.name}.svg", config.batch_size)

    weights = train(config, sky, HeldOutSky(mock), folder, follow, observed)
    write_card(weights)
    return weights


def write_curve(path: Path, batch_size: int) -> None:
    """Write the learning curve of the training in a folder, as SVG."""
    curve = learning_curve(path.with_name(METRICS_FILE), batch_size)
    with atomic_file(path) as file:
        file.write(curve)


_POINTS = 40
_LOSSES = ("class", "z_gal", "z_qso", "log_mass", "bands")
_CHECKS = {
    "galaxies: sigma_NMAD": ("z_gal", "sigma_nmad"),
    "galaxies: share beyond 0.15": ("z_gal", "outliers_15"),
    "quasars: sigma_NMAD": ("z_qso", "sigma_nmad"),
    "log M: NMAD [dex]": ("log_mass", "nmad"),
}


def learning_curve(metrics: Path, batch_size: int) -> bytes:
    """Plot losses (medians) and measures on held-out draws of a training, as SVG.

    Parameters
    ----------
    metrics : Path
        Records of the training.
    batch_size : int
        Draws of a step.
    """
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [record for record in records if "loss" in record]
    checks = [record for record in records if "held_out" in record]
    with mpl.rc_context({"svg.hashsalt": "learning curve"}):
        figure = Figure(figsize=(9.0, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name in _LOSSES:
            points = [(r["step"] * batch_size, r["loss"][name]) for r in steps if name in r["loss"]]
            if points:
                runs = np.array_split(np.array(points), min(len(points), _POINTS))
                left.plot(*np.array([np.median(run, axis=0) for run in runs]).T, label=name)
        for name, (part, measure) in _CHECKS.items():
            figures = [record["held_out"].get(part, {}).get(measure, np.nan) for record in checks]
            right.plot([record["step"] * batch_size for record in checks], figures, marker="o", label=name)
        left.set(xlabel="draws", ylabel="loss")
        right.set(xlabel="draws", ylabel="held-out draws", yscale="log")
        for axes in (left, right):
            axes.legend(fontsize="small", frameon=False)
        picture = io.BytesIO()
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()
