"""Comparison of OJALÁ with template fitting on the same rows: accuracy and rate.

``python -m tests.benchmarks.template_fitting.compare --photometry DIR --truth FILE --templates DIR
--curves DIR`` runs OJALÁ on all rows, fits them with galaxy and quasar templates (non-negative sums) and with
stars, and a part of them with eazy-py (extra ``comparison``) and the same templates. Several pairs of
photometry and truth can be given. ``--keep DIR`` caches the template fits, which do not depend on the
weights.

Rates are rows per second of processor time of one core, which other processes do not change.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from upath import UPath

from ojala.catalogs_schema.ojala import CLASSES
from ojala.models import WEIGHTS_FOLDER
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.simulation.photometry.photometer import Photometer
from ojala.pipeline.inference.photometry import Photometry, read_photometry
from ojala.pipeline.ingest.reference.filter_curves import read_curves
from ojala.pipeline.quality.validation.result import Measure
from ojala.pipeline.quality.validation.samples import RedshiftSample, code_of
from ojala.pipeline.quality.validation.scores import classification, redshift_scores
from ojala.pipeline.quality.validation.text import number
from ojala.pipeline.quality.validation.truth import Truth, read_truth
from ojala.pipeline.storage.files import write_whole
from ojala.pipeline.storage.hats import read_objects
from tests.benchmarks.template_fitting.fit import TemplateFit, fit_single, fit_sums
from tests.benchmarks.template_fitting.templates import (
    QUASARS,
    TemplateGrid,
    galaxy_grid,
    quasar_grid,
    star_grid,
)

_REDSHIFTS = {"GALAXY": "z_gal", "QSO": "z_qso"}


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Photometry and truth of N objects.

    Attributes
    ----------
    photometry : Photometry
        Photometry for the models.
    class_code : ndarray of int64, shape (N,)
        Index into `CLASSES`, -1 where not known.
    z : ndarray, shape (N,)
        True redshift, NaN where not known.
    """

    photometry: Photometry
    class_code: np.ndarray
    z: np.ndarray

    @property
    def usable_fluxes(self) -> tuple[np.ndarray, np.ndarray]:
        """Usable flux densities and errors, NaN elsewhere, shape (N, 63)."""
        p = self.photometry
        return np.where(p.usable, p.flux, np.nan), np.where(p.usable, p.error, np.nan)

    def first(self, count: int) -> dict[str, np.ndarray]:
        """Find the first galaxies and quasars, at most ``count`` indices each."""
        return {name: np.flatnonzero(self.class_code == CLASSES.index(name))[:count] for name in _REDSHIFTS}


@dataclass(frozen=True, slots=True)
class Method:
    """Predictions of one method for N objects.

    Attributes
    ----------
    name : str
        Name of the method.
    class_code : ndarray of int64, shape (N,), or None
        Index into `CLASSES`; None for a method without classes.
    z : dict of str to ndarray, shape (N,)
        Redshift under the assumption of GALAXY and of QSO, NaN where not predicted.
    rates : dict of str to float
        Rows per second of processor time, by step.
    """

    name: str
    class_code: np.ndarray | None
    z: dict[str, np.ndarray]
    rates: dict[str, float]


def read_labelled_rows(photometry: UPath, truth: Truth) -> LabelledRows:
    """Read the rows of a photometry catalogue with a truth, in the order of the catalogue."""
    known = truth.rows["object_id"].to_numpy()
    rows = read_objects(photometry, known)
    place = np.searchsorted(known, rows["object_id"].to_numpy())
    words = np.array(truth.rows["class"].to_pylist(), dtype=object)[place]
    z = truth.rows["z"].to_numpy(zero_copy_only=False)[place]
    return LabelledRows(read_photometry(rows), code_of(words, CLASSES), np.asarray(z, dtype=np.float64))


def run_ojala(weights: Path, photometry: Photometry) -> Method:
    """Predict with OJALÁ on one thread."""
    torch.set_num_threads(1)
    model = OjalaPredictor.load(weights)
    model.predict(photometry.flux[:1], photometry.error[:1], photometry.ebv[:1])  # warm-up
    started = time.process_time()
    predictions = model.predict(photometry.flux, photometry.error, photometry.ebv)
    seconds = time.process_time() - started
    code = predictions["class_code"].astype(np.int64)
    z = {name: predictions[column].astype(np.float64) for name, column in _REDSHIFTS.items()}
    return Method(f"OJALÁ {model.name} {model.version}", code, z, {"all": len(code) / seconds})


