"""Calibration of the tokenizer's stellar parameters by real stars.

``python -m ojala.flows.training.calibrate_stars --weights FILE --library FILE --stars FILE... --lamost DIR
--labels CSV --out DIR`` writes calibrated weights and their card. The library is that of mock spectra, the
tables of stars are those of `ojala.flows.mocks.stellar_libraries`, LAMOST's are its spectra and parameters.

Network and heads stay as they are, so that class, redshift, embedding and reconstruction do. The measures are
of real stars that a calibration had not seen (`FOLDS` calibrations, each without a fold of stars), and of
held-out mock ones; the factors of the errors are fitted to the former. The calibration that is written has
seen all stars.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from upath import UPath

from ojala.flows.mocks.library import load_sky
from ojala.flows.mocks.stellar_corrections import FOLDS, fold_of
from ojala.flows.mocks.stellar_libraries import StellarLibrary, observe, read_library
from ojala.models.data import LabelledSpectra, Spectra
from ojala.models.evaluation.card import write_card
from ojala.models.evaluation.metrics import scatter_metrics, within
from ojala.models.quantities import CLASSES
from ojala.models.simulation.skies.spectroscopic import INSTRUMENTS, LABELS, SpectraSky
from ojala.models.simulation.spectroscopy.instruments import Instrument
from ojala.models.spectral_tokenizer.calibration import (
    CALIBRATED,
    ONE_SIGMA,
    SCALED,
    ErrorScales,
    StellarCalibration,
    coarse,
    features,
    fit_stellar_calibration,
)
from ojala.models.spectral_tokenizer.checkpoint import load, save
from ojala.models.spectral_tokenizer.heads import STELLAR, TokenizerWithHeads, decode_stellar
from ojala.models.spectral_tokenizer.patches import batches_by_length, patchify
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex, read_lamost_table
from ojala.pipeline.ingest.surveys.lamost import read_lamost

VERSION = "0.3"
"""Version of the calibrated weights."""

SIGNAL_TO_NOISE, CLEAR = (5.0, 100.0), (30.0, 100.0)
"""Range of the median signal-to-noise ratio of the spectra of the fit, and of those that are measured."""

EBV = 0.05
"""Scale of the exponential distribution of E(B-V) [mag] in front of the libraries' stars."""

FITTED_TEFF = (3500.0, 12_000.0)
"""Temperatures [K] of the stars of the fit."""

LIBRARY_END = 7400.0
"""Wavelength [Angstrom] at which two fifths of the mock spectra are cut, as those of MILES end there: real
stars must not be told from mock ones by it."""

DRAWS, MOCKS, HELD_OUT = 3, 1000, 300
"""Observations of each star, and mock stars for the fit and for measures, by each instrument."""

WEIGHTS = {"library": 1.0, "LAMOST": 2.0, "mock": 0.3}
"""Weight of a spectrum of each sample in the fit."""

_CROPPED, _CROP_BEGIN, _CROP_WIDTH = 0.35, (3600.0, 6200.0), (1200.0, 3800.0)
_CALIBRATION, _EXTRA_NOISE = 0.08, 1.5  # of further draws of LAMOST's spectra; noise in units of their own
_BATCH = 32


def instruments() -> list[Instrument]:
    """Instruments of the libraries' stars: those that resolve no more than the libraries, or hardly more.

    LAMOST also with 0.83 and 0.67 of its resolving power, in which its spectra differ.
    """
    lamost = INSTRUMENTS["LAMOST"]
    broader = [replace(lamost, sigma=lamost.sigma * factor) for factor in (1.2, 1.5)]
    return [INSTRUMENTS["SDSS"], INSTRUMENTS["DESI"], lamost, *broader]


