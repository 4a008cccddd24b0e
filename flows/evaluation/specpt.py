"""Evaluation of SpecPT on held-out mock spectra and on real ones.

``python -m ojala.flows.evaluation.specpt --weights FILE --library FILE --out DIR`` and, for real objects,
``--spectra DIR`` (see `ojala.pipeline.ingest.surveys.folder`) writes ``<weights>.json`` and the model card
``<weights>.md``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import uniform_filter1d

from ojala.catalogs_schema.specpt import SpecPTFlag
from ojala.flows.mocks.library import load_sky
from ojala.flows.training.specpt import TARGETS
from ojala.models.data import Spectra
from ojala.models.evaluation.card import write_card
from ojala.models.evaluation.metrics import redshift_metrics
from ojala.models.serving.precision import fastest_precision
from ojala.models.simulation.skies.spectroscopic import INSTRUMENTS, SpectraSky
from ojala.models.simulation.spectroscopy.night_sky import SKY_LINES
from ojala.models.specpt.losses import nmad_loss
from ojala.models.specpt.network import standardise
from ojala.models.specpt.predictor import STORED_GRID, SpecPTPredictor
from ojala.models.specpt.wavelength_grid import GRIDS, Grid, rebin
from ojala.pipeline.ingest.surveys.folder import read_folder
from ojala.pipeline.ingest.surveys.spectrum import Spectrum

BRIGHT_SKY = 20.0
"""Smallest equivalent width over the sky's continuum of a bright sky line [Angstrom]."""

DOUBTFUL = (
    SpecPTFlag.Z_MULTIMODAL | SpecPTFlag.Z_UNCERTAIN | SpecPTFlag.POOR_RECONSTRUCTION | SpecPTFlag.FEW_PIXELS
)
"""Flags of unreliable predictions."""

Report = dict[str, dict[str, float]]


def on_mock_spectra(predictor: SpecPTPredictor, sky: SpectraSky, n: int) -> Report:
    """Measure redshifts and reconstructions of ``n`` held-out objects of each kind of target."""
    report: Report = {}
    desi = INSTRUMENTS["DESI"]
    well_calibrated = replace(desi, calibration=0.0)
    for targets in TARGETS:
        rng = np.random.default_rng(17)
        objects = sky.draw_objects(n, rng, held_out=True, targets=targets)
        truth = sky.noiseless(objects, desi)
        drawn = sky.observe(objects, desi, rng)
        report[targets] = measures(predictor.predict(drawn.spectra), drawn.labels["z"])
        exact = sky.observe(objects, well_calibrated, rng)  # deviations from the truth are noise alone
        report[targets] |= at_sky_lines(exact.spectra, truth, predictor.predict(exact.spectra))
        report[targets]["truth nmad"] = _loss_of_truth(exact.spectra, truth, GRIDS[predictor.grid])
    return report


def _loss_of_truth(spectra: Spectra, truth: np.ndarray, grid: Grid) -> float:
    """Median over the spectra of the loss of a perfect reconstruction."""
    exact = replace(spectra, flux=truth.ravel())
    flux, ivar, median = standardise(*rebin(spectra, grid))
    tensors = (torch.from_numpy(a) for a in (flux, ivar, rebin(exact, grid)[0] / median[:, None]))
    return float(nmad_loss(*tensors).nanmedian())


def on_real_spectra(predictor: SpecPTPredictor, objects: Sequence[Spectrum]) -> Report:
    """Measure redshifts of real objects against those of their surveys, by survey and class."""
    report = {}
    spectra = Spectra.from_arrays([(s.wavelength, s.flux, s.ivar) for s in objects])
    predictions = predictor.predict(spectra)
    kinds = np.array([f"{s.survey} {s.object_class}" for s in objects])
    z = np.array([s.z for s in objects])
    for kind in sorted(set(kinds)):
        rows = kinds == kind
        report[kind] = measures({name: values[rows] for name, values in predictions.items()}, z[rows])
    return report


