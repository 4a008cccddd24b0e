"""Stars: a library of spectra with atmospheric parameters.

Most members are interpolated in the Castelli & Kurucz (2004) grid with parameters distributed as those of
faint high-latitude stars (LAMOST's range, more metal-poor). The grid's [alpha/Fe] is solar: the label
``alpha_fe`` is drawn from its mean relation with [Fe/H], with scatter, and is **not** in the spectra; a
model can learn the relation from it and nothing else. Cool dwarfs with molecular bands, white dwarfs and
further F-K stars come from the archetypes of redrock and from the Pickles library, without parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.synthesis.grid import COARSE, FINE

LABELS = ("teff", "logg", "fe_h", "alpha_fe")
"""Labels of the library."""

SHARES: dict[str, float] = {
    "ck04": 0.78,
    "M": 0.12,
    "K": 0.02,
    "G": 0.02,
    "F": 0.02,
    "WD": 0.03,
    "pickles": 0.01,
}
"""Share of each source among drawn stars."""

# Temperature [K], mean and scatter, of the black body that continues archetypes (they end at 11000 A).
_TAIL = {
    "M": (3100.0, 200.0),
    "K": (4500.0, 300.0),
    "G": (5600.0, 300.0),
    "F": (6600.0, 400.0),
    "WD": (12000.0, 3000.0),
}


@dataclass(frozen=True, slots=True)
class Atmospheres:
    """A grid of model atmospheres.

    Attributes
    ----------
    wavelength : ndarray, shape (P,)
        [Angstrom].
    m_h, teff, logg : ndarray
        Nodes, increasing; dex, K, dex.
    log_flux : ndarray of float32, shape (len(m_h), len(teff), len(logg), P)
        Natural logarithm of the surface f_lambda.
    """

    wavelength: np.ndarray
    m_h: np.ndarray
    teff: np.ndarray
    logg: np.ndarray
    log_flux: np.ndarray

    def spectrum(self, m_h: float, teff: float, logg: float) -> np.ndarray:
        """Surface f_lambda, trilinear in its logarithm; values outside the grid take its edge."""
        spectrum = np.zeros(len(self.wavelength))
        for i, wi in _bracket(self.m_h, m_h):
            for j, wj in _bracket(self.teff, teff):
                for k, wk in _bracket(self.logg, logg):
                    spectrum += wi * wj * wk * self.log_flux[i, j, k]
        return np.exp(spectrum)


@dataclass(frozen=True, slots=True)
class Archetypes:
    """Spectra as combinations of basis vectors.

    Attributes
    ----------
    kind : str
        Spectral class.
    wavelength : ndarray, shape (P,)
        [Angstrom].
    basis : ndarray, shape (B, P)
        Basis vectors of f_lambda.
    coefficients : ndarray, shape (M, B)
        One row per archetype.
    """

    kind: str
    wavelength: np.ndarray
    basis: np.ndarray
    coefficients: np.ndarray


def _bracket(nodes: np.ndarray, value: float) -> list[tuple[int, float]]:
    upper = int(np.clip(np.searchsorted(nodes, value), 1, len(nodes) - 1))
    weight = float(np.clip((value - nodes[upper - 1]) / (nodes[upper] - nodes[upper - 1]), 0.0, 1.0))
    return [(upper - 1, 1.0 - weight), (upper, weight)]


def draw_parameters(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw Teff [K], log g, [Fe/H] and [alpha/Fe] of ``n`` field stars.

    88 % dwarfs and turn-off stars, 12 % giants. [Fe/H] is a mixture of thin disc, thick disc and halo
    (-0.2, -0.65, -1.5); [alpha/Fe] rises from 0 at solar [Fe/H] to 0.35 below -1, scatter 0.07.
    """
    giant = rng.random(n) < 0.12
    hot = rng.random(n) < 0.12
    teff = np.where(hot, rng.uniform(6300.0, 9500.0, n), rng.normal(5250.0, 750.0, n))
    teff = np.where(rng.random(n) < 0.05, rng.uniform(3500.0, 13000.0, n), teff)
    logg = 4.62 - 0.42 * np.clip((teff - 5200.0) / 1000.0, 0.0, 1.2) + rng.normal(0.0, 0.12, n)
    giant_teff = rng.normal(4850.0, 320.0, n)
    teff = np.clip(np.where(giant, giant_teff, teff), 3500.0, 13000.0)
    logg = np.where(giant, 2.6 + 1.6e-3 * (giant_teff - 4850.0) + rng.normal(0.0, 0.35, n), logg)
    population = rng.choice(3, n, p=(0.45, 0.35, 0.20))
    fe_h = rng.normal(np.choose(population, (-0.2, -0.65, -1.5)), np.choose(population, (0.25, 0.25, 0.45)))
    fe_h = np.clip(fe_h, -2.5, 0.5)
    alpha_fe = np.interp(fe_h, (-1.0, 0.0, 0.5), (0.35, 0.03, 0.0)) + rng.normal(0.0, 0.07, n)
    return {"teff": teff, "logg": np.clip(logg, 0.0, 5.0), "fe_h": fe_h, "alpha_fe": alpha_fe}


