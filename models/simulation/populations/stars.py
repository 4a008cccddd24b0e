"""Library of stars: spectra with atmospheric parameters.

Most members are interpolated in the Castelli & Kurucz (2004) grid, corrected by real stars (see
`ojala.models.simulation.populations.stellar_corrections`): field stars, horizontal-branch stars, blue
stragglers and hot subdwarfs. The grid's [alpha/Fe] is solar: the label ``alpha_fe`` is drawn from its
mean relation with [Fe/H], with scatter, and is **not** in the library's spectra (only in the lines that
`ojala.models.simulation.spectroscopy.stellar_lines` adds for spectrographs); a model of photometry can learn
the relation alone. Cool dwarfs with molecular bands, early-type stars and white
dwarfs come from the archetypes of redrock and from single templates, without parameters; helium white dwarfs,
featureless ones, cataclysmic variables and pairs of a white with a red dwarf are put together here.

Bright stars are mostly those of LAMOST, faint ones metal-poor stars and cool dwarfs (`POPULATIONS`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ojala.models.simulation.populations.stellar_corrections import correction
from ojala.models.simulation.wavelength_grid import COARSE, FINE

LABELS = ("teff", "logg", "fe_h", "alpha_fe")
"""Labels of the library."""

POPULATIONS: tuple[dict[str, float], dict[str, float]] = (
    {
        "disc": 0.80,
        "halo": 0.03,
        "horizontal branch": 0.01,
        "subdwarf": 0.005,
        "A": 0.03,
        "B": 0.01,
        "F": 0.02,
        "G": 0.02,
        "K": 0.02,
        "M": 0.05,
        "WD": 0.01,
        "helium WD": 0.002,
        "featureless WD": 0.002,
        "hot WD": 0.002,
        "cataclysmic": 0.003,
        "pair": 0.003,
        "single": 0.02,
    },
    {
        "disc": 0.20,
        "halo": 0.30,
        "horizontal branch": 0.02,
        "subdwarf": 0.012,
        "A": 0.02,
        "B": 0.01,
        "F": 0.03,
        "G": 0.02,
        "K": 0.06,
        "M": 0.22,
        "WD": 0.03,
        "helium WD": 0.01,
        "featureless WD": 0.01,
        "hot WD": 0.008,
        "cataclysmic": 0.015,
        "pair": 0.015,
        "single": 0.03,
    },
)
"""Fraction of each kind among bright (i < 17.5) and faint stars. Rare hot and peculiar kinds, which are
mistaken for quasars, are drawn more often than they occur."""

KINDS: tuple[str, ...] = tuple(POPULATIONS[0])
"""Kinds of stars; a member's ``kind`` is the index."""

WHITE_DWARFS = frozenset(("WD", "helium WD", "featureless WD", "hot WD"))
"""The kinds that are white dwarfs."""

# Share of the members that are interpolated in the grid.
_GRID = {"disc": 0.46, "halo": 0.38, "horizontal branch": 0.10, "subdwarf": 0.06}