@dataclass(frozen=True, slots=True)
class StarFeatures:
    """What the frozen heads found in the spectra of N stars.

    Attributes
    ----------
    found : Tensor, shape (N, F)
        `ojala.models.spectral_tokenizer.calibration.features`.
    own : Tensor, shape (N, 3, 2)
        The network's own location and log-scale of each parameter.
    target : Tensor, shape (N, 3)
        Standardised parameters.
    fold : ndarray of int, shape (N,)
        Fold of the star, -1 of mocks.
    weight : Tensor, shape (N,)
        Weight in the fit.
    coarse : Tensor of bool, shape (N,)
        See `ojala.models.spectral_tokenizer.calibration.coarse`.
    """

    found: Tensor
    own: Tensor
    target: Tensor
    fold: np.ndarray
    weight: Tensor
    coarse: Tensor

    @classmethod
    def joined(cls, parts: Sequence[StarFeatures]) -> StarFeatures:
        """Concatenate parts."""
        found, own, target, weight, coarse_ones = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ("found", "own", "target", "weight", "coarse")
        )
        fold = np.concatenate([part.fold for part in parts])
        return cls(found, own, target, fold, weight, coarse_ones)

    def calibration(self, without: int | None = None) -> StellarCalibration:
        """Fit a calibration to the stars of `FITTED_TEFF`, without a fold."""
        low, high = (STELLAR[0].standardise(np.array(teff)).item() for teff in FITTED_TEFF)
        teff = self.target[:, 0]
        used = self.target.isfinite().all(dim=1) & (teff > low) & (teff < high)
        used &= torch.from_numpy(self.fold != without) if without is not None else True
        return fit_stellar_calibration(self.found[used], self.target[used], self.weight[used])


@torch.inference_mode()
def read_out(
    model: TokenizerWithHeads, drawn: LabelledSpectra, fold: np.ndarray | None, weight: float
) -> StarFeatures:
    """Collect the features of labelled spectra; those without a readable patch are left out."""
    patched = patchify(drawn.spectra, model.config.patch, model.config.width)
    found, own, order = [], [], []
    for rows, batch in batches_by_length(patched, _BATCH, "cpu"):
        encoded = model.network.encode(batch)
        outputs = model.heads(encoded, batch.valid)
        read = features(outputs, model.network.embed(encoded, batch.valid))
        found.append(read[: len(rows)])
        own.append(outputs.stellar[: len(rows)])
        order.append(rows)
    kept = np.concatenate(order)
    target = np.stack([q.standardise(drawn.labels[q.name][kept]) for q in STELLAR], axis=1)
    return StarFeatures(
        torch.cat(found),
        torch.cat(own),
        torch.from_numpy(target.astype(np.float32)),
        np.full(len(kept), -1) if fold is None else fold[kept],
        torch.full((len(kept),), weight),
        torch.from_numpy(coarse(drawn.spectra)[kept]),
    )


def without_pixels(drawn: LabelledSpectra, lost: np.ndarray) -> LabelledSpectra:
    """The same spectra without the pixels ``lost`` (P,)."""
    ivar = np.where(lost, np.float32(0.0), drawn.spectra.ivar)
    return replace(drawn, spectra=replace(drawn.spectra, ivar=ivar))


def cropped(drawn: LabelledSpectra, rng: np.random.Generator) -> LabelledSpectra:
    """Crop a third of the spectra to a random range of wavelengths."""
    n, sizes = len(drawn), drawn.spectra.sizes
    low = np.where(rng.random(n) < _CROPPED, rng.uniform(*_CROP_BEGIN, n), 0.0)
    high = np.where(low > 0.0, low + rng.uniform(*_CROP_WIDTH, n), np.inf)
    wavelength = drawn.spectra.wavelength
    return without_pixels(drawn, (wavelength < np.repeat(low, sizes)) | (wavelength > np.repeat(high, sizes)))


def observed_stars(
    library: StellarLibrary, rng: np.random.Generator
) -> Iterator[tuple[LabelledSpectra, np.ndarray]]:
    """Observe every star of a library `DRAWS` times by SDSS, by DESI and by LAMOST, with its folds."""
    for instrument in instruments():
        parts = 3 if instrument.name == "LAMOST" else 1  # of three resolving powers
        for _ in range(DRAWS):
            rows = rng.permutation(len(library))[::parts]
            drawn = observe(library, rows, instrument, SIGNAL_TO_NOISE, rng, ebv=EBV)
            yield cropped(drawn, rng), library.fold[rows]


