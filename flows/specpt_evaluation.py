"""What trained SpecPT is worth, on held-out mock spectra and on real ones.

``python -m flows.specpt_evaluation --weights FILE --library FILE --out DIR`` and, for real objects,
``--spectra DIR`` (see `pipeline.sources.spectra.folder`) writes ``<weights>.json`` and the model card
``<weights>.md``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from catalogs_schema.specpt import SpecPTFlag
from flows.specpt_training import TARGETS, specpt_spectra
from flows.synthesis import load_sky
from models.metrics import redshift_metrics
from models.specpt import standardise
from models.specpt_card import specpt_card
from models.specpt_predictor import KEPT, SpecPTPredictor
from models.specpt_training import nmad_loss
from models.specpt_weights import load_specpt
from models.spectra import Spectra
from models.spectral_grid import GRIDS, Grid, rebin
from models.synthesis.night_sky import SKY_LINES
from models.synthesis.spectrograph import INSTRUMENTS, SpectraSky
from pipeline.sources.spectra.folder import read_folder
from pipeline.sources.spectra.spectrum import Spectrum

BRIGHT_SKY = 20.0
"""Equivalent width over the sky's continuum from which a line of the sky counts as bright [Angstrom]."""

DOUBTFUL = (
    SpecPTFlag.Z_MULTIMODAL | SpecPTFlag.Z_UNCERTAIN | SpecPTFlag.POOR_RECONSTRUCTION | SpecPTFlag.FEW_PIXELS
)
"""Flags of answers that are not to be trusted."""

Report = dict[str, dict[str, float]]


def on_mock_spectra(predictor: SpecPTPredictor, sky: SpectraSky, n: int) -> Report:
    """Redshifts and reconstructions of ``n`` held-out objects of each kind of target."""
    found: Report = {}
    for targets in TARGETS:
        rng = np.random.default_rng(17)
        drawn = specpt_spectra(sky, n, rng, targets, held_out=True)
        answers = predictor.predict(drawn.spectra)
        found[targets] = measures(answers, drawn.labels["z"])
        rng = np.random.default_rng(17)
        truth = sky.noiseless(sky.choose(n, rng, held_out=True, targets=targets), INSTRUMENTS["DESI"])
        found[targets] |= at_sky_lines(drawn.spectra, truth, answers)
        found[targets]["truth nmad"] = _loss_of_truth(drawn.spectra, truth, GRIDS[predictor.grid])
    return found


def _loss_of_truth(spectra: Spectra, truth: np.ndarray, grid: Grid) -> float:
    """Median over the spectra of the loss that a perfect reconstruction would have."""
    exact = Spectra(spectra.offsets, spectra.wavelength, truth.ravel(), np.ones(truth.size, np.float32))
    flux, ivar, median = standardise(*rebin(spectra, grid))
    tensors = (torch.from_numpy(a) for a in (flux, ivar, rebin(exact, grid)[0] / median[:, None]))
    return float(nmad_loss(*tensors).nanmedian())


def on_real_spectra(predictor: SpecPTPredictor, objects: Sequence[Spectrum]) -> Report:
    """Redshifts of real objects against those of their surveys, by survey and class."""
    found = {}
    spectra = Spectra.of([(s.wavelength, s.flux, s.ivar) for s in objects])
    answers = predictor.predict(spectra)
    kinds = np.array([f"{s.survey} {s.object_class}" for s in objects])
    z = np.array([s.z for s in objects])
    for kind in sorted(set(kinds)):
        rows = kinds == kind
        found[kind] = measures({name: values[rows] for name, values in answers.items()}, z[rows])
    return found


def measures(answers: dict[str, np.ndarray], z: np.ndarray) -> dict[str, float]:
    """Redshift measures of all rows with an answer, and of those without a flag of doubt."""
    z = np.asarray(z, np.float64)
    sure = (answers["flags"] & int(DOUBTFUL)) == 0
    found = {
        "rows": float(len(z)),
        "answered": float(np.isfinite(answers["z"]).mean()),
        "median snr": float(np.nanmedian(answers["snr"])),
        "sure": float(sure.mean()),
        "reconstruction_chi2": float(np.nanmedian(answers["reconstruction_chi2"])),
        "reconstruction_nmad": float(np.nanmedian(answers["reconstruction_nmad"])),
        **redshift_metrics(answers["z"].astype(np.float64), z),
    }
    if sure.any():
        of_sure = redshift_metrics(answers["z"][sure].astype(np.float64), z[sure])
        found |= {f"sure {name}": value for name, value in of_sure.items()}
    pull = np.abs(answers["z"] - z) / answers["z_err"]
    return found | {"within z_err": float(np.nanmean(pull < 1.0))}


def at_sky_lines(spectra: Spectra, truth: np.ndarray, answers: dict[str, np.ndarray]) -> dict[str, float]:
    """Whether the lines of the night sky are reconstructed.

    Residuals of the reconstruction from the noiseless spectrum, over the spectrum's median, on the stored
    grid: their median modulus at bright lines of the sky and elsewhere redward of 7200 A; and the share of
    the spectrum's noise that is in the reconstruction, at these lines and elsewhere: the slope of a fit of
    one to the other.
    """
    offsets, wavelength = spectra.offsets, spectra.wavelength
    clean = Spectra(offsets, wavelength, truth.ravel(), np.ones(truth.size, np.float32))
    observed, ivar = rebin(spectra, KEPT)
    exact = rebin(clean, KEPT)[0] / answers["flux_median"][:, None]
    observed = observed / answers["flux_median"][:, None]
    made = answers["reconstruction"].astype(np.float32)
    bright = [line for line, width in SKY_LINES if width > BRIGHT_SKY]
    edges = KEPT.edges
    on_line = np.zeros(KEPT.size, bool)
    on_line[np.searchsorted(edges, bright) - 1] = True
    red = (KEPT.wavelength > 7200.0) & (KEPT.wavelength < 9800.0)
    found = {}
    for name, pixels in (("at sky lines", on_line & red), ("elsewhere", ~on_line & red)):
        residual, noise = (made - exact)[:, pixels], (observed - exact)[:, pixels]
        known = np.isfinite(residual) & (ivar[:, pixels] > 0.0)
        weight = np.where(known, ivar[:, pixels], 0.0)
        share = np.sum(np.where(known, residual * noise, 0.0) * weight) / np.sum(
            np.where(known, noise**2, 0.0) * weight
        )
        found[f"residual {name}"] = float(np.median(np.abs(residual[known])))
        found[f"noise reconstructed {name}"] = float(share)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="weights of SpecPT")
    parser.add_argument("--library", type=Path, required=True, help="library of spectra")
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument("--spectra", type=Path, help="folder with real spectra")
    parser.add_argument("--objects", type=int, default=2000, help="held-out objects of each kind")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    predictor = SpecPTPredictor.load(arguments.weights, precision="bf16", batch_size=32)
    report = on_mock_spectra(predictor, SpectraSky(load_sky(arguments.library).population), arguments.objects)
    if arguments.spectra:
        report |= on_real_spectra(predictor, read_folder(arguments.spectra))
    report = {kind: {name: round(value, 6) for name, value in row.items()} for kind, row in report.items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = arguments.weights.stem
    (arguments.out / f"{name}.json").write_text(json.dumps(report, indent=1))
    command = f"python -m flows.specpt_evaluation --weights {name}.safetensors --library FILE --spectra DIR"
    card = specpt_card(load_specpt(arguments.weights)[1], report, f"{command} --objects {arguments.objects}")
    (arguments.out / f"{name}.md").write_text(card)
    print(json.dumps(report, indent=1))