def simulate(
    atmospheres: Atmospheres,
    archetypes: Sequence[Archetypes],
    pickles: Mapping[str, tuple[np.ndarray, np.ndarray]],
    n: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Make the stellar library: ``n`` members from the atmospheres, up to ``n / 8`` per archetype class.

    Returns
    -------
    dict of str to ndarray
        ``fine`` (N, FINE.size + 4) and ``coarse`` (N, COARSE.size + 4): f_lambda, float16, mean of one at
        7000-8000 A; ``weight`` (N,): chance of being drawn, sums to one; `LABELS` (N,), NaN where not
        known.
    """
    fine_grid, coarse_grid = FINE.rest_wavelength(0.0), COARSE.rest_wavelength(0.0)
    fine, coarse, source = [], [], []

    def add(name: str, wavelength: np.ndarray, flux: np.ndarray, tail: float | None = None) -> None:
        optical = np.maximum(np.interp(fine_grid, wavelength, flux), 0.0)
        level = optical[(fine_grid > 7000.0) & (fine_grid < 8000.0)].mean()
        if tail is None:
            infrared = np.interp(coarse_grid, wavelength, flux)
        else:
            red = fine_grid > 10000.0
            infrared = _planck(coarse_grid, tail) * optical[red].mean() / _planck(fine_grid[red], tail).mean()
        fine.append((optical / level).astype(np.float16))
        coarse.append((infrared / level).astype(np.float16))
        source.append(name)

    parameters = draw_parameters(n, rng)
    for teff, logg, fe_h in zip(parameters["teff"], parameters["logg"], parameters["fe_h"], strict=True):
        add("ck04", atmospheres.wavelength, atmospheres.spectrum(fe_h, teff, logg))
    for library in archetypes:
        rows = rng.permutation(len(library.coefficients))[: max(n // 8, 1)]
        mean, scatter = _TAIL[library.kind]
        for row in rows:
            temperature = max(rng.normal(mean, scatter), 1500.0)
            add(library.kind, library.wavelength, library.coefficients[row] @ library.basis, temperature)
    for wavelength, flux in pickles.values():
        add("pickles", wavelength, flux)

    names = np.array(source)
    present = [name for name in SHARES if (names == name).any()]
    weight = np.zeros(len(names))
    for name in present:
        weight[names == name] = SHARES[name] / (names == name).sum()
    unknown = np.full(len(names) - n, np.nan)
    labels = {name: np.concatenate((parameters[name], unknown)).astype(np.float32) for name in LABELS}
    return {"fine": np.array(fine), "coarse": np.array(coarse), "weight": weight / weight.sum(), **labels}


def _planck(wavelength: np.ndarray, temperature: float) -> np.ndarray:
    """Black body, f_lambda in arbitrary units; wavelength [Angstrom], temperature [K]."""
    return np.asarray(wavelength**-5.0 / np.expm1(1.4387769e8 / (wavelength * temperature)))