@dataclass(frozen=True, slots=True)
class LamostStars:
    """Wavelength, flux and inverse variance of N stars, their parameters (N, 3) and folds (N,)."""

    spectra: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    parameters: np.ndarray
    fold: np.ndarray

    @classmethod
    def read(cls, folder: Path, labels: Path) -> LamostStars:
        """Read the stars with parameters."""
        known = LabelIndex([read_lamost_table(UPath(labels))])
        spectra, parameters, fold = [], [], []
        for path in sorted(folder.glob("spec-*.fits*")):
            star = read_lamost(UPath(path), known)
            if star.labels:
                flux, ivar = (np.where(star.valid, values, 0.0) for values in (star.flux, star.ivar))
                spectra.append((star.wavelength, flux, ivar))
                parameters.append([star.labels.get(q.name, (np.nan, np.nan))[0] for q in STELLAR])
                fold.append(fold_of(path.name.partition(".")[0]))
        return cls(spectra, np.array(parameters), np.array(fold))

    def drawn(self, rng: np.random.Generator | None = None) -> LabelledSpectra:
        """The spectra as they are; with a generator, with further noise and errors of calibration."""
        spectra = self.spectra if rng is None else [_worsened(*one, rng) for one in self.spectra]
        n = len(spectra)
        labels = {name: np.full(n, np.nan, np.float32) for name in LABELS}
        labels |= {q.name: self.parameters[:, k].astype(np.float32) for k, q in enumerate(STELLAR)}
        flat = Spectra.from_arrays(spectra)
        return LabelledSpectra(flat, np.full(n, CLASSES.index("STAR")), labels, np.arange(n))