# Temperature [K], mean and scatter, of the black body that continues archetypes (they end at 11000 A).
_TAIL = {
    "M": (3100.0, 200.0),
    "K": (4500.0, 300.0),
    "G": (5600.0, 300.0),
    "F": (6600.0, 400.0),
    "WD": (12000.0, 3000.0),
    "A": (8500.0, 500.0),
    "B": (14000.0, 2000.0),
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
        """Interpolate surface f_lambda, trilinear in its logarithm, constant beyond the edges of the grid."""
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


def draw_parameters(kind: str, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw Teff [K], log g, [Fe/H] and [alpha/Fe] of ``n`` stars of a kind of the grid.

    ``disc`` follows LAMOST's stars (Teff 4050 to 8100 K, 11 % giants, [Fe/H] -0.16 +- 0.3) with a tail of
    hotter stars; ``halo`` stars are thick-disc and halo stars about the main-sequence turn-off, with
    giants; the horizontal branch 6800-11500 K and blue stragglers; subdwarfs 20,000-45,000 K.
    [alpha/Fe] rises from 0 at solar [Fe/H] to 0.35 below -1, scatter 0.07.
    """
    giant = rng.random(n) < (0.11 if kind == "disc" else 0.12)
    giant_teff = rng.normal(4800.0, 400.0, n)
    if kind == "disc":
        teff = rng.normal(5550.0, 720.0, n)
        teff = np.where(rng.random(n) < 0.06, rng.uniform(3800.0, 10500.0, n), teff)
        fe_h = np.where(rng.random(n) < 0.8, rng.normal(-0.12, 0.25, n), rng.normal(-0.45, 0.4, n))
    elif kind == "halo":
        teff = np.where(rng.random(n) < 0.55, rng.normal(6000.0, 350.0, n), rng.normal(5200.0, 600.0, n))
        fe_h = np.where(rng.random(n) < 0.5, rng.normal(-0.65, 0.25, n), rng.normal(-1.5, 0.45, n))
    elif kind == "horizontal branch":
        teff = rng.uniform(6800.0, 11500.0, n)
        fe_h = rng.normal(-1.4, 0.5, n)
    else:
        teff = rng.uniform(20000.0, 45000.0, n)
        fe_h = rng.normal(-0.5, 0.5, n)
    logg = 4.62 - 0.42 * np.clip((teff - 5200.0) / 1000.0, 0.0, 1.0) + rng.normal(0.0, 0.15, n)
    if kind in ("disc", "halo"):
        teff = np.where(giant, giant_teff, teff)
        logg = np.where(giant, 2.7 + 1.6e-3 * (giant_teff - 4880.0) + rng.normal(0.0, 0.4, n), logg)
    elif kind == "horizontal branch":
        straggler = rng.random(n) < 0.35
        teff = np.where(straggler, rng.uniform(6800.0, 9200.0, n), teff)
        logg = np.where(straggler, rng.normal(4.2, 0.15, n), 2.9 + (teff - 7000.0) / 4500.0 * 0.9)
        logg += rng.normal(0.0, 0.1, n)
    else:
        logg = rng.normal(4.9, 0.15, n)
    fe_h = np.clip(fe_h, -2.5, 0.5)
    alpha_fe = np.interp(fe_h, (-1.0, 0.0, 0.5), (0.35, 0.03, 0.0)) + rng.normal(0.0, 0.07, n)
    return {
        "teff": np.clip(teff, 3500.0, 48000.0),
        "logg": np.clip(logg, 0.0, 5.0),
        "fe_h": fe_h,
        "alpha_fe": alpha_fe,
    }


def simulate(
    atmospheres: Atmospheres,
    archetypes: Sequence[Archetypes],
    single: Sequence[tuple[str, np.ndarray, np.ndarray]],
    n: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Simulate the stellar library.

    Parameters
    ----------
    atmospheres : Atmospheres
        The grid for `draw_parameters`; ``n`` members are interpolated in it.
    archetypes : sequence of Archetypes
        Up to ``n / 8`` members each.
    single : sequence of (str, ndarray, ndarray)
        Kind, wavelength [Angstrom] and f_lambda of further templates, one member each.
    n : int
        Scale of the library; ``n / 40`` members of each composed kind.
    rng : Generator
        Source of randomness.

    Returns
    -------
    dict of str to ndarray
        ``fine`` (N, FINE.size + 4) and ``coarse`` (N, COARSE.size + 4): f_lambda, float16, mean of one at
        7000-8000 A; ``kind`` (N,): index into `KINDS`; `LABELS` (N,), NaN where not known.
    """
    fine_grid, coarse_grid = FINE.rest_wavelength(0.0), COARSE.rest_wavelength(0.0)
    made: list[tuple[str, np.ndarray, np.ndarray]] = []  # kind, fine, coarse

    def add(kind: str, wavelength: np.ndarray, flux: np.ndarray, tail: float | None = None) -> None:
        optical = np.maximum(np.interp(fine_grid, wavelength, flux), 0.0)
        level = optical[(fine_grid > 7000.0) & (fine_grid < 8000.0)].mean()
        if tail is None:
            infrared = np.interp(coarse_grid, wavelength, flux)
        else:
            end = fine_grid > 0.93 * min(wavelength[-1], fine_grid[-1])
            red = end & (fine_grid < wavelength[-1])
            ratio = optical[red].mean() / _planck(fine_grid[red], tail).mean()
            beyond = fine_grid >= wavelength[-1]
            optical[beyond] = _planck(fine_grid[beyond], tail) * ratio
            infrared = _planck(coarse_grid, tail) * ratio
        made.append((kind, (optical / level).astype(np.float32), (infrared / level).astype(np.float32)))

    parameters: dict[str, list[np.ndarray]] = {name: [] for name in LABELS}
    for kind, share in _GRID.items():
        drawn = draw_parameters(kind, round(n * share), rng)
        for name in LABELS:
            parameters[name].append(drawn[name])
        for teff, logg, fe_h in zip(drawn["teff"], drawn["logg"], drawn["fe_h"], strict=True):
            corrected = atmospheres.spectrum(fe_h, teff, logg)
            corrected *= correction(atmospheres.wavelength, teff, logg, fe_h)
            add(kind, atmospheres.wavelength, corrected)
    for library in archetypes:
        rows = rng.permutation(len(library.coefficients))[: max(n // 8, 1)]
        mean, scatter = _TAIL[library.kind]
        for row in rows:
            flux = np.maximum(library.coefficients[row] @ library.basis, 0.0)
            add(library.kind, library.wavelength, flux, max(rng.normal(mean, scatter), 1500.0))
    for kind, wavelength, flux in single:
        add(
            kind,
            wavelength,
            flux,
            None if wavelength[-1] > coarse_grid[-1] else _colour_temperature(wavelength, flux),
        )

    red_dwarfs = [(fine, coarse) for kind, fine, coarse in made if kind == "M"]
    both = np.concatenate((fine_grid, coarse_grid))
    for _ in range(max(n // 40, 1)):
        add("helium WD", both, _helium_white_dwarf(both, rng))
        add("featureless WD", both, _planck(both, rng.uniform(4200.0, 11000.0)))
        disc = _cataclysmic(both, rng)
        if red_dwarfs and rng.random() < 0.4:
            disc = (
                disc / disc.mean()
                + rng.uniform(0.05, 0.5)
                * np.concatenate(red_dwarfs[rng.integers(len(red_dwarfs))])
                * (disc[(both > 7000.0) & (both < 8000.0)] / disc.mean()).mean()
            )
        add("cataclysmic", both, disc)
        if red_dwarfs:
            white = _planck(both, 10 ** rng.uniform(3.9, 4.5))
            white *= _balmer_absorption(both, rng.uniform(0.1, 0.5), rng.uniform(0.006, 0.014))
            white /= white[(both > 7000.0) & (both < 8000.0)].mean()
            red = np.concatenate(red_dwarfs[rng.integers(len(red_dwarfs))])
            add("pair", both, 10 ** rng.uniform(-1.0, 0.8) * white + red)

    names = np.array([kind for kind, _, _ in made])
    unknown = np.full(len(names) - sum(len(values) for values in parameters["teff"]), np.nan)
    labels = {name: np.concatenate((*parameters[name], unknown)).astype(np.float32) for name in LABELS}
    return {
        "fine": np.array([fine for _, fine, _ in made]).astype(np.float16),
        "coarse": np.array([coarse for _, _, coarse in made]).astype(np.float16),
        "kind": np.array([KINDS.index(name) for name in names], np.int8),
        **labels,
    }


def population_weights(kind: np.ndarray) -> np.ndarray:
    """Compute the probability of each member among bright and among faint stars.

    Parameters
    ----------
    kind : ndarray of int, shape (N,)
        Index into `KINDS`.

    Returns
    -------
    ndarray of float64, shape (2, N)
        Each row sums to one.
    """
    count = np.bincount(kind, minlength=len(KINDS))
    weight = np.array([[shares[name] for name in KINDS] for shares in POPULATIONS])[:, kind] / count[kind]
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def _helium_white_dwarf(wavelength: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A DB white dwarf: a black body of 12,000 to 25,000 K with broad lines of neutral helium."""
    depth, width = rng.uniform(0.08, 0.35), rng.uniform(0.0025, 0.006)
    flux = _planck(wavelength, rng.uniform(12000.0, 25000.0))
    for line, strength in _HELIUM.items():
        flux *= 1.0 - depth * strength * np.exp(-0.5 * (np.log(wavelength / line) / width) ** 2)
    return flux


def _cataclysmic(wavelength: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An accretion disc, f_lambda ~ wavelength^-2.8 to -1.2, with broad emission of hydrogen and helium."""
    flux = (wavelength / 5500.0) ** rng.uniform(-2.8, -1.2)
    ew, sigma = 10 ** rng.uniform(0.7, 2.1), rng.uniform(400.0, 1100.0) / 2.998e5
    helium = rng.uniform(0.1, 0.4)
    lines = {line: ew * strength for line, strength in _BALMER_EMISSION.items()}
    lines |= {line: ew * helium * strength for line, strength in _HELIUM.items()}
    lines[4687.0] = ew * rng.uniform(0.0, 0.5)
    emission = np.zeros(len(wavelength))
    for line, strength in lines.items():
        profile = np.exp(-0.5 * (np.log(wavelength / line) / sigma) ** 2)
        emission += strength / (line * sigma * 2.5066) * profile
    return np.asarray(flux * (1.0 + emission))


def _balmer_absorption(wavelength: np.ndarray, depth: float, width: float) -> np.ndarray:
    """Transmission of the broad Balmer lines of a white dwarf."""
    out = np.ones(len(wavelength))
    for line in _BALMER_EMISSION:
        out *= 1.0 - depth * np.exp(-np.abs(np.log(wavelength / line)) / width)
    return out


def _colour_temperature(wavelength: np.ndarray, flux: np.ndarray) -> float:
    """Fit the temperature [K], at least 1500, of a black body to the colour between 6000 and 9000 A."""
    ratio = np.interp(9000.0, wavelength, flux) / max(float(np.interp(6000.0, wavelength, flux)), 1e-30)
    trial = np.geomspace(1500.0, 60000.0, 300)
    model = np.array([_planck(np.array([9000.0]), t)[0] / _planck(np.array([6000.0]), t)[0] for t in trial])
    return float(trial[np.abs(np.log(model / max(ratio, 1e-3))).argmin()])


_HELIUM = {4027.3: 0.6, 4472.7: 1.0, 4923.3: 0.6, 5017.1: 0.5, 5877.3: 0.9, 6680.0: 0.6, 7067.1: 0.4}
_BALMER_EMISSION = {6564.6: 1.0, 4862.7: 0.75, 4341.7: 0.6, 4102.9: 0.5, 3971.2: 0.35, 3890.2: 0.25}


def _planck(wavelength: np.ndarray, temperature: float) -> np.ndarray:
    """Black body, f_lambda in arbitrary units; wavelength [Angstrom], temperature [K]."""
    return np.asarray(wavelength**-5.0 / np.expm1(1.4387769e8 / (wavelength * temperature)))
