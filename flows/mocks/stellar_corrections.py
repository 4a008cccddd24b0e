"""Make ``stellar_corrections.csv``: observed over model flux of real stars, fitted in their parameters.

``python -m ojala.flows.mocks.stellar_corrections --stars FILE --templates DIR --out FILE``

FILE is a Parquet table of stars: ``id``, ``teff`` [K], ``logg``, ``feh`` [dex], lists ``wavelength``
[Angstrom, air] and ``flux`` (relative f_lambda, dereddened, at rest). One star in `FOLDS` is left out, so
that models can be checked on it; ``--check`` fits without each fold in turn and prints the residuals.
"""

from __future__ import annotations

import argparse
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ojala.models.simulation.populations.stars import Atmospheres
from ojala.models.simulation.populations.stellar_corrections import TABLE, TERMS, design
from ojala.models.simulation.wavelength_grid import to_vacuum
from ojala.pipeline.ingest.reference.templates import read_atmospheres

FOLDS = 4
"""Folds of the stars; the committed table was made without fold 0."""

BIN_EDGES = np.arange(3560.0, 7400.0, 40.0)
"""Edges of the wavelength bins [Angstrom, vacuum]."""

TEMPERATURES = (3500.0, 3800.0, 4200.0, 4700.0, 5200.0, 5700.0, 6200.0, 6800.0, 7500.0, 9000.0, 12000.0)
"""Edges of the bins of temperature [K] that ``--check`` prints."""

_FITTED_TEFF = (3500.0, 15000.0)
_LEVEL = (5000.0, 6500.0)  # where the median ratio is one
_RIDGE = 1.0
_PIXELS = 15  # that a bin must have
_HUBER = 2.0
_ITERATIONS = 10


@dataclass(frozen=True, slots=True)
class Residuals:
    """Logarithm of observed over model flux of N stars in B bins.

    Attributes
    ----------
    log_ratio : ndarray, shape (N, B)
        NaN where a spectrum does not cover the bin.
    teff, logg, fe_h : ndarray, shape (N,)
        Parameters of the stars: [K], dex, dex.
    fold : ndarray of int, shape (N,)
        See `fold_of`.
    """

    log_ratio: np.ndarray
    teff: np.ndarray
    logg: np.ndarray
    fe_h: np.ndarray
    fold: np.ndarray


def fold_of(star: str) -> int:
    """Fold of a star by its identifier."""
    return zlib.crc32(star.encode()) % FOLDS


def residuals(stars: Path, atmospheres: Atmospheres) -> Residuals:
    """Compare spectra of real stars with the grid at their parameters; stars that lack one are left out."""
    table = pq.read_table(stars, columns=["id", "teff", "logg", "feh", "wavelength", "flux"]).to_pandas()
    table = table.dropna(subset=["teff", "logg", "feh"])
    table = table[table.teff.between(*_FITTED_TEFF)]
    bins = len(BIN_EDGES) - 1
    ratio = np.full((len(table), bins), np.nan)
    for row, star in zip(ratio, table.itertuples(), strict=True):
        wavelength, flux = to_vacuum(np.asarray(star.wavelength, float)), np.asarray(star.flux, float)
        model = np.interp(
            wavelength, atmospheres.wavelength, atmospheres.spectrum(star.feh, star.teff, star.logg)
        )
        at = np.digitize(wavelength, BIN_EDGES) - 1
        good = np.isfinite(flux) & (flux > 0.0) & (at >= 0) & (at < bins)
        count, observed, modelled = (
            np.bincount(at[good], weights, bins) for weights in (None, flux[good], model[good])
        )
        full = count >= _PIXELS
        row[full] = np.log(observed[full] / modelled[full])
    centre = 0.5 * (BIN_EDGES[1:] + BIN_EDGES[:-1])
    level = (centre > _LEVEL[0]) & (centre < _LEVEL[1])
    ratio -= np.nanmedian(ratio[:, level], axis=1, keepdims=True)
    return Residuals(
        ratio,
        table["teff"].to_numpy(float),
        table["logg"].to_numpy(float),
        table["feh"].to_numpy(float),
        np.array([fold_of(star) for star in table["id"]]),
    )


def fit(stars: Residuals, rows: np.ndarray) -> np.ndarray:
    """Coefficients of `TERMS` by bin, (B, len(TERMS)): a ridge regression with Huber weights."""
    terms = design(stars.teff, stars.logg, stars.fe_h)
    unit = np.append(1.0, terms[rows, 1:].std(axis=0))
    penalty = np.diag(np.append(0.0, np.full(len(TERMS) - 1, _RIDGE)))
    out = np.empty((stars.log_ratio.shape[1], len(TERMS)))
    for k, ratio in enumerate(stars.log_ratio.T):
        used = rows & np.isfinite(ratio)
        a, y = terms[used] / unit, ratio[used]
        weight = np.ones(len(y))
        for _ in range(_ITERATIONS):
            b = np.linalg.solve((a * weight[:, None]).T @ a + penalty, (a * weight[:, None]).T @ y)
            left = np.abs(y - a @ b)
            weight = 1.0 / np.maximum(1.0, left / (_HUBER * 1.4826 * np.median(left)))
        out[k] = b / unit
    return out


def check(stars: Residuals) -> str:
    """Median residual, rms over the bins [%], before and after a correction by the stars of other folds."""
    after = stars.log_ratio.copy()
    terms = design(stars.teff, stars.logg, stars.fe_h)
    for fold in range(FOLDS):
        out = stars.fold == fold
        after[out] -= terms[out] @ fit(stars, ~out).T
    lines = ["Teff [K]        stars  before [%]  after [%]"]
    for low, high in pairwise(TEMPERATURES):
        rows = (stars.teff >= low) & (stars.teff < high)
        rms = [
            100.0 * np.sqrt(np.nanmean(np.nanmedian(left[rows], axis=0) ** 2))
            for left in (stars.log_ratio, after)
        ]
        lines.append(f"{low:5.0f} - {high:5.0f}  {rows.sum():6d}  {rms[0]:10.2f}  {rms[1]:9.2f}")
    return "\n".join(lines)


def write_table(stars: Residuals, out: Path) -> None:
    """Write the coefficients, fitted to all stars but those of fold 0."""
    centre = 0.5 * (BIN_EDGES[1:] + BIN_EDGES[:-1])
    lines = [",".join(["wavelength", *(f"c_{term}" for term in TERMS)])]
    for wavelength, row in zip(centre, fit(stars, stars.fold != 0), strict=True):
        lines.append(",".join([f"{wavelength:g}", *(f"{value:.5f}" for value in row)]))
    out.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=Path, required=True)
    parser.add_argument("--templates", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    stars = residuals(asked.stars, read_atmospheres(asked.templates))
    if asked.check:
        print(check(stars))
    else:
        write_table(stars, asked.out)


if __name__ == "__main__":
    main()
