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
from models.synthesis.galaxy_index import GalaxyIndex
from models.synthesis.grid import COARSE, COARSE_PER_FINE, FINE, LIGHT_SPEED, redshifts, shifts, windows
from models.synthesis.mismatch import ModelErrors
from models.synthesis.photometer import Photometer

TRAINING_SHARES = (0.60, 0.20, 0.20)
"""Shares of galaxies, stars and quasars to train with."""

SURVEY_SHARES = (0.67, 0.28, 0.05)
"""Shares of galaxies, stars and quasars as in a survey to i = 22.5."""

I_RANGE = (15.0, 22.8)
"""Range of i magnitudes drawn unless told."""

HELD_OUT_FRACTION = 0.05
"""Share of library members that are never drawn for training."""

RARE = ("extreme emitters", "white dwarfs", "distant quasars")
"""Kinds of objects that a sky can be made without, or that can be drawn alone: galaxies with
EW([O III] 5007) > 500 A, the kinds `stars.WHITE_DWARFS`, quasars at z > 4."""

MASS_LABEL = "log_mbh"
"""Label of quasars beside the quantities of `QUANTITIES`: see `quasars.log_black_hole_mass`."""

_EXTREME_EW = 500.0
_DISTANT_Z = 4.0
_EBV_KNOWN_BELOW = 0.03  # rows with more reddening than this always state it
_MAX_LOG_MASS = 12.0
_ANY_GALAXY = 0.35  # share of galaxies whose luminosity and redshift do not choose the library member
_FAMILY_WEIGHT = np.array([1.0, 0.5, 0.15])  # of `galaxies.FAMILIES`
_BRIGHT_STAR, _STAR_RANGE = 17.5, 0.7  # i magnitude, and its range, at which stars of the field take over
_BLOCK = 256  # objects whose spectra are in memory at a time: they fit into the cache
_PIVOT = np.array([band.pivot for band in MODEL_BANDS])
_K_X = np.array([band.k_x for band in MODEL_BANDS])
_REFERENCE = next(i for i, band in enumerate(MODEL_BANDS) if band.name == REFERENCE_BAND)
_NEEDED = {
    "galaxies": ("fine", "coarse", "lines", "log_l", "log_ssfr", "age", "family", "z", "log_mass"),
    "stars": ("fine", "coarse", "kind", *stars.LABELS),
    "quasars": ("fine", "coarse", "fwhm", "levels", "strength", "igm"),
}


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

    galaxies: GalaxyIndex
    stars: np.ndarray
    star_cumulative: np.ndarray  # bright, faint
    quasars: np.ndarray  # by the strength of their broad lines
    only: str | None  # of RARE


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
    without : frozenset of str
        Kinds of `RARE` that are never drawn, except alone with `draw_rare`.

    Raises
    ------
    ValueError
        The libraries lack what this version needs, or ``without`` holds an unknown kind.
    """

    def __init__(
        self, libraries: Libraries, photometer: Photometer, *, without: frozenset[str] = frozenset()
    ) -> None:
        _check(libraries, without)
        self._libraries = libraries
        self._photometer = photometer
        self._without = without
        self._errors = ModelErrors(quasars.Z_MAX)
        response = abundances.abundance_response()
        touched = np.flatnonzero(response.any(axis=0))
        self._feature_pixel = FINE.rest_first(galaxies.Z_MAX) + touched[[0, -1]]
        self._enhancement = response[:, touched[0] : touched[-1] + 1]
        self._levels = galaxies.line_levels(libraries.galaxies["fine"])
        self._sides: dict[tuple[bool, str | None], _Members] = {}
        z = np.linspace(0.0, quasars.Z_MAX + 0.1, 4000)
        self._z_grid = z
        self._age_grid = Planck18.age(z).to_value("Gyr")
        self._distance_grid = Planck18.luminosity_distance(z).to_value("cm")

    def members(self, *, held_out: bool) -> dict[str, np.ndarray]:
        """Library rows of one side of the split, by library."""
        side = self._side(held_out)
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
            Leave no band out.

        Returns
        -------
        LabelledPhotometry
            Objects of all classes in random order.
        """
        magnitude = priors.draw_magnitudes(n, rng, i_range)
        code = priors.draw_classes(magnitude, shares, rng)
        return self._observe(magnitude, code, self._side(held_out), rng, all_bands=all_bands)

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
        return self._observe(magnitude, code, self._side(held_out, kind), rng, all_bands=all_bands)

    def _observe(
        self,
        magnitude: np.ndarray,
        code: np.ndarray,
        side: _Members,
        rng: np.random.Generator,
        *,
        all_bands: bool,
    ) -> LabelledPhotometry:
        """Photometry and labels of objects of the given classes and magnitudes, with the survey's noise."""
        n = len(code)
        flux = np.empty((n, len(MODEL_BANDS)), np.float32)
        labels = {q.name: np.full(n, np.nan, np.float32) for q in QUANTITIES if q.kind is not Kind.CLASS}
        labels[MASS_LABEL] = np.full(n, np.nan, np.float32)
        painters = {"GALAXY": self._draw_galaxies, "STAR": self._draw_stars, "QSO": self._draw_quasars}
        for name, paint in painters.items():
            members = np.flatnonzero(code == CLASSES.index(name))
            for rows in np.split(members, range(_BLOCK, len(members), _BLOCK)):
                if not len(rows):
                    continue
                drawn = paint(magnitude[rows], side, rng)
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
            # Nothing is brighter than the most massive galaxies with 2 Msun/Lsun.
            impossible = self._log_luminosity(magnitude, z) > _MAX_LOG_MASS + 29.15
            z = np.where(impossible, z * rng.uniform(0.1, 1.0, len(z)), z)
        luminosity = self._log_luminosity(magnitude, z)
        row = self._draw_galaxy_rows(z, luminosity, side, rng)
        # What is still too massive for its light at 7500 A / (1 + z) comes nearer.
        pixel = np.rint(np.log(7500.0 / (1.0 + z)) / FINE.step).astype(np.int64) - FINE.rest_first(
            galaxies.Z_MAX
        )
        colour = np.log10(np.maximum(library["fine"][row, pixel].astype(np.float32), 0.02))
        excess = luminosity - colour - library["log_l"][row] - _MAX_LOG_MASS
        z = np.maximum(z * 10.0 ** (-0.5 * np.maximum(excess, 0.0)), 0.002)
        shift = shifts(z)
        z = redshifts(shift)

        level = self._levels[row]
        lines = galaxies.scatter_lines(library["lines"][row], level, library["log_ssfr"][row], rng)
        self._keep_extremes_apart(lines, level, side, rng)
        fine, coarse = self._spectra(library, galaxies.Z_MAX, row, shift, rng)
        self._enhance(fine, shift, abundances.draw_enhancement(library["log_ssfr"][row], rng))
        flux = self._photometer.continuum(fine, coarse)
        flux += self._photometer.lines(
            galaxies.LINE_WAVELENGTH * (1.0 + z[:, None]), lines * (1.0 + z[:, None])
        )
        scale = noise.to_flux(magnitude) / flux[:, _REFERENCE]
        log_mass = self._log_emitted(z, scale) - library["log_l"][row]
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

    def _keep_extremes_apart(
        self, lines: np.ndarray, level: np.ndarray, side: _Members, rng: np.random.Generator
    ) -> None:
        """Weaken all lines of extreme emitters, or strengthen those of others, where the sky asks for it."""
        ew = galaxies.equivalent_widths(lines, level)["ew_oiii_5007"]
        if side.only == "extreme emitters":
            wrong = ew <= _EXTREME_EW
            wanted = _EXTREME_EW * 10.0 ** (0.01 + rng.exponential(0.15, len(ew)))
        elif "extreme emitters" in self._without:
            wrong = ew > _EXTREME_EW
            wanted = _EXTREME_EW * rng.uniform(0.2, 0.9, len(ew))
        else:
            return
        lines[wrong] *= (wanted / np.maximum(ew, 1e-6))[wrong, None].astype(np.float32)

    def _draw_quasars(self, magnitude: np.ndarray, side: _Members, rng: np.random.Generator) -> _Drawn:
        library = self._libraries.quasars
        n = len(magnitude)
        z = priors.draw_quasar_redshifts(magnitude, rng)
        if side.only == "distant quasars":
            z = rng.uniform(_DISTANT_Z + 0.002, quasars.Z_MAX - 0.02, n)
        elif "distant quasars" in self._without:
            nearer = _DISTANT_Z - 0.002  # a redshift moves to the nearest pixel
            z = np.where(z > nearer, rng.uniform(0.05, nearer, n), z)
        shift = shifts(z)
        z = redshifts(shift)
        log_luminosity = self._log_luminosity(magnitude, z)
        # Baldwin effect: the lines are the weaker the brighter the nucleus.
        rank = 0.5 - 0.17 * (log_luminosity + 3.78 - 45.3) + rng.normal(0.0, 0.27, n)
        rank = np.where((rank < 0.0) | (rank >= 1.0), rng.random(n), rank)
        row = side.quasars[(rank * len(side.quasars)).astype(np.int64)]
        fine, coarse = self._spectra(library, quasars.Z_MAX, row, shift, rng)
        absorbed = np.flatnonzero(z > 1.5)
        opacity = 1.0 - library["igm"][quasars.igm_row(z[absorbed])]
        sightline = np.exp(rng.normal(0.0, 0.25, (len(absorbed), 1))).astype(np.float32)
        fine[absorbed] *= np.maximum(1.0 - opacity * sightline, 0.0)
        flux = self._photometer.continuum(fine, coarse)
        tilt = rng.normal(0.0, 0.1, n)
        flux *= (_PIVOT / 7500.0).astype(np.float32) ** tilt[:, None].astype(np.float32)
        levels = (
            library["levels"][row] * ((1.0 + z[:, None]) * quasars.MASS_CONTINUA / 7500.0) ** tilt[:, None]
        )

        hosted = np.flatnonzero(z < 0.98 * galaxies.Z_MAX)
        host = self._host_ratio(magnitude[hosted], z[hosted], rng)
        flux[hosted] += self._paint_hosts(z[hosted], shift[hosted], host, log_luminosity[hosted], side, rng)
        narrow = np.flatnonzero(z < 2.0)
        scale = noise.to_flux(magnitude) / flux[:, _REFERENCE]
        emitted = self._log_emitted(z, scale)  # log10 of L_lambda that a level of one stands for
        lines = quasars.draw_narrow_lines(
            levels[narrow, 0], np.log10(5100.0 * levels[narrow, 0]) + emitted[narrow], rng
        )
        stretch = 1.0 + z[narrow, None]
        flux[narrow] += self._photometer.lines(quasars.NARROW_WAVELENGTH * stretch, lines * stretch)
        scale = noise.to_flux(magnitude) / flux[:, _REFERENCE]
        luminosity = levels * quasars.MASS_CONTINUA * 10.0 ** self._log_emitted(z, scale)[:, None]
        labels = {
            "z_qso": z,
            MASS_LABEL: quasars.log_black_hole_mass(library["fwhm"][row], luminosity, z),
        }
        return _Drawn(flux * scale[:, None].astype(np.float32), labels)

    def _paint_hosts(
        self,
        z: np.ndarray,
        shift: np.ndarray,
        ratio: np.ndarray,
        log_luminosity: np.ndarray,
        side: _Members,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Flux densities of host galaxies ``ratio`` times as bright as their quasars; float32 (N, 63)."""
        library = self._libraries.galaxies
        share = np.log10(ratio / (1.0 + ratio))
        row = self._draw_galaxy_rows(z, log_luminosity + share, side, rng)
        lines = galaxies.scatter_lines(
            library["lines"][row], self._levels[row], library["log_ssfr"][row], rng
        )
        host = self._photometer.continuum(*self._spectra(library, galaxies.Z_MAX, row, shift, rng))
        stretch = 1.0 + z[:, None]
        host += self._photometer.lines(galaxies.LINE_WAVELENGTH * stretch, lines * stretch)
        return host * ratio[:, None].astype(np.float32)

    def _draw_stars(self, magnitude: np.ndarray, side: _Members, rng: np.random.Generator) -> _Drawn:
        library = self._libraries.stars
        n = len(magnitude)
        faint = rng.random(n) > 1.0 / (1.0 + np.exp((magnitude - _BRIGHT_STAR) / _STAR_RANGE))
        target = rng.random(n)
        at = np.where(faint, *(np.searchsorted(c, target) for c in side.star_cumulative[::-1]))
        row = side.stars[np.minimum(at, len(side.stars) - 1)]
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
        begin, size = self._feature_pixel[0] - FINE.first + shift, FINE.size
        factor = amount @ self._enhancement
        factor += np.float32(1.0)
        for spectrum, start, change in zip(fine, begin.tolist(), factor, strict=True):
            low, high = max(start, 0), min(start + len(change), size)
            if low < high:
                spectrum[low:high] *= change[low - start : high - start]

    def _draw_galaxy_rows(
        self, z: np.ndarray, log_luminosity: np.ndarray, side: _Members, rng: np.random.Generator
    ) -> np.ndarray:
        """Library galaxies made for about this redshift and luminosity.

        A third are any that are younger than the Universe and not too massive.
        """
        library = self._libraries.galaxies
        oldest = np.interp(z, self._z_grid, self._age_grid)
        near = log_luminosity + rng.normal(0.0, 0.12, len(z))
        row = side.galaxies.draw_like(z, near, rng)
        row = np.where(library["age"][row] <= oldest, row, side.galaxies.draw_like(z, near, rng))
        other = side.galaxies.draw_any(oldest, rng)
        possible = log_luminosity - library["log_l"][other] < _MAX_LOG_MASS
        swapped = (rng.random(len(z)) < _ANY_GALAXY) & possible
        return np.where(swapped | (library["age"][row] > oldest), other, row)

    def _log_luminosity(self, magnitude: np.ndarray, z: np.ndarray) -> np.ndarray:
        """About log10 of L_lambda [erg/s/A] at 6000 A in the rest frame: that of the i band."""
        return self._log_emitted(z, noise.to_flux(magnitude) * 1e-29 * LIGHT_SPEED / 7.5e3**2)

    def _log_emitted(self, z: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """log10 of the emitted L_lambda [erg/s/A] of sources observed with f_lambda = ``scale``."""
        distance = np.interp(z, self._z_grid, self._distance_grid)
        return np.asarray(np.log10(scale * 4.0 * np.pi * (1.0 + z)) + 2.0 * np.log10(distance))

    def _host_ratio(self, magnitude: np.ndarray, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Host to quasar at 6000 A rest: 0.3 at M_i = -23, equal at -21.4, 0.45 dex scatter.

        About what Shen et al. (2011, equation 1) find. Half of those at z < 0.45 are the broad-line nuclei
        that surveys of galaxies find, whose hosts give 0.6 to 8 times the light of the nucleus.
        """
        distance = np.interp(z, self._z_grid, self._distance_grid) / 3.0857e19  # in units of 10 pc
        absolute = magnitude - 5.0 * np.log10(distance) + 1.25 * np.log10(1.0 + z)
        ratio = -0.5 + 0.32 * (absolute + 23.0) + rng.normal(0.0, 0.45, len(z))
        weak = (z < 0.45) & (rng.random(len(z)) < 0.5)
        ratio = np.where(weak, rng.uniform(-0.2, quasars.HOST_MAX, len(z)), ratio)
        return np.asarray(10.0 ** np.minimum(ratio, quasars.HOST_MAX))

    def _side(self, held_out: bool, only: str | None = None) -> _Members:
        """The members of one side of the split, made when first asked for."""
        if (held_out, only) not in self._sides:
            self._sides[held_out, only] = self._members(held_out, only)
        return self._sides[held_out, only]

    def _members(self, held_out: bool, only: str | None) -> _Members:
        def rows(count: int) -> np.ndarray:
            out = np.random.default_rng(20260).random(count) < HELD_OUT_FRACTION
            return np.flatnonzero(out if held_out else ~out)

        library = self._libraries.galaxies
        galaxy = rows(len(library["fine"]))
        extreme = (
            galaxies.equivalent_widths(library["lines"][galaxy], self._levels[galaxy])["ew_oiii_5007"]
            > _EXTREME_EW
        )
        if only == "extreme emitters" and extreme.any():
            galaxy = galaxy[extreme]
        elif "extreme emitters" in self._without:
            galaxy = galaxy[~extreme]
        ew = galaxies.equivalent_widths(library["lines"][galaxy], self._levels[galaxy])
        weight = _FAMILY_WEIGHT[library["family"][galaxy]]
        weight *= priors.emission_weight(library["z"][galaxy], ew["ew_halpha"])
        star = rows(len(self._libraries.stars["fine"]))
        kind = self._libraries.stars["kind"][star]
        white = np.isin(kind, [stars.KINDS.index(name) for name in stars.WHITE_DWARFS])
        if only == "white dwarfs" and white.any():
            star, kind = star[white], kind[white]
        elif "white dwarfs" in self._without:
            star, kind = star[~white], kind[~white]
        quasar = rows(len(self._libraries.quasars["fine"]))
        return _Members(
            galaxies=GalaxyIndex(
                rows=galaxy,
                z=library["z"][galaxy],
                log_luminosity=library["log_l"][galaxy] + library["log_mass"][galaxy],
                age=library["age"][galaxy],
                weight=weight,
            ),
            stars=star,
            star_cumulative=np.cumsum(stars.population_weights(kind), axis=1),
            quasars=quasar[np.argsort(self._libraries.quasars["strength"][quasar], kind="stable")],
            only=only,
        )


def _check(libraries: Libraries, without: frozenset[str]) -> None:
    """Refuse libraries that an older version made, and kinds that are not known."""
    for kind, names in _NEEDED.items():
        missing = [name for name in names if name not in getattr(libraries, kind)]
        if missing:
            raise ValueError(
                f"the library of {kind} lacks {', '.join(missing)}: made by an older version? "
                "Make it again with flows.synthesis.build_library"
            )
    unknown = without - set(RARE)
    if unknown:
        raise ValueError(f"no rare kinds {sorted(unknown)}: there are {', '.join(RARE)}")