def _worsened(
    wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    noise = rng.uniform(0.0, _EXTRA_NOISE)
    sigma = np.divide(1.0, np.sqrt(ivar), out=np.zeros_like(ivar), where=ivar > 0.0)
    waves = np.cos(np.pi * np.arange(1, 4)[:, None] * np.linspace(0.0, 1.0, len(flux)))
    response = 1.0 + rng.normal(0.0, _CALIBRATION, 3) @ waves
    worse = (flux + noise * sigma * rng.standard_normal(len(flux))) * response
    return wavelength, worse, ivar / ((1.0 + noise**2) * response**2)


def mock_stars(
    sky: SpectraSky, instrument: Instrument, n: int, rng: np.random.Generator, *, held_out: bool = False
) -> LabelledSpectra:
    """Draw mock stars; in the fit, some have lost pixels as real ones lack."""
    objects = sky.draw_objects(n, rng, targets="stars", held_out=held_out)
    if held_out:
        return sky.observe(objects, instrument, rng, signal_to_noise=CLEAR)
    drawn = cropped(sky.observe(objects, instrument, rng, signal_to_noise=SIGNAL_TO_NOISE), rng)
    if instrument.name == "GALAH":
        return drawn
    cut = np.repeat(rng.random(n) < 0.4, drawn.spectra.sizes)
    return without_pixels(drawn, cut & (drawn.spectra.wavelength > LIBRARY_END))


Parameters = dict[str, np.ndarray]
"""Parameters in physical units, and their errors; each (N,)."""


def truth(stars: StarFeatures) -> Parameters:
    """True parameters in physical units; each (N,)."""
    return {q.name: q.restore(stars.target[:, k].double().numpy()) for k, q in enumerate(STELLAR)}


def out_of_fold(stars: StarFeatures, by_fold: Sequence[StellarCalibration]) -> Tensor:
    """Calibrate each star by the calibration without its fold (mocks by the first); (N, 3, 2)."""
    stellar = by_fold[0].apply(stars.own, stars.found, stars.coarse)
    for fold, calibration in enumerate(by_fold[1:], 1):
        rows = torch.from_numpy(stars.fold == fold)
        stellar[rows] = calibration.apply(stars.own[rows], stars.found[rows], stars.coarse[rows])
    return stellar


def error_factors(samples: Sequence[tuple[Parameters, Parameters]]) -> list[float]:
    """Factors of the errors with which 68.3 % of the truths of all samples are within them."""
    factors = []
    for name in (q.name for q in STELLAR):
        deviation = np.concatenate([np.abs(a[name] - t[name]) / a[f"{name}_err"] for a, t in samples])
        factors.append(float(np.quantile(deviation[np.isfinite(deviation)], ONE_SIGMA)))
    return factors


def measures(found: Parameters, true: Parameters, factors: Sequence[float]) -> dict[str, float]:
    """Median and sigma_NMAD of prediction less truth, and share of truths within the scaled error."""
    report: dict[str, float] = {}
    for quantity, factor in zip(STELLAR, factors, strict=True):
        name = quantity.name
        scatter = scatter_metrics(found[name], true[name])
        known = np.isfinite(true[name])
        inside = within(found[name][known], factor * found[f"{name}_err"][known], true[name][known])
        report |= {f"{name}_n": scatter["n"], f"{name}_bias": scatter["bias"]}
        report |= {f"{name}_nmad": scatter["nmad"], f"{name}_within": float(inside)}
    return report


def calibrate_stars(
    weights: Path, sky: SpectraSky, libraries: Mapping[str, StellarLibrary], lamost: LamostStars, out: Path
) -> dict[str, Any]:
    """Calibrate weights and write them; returns the measures, which are also in their header.

    Parameters
    ----------
    weights : Path
        Weights of the tokenizer; a calibration that they have is replaced.
    sky : SpectraSky
        Source of the mock stars.
    libraries : mapping of str to StellarLibrary
        Real stars by name.
    lamost : LamostStars
        Real stars of LAMOST.
    out : Path
        File to write.
    """
    model, info = load(weights)
    rng = np.random.default_rng(0)
    parts = [
        read_out(model, drawn, fold, WEIGHTS["library"])
        for library in libraries.values()
        for drawn, fold in observed_stars(library, rng)
    ]
    parts += [
        read_out(model, lamost.drawn(source), lamost.fold, WEIGHTS["LAMOST"])
        for source in (None, *(rng,) * (2 * DRAWS))
    ]
    parts += [
        read_out(model, mock_stars(sky, instrument, MOCKS, rng), None, WEIGHTS["mock"])
        for instrument in INSTRUMENTS.values()
    ]
    stars = StarFeatures.joined(parts)
    by_fold = [stars.calibration(without=fold) for fold in range(FOLDS)]
    real = {
        f"{name}, {instrument.name}": read_out(
            model, observe(library, np.arange(len(library)), instrument, CLEAR, rng), library.fold, 1.0
        )
        for name, library in libraries.items()
        for instrument in instruments()[:3]
    }
    real["LAMOST"] = read_out(model, lamost.drawn(), lamost.fold, 1.0)
    mocks = {
        f"mock, {name}": read_out(model, mock_stars(sky, of, HELD_OUT, rng, held_out=True), None, 1.0)
        for name, of in INSTRUMENTS.items()
    }
    true = {name: truth(one) for name, one in (real | mocks).items()}
    before = {name: decode_stellar(one.own) for name, one in (real | mocks).items()}
    after = {name: decode_stellar(out_of_fold(one, by_fold)) for name, one in (real | mocks).items()}
    n = len(STELLAR)
    old = [1.0] * len(SCALED) if info.error_scales is None else info.error_scales.factor.tolist()
    fitted = error_factors([(after[name], true[name]) for name in real])
    new = [f if q.name in CALIBRATED else o for q, f, o in zip(STELLAR, fitted, old[-n:], strict=True)]
    factors = {name: new if one.coarse.all() else old[-n:] for name, one in (real | mocks).items()}
    report: dict[str, Any] = {
        "folds": FOLDS,
        "spectra": len(stars.fold),
        "stars": {name: len(library) for name, library in libraries.items()} | {"LAMOST": len(lamost.fold)},
        "before": {name: measures(before[name], true[name], old[-n:]) for name in true},
        "after": {name: measures(after[name], true[name], factors[name]) for name in true},
    }
    save(
        out,
        model,
        name=info.name,
        version=VERSION,
        training=info.training | {"stars": report},
        error_scales=ErrorScales(torch.tensor(old)),
        stellar_calibration=replace(
            stars.calibration(), error=torch.tensor(new, dtype=torch.float32) / torch.tensor(old[-n:])
        ),
    )
    return report


def measures_that_hold(weights: Path) -> dict[str, Any] | None:
    """Measures of the card of weights without those of stellar parameters."""
    card = weights.with_suffix(".json")
    evaluation: dict[str, Any] | None = json.loads(card.read_text())["evaluation"] if card.exists() else None
    if evaluation is None:
        return None
    names = tuple(f"{q.name}_" for q in STELLAR)
    kept = {
        sample: {name: value for name, value in measured.items() if not name.startswith(names)}
        for sample, measured in evaluation["measures"].items()
    }
    return evaluation | {"measures": kept}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--library", type=Path, required=True, help="library of mock spectra")
    parser.add_argument("--stars", type=Path, nargs="+", required=True, help="tables of real stars")
    parser.add_argument("--lamost", type=Path, required=True, help="folder of LAMOST's spectra")
    parser.add_argument("--labels", type=Path, required=True, help="LAMOST's table of parameters")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights and their card")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    weights = asked.out / asked.weights.name
    libraries = {path.stem.upper(): read_library(path) for path in asked.stars}
    lamost = LamostStars.read(asked.lamost, asked.labels)
    sky = SpectraSky(load_sky(asked.library).population)
    report = calibrate_stars(asked.weights, sky, libraries, lamost, weights)
    write_card(weights, measures_that_hold(asked.weights))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
