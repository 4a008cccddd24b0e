"""Training of OJALA from a library of spectra and a TOML file; writes weights and their model card.

settings = Path("flows/training/configs/ojala.toml")
weights = train_from(settings, library=Path("library.npz"), folder=Path("runs/ojala-base"))
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.flows.mocks.library import load_sky
from ojala.flows.mocks.observed import open_observed_sky
from ojala.flows.training.learning_curve import Checks, write_curve
from ojala.models.data import LabelledPhotometry, Sky
from ojala.models.evaluation.card import write_card
from ojala.models.ojala.training import OjalaTraining, train
from ojala.models.settings import read_settings
from ojala.models.simulation.skies.mixed import MixedSky
from ojala.models.simulation.skies.observed import FOLDS
from ojala.models.simulation.skies.photometric import CLASS_WEIGHTS, SURVEY_SHARES, MockSky
from ojala.models.training.trainer import Record, Report, ignore
from ojala.pipeline.inference.photometry import read_photometry
from ojala.pipeline.inference.products.ojala import FEW_BANDS
from ojala.pipeline.storage import progress
from ojala.pipeline.storage.hats import current_release, read_leaves

CURVE_LOSSES = ("class", "z_gal", "z_qso", "log_mass", "bands")
CURVE_CHECKS: Checks = {
    "galaxies: sigma_NMAD": ("z_gal", "sigma_nmad"),
    "galaxies: share beyond 0.15": ("z_gal", "outliers_15"),
    "quasars: sigma_NMAD": ("z_qso", "sigma_nmad"),
    "log M: NMAD [dex]": ("log_mass", "nmad"),
}
"""Losses and measures of the learning curve."""

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
        Made by `ojala ingest`; partitions of its current release are read in random order up to ``most``
        rows.
    most : int
        Largest number of rows in memory.

    Attributes
    ----------
    flux, error : ndarray, shape (N, 63)
        Flux densities and standard errors [uJy] of the rows with enough bands.
    ebv : ndarray, shape (N,)
        Galactic E(B-V) [mag].
    """

    def __init__(self, catalogue: UPath, most: int = 200_000) -> None:
        catalogue = current_release(catalogue)
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
        self.flux, self.error, self.ebv = (
            part[usable] for part in (photometry.flux, photometry.error, photometry.ebv)
        )

    def draw(self, n: int, rng: np.random.Generator) -> LabelledPhotometry:
        """Draw n random rows."""
        row = rng.integers(0, len(self.flux), n)
        unknown = np.full(n, -1, np.int64)
        return LabelledPhotometry(self.flux[row], self.error[row], self.ebv[row], unknown, {})


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
            write_curve(folder / f"{config.name}.svg", config.batch_size, CURVE_LOSSES, CURVE_CHECKS)

    weights = train(config, sky, HeldOutSky(mock), folder, follow, observed)
    write_card(weights)
    return weights
