"""OJALÁ's classes and redshifts of observed objects of the fold that no training saw.

``python -m ojala.flows.evaluation.real_objects --spectra DIR --catalogue CATALOGUE --curves DIR`` and
``--weights FILE ...`` prints for each magnitude, with galaxies at their own redshifts and moved to z = 0.08
to 0.40, of the objects of a fold: the F1 of classes weighted by true counts; of galaxies and quasars
sigma_NMAD, the share of redshifts beyond 0.15, and the share of truths within the stated error. All weights
see the same noise.

CATALOGUE is what `ojala spectra` made of DIR; its keys of objects decide the folds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.flows.evaluation.real_labels import Rows, residual_measures, table_text
from ojala.flows.mocks.real_objects import move_galaxies, observe_spectra
from ojala.models import WEIGHTS_FOLDER
from ojala.models.evaluation.metrics import class_metrics, redshift_metrics
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.quantities import CLASSES
from ojala.models.simulation.photometry.photometer import Photometer
from ojala.models.simulation.skies.observed import fold_of
from ojala.pipeline.ingest.reference.filter_curves import read_curves
from ojala.pipeline.ingest.surveys.folder import read_folder
from ojala.pipeline.ingest.surveys.spectrum import Spectrum
from ojala.pipeline.storage.hats import read_leaves

MAGNITUDES = (17.0, 18.0, 19.0, 20.0, 21.0, 22.0)
"""iSDSS magnitudes at which the objects are seen."""

SEED = 7
"""Seed of the redshifts and of the noise at each magnitude."""


def folds_of_sources(catalogue: UPath) -> dict[str, int]:
    """Fold of each spectrum of a catalogue by its ``source_id``."""
    columns = ["primary_id", "source_id"]
    paths = [catalogue / leaf.path for leaf in read_leaves(catalogue).values()]
    keys = pa.concat_tables([pq.read_table(path.open("rb"), columns=columns) for path in paths])
    folds = fold_of(keys["primary_id"].to_numpy())
    return dict(zip(keys["source_id"].to_pylist(), folds.tolist(), strict=True))


def measures(
    models: dict[str, OjalaPredictor],
    spectra: list[Spectrum],
    chosen: set[str],
    photometer: Photometer,
    magnitude: float,
    *,
    moved: bool,
) -> Rows:
    """Measures of the `chosen` objects, by their source, at a magnitude, for each model."""
    rng = np.random.default_rng(SEED)
    seen = observe_spectra(move_galaxies(spectra, rng) if moved else spectra, photometer, magnitude, rng)
    inside = np.array([spectrum.source in chosen for spectrum in seen.spectra])
    code, z = seen.class_code[inside], seen.z[inside]
    rows: Rows = {}
    for name, model in models.items():
        predicted = model.predict(seen.flux[inside], seen.error[inside], np.zeros(len(z), np.float32))
        row = {"n": float(len(z)), "F1": class_metrics(predicted["class_code"], code)["f1_weighted"]}
        for short, member in (("gal", "GALAXY"), ("qso", "QSO")):
            of = code == CLASSES.index(member)
            redshift = redshift_metrics(predicted[f"z_{short}"][of], z[of])
            row[f"{member} sigma_NMAD"] = redshift["sigma_nmad"]
            row[f"{member} > 0.15"] = redshift["outliers_15"]
            error = predicted[f"z_{short}_err"][of]
            row[f"{member} within"] = residual_measures(predicted[f"z_{short}"][of], z[of], error)["within"]
        rows[f"{magnitude:g}{', galaxies moved' if moved else ''}, {name}"] = row
    return rows


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--weights", type=Path, nargs="+", default=[WEIGHTS_FOLDER / "ojala-base.safetensors"]
    )
    parser.add_argument("--fold", type=int, default=0)
    for name in ("--spectra", "--catalogue", "--curves"):
        parser.add_argument(name, type=Path, required=True)
    asked = parser.parse_args()
    folds = folds_of_sources(UPath(asked.catalogue))
    chosen = {source for source, fold in folds.items() if fold == asked.fold}
    models = {path.stem: OjalaPredictor.load(path) for path in asked.weights}
    spectra, photometer = read_folder(asked.spectra), Photometer(read_curves(asked.curves))
    rows: Rows = {}
    for moved in (False, True):
        for magnitude in MAGNITUDES:
            rows |= measures(models, spectra, chosen, photometer, magnitude, moved=moved)
    print(table_text(rows))


if __name__ == "__main__":
    main()
