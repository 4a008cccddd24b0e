"""Population: libraries of spectra with their split, and the choice of members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from astropy.cosmology import Planck18

from ojala.catalogs_schema.errors import InputError
from ojala.models.simulation.photometry import noise
from ojala.models.simulation.populations import galaxies, priors, quasars, stars
from ojala.models.simulation.populations.galaxy_index import GalaxyIndex
from ojala.models.simulation.wavelength_grid import LIGHT_SPEED

HELD_OUT_FRACTION = 0.05
"""Fraction of library members that are held out of trainings."""

RARE = ("extreme emitters", "white dwarfs", "distant quasars")
"""Kinds of objects that a sky can leave out, or draw alone: galaxies with
EW([O III] 5007) > 500 A, the kinds `stars.WHITE_DWARFS`, quasars at z > 4."""

STAR_FORMING = "star-forming galaxies"
"""Galaxies with a specific star-formation rate above 10^-9.5 / yr, which can be drawn alone."""

EXTREME_EW = 500.0
"""Equivalent width of [O III] 5007 of extreme emitters [Angstrom]."""

MAX_LOG_MASS = 12.0
"""log10 of the mass of the most massive galaxies [Msun]."""

_STAR_FORMING_RATE, _STARBURST_RATE = -9.5, -9.0  # log10 of 1/yr
_ANY_GALAXY = 0.35  # share of galaxies whose luminosity and redshift do not choose the library member
_FAMILY_WEIGHT = np.array([1.0, 0.5, 0.15])  # of `galaxies.FAMILIES`
_BRIGHT_STAR, _STAR_RANGE = 17.5, 0.7  # i magnitude, and its range, at which stars of the field take over
_REQUIRED = {
    "galaxies": ("fine", "coarse", "lines", "log_l", "log_ssfr", "age", "family", "z", "log_mass"),
    "stars": ("fine", "coarse", "kind", *stars.LABELS),
    "quasars": ("fine", "coarse", "fwhm", "levels", "strength", "igm"),
}


@dataclass(frozen=True, slots=True)
class Libraries:
    """Libraries of rest-frame spectra; arrays of the ``simulate`` functions.

    Attributes
    ----------
    galaxies, stars, quasars : mapping of str to ndarray
        Members by row; ``quasars`` also holds ``igm``, the table of `quasars.igm_transmission`.
    """

    galaxies: Mapping[str, np.ndarray]
    stars: Mapping[str, np.ndarray]
    quasars: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Members:
    """Members of the libraries on one side of the split.

    Attributes
    ----------
    galaxies : GalaxyIndex
        Galaxies by redshift and luminosity.
    stars : ndarray of int
        Rows.
    star_cumulative : ndarray, shape (2, len(stars))
        Cumulative probabilities among bright and among faint stars.
    quasars : ndarray of int
        Rows, ordered by the strength of their broad lines.
    starbursts : ndarray of int
        Rows of galaxies with a specific star-formation rate above 10^-9 a year, which a training draws more
        often than a survey has them; none on the held-out side, and where all galaxies are of one kind.
    only : str or None
        Single kind of the members, of `RARE` or `STAR_FORMING`.
    """

    galaxies: GalaxyIndex
    stars: np.ndarray
    star_cumulative: np.ndarray
    quasars: np.ndarray
    starbursts: np.ndarray
    only: str | None


class Population:
    """Libraries, split by row into training members and a held-out twentieth.

    An object of one side shares no spectrum with the other, hosts of quasars included.

    Parameters
    ----------
    libraries : Libraries
        Rest-frame spectra.
    without : frozenset of str
        Kinds of `RARE` that are left out, except when drawn alone.

    Raises
    ------
    InputError
        The libraries lack required arrays, or ``without`` holds an unknown kind.
    """

    def __init__(self, libraries: Libraries, *, without: frozenset[str] = frozenset()) -> None:
        _check(libraries, without)
        self.libraries = libraries
        self.without = without
        self.levels = galaxies.line_levels(libraries.galaxies["fine"])
        self._sides: dict[tuple[bool, str | None], Members] = {}
        z = np.linspace(0.0, quasars.Z_MAX + 0.1, 4000)
        self._z_grid = z
        self._age_grid = Planck18.age(z).to_value("Gyr")
        self._distance_grid = Planck18.luminosity_distance(z).to_value("cm")

    def members(self, *, held_out: bool, only: str | None = None) -> Members:
        """Members of one side of the split, cached."""
        if (held_out, only) not in self._sides:
            self._sides[held_out, only] = self._members(held_out, only)
        return self._sides[held_out, only]

    def galaxy_rows(
        self, z: np.ndarray, log_luminosity: np.ndarray, side: Members, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw library galaxies of about the same redshift and luminosity.

        A third are drawn from all that are younger than the Universe and not too massive.
        """
        library = self.libraries.galaxies
        oldest = np.interp(z, self._z_grid, self._age_grid)
        near = log_luminosity + rng.normal(0.0, 0.12, len(z))
        row = side.galaxies.draw_similar(z, near, rng)
        row = np.where(library["age"][row] <= oldest, row, side.galaxies.draw_similar(z, near, rng))
        other = side.galaxies.draw_any(oldest, rng)
        possible = log_luminosity - library["log_l"][other] < MAX_LOG_MASS
        swapped = (rng.random(len(z)) < _ANY_GALAXY) & possible
        return np.where(swapped | (library["age"][row] > oldest), other, row)

    def starburst_rows(
        self, row: np.ndarray, z: np.ndarray, side: Members, rng: np.random.Generator
    ) -> np.ndarray:
        """Starbursts in place of the galaxies ``row``, where the Universe is old enough for them."""
        other = side.starbursts[rng.integers(0, len(side.starbursts), len(row))]
        old_enough = self.libraries.galaxies["age"][other] <= np.interp(z, self._z_grid, self._age_grid)
        return np.where(old_enough, other, row)

    def quasar_rows(self, log_luminosity: np.ndarray, side: Members, rng: np.random.Generator) -> np.ndarray:
        """Draw library quasars, with weaker lines in brighter nuclei (Baldwin effect)."""
        n = len(log_luminosity)
        rank = 0.5 - 0.17 * (log_luminosity + 3.78 - 45.3) + rng.normal(0.0, 0.27, n)
        rank = np.where((rank < 0.0) | (rank >= 1.0), rng.random(n), rank)
        return np.asarray(side.quasars[(rank * len(side.quasars)).astype(np.int64)])

    def star_rows(self, magnitude: np.ndarray, side: Members, rng: np.random.Generator) -> np.ndarray:
        """Draw library stars by the frequency of kinds at their i magnitudes."""
        n = len(magnitude)
        faint = rng.random(n) > 1.0 / (1.0 + np.exp((magnitude - _BRIGHT_STAR) / _STAR_RANGE))
        target = rng.random(n)
        at = np.where(faint, *(np.searchsorted(c, target) for c in side.star_cumulative[::-1]))
        return np.asarray(side.stars[np.minimum(at, len(side.stars) - 1)])

    def log_luminosity(self, magnitude: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Approximate log10 of L_lambda [erg/s/A] at 6000 A in the rest frame, from the i band."""
        return self.log_emitted(z, noise.to_flux(magnitude) * 1e-29 * LIGHT_SPEED / 7.5e3**2)

    def log_emitted(self, z: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """log10 of the emitted L_lambda [erg/s/A] of sources observed with f_lambda = ``scale``."""
        distance = np.interp(z, self._z_grid, self._distance_grid)
        return np.asarray(np.log10(scale * 4.0 * np.pi * (1.0 + z)) + 2.0 * np.log10(distance))

    def host_ratio(self, magnitude: np.ndarray, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw flux ratios of host and quasar at 6000 A rest: 0.3 at M_i = -23, 1 at -21.4, 0.45 dex scatter.

        Close to Shen et al. (2011, equation 1). Half of those at z < 0.45 are broad-line nuclei of galaxy
        surveys, with hosts of 0.6 to 8 times the light of the nucleus.
        """
        distance = np.interp(z, self._z_grid, self._distance_grid) / 3.0857e19  # in units of 10 pc
        absolute = magnitude - 5.0 * np.log10(distance) + 1.25 * np.log10(1.0 + z)
        ratio = -0.5 + 0.32 * (absolute + 23.0) + rng.normal(0.0, 0.45, len(z))
        weak = (z < 0.45) & (rng.random(len(z)) < 0.5)
        ratio = np.where(weak, rng.uniform(-0.2, quasars.HOST_MAX, len(z)), ratio)
        return np.asarray(10.0 ** np.minimum(ratio, quasars.HOST_MAX))

    def _members(self, held_out: bool, only: str | None) -> Members:
        def rows(count: int) -> np.ndarray:
            out = np.random.default_rng(20260).random(count) < HELD_OUT_FRACTION
            return np.flatnonzero(out if held_out else ~out)

        library = self.libraries.galaxies
        galaxy = rows(len(library["fine"]))
        extreme = (
            galaxies.equivalent_widths(library["lines"][galaxy], self.levels[galaxy])["ew_oiii_5007"]
            > EXTREME_EW
        )
        if only == STAR_FORMING:
            galaxy = galaxy[library["log_ssfr"][galaxy] > _STAR_FORMING_RATE]
        elif only == "extreme emitters" and extreme.any():
            galaxy = galaxy[extreme]
        elif "extreme emitters" in self.without:
            galaxy = galaxy[~extreme]
        ew = galaxies.equivalent_widths(library["lines"][galaxy], self.levels[galaxy])
        weight = _FAMILY_WEIGHT[library["family"][galaxy]]
        weight *= priors.emission_weight(library["z"][galaxy], ew["ew_halpha"])
        star = rows(len(self.libraries.stars["fine"]))
        kind = self.libraries.stars["kind"][star]
        white = np.isin(kind, [stars.KINDS.index(name) for name in stars.WHITE_DWARFS])
        if only == "white dwarfs" and white.any():
            star, kind = star[white], kind[white]
        elif "white dwarfs" in self.without:
            star, kind = star[~white], kind[~white]
        quasar = rows(len(self.libraries.quasars["fine"]))
        return Members(
            galaxies=GalaxyIndex(
                rows=galaxy,
                z=library["z"][galaxy],
                log_luminosity=library["log_l"][galaxy] + library["log_mass"][galaxy],
                age=library["age"][galaxy],
                weight=weight,
            ),
            stars=star,
            star_cumulative=np.cumsum(stars.population_weights(kind), axis=1),
            quasars=quasar[np.argsort(self.libraries.quasars["strength"][quasar], kind="stable")],
            starbursts=galaxy[
                (library["log_ssfr"][galaxy] > _STARBURST_RATE) & (only is None and not held_out)
            ],
            only=only,
        )


def _check(libraries: Libraries, without: frozenset[str]) -> None:
    """Refuse libraries of an older version, and unknown kinds."""
    for kind, names in _REQUIRED.items():
        missing = [name for name in names if name not in getattr(libraries, kind)]
        if missing:
            raise InputError(
                f"the library of {kind} lacks {', '.join(missing)}: made by an older version? "
                "Make it again with ojala.flows.mocks.library.build_library"
            )
    unknown = without - set(RARE)
    if unknown:
        raise InputError(f"no rare kinds {sorted(unknown)}: there are {', '.join(RARE)}")
