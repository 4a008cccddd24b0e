"""The mock sky: labelled photometry drawn without end from libraries of spectra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from astropy.cosmology import Planck18

from catalogs_schema.bands import MODEL_BANDS, REFERENCE_BAND
from models.batch import LabelledPhotometry
from models.quantities import CLASSES, QUANTITIES, Kind
from models.synthesis import abundances, galaxies, noise, priors, quasars, stars
from models.synthesis.grid import COARSE, COARSE_PER_FINE, FINE, LIGHT_SPEED, redshifts, shifts, windows
from models.synthesis.mismatch import ModelErrors
from models.synthesis.photometer import Photometer

TRAINING_SHARES = (0.60, 0.20, 0.20)
"""Shares of galaxies, stars and quasars to train with."""

SURVEY_SHARES = (0.67, 0.28, 0.05)
"""Shares of galaxies, stars and quasars as in a survey to i = 22.5."""

HELD_OUT_FRACTION = 0.05
"""Share of library members that are never drawn for training."""

_EBV_KNOWN_BELOW = 0.03  # rows with more reddening than this always state it
_MAX_LOG_MASS = 12.1
_BLOCK = 256  # objects whose spectra are in memory at a time: they fit into the cache
_PIVOT = np.array([band.pivot for band in MODEL_BANDS])
_K_X = np.array([band.k_x for band in MODEL_BANDS])
_REFERENCE = next(i for i, band in enumerate(MODEL_BANDS) if band.name == REFERENCE_BAND)


@dataclass(frozen=True, slots=True)
class Libraries:
    """Rest-frame spectra from which a sky is drawn; arrays as made by the modules' ``simulate``.

    Attributes
    ----------
    galaxies, stars, quasars : mapping of str to ndarray
        Members by row; ``quasars`` also holds ``igm``, the table of `quasars.igm_transmission`.
    """

    galaxies: Mapping[str, np.ndarray]
    stars: Mapping[str, np.ndarray]
    quasars: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class _Members:
    """The members of the libraries that one side of the split may draw."""

    galaxies: np.ndarray  # rows, by increasing age
    galaxy_age: np.ndarray
    galaxy_cumulative: np.ndarray
    stars: np.ndarray
    star_weight: np.ndarray
    quasars: np.ndarray


@dataclass(slots=True)
class _Drawn:
    """True photometry and labels of the objects of one class."""

    flux: np.ndarray
    labels: dict[str, np.ndarray] = field(default_factory=dict)


class MockSky:
    """Draws labelled mock photometry.

    The members of each library are split once, by row, into those for training and a held-out twentieth:
    an object of one side shares no spectrum with the other, hosts of quasars included.

    Parameters
    ----------
    libraries : Libraries
        Rest-frame spectra.
    photometer : Photometer
        The bands.
    """

    def __init__(self, libraries: Libraries, photometer: Photometer) -> None:
        self._libraries = libraries
        self._photometer = photometer
        self._errors = ModelErrors(quasars.Z_MAX)
        response = abundances.abundance_response()
        touched = np.flatnonzero(response.any(axis=0))
        self._feature_pixel = FINE.rest_first(galaxies.Z_MAX) + touched[[0, -1]]
        self._enhancement = response[:, touched[0] : touched[-1] + 1]
        self._levels = galaxies.line_levels(libraries.galaxies["fine"])
        weight = priors.galaxy_weights(libraries.galaxies["lines"], self._levels)
        self._split = {held_out: _members(libraries, weight, held_out=held_out) for held_out in (False, True)}
        z = np.linspace(0.0, quasars.Z_MAX + 0.1, 4000)
        self._z_grid = z
        self._age_grid = Planck18.age(z).to_value("Gyr")
        self._distance_grid = Planck18.luminosity_distance(z).to_value("cm")

    def members(self, *, held_out: bool) -> dict[str, np.ndarray]:
        """Library rows of one side of the split, by library."""
        split = self._split[held_out]
        return {"galaxies": split.galaxies, "stars": split.stars, "quasars": split.quasars}

    def draw(
        self,
        n: int,
        rng: np.random.Generator,
        *,
        shares: tuple[float, float, float] = TRAINING_SHARES,
        held_out: bool = False,
        i_range: tuple[float, float] = (15.0, 22.8),
        all_bands: bool = False,
    ) -> LabelledPhotometry:
        """Draw ``n`` objects.

        Parameters
        ----------
        n : int
            Number of objects.
        rng : Generator
            Source of randomness; the same state gives the same objects.
        shares : tuple of float
            Shares of galaxies, stars and quasars.
        held_out : bool
            Draw from the held-out members instead of those for training.
        i_range : tuple of float
            Range of the dereddened iSDSS magnitude; numbers rise to the faint end.
        all_bands : bool
            Leave no band out.

        Returns
        -------
        LabelledPhotometry
            Objects of all classes in random order.
        """
        code = rng.choice(len(CLASSES), n, p=np.asarray(shares) / sum(shares))
        magnitude = priors.draw_magnitudes(n, rng, i_range)
        flux = np.empty((n, len(MODEL_BANDS)), np.float32)
        labels = {q.name: np.full(n, np.nan, np.float32) for q in QUANTITIES if q.kind is not Kind.CLASS}
        painters = {"GALAXY": self._draw_galaxies, "STAR": self._draw_stars, "QSO": self._draw_quasars}
        for name, paint in painters.items():
            members = np.flatnonzero(code == CLASSES.index(name))
            for rows in np.split(members, range(_BLOCK, len(members), _BLOCK)):
                drawn = paint(magnitude[rows], self._split[held_out], rng)
                flux[rows] = drawn.flux
                for label, values in drawn.labels.items():
                    labels[label][rows] = values
        ebv, behind = priors.draw_reddening(n, rng, is_star=code == CLASSES.index("STAR"))
        flux *= np.exp(-0.4 * np.log(10.0) * (ebv * behind)[:, None] * _K_X).astype(np.float32)
        if not all_bands:
            flux[~noise.draw_observed(n, rng)] = np.nan
        flux, error = noise.observe(flux, noise.draw_depths(n, rng), rng)
        stated = np.where((rng.random(n) < 0.16) & (ebv < _EBV_KNOWN_BELOW), np.nan, ebv)
        return LabelledPhotometry(flux, error, stated.astype(np.float32), code, labels)

    def _draw_galaxies(self, magnitude: np.ndarray, side: _Members, rng: np.random.Generator) -> _Drawn:
        library = self._libraries.galaxies
        z = priors.draw_galaxy_redshifts(magnitude, rng)
        for _ in range(4):
            shift = shifts(z)
            z = redshifts(shift)
            row = self._draw_galaxy_rows(z, side, rng)
            # Roughly: the continuum at 6000 A has the f_nu of the i band.
            log_mass = self._log_mass(
                z, library["log_l"][row], noise.to_flux(magnitude) * 1e-29 * LIGHT_SPEED / 6e3**2
            )
            impossible = log_mass > _MAX_LOG_MASS
            z = np.where(impossible, z * rng.uniform(0.1, 1.0, len(z)), z)
        shift = shifts(z)
        z = redshifts(shift)
        row = np.where(library["age"][row] <= self._age(z), row, self._draw_galaxy_rows(z, side, rng))

        level = self._levels[row]
        lines = galaxies.scatter_lines(library["lines"][row], level, library["log_ssfr"][row], rng)
        fine, coarse = self._spectra(library, galaxies.Z_MAX, row, shift, rng)
        self._enhance(fine, shift, abundances.draw_enhancement(library["log_ssfr"][row], rng))
        flux = self._photometer.continuum(fine, coarse)
        flux += self._photometer.lines(
            galaxies.LINE_WAVELENGTH * (1.0 + z[:, None]), lines * (1.0 + z[:, None])
        )
        scale = noise.to_flux(magnitude) / flux[:, _REFERENCE]
        log_mass = self._log_mass(z, library["log_l"][row], scale)
        reference = (
            flux[:, _REFERENCE] * 1e-29 * LIGHT_SPEED / _PIVOT[_REFERENCE] ** 2
        )  # f_lambda(iSDSS), unscaled
        labels = {
            "z_gal": z,
            "log_mass": log_mass,
            "log_sfr": log_mass + library["log_ssfr"][row],
            "cont_halpha": level[:, 0] / reference,
            "cont_hbeta": level[:, 1] / reference,
            **galaxies.equivalent_widths(lines, level),
        }
        return _Drawn(flux * scale[:, None].astype(np.float32), labels)

    def _draw_quasars(self, magnitude: np.ndarray, side: _Members, rng: np.random.Generator) -> _Drawn:
        library = self._libraries.quasars
        n = len(magnitude)
        shift = shifts(priors.draw_quasar_redshifts(n, rng))
        z = redshifts(shift)
        row = rng.choice(side.quasars, n)
        fine, coarse = self._spectra(library, quasars.Z_MAX, row, shift, rng)
        absorbed = np.flatnonzero(z > 1.5)
        opacity = 1.0 - library["igm"][quasars.igm_row(z[absorbed])]
        sightline = np.exp(rng.normal(0.0, 0.25, (len(absorbed), 1))).astype(np.float32)
        fine[absorbed] *= np.maximum(1.0 - opacity * sightline, 0.0)
        flux = self._photometer.continuum(fine, coarse)
        flux *= (_PIVOT / 7500.0).astype(np.float32) ** rng.normal(0.0, 0.1, (n, 1)).astype(np.float32)

        hosted = np.flatnonzero(z < 0.98 * galaxies.Z_MAX)
        host_row = self._draw_galaxy_rows(z[hosted], side, rng)
        host = self._continuum(self._libraries.galaxies, galaxies.Z_MAX, host_row, shift[hosted], rng)
        flux[hosted] += host * self._host_fraction(magnitude[hosted], z[hosted], rng)[:, None].astype(
            np.float32
        )
        scale = noise.to_flux(magnitude) / flux[:, _REFERENCE]
        return _Drawn(flux * scale[:, None].astype(np.float32), {"z_qso": z})

    def _draw_stars(self, magnitude: np.ndarray, side: _Members, rng: np.random.Generator) -> _Drawn:
        library = self._libraries.stars
        n = len(magnitude)
        row = rng.choice(side.stars, n, p=side.star_weight)
        velocity = np.clip(np.rint(rng.normal(0.0, 0.6, n)), -2, 2).astype(np.int64)  # 90 km/s a pixel
        flux = self._continuum(library, 0.0, row, velocity, rng)
        scale = noise.to_flux(magnitude) / flux[:, _REFERENCE]
        return _Drawn(
            flux * scale[:, None].astype(np.float32), {name: library[name][row] for name in stars.LABELS}
        )

    def _continuum(
        self,
        library: Mapping[str, np.ndarray],
        z_max: float,
        row: np.ndarray,
        shift: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Flux densities of library members at the given shifts, with the models' errors; float32 (N, 63)."""
        return self._photometer.continuum(*self._spectra(library, z_max, row, shift, rng))

    def _spectra(
        self,
        library: Mapping[str, np.ndarray],
        z_max: float,
        row: np.ndarray,
        shift: np.ndarray,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Observed windows of the two lattices; the infrared is off by 6 % for each object."""
        fine = windows(library["fine"], FINE.rest_first(z_max), row, shift, FINE)
        self._errors.apply(fine, shift, rng)
        coarse_shift = np.rint(shift / COARSE_PER_FINE).astype(np.int64)
        coarse = windows(library["coarse"], COARSE.rest_first(z_max), row, coarse_shift, COARSE)
        coarse *= np.exp(rng.normal(0.0, 0.06, (len(row), 1))).astype(np.float32)
        return fine, coarse

    def _enhance(self, fine: np.ndarray, shift: np.ndarray, amount: np.ndarray) -> None:
        """Change the abundance features of galaxies, in place; spectrum by spectrum, where they are seen."""
        begin = self._feature_pixel[0] - FINE.first + shift
        width = self._enhancement.shape[1]
        for spectrum, start, weights in zip(fine, begin.tolist(), amount, strict=True):
            low, high = max(start, 0), min(start + width, FINE.size)
            if low < high:
                spectrum[low:high] *= 1.0 + weights @ self._enhancement[:, low - start : high - start]

    def _draw_galaxy_rows(self, z: np.ndarray, side: _Members, rng: np.random.Generator) -> np.ndarray:
        """Library galaxies, by their weights, that are younger than the Universe at z."""
        count = np.maximum(np.searchsorted(side.galaxy_age, self._age(z)), 1)
        target = rng.random(len(z)) * side.galaxy_cumulative[count - 1]
        return np.asarray(
            side.galaxies[np.minimum(np.searchsorted(side.galaxy_cumulative, target), count - 1)]
        )

    def _age(self, z: np.ndarray) -> np.ndarray:
        return np.asarray(np.interp(z, self._z_grid, self._age_grid))

    def _log_mass(self, z: np.ndarray, log_l: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """log10 of the living mass [Msun] of galaxies whose library spectrum is observed times ``scale``."""
        distance = np.interp(z, self._z_grid, self._distance_grid)
        return np.asarray(np.log10(scale * 4.0 * np.pi * (1.0 + z)) + 2.0 * np.log10(distance) - log_l)

    def _host_fraction(self, magnitude: np.ndarray, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Host to quasar at 6000 A rest: a quarter at M_i = -23, less with luminosity, 0.3 dex scatter."""
        distance = np.interp(z, self._z_grid, self._distance_grid) / 3.0857e19  # in units of 10 pc
        absolute = magnitude - 5.0 * np.log10(distance) + 1.25 * np.log10(1.0 + z)
        return np.asarray(
            10.0 ** np.minimum(-0.6 + 0.25 * (absolute + 23.0) + rng.normal(0.0, 0.3, len(z)), 0.3)
        )


def _members(libraries: Libraries, galaxy_weight: np.ndarray, *, held_out: bool) -> _Members:
    def rows(count: int) -> np.ndarray:
        out = np.random.default_rng(20260).random(count) < HELD_OUT_FRACTION
        return np.flatnonzero(out if held_out else ~out)

    galaxy = rows(len(libraries.galaxies["fine"]))
    galaxy = galaxy[np.argsort(libraries.galaxies["age"][galaxy], kind="stable")]
    star = rows(len(libraries.stars["fine"]))
    weight = libraries.stars["weight"][star]
    return _Members(
        galaxies=galaxy,
        galaxy_age=libraries.galaxies["age"][galaxy],
        galaxy_cumulative=np.cumsum(galaxy_weight[galaxy]),
        stars=star,
        star_weight=weight / weight.sum(),
        quasars=rows(len(libraries.quasars["fine"])),
    )