class TemplateFitting:
    """Template fitting of rows, with cached fits.

    Parameters
    ----------
    templates, curves : Path
        Folders of the templates and of the transmission curves.
    keep : Path or None
        Folder of cached fits.
    """

    def __init__(self, templates: Path, curves: Path, keep: Path | None) -> None:
        self._templates, self._keep = templates, keep
        self._curves = read_curves(curves)

    @functools.cached_property
    def _grids(self) -> dict[str, TemplateGrid]:
        photometer = Photometer(self._curves)
        makers = {"GALAXY": galaxy_grid, "QSO": quasar_grid, "STAR": star_grid}
        grids = {name: make(self._templates, photometer) for name, make in makers.items()}
        hosted = grids["QSO"]
        return grids | {"QSO without host": TemplateGrid(hosted.z, hosted.flux[:, :QUASARS])}

    def all_classes(self, rows: LabelledRows) -> Method:
        """Fit all rows: class of the smallest chi-square, and redshifts of the best fits.

        Templates of quasars with hosts also fit galaxies, so classes come from quasars without hosts.
        """
        flux, error = rows.usable_fluxes
        names = ("GALAXY", "STAR", "QSO without host", "QSO")
        fits = {name: self._cached(f"sums {name}", flux, error, name) for name in names}
        chi2 = np.stack([fits[name].chi2 for name in names[: len(CLASSES)]], axis=1)
        z = {name: fits[name].z for name in _REDSHIFTS}
        rates = {name: len(flux) / fit.seconds for name, fit in fits.items()}
        return Method("template fitting", chi2.argmin(axis=1), z, rates)

    def eazy(self, rows: LabelledRows, count: int) -> Method:
        """Fit redshifts of the first galaxies and quasars with eazy-py and the templates of their class."""
        flux, error = rows.usable_fluxes
        z, rates = {}, {}
        for name, chosen in rows.first(count).items():
            fit = self._cached(f"eazy {name}", flux[chosen], error[chosen], name)
            z[name] = np.full(len(flux), np.nan)
            z[name][chosen] = fit.z
            rates[name] = len(chosen) / fit.seconds
        return Method("eazy-py", None, z, rates)

    def _cached(self, what: str, flux: np.ndarray, error: np.ndarray, name: str) -> TemplateFit:
        """Read a fit from the cache, or fit."""
        key = hashlib.sha256(what.encode() + flux.tobytes() + error.tobytes()).hexdigest()[:24]
        path = None if self._keep is None else self._keep / f"{what.replace(' ', '-')}-{key}.npz"
        if path is not None and path.exists():
            with np.load(path) as fit:
                return TemplateFit(fit["chi2"], fit["z"], float(fit["seconds"]))
        grid = self._grids[name]
        if what.startswith("eazy"):
            from tests.benchmarks.template_fitting.eazy import fit_with_eazy

            fit = fit_with_eazy(flux, error, grid, self._curves)
        else:
            fit = (fit_single if name == "STAR" else fit_sums)(flux, error, grid)
        if path is not None:
            sink = io.BytesIO()
            np.savez(sink, chi2=fit.chi2, z=fit.z, seconds=np.array(fit.seconds))
            write_whole(UPath(path), sink.getvalue())
        return fit


def markdown(rows: LabelledRows, methods: list[Method], evaluated: dict[str, np.ndarray]) -> str:
    """Render accuracy and rate of each method as a Markdown table.

    Parameters
    ----------
    rows : LabelledRows
        Rows.
    methods : list of Method
        Predictions for them.
    evaluated : dict of str to ndarray
        Indices of the galaxies and quasars with evaluated redshifts, under their true class.
    """
    header = ["method", "weighted F1", *(f"F1 {name}" for name in CLASSES)]
    for name in _REDSHIFTS:
        header += [f"{name} sigma_NMAD", "> 0.03 [%]", "> 0.15 [%]"]
    header.append("rows/s of a core")
    lines = [" | ".join(header), " | ".join(["---"] * len(header))]
    for method in methods:
        cells = [method.name, *_class_cells(rows, method)]
        for name, chosen in evaluated.items():
            cells += _redshift_cells(rows, method, name, chosen)
        cells.append(", ".join(f"{name} {rate:,.0f}" for name, rate in method.rates.items()))
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def _class_cells(rows: LabelledRows, method: Method) -> list[str]:
    if method.class_code is None:
        return ["–"] * (1 + len(CLASSES))
    scores = classification(method.class_code, rows.class_code, CLASSES)
    measures: list[Measure] = [scores.f1_weighted, *(scores.classes[name].f1 for name in CLASSES)]
    return [number(measure, 3) for measure in measures]


def _redshift_cells(rows: LabelledRows, method: Method, name: str, chosen: np.ndarray) -> list[str]:
    missing = np.full(len(rows.z), np.nan)
    sample = RedshiftSample(
        "GALAXY" if name == "GALAXY" else "QSO",
        "true class",
        _REDSHIFTS[name],
        method.z[name],
        missing,
        rows.z,
        missing,
        missing,
        np.ones(len(rows.z), dtype=bool),
    )
    scores = redshift_scores(sample.only(chosen))
    fractions = (number(m, 1, 100.0) for m in (scores.outliers_03, scores.outliers_15))
    return [number(scores.sigma_nmad, 4), *fractions]


def main() -> None:
    """Evaluate and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--photometry", type=UPath, required=True, action="append", help="photometry catalogue"
    )
    parser.add_argument("--truth", type=UPath, required=True, action="append", help="labels of its objects")
    parser.add_argument("--templates", type=Path, required=True, help="folder with all templates")
    parser.add_argument("--curves", type=Path, required=True, help="folder with the transmission curves")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER / "ojala-base.safetensors")
    parser.add_argument("--keep", type=Path, help="folder for cached template fits")
    parser.add_argument("--eazy", type=int, default=0, help="galaxies and quasars to fit with eazy-py")
    options = parser.parse_args()
    fitting = TemplateFitting(options.templates, options.curves, options.keep)
    for photometry, truth in zip(options.photometry, options.truth, strict=True):
        rows = read_labelled_rows(photometry, read_truth(truth))
        methods = [run_ojala(options.weights, rows.photometry), fitting.all_classes(rows)]
        everything = rows.first(len(rows.z))
        print(f"\n{photometry}: {len(rows.z):,} rows\n\n{markdown(rows, methods, everything)}", flush=True)
        if options.eazy:
            some = rows.first(options.eazy)
            counts = " and ".join(f"{len(chosen)} {name}" for name, chosen in some.items())
            methods = [replace(method, class_code=None) for method in methods]
            methods.append(fitting.eazy(rows, options.eazy))
            print(f"\nRedshifts of the first {counts}:\n\n{markdown(rows, methods, some)}", flush=True)


if __name__ == "__main__":
    main()