def measures(predictions: dict[str, np.ndarray], z: np.ndarray) -> dict[str, float]:
    """Compute redshift measures of all predicted rows, and of those without a flag of `DOUBTFUL`."""
    z = np.asarray(z, np.float64)
    sure = (predictions["flags"] & int(DOUBTFUL)) == 0
    found = {
        "rows": float(len(z)),
        "predicted": float(np.isfinite(predictions["z"]).mean()),
        "median snr": float(np.nanmedian(predictions["snr"])),
        "sure": float(sure.mean()),
        "reconstruction_chi2": float(np.nanmedian(predictions["reconstruction_chi2"])),
        "reconstruction_nmad": float(np.nanmedian(predictions["reconstruction_nmad"])),
        **redshift_metrics(predictions["z"].astype(np.float64), z),
    }
    if sure.any():
        of_sure = redshift_metrics(predictions["z"][sure].astype(np.float64), z[sure])
        found |= {f"sure {name}": value for name, value in of_sure.items()}
    pull = np.abs(predictions["z"] - z) / predictions["z_err"]
    return found | {"within z_err": float(np.nanmean(pull < 1.0))}


def at_sky_lines(spectra: Spectra, truth: np.ndarray, predictions: dict[str, np.ndarray]) -> dict[str, float]:
    """Measure the fraction of the noise that is reconstructed, at bright sky lines and elsewhere.

    It is the slope of a fit of the deviations of the reconstruction from the noiseless spectrum to those of
    the observed one, after subtraction of the running mean, on the grid of the stored reconstructions beyond
    7200 A. Spectra should have no calibration errors.
    """
    unit = predictions["flux_median"][:, None]
    exact = (
        rebin(replace(spectra, flux=truth.ravel()), STORED_GRID)[0] / unit
    )  # with the weights of the observed
    observed, ivar = rebin(spectra, STORED_GRID)
    used = (ivar > 0.0) & np.isfinite(unit) & np.isfinite(predictions["reconstruction"])
    noise, repeated = (
        _without_smooth(np.where(used, flux - exact, 0.0), used)
        for flux in (observed / unit, predictions["reconstruction"].astype(np.float32))
    )
    on_line = np.zeros(STORED_GRID.size, bool)
    on_line[
        np.searchsorted(STORED_GRID.edges, [line for line, width in SKY_LINES if width > BRIGHT_SKY]) - 1
    ] = True
    red = (STORED_GRID.wavelength > 7200.0) & (STORED_GRID.wavelength < 9800.0)
    weight = np.where(used, ivar * np.where(used, unit, 1.0) ** 2, 0.0)
    found = {}
    for name, pixels in (("at sky lines", on_line & red), ("elsewhere", ~on_line & red)):
        n, r, w = (array[:, pixels] for array in (noise, repeated, weight))
        found[f"noise reconstructed {name}"] = float((w * n * r).sum() / (w * n * n).sum())
    return found


def _without_smooth(values: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Subtract the running mean over 41 pixels from values (N, P), 0 where not used."""
    total, count = (uniform_filter1d(x.astype(float), 41, mode="constant") for x in (values, used))
    return np.where(used, values - total / np.maximum(count, 1.0 / 41.0), 0.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="weights of SpecPT")
    parser.add_argument("--library", type=Path, required=True, help="library of spectra")
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument("--spectra", type=Path, help="folder with real spectra")
    parser.add_argument("--objects", type=int, default=2000, help="held-out objects of each kind")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    predictor = SpecPTPredictor.load(arguments.weights, precision=fastest_precision(), batch_size=32)
    report = on_mock_spectra(predictor, SpectraSky(load_sky(arguments.library).population), arguments.objects)
    if arguments.spectra:
        report |= on_real_spectra(predictor, read_folder(arguments.spectra))
    report = {kind: {name: round(value, 6) for name, value in row.items()} for kind, row in report.items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = arguments.weights.stem
    command = (
        f"python -m ojala.flows.evaluation.specpt --weights {name}.safetensors --library FILE --spectra DIR"
    )
    command += f" --objects {arguments.objects}"
    write_card(arguments.weights, {"command": command, "measures": report}, arguments.out)
    print(json.dumps(report, indent=1))
