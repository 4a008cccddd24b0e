"""Mock sky: labelled photometry drawn from libraries of spectra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ojala.catalogs_schema.bands import MODEL_BANDS, REFERENCE_BAND
from ojala.models.data import LabelledPhotometry
from ojala.models.quantities import CLASSES, QUANTITIES, Kind
from ojala.models.simulation.photometry import noise
from ojala.models.simulation.photometry.photometer import Photometer
from ojala.models.simulation.populations import abundances, galaxies, priors, quasars, stars
from ojala.models.simulation.populations.mismatch import ModelErrors
from ojala.models.simulation.populations.population import EXTREME_EW, MAX_LOG_MASS, Members, Population
from ojala.models.simulation.populations.population import HELD_OUT_FRACTION as HELD_OUT_FRACTION
from ojala.models.simulation.populations.population import RARE as RARE
from ojala.models.simulation.populations.population import Libraries as Libraries
from ojala.models.simulation.wavelength_grid import (
    COARSE,
    COARSE_PER_FINE,
    FINE,
    LIGHT_SPEED,
    redshifts,
    shifts,
    windows,
)

TRAINING_SHARES = (0.60, 0.20, 0.20)
"""Shares of galaxies, stars and quasars in trainings."""

SURVEY_SHARES = (0.67, 0.28, 0.05)
"""Shares of galaxies, stars and quasars as in a survey to i = 22.5."""

CLASS_WEIGHTS = (
    SURVEY_SHARES[0] / TRAINING_SHARES[0],
    SURVEY_SHARES[1] / TRAINING_SHARES[1],
    SURVEY_SHARES[2] / TRAINING_SHARES[2],
)
"""Weights of galaxies, stars and quasars in a loss by which training draws count as a survey's objects."""

I_RANGE = (15.0, 22.8)
"""Default range of the i magnitudes drawn."""

MASS_LABEL = "log_mbh"
"""Label of quasars in addition to `QUANTITIES`; see `quasars.log_black_hole_mass`."""

_BRIGHT_STARBURSTS = 0.06  # share of a training's galaxies that are starbursts at any redshift, however
# luminous: real ones are blue in the ultraviolet and were taken for quasars where only faint ones were drawn
_ULTRAVIOLET, _TILT = 3600.0, 0.4  # rest wavelength [Angstrom] below which their slopes vary, and by how much
_DISTANT_Z = 4.0
_EBV_KNOWN_BELOW = 0.03  # rows with more reddening than this always state it
_BLOCK = 256  # objects whose spectra are in memory at a time: they fit into the cache
_PIVOT = np.array([band.pivot for band in MODEL_BANDS])
_K_X = np.array([band.k_x for band in MODEL_BANDS])
_REFERENCE = next(i for i, band in enumerate(MODEL_BANDS) if band.name == REFERENCE_BAND)


@dataclass(slots=True)
class _Drawn:
    """True photometry and labels of the objects of one class."""

    flux: np.ndarray
    labels: dict[str, np.ndarray] = field(default_factory=dict)


class MockSky:
    """Sampler of labelled mock photometry.

    Library members are split by row into training and a held-out twentieth; sides share no spectrum, hosts of
    quasars included.

    Parameters
    ----------
    libraries : Libraries
        Rest-frame spectra.
    photometer : Photometer
        The bands.
    without : frozenset of str
        Kinds of `RARE` that are drawn by `draw_rare` only.

    Raises
    ------
    ValueError
        The libraries lack required arrays, or ``without`` holds an unknown kind.

    Attributes
    ----------
    population : Population
        Libraries with their split and priors.
    photometer : Photometer
        Bands.
    """

    def __init__(
        self, libraries: Libraries, photometer: Photometer, *, without: frozenset[str] = frozenset()
    ) -> None:
        self.population = Population(libraries, without=without)
        self.photometer = photometer
        self._errors = ModelErrors(quasars.Z_MAX)
        self._features = abundances.AbundanceFeatures()

    def members(self, *, held_out: bool) -> dict[str, np.ndarray]:
        """Library rows of one side of the split, by library."""
        side = self.population.members(held_out=held_out)
        return {"galaxies": side.galaxies.rows, "stars": side.stars, "quasars": side.quasars}

    def draw(
        self,
        n: int,
        rng: np.random.Generator,
        *,
        shares: tuple[float, float, float] = TRAINING_SHARES,
        held_out: bool = False,
        i_range: tuple[float, float] = I_RANGE,
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
            Shares of galaxies, stars and quasars, roughly; they change with magnitude as in
            `priors.draw_classes`.
        held_out : bool
            Draw from the held-out members instead of those for training.
        i_range : tuple of float
            Range of the dereddened iSDSS magnitude; numbers rise to the faint end.
        all_bands : bool
            Keep all bands.

        Returns
        -------
        LabelledPhotometry
            Objects of all classes in random order.
        """
        magnitude = priors.draw_magnitudes(n, rng, i_range)
        code = priors.draw_classes(magnitude, shares, rng)
        return self._observe(
            magnitude, code, self.population.members(held_out=held_out), rng, all_bands=all_bands
        )

    def draw_rare(
        self,
        kind: str,
        n: int,
        rng: np.random.Generator,
        *,
        held_out: bool = False,
        i_range: tuple[float, float] = I_RANGE,
        all_bands: bool = False,
    ) -> LabelledPhotometry:
        """Draw ``n`` objects of one of the kinds `RARE` alone; the parameters are those of `draw`."""
        if kind not in RARE:
            raise ValueError(f"no rare kind {kind!r}: there are {', '.join(RARE)}")
        magnitude = priors.draw_magnitudes(n, rng, i_range)
        name = {"extreme emitters": "GALAXY", "white dwarfs": "STAR", "distant quasars": "QSO"}[kind]
        code = np.full(n, CLASSES.index(name))
        return self._observe(
            magnitude, code, self.population.members(held_out=held_out, only=kind), rng, all_bands=all_bands
        )

    def _observe(
        self,
        magnitude: np.ndarray,
        code: np.ndarray,
        side: Members,
        rng: np.random.Generator,
        *,
        all_bands: bool,
    ) -> LabelledPhotometry:
        """Draw photometry with the survey's noise and labels of objects by class and magnitude."""
        n = len(code)
        flux = np.empty((n, len(MODEL_BANDS)), np.float32)
        labels = {q.name: np.full(n, np.nan, np.float32) for q in QUANTITIES if q.kind is not Kind.CLASS}
        labels[MASS_LABEL] = np.full(n, np.nan, np.float32)
        samplers = {"GALAXY": self._draw_galaxies, "STAR": self._draw_stars, "QSO": self._draw_quasars}
        for name, sample in samplers.items():
            members = np.flatnonzero(code == CLASSES.index(name))
            for rows in np.split(members, range(_BLOCK, len(members), _BLOCK)):
                if not len(rows):
                    continue
                drawn = sample(magnitude[rows], side, rng)
                flux[rows] = drawn.flux
                for label, values in drawn.labels.items():
                    labels[label][rows] = values
        ebv, behind = priors.draw_reddening(n, rng, is_star=code == CLASSES.index("STAR"))
        flux *= np.exp(-0.4 * np.log(10.0) * (ebv * behind)[:, None] * _K_X).astype(np.float32)
        observed = np.True_ if all_bands else noise.draw_observed(n, rng)
        depth = noise.draw_depths(n, rng)
        noiseless = noise.apply_zero_points(flux, rng)
        flux, error = noise.add_noise(np.where(observed, noiseless, np.float32(np.nan)), depth, rng)
        stated = np.where((rng.random(n) < 0.16) & (ebv < _EBV_KNOWN_BELOW), np.nan, ebv)
        return LabelledPhotometry(
            flux, error, stated.astype(np.float32), code, labels, noiseless, np.zeros_like(noiseless)
        )

    def _draw_galaxies(self, magnitude: np.ndarray, side: Members, rng: np.random.Generator) -> _Drawn:
        library = self.population.libraries.galaxies
        z = priors.draw_galaxy_redshifts(magnitude, rng)
        for _ in range(4):
            # Upper limit: the most massive galaxies with 2 Msun/Lsun.
            impossible = self.population.log_luminosity(magnitude, z) > MAX_LOG_MASS + 29.15
            z = np.where(impossible, z * rng.uniform(0.1, 1.0, len(z)), z)
        luminosity = self.population.log_luminosity(magnitude, z)
        row = self.population.galaxy_rows(z, luminosity, side, rng)
        bright = np.flatnonzero(rng.random(len(z)) < _BRIGHT_STARBURSTS * (len(side.starbursts) > 0))
        z[bright] = rng.uniform(0.02, 0.98 * galaxies.Z_MAX, len(bright))
        if len(bright):
            row[bright] = self.population.starburst_rows(row[bright], z[bright], side, rng)
            luminosity = self.population.log_luminosity(magnitude, z)
        # Galaxies that are still too massive for their light at 7500 A / (1 + z) get a smaller redshift.
        pixel = np.rint(np.log(7500.0 / (1.0 + z)) / FINE.step).astype(np.int64) - FINE.rest_first(
            galaxies.Z_MAX
        )
        colour = np.log10(np.maximum(library["fine"][row, pixel].astype(np.float32), 0.02))
        excess = luminosity - colour - library["log_l"][row] - MAX_LOG_MASS
        z = np.maximum(z * 10.0 ** (-0.5 * np.maximum(excess, 0.0)), 0.002)
        shift = shifts(z)
        z = redshifts(shift)

        level = self.population.levels[row]
        lines = galaxies.scatter_lines(library["lines"][row], level, library["log_ssfr"][row], rng)
        self._adjust_extreme_emitters(lines, level, side, rng)
        fine, coarse = self._spectra(library, galaxies.Z_MAX, row, shift, rng)
        self._features.apply(fine, shift, abundances.draw_enhancement(library["log_ssfr"][row], rng))
        if len(bright):
            blue = np.minimum(FINE.wavelength / (_ULTRAVIOLET * (1.0 + z[bright, None])), 1.0)
            fine[bright] *= (blue ** rng.normal(0.0, _TILT, (len(bright), 1))).astype(np.float32)
        flux = self.photometer.continuum(fine, coarse)
        flux += self.photometer.lines(
            galaxies.LINE_WAVELENGTH * (1.0 + z[:, None]), lines * (1.0 + z[:, None])
        )
        scale = noise.to_flux(magnitude) / flux[:, _REFERENCE]
        log_mass = self.population.log_emitted(z, scale) - library["log_l"][row]
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

    def _adjust_extreme_emitters(
        self, lines: np.ndarray, level: np.ndarray, side: Members, rng: np.random.Generator
    ) -> None:
        """Scale lines in place where extreme emitters are excluded, or drawn alone."""
        ew = galaxies.equivalent_widths(lines, level)["ew_oiii_5007"]
        if side.only == "extreme emitters":
            wrong = ew <= EXTREME_EW
            wanted = EXTREME_EW * 10.0 ** (0.01 + rng.exponential(0.15, len(ew)))
        elif "extreme emitters" in self.population.without:
            wrong = ew > EXTREME_EW
            wanted = EXTREME_EW * rng.uniform(0.2, 0.9, len(ew))
        else:
            return
        lines[wrong] *= (wanted / np.maximum(ew, 1e-6))[wrong, None].astype(np.float32)

    def _draw_quasars(self, magnitude: np.ndarray, side: Members, rng: np.random.Generator) -> _Drawn:
        library = self.population.libraries.quasars
        n = len(magnitude)
        z = priors.draw_quasar_redshifts(magnitude, rng)
        if side.only == "distant quasars":
            z = rng.uniform(_DISTANT_Z + 0.002, quasars.Z_MAX - 0.02, n)
        elif "distant quasars" in self.population.without:
            nearer = _DISTANT_Z - 0.002  # a redshift moves to the nearest pixel
            z = np.where(z > nearer, rng.uniform(0.05, nearer, n), z)
        shift = shifts(z)
        z = redshifts(shift)
        log_luminosity = self.population.log_luminosity(magnitude, z)
        row = self.population.quasar_rows(log_luminosity, side, rng)
        fine, coarse = self._spectra(library, quasars.Z_MAX, row, shift, rng)
        absorbed = np.flatnonzero(z > 1.5)
        opacity = 1.0 - library["igm"][quasars.igm_row(z[absorbed])]
        sightline = np.exp(rng.normal(0.0, 0.25, (len(absorbed), 1))).astype(np.float32)
        fine[absorbed] *= np.maximum(1.0 - opacity * sightline, 0.0)
        flux = self.photometer.continuum(fine, coarse)
        tilt = rng.normal(0.0, 0.1, n)
        flux *= (_PIVOT / 7500.0).astype(np.float32) ** tilt[:, None].astype(np.float32)
        levels = (
            library["levels"][row] * ((1.0 + z[:, None]) * quasars.MASS_CONTINUA / 7500.0) ** tilt[:, None]
        )

        hosted = np.flatnonzero(z < 0.98 * galaxies.Z_MAX)
        host = self.population.host_ratio(magnitude[hosted], z[hosted], rng)
        flux[hosted] += self._draw_hosts(z[hosted], shift[hosted], host, log_luminosity[hosted], side, rng)
        narrow = np.flatnonzero(z < 2.0)
        scale = noise.to_flux(magnitude) / flux[:, _REFERENCE]
        emitted = self.population.log_emitted(z, scale)  # log10 of L_lambda that a level of one stands for
        lines = quasars.draw_narrow_lines(
            levels[narrow, 0], np.log10(5100.0 * levels[narrow, 0]) + emitted[narrow], rng
        )
        stretch = 1.0 + z[narrow, None]
        flux[narrow] += self.photometer.lines(quasars.NARROW_WAVELENGTH * stretch, lines * stretch)
        scale = noise.to_flux(magnitude) / flux[:, _REFERENCE]
        luminosity = levels * quasars.MASS_CONTINUA * 10.0 ** self.population.log_emitted(z, scale)[:, None]
        labels = {
            "z_qso": z,
            MASS_LABEL: quasars.log_black_hole_mass(library["fwhm"][row], luminosity, z),
        }
        return _Drawn(flux * scale[:, None].astype(np.float32), labels)

    def _draw_hosts(
        self,
        z: np.ndarray,
        shift: np.ndarray,
        ratio: np.ndarray,
        log_luminosity: np.ndarray,
        side: Members,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Flux densities of host galaxies ``ratio`` times as bright as their quasars; float32 (N, 63)."""
        library = self.population.libraries.galaxies
        share = np.log10(ratio / (1.0 + ratio))
        row = self.population.galaxy_rows(z, log_luminosity + share, side, rng)
        lines = galaxies.scatter_lines(
            library["lines"][row], self.population.levels[row], library["log_ssfr"][row], rng
        )
        host = self.photometer.continuum(*self._spectra(library, galaxies.Z_MAX, row, shift, rng))
        stretch = 1.0 + z[:, None]
        host += self.photometer.lines(galaxies.LINE_WAVELENGTH * stretch, lines * stretch)
        return host * ratio[:, None].astype(np.float32)

    def _draw_stars(self, magnitude: np.ndarray, side: Members, rng: np.random.Generator) -> _Drawn:
        library = self.population.libraries.stars
        n = len(magnitude)
        row = self.population.star_rows(magnitude, side, rng)
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
        """Compute flux densities of library members with model errors; float32 (N, 63)."""
        return self.photometer.continuum(*self._spectra(library, z_max, row, shift, rng))

    def _spectra(
        self,
        library: Mapping[str, np.ndarray],
        z_max: float,
        row: np.ndarray,
        shift: np.ndarray,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Observed windows of the two lattices, with model errors and an infrared scatter of 6 %."""
        fine = windows(library["fine"], FINE.rest_first(z_max), row, shift, FINE)
        self._errors.apply(fine, shift, rng)
        coarse_shift = np.rint(shift / COARSE_PER_FINE).astype(np.int64)
        coarse = windows(library["coarse"], COARSE.rest_first(z_max), row, coarse_shift, COARSE)
        coarse *= np.exp(rng.normal(0.0, 0.06, (len(row), 1))).astype(np.float32)
        return fine, coarse
