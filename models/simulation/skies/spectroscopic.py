"""Mock spectra: labelled spectra drawn from libraries, for several spectrographs.

An object is drawn once, as its light reaches the Earth, and can be observed with several instruments.
Redshifts are not rounded to the lattice: one kernel per object broadens the continuum by its velocity
dispersion and shifts it by the fraction of a pixel. Emission lines are added at the resolution of the
instrument.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.models.data import LabelledSpectra, Spectra
from ojala.models.quantities import CLASSES
from ojala.models.simulation.populations import abundances, galaxies, priors, quasars, stars
from ojala.models.simulation.populations.mismatch import ModelErrors
from ojala.models.simulation.populations.population import (
    MAX_LOG_MASS,
    STAR_FORMING,
    Libraries,
    Members,
    Population,
)
from ojala.models.simulation.skies.photometric import TRAINING_SHARES
from ojala.models.simulation.spectroscopy import stellar_lines
from ojala.models.simulation.spectroscopy.instruments import INSTRUMENTS as INSTRUMENTS
from ojala.models.simulation.spectroscopy.instruments import Instrument as Instrument
from ojala.models.simulation.spectroscopy.observing import add_lines, expose, response_matrix
from ojala.models.simulation.wavelength_grid import FINE, LIGHT_SPEED, windows

if TYPE_CHECKING:
    from torch import Tensor

Targets = Literal["bgs", "elg", "faint", "stars", "all"]
"""DESI's bright galaxies (r < 20.2, z < 0.6), its emission-line galaxies (0.6 < z < 1.28, where the library
ends), galaxies of any kind to r = 22; stars; or galaxies of these three kinds, stars and quasars."""

LABELS = (
    *("z", "log_mass", "log_sfr", "ew_hbeta", "ew_oiii_5007", "ew_halpha", "ew_nii_6584"),
    *stars.LABELS,
)
"""Labels of spectra."""

OII_FLUX = 6e-17
"""Minimum flux of [O II] of emission-line galaxies [erg/s/cm2]."""

BGS_FAINT, BGS_Z, ELG_Z = 20.2, 0.6, (0.6, 1.28)
"""Faintest r magnitude and largest redshift of bright galaxies; redshifts of emission-line galaxies."""

LINE_WAVELENGTH = np.concatenate([galaxies.LINE_WAVELENGTH, quasars.NARROW_WAVELENGTH])
"""Rest wavelengths of the lines of `Objects` [Angstrom]: `galaxies.LINES`, then `quasars.NARROW_LINES`."""

HOST_WAVELENGTH = (4759.3, 6397.2, 9199.3)
"""Wavelengths of `Objects.host_share`: g, r, z [Angstrom]."""

_R_PIVOT = 6420.0
_KM_PER_PIXEL = 2.99792458e5 * FINE.step
_MIN_WIDTH = 54.0  # km/s: narrower kernels cannot be sampled on the lattice
_REACH = 6  # pixels of a kernel to either side: 3 sigma of the widest
_MAX_WIDTH = 180.0  # km/s of a continuum
_BLOCK, _SPECTRA = 64, 16  # objects and spectra per block, which fits into the cache
_N_GALAXY = len(galaxies.LINE_WAVELENGTH)
_OII = [k for k, (_, _, group) in enumerate(galaxies.LINES) if group == "oxygen II"][:2]
_OPTICAL = sorted((band.pivot, band.k_x) for band in MODEL_BANDS)
EXTINCTION = np.interp(FINE.wavelength, *np.array(_OPTICAL).T)
_IN_R = np.flatnonzero(np.abs(FINE.wavelength - _R_PIVOT) < 800.0)
_KINDS = ("bgs", "elg", "faint")
_IN_BANDS = [
    slice(*np.searchsorted(FINE.wavelength, (centre - 700.0, centre + 700.0)).tolist())
    for centre in HOST_WAVELENGTH
]
_GALAXY, _STAR, _QSO = (CLASSES.index(name) for name in ("GALAXY", "STAR", "QSO"))


@dataclass(frozen=True, slots=True)
class Objects:
    """N objects as their light reaches the Earth.

    Attributes
    ----------
    class_code : ndarray of int64, shape (N,)
        Index into `CLASSES`.
    member : ndarray of int64, shape (N,)
        Row in the library of the class.
    z : ndarray of float64, shape (N,)
        Redshift; of stars, radial velocity over the speed of light.
    magnitude : ndarray, shape (N,)
        Total r magnitude (AB) of the continuum, before reddening.
    bright_time : ndarray of bool, shape (N,)
        Whether surveys observe the object in bright time.
    continuum : ndarray of float32, shape (N, FINE.size)
        f_lambda in the fibre [1e-17 erg/s/cm2/A] on the lattice.
    line_flux : ndarray of float32, shape (N, L)
        Fluxes of emission lines in the fibre [1e-17 erg/s/cm2], at rest wavelengths `LINE_WAVELENGTH`.
    line_width : ndarray of float32, shape (N,)
        Velocity dispersion of the lines [km/s]; of stars, of their absorption lines.
    absorption : ndarray of float32, shape (N, len(stellar_lines.WAVELENGTH))
        Equivalent widths [Angstrom] of the absorption lines of stars with parameters, 0 of other objects; the
        continuum contains them at the library's resolution only.
    labels : dict of str to ndarray of float32, shape (N,)
        `LABELS`.
    fibre_share : ndarray of float32, shape (N,)
        Fraction of the total light in the fibre.
    host_share : ndarray of float32, shape (N, 3)
        Fraction of the host in the continuum of a quasar at `HOST_WAVELENGTH`; 0 without a host.
    host_log_mass, host_log_ssfr : ndarray of float32, shape (N,)
        log10 of the stellar mass [Msun] and of the specific star-formation rate [1/yr] of a quasar's host;
        NaN without a host.
    """

    class_code: np.ndarray
    member: np.ndarray
    z: np.ndarray
    magnitude: np.ndarray
    bright_time: np.ndarray
    continuum: np.ndarray
    line_flux: np.ndarray
    line_width: np.ndarray
    absorption: np.ndarray
    labels: dict[str, np.ndarray]
    fibre_share: np.ndarray
    host_share: np.ndarray
    host_log_mass: np.ndarray
    host_log_ssfr: np.ndarray

    def __len__(self) -> int:
        return len(self.z)


class SpectraSky:
    """Sampler of labelled mock spectra.

    Library members are split as in `Population`; sides share no spectrum.

    Parameters
    ----------
    libraries : Libraries or Population
        Rest-frame spectra; for a `ojala.models.simulation.skies.photometric.MockSky` its ``population``.
    """

    def __init__(self, libraries: Libraries | Population) -> None:
        self.population = libraries if isinstance(libraries, Population) else Population(libraries)
        self._errors = ModelErrors(quasars.Z_MAX)
        self._features = abundances.AbundanceFeatures()
        self._optics: weakref.WeakKeyDictionary[Instrument, Tensor] = weakref.WeakKeyDictionary()

    def draw(
        self,
        n: int,
        rng: np.random.Generator,
        instrument: Instrument,
        *,
        held_out: bool = False,
        targets: Targets = "all",
    ) -> LabelledSpectra:
        """Draw ``n`` objects and observe each once."""
        return self.observe(self.draw_objects(n, rng, held_out=held_out, targets=targets), instrument, rng)

    def draw_objects(
        self, n: int, rng: np.random.Generator, *, held_out: bool = False, targets: Targets = "all"
    ) -> Objects:
        """Draw ``n`` objects.

        Parameters
        ----------
        n : int
            Number of objects.
        rng : Generator
            Source of randomness; the same state gives the same objects.
        held_out : bool
            Draw from the held-out members instead of those for training.
        targets : {"bgs", "elg", "faint", "stars", "all"}
            Target class; of "all" galaxies, half are as "bgs", a fifth as "elg", the others as "faint".
        """
        objects = Objects(
            class_code=np.full(n, _GALAXY),
            member=np.zeros(n, np.int64),
            z=np.zeros(n),
            magnitude=np.zeros(n),
            bright_time=np.zeros(n, bool),
            continuum=np.empty((n, FINE.size), np.float32),
            line_flux=np.zeros((n, len(LINE_WAVELENGTH)), np.float32),
            line_width=np.full(n, 100.0, np.float32),
            absorption=np.zeros((n, len(stellar_lines.WAVELENGTH)), np.float32),
            labels={name: np.full(n, np.nan, np.float32) for name in LABELS},
            fibre_share=np.ones(n, np.float32),
            host_share=np.zeros((n, len(HOST_WAVELENGTH)), np.float32),
            host_log_mass=np.full(n, np.nan, np.float32),
            host_log_ssfr=np.full(n, np.nan, np.float32),
        )
        kind = np.full(n, _KINDS.index(targets) if targets in _KINDS else 0)
        if targets == "stars":
            objects.class_code[:] = _STAR
        if targets == "all":
            objects.class_code[:] = rng.choice(3, n, p=TRAINING_SHARES)
            kind = rng.choice(3, n, p=[0.5, 0.2, 0.3])
        side = self.population.members(held_out=held_out)
        emitters = side
        if (kind == 1).any():
            emitters = self.population.members(held_out=held_out, only=STAR_FORMING)
        groups = (
            ((objects.class_code == _GALAXY) & (kind != 1), self._galaxies, side),
            ((objects.class_code == _GALAXY) & (kind == 1), self._galaxies, emitters),
            (objects.class_code == _STAR, self._stars, side),
            (objects.class_code == _QSO, self._quasars, side),
        )
        for where, sample, members in groups:
            chosen = np.flatnonzero(where)
            for rows in np.split(chosen, range(_BLOCK, len(chosen), _BLOCK)):
                if len(rows):
                    sample(objects, rows, kind[rows], members, rng)
        _redden(objects, rng)
        objects.labels["z"][:] = objects.z
        return objects

    def observe(
        self,
        objects: Objects,
        instrument: Instrument,
        rng: np.random.Generator,
        *,
        signal_to_noise: tuple[float, float] | None = None,
    ) -> LabelledSpectra:
        """Observe objects once with an instrument.

        Parameters
        ----------
        objects : Objects
            N objects, as from `draw_objects`.
        instrument : Instrument
            The instrument.
        rng : Generator
            Source of randomness: depth, calibration errors, noise and lost pixels.
        signal_to_noise : tuple of float, optional
            Range of the median signal-to-noise ratio per pixel, uniform in its logarithm. By default
            exposures are typical of the survey.

        Returns
        -------
        LabelledSpectra
            Every spectrum has all pixels of the instrument; lost ones have an inverse variance of 0.
        """
        n, size = len(objects), len(instrument.wavelength)
        flux, ivar = np.empty((n, size), np.float32), np.empty((n, size), np.float32)
        for begin in range(0, n, _SPECTRA):
            rows = slice(begin, begin + _SPECTRA)
            truth = self.noiseless(objects, instrument, rows)
            flux[rows], ivar[rows] = expose(
                truth, objects.bright_time[rows], instrument, signal_to_noise, rng
            )
        spectra = Spectra(
            offsets=np.arange(n + 1, dtype=np.int64) * size,
            wavelength=np.tile(instrument.wavelength.astype(np.float32), n),
            flux=flux.ravel(),
            ivar=ivar.ravel(),
        )
        return LabelledSpectra(spectra, objects.class_code, objects.labels, objects.member)

    def noiseless(self, objects: Objects, instrument: Instrument, rows: slice = slice(None)) -> np.ndarray:
        """Compute noiseless spectra of an instrument [1e-17 erg/s/cm2/A]; float32 (N, P)."""
        import torch  # imported here: libraries are also built without torch

        if instrument not in self._optics:
            self._optics[instrument] = response_matrix(instrument)
        lattice = torch.from_numpy(np.ascontiguousarray(objects.continuum[rows].T))
        seen = np.ascontiguousarray((self._optics[instrument] @ lattice).numpy().T)
        absorbed = np.flatnonzero(objects.absorption[rows].any(axis=1))
        if len(absorbed):
            widths, z, broadening = (
                values[rows][absorbed] for values in (objects.absorption, objects.z, objects.line_width)
            )
            seen[absorbed] *= stellar_lines.transmission(widths, z, broadening, instrument)
        centre = LINE_WAVELENGTH * (1.0 + objects.z[rows, None])
        add_lines(seen, centre, objects.line_flux[rows], objects.line_width[rows, None], instrument)
        return seen

    def _galaxies(
        self, objects: Objects, rows: np.ndarray, kind: np.ndarray, side: Members, rng: np.random.Generator
    ) -> None:
        library, n = self.population.libraries.galaxies, len(rows)
        magnitude, z = _draw_targets(kind, rng)
        for _ in range(4):  # upper limit: the most massive galaxies with 2 Msun/Lsun
            luminosity = self.population.log_luminosity(magnitude, z)
            nearer = (luminosity > MAX_LOG_MASS + 29.15) & (kind != 1)
            z = np.where(nearer, z * rng.uniform(0.1, 1.0, n), z)
        luminosity = self.population.log_luminosity(magnitude, z)
        member = self.population.galaxy_rows(z, luminosity, side, rng)
        loss = 10.0 ** (-0.4 * np.where(kind == 1, rng.uniform(0.1, 0.6, n), rng.uniform(0.2, 1.3, n)))
        lines, scale = self._lines_and_scale(member, z, magnitude, rng)
        for _ in range(8):
            weak = np.flatnonzero((kind == 1) & (_oii_flux(lines, z, scale * loss) < OII_FLUX))
            member[weak] = self.population.galaxy_rows(z[weak], luminosity[weak], side, rng)
            lines[weak], scale[weak] = self._lines_and_scale(member[weak], z[weak], magnitude[weak], rng)
        wanted = np.where(kind == 1, OII_FLUX / np.maximum(_oii_flux(lines, z, scale * loss), 1e-22), 0.0)
        lines *= np.maximum(wanted, 1.0)[:, None].astype(np.float32)
        log_mass = self.population.log_emitted(z, scale) - library["log_l"][member]
        width = 10.0 ** (2.0 + 0.27 * (log_mass - 10.4) + rng.normal(0.0, 0.12, n))
        width = np.clip(width, 25.0, 350.0)
        objects.member[rows], objects.z[rows], objects.magnitude[rows] = member, z, magnitude
        objects.bright_time[rows] = kind == 0
        amount = (scale * loss * 1e17)[:, None].astype(np.float32)
        objects.continuum[rows] = self._continua_of_galaxies(member, z, width, rng) * amount
        objects.line_flux[rows, :_N_GALAXY] = lines * (1.0 + z[:, None]) * amount
        objects.line_width[rows] = width
        objects.fibre_share[rows] = loss
        labels = {
            "log_mass": log_mass,
            "log_sfr": log_mass + library["log_ssfr"][member],
            **galaxies.equivalent_widths(lines, self.population.levels[member]),
        }
        for name, values in labels.items():
            objects.labels[name][rows] = values

    def _lines_and_scale(
        self, member: np.ndarray, z: np.ndarray, magnitude: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw line luminosities; returns them and the f_lambda [erg/s/cm2/A] of the library's unit."""
        library = self.population.libraries.galaxies
        lines = galaxies.scatter_lines(
            library["lines"][member], self.population.levels[member], library["log_ssfr"][member], rng
        )
        first = FINE.first - FINE.rest_first(galaxies.Z_MAX)
        in_r = library["fine"][member[:, None], first - _whole_pixels(z)[:, None] + _IN_R[::16]]
        return lines, _f_lambda_r(magnitude) / np.maximum(in_r.astype(np.float32).mean(axis=1), 1e-4)

    def _continua_of_galaxies(
        self, member: np.ndarray, z: np.ndarray, width: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Observed continua with model errors, in the library's unit; float32 (N, FINE.size)."""
        library, shift = self.population.libraries.galaxies, _whole_pixels(z)
        continuum = windows(library["fine"], FINE.rest_first(galaxies.Z_MAX), member, shift, FINE)
        self._errors.apply(continuum, shift, rng)
        self._features.apply(continuum, shift, abundances.draw_enhancement(library["log_ssfr"][member], rng))
        return _broaden_and_shift(continuum, z, width)

    def _stars(
        self, objects: Objects, rows: np.ndarray, kind: np.ndarray, side: Members, rng: np.random.Generator
    ) -> None:
        library, n = self.population.libraries.stars, len(rows)
        magnitude = _draw_magnitudes(14.0, 20.0, 0.15, n, rng)
        member = self.population.star_rows(magnitude, side, rng)
        z = np.clip(rng.normal(0.0, 80.0, n), -150.0, 150.0) / 2.99792458e5
        shift = _whole_pixels(z)
        continuum = windows(library["fine"], FINE.rest_first(0.0), member, shift, FINE)
        self._errors.apply(continuum, shift, rng)
        amount = _f_lambda_r(magnitude) * 1e17 / np.maximum(continuum[:, _IN_R].mean(axis=1), 1e-4)
        objects.member[rows], objects.z[rows], objects.magnitude[rows] = member, z, magnitude
        objects.bright_time[rows] = magnitude < 19.0
        objects.continuum[rows] = _broaden_and_shift(continuum, z, np.zeros(n)) * amount[:, None].astype(
            np.float32
        )
        for name in stars.LABELS:
            objects.labels[name][rows] = library[name][member]
        parameters = [library[name][member] for name in stars.LABELS]
        objects.absorption[rows] = stellar_lines.draw_widths(*parameters, rng=rng)
        objects.line_width[rows] = stellar_lines.draw_broadening(parameters[0], rng)

    def _quasars(
        self, objects: Objects, rows: np.ndarray, kind: np.ndarray, side: Members, rng: np.random.Generator
    ) -> None:
        library, n = self.population.libraries.quasars, len(rows)
        magnitude = _draw_magnitudes(16.0, 22.5, 0.25, n, rng)
        z = priors.draw_quasar_redshifts(magnitude, rng)
        luminosity = self.population.log_luminosity(magnitude, z)
        member = self.population.quasar_rows(luminosity, side, rng)
        shift = _whole_pixels(z)
        continuum = windows(library["fine"], FINE.rest_first(quasars.Z_MAX), member, shift, FINE)
        self._errors.apply(continuum, shift, rng)
        continuum = _broaden_and_shift(continuum, z, np.zeros(n))
        absorbed = np.flatnonzero(z > 1.5)
        opacity = 1.0 - library["igm"][quasars.igm_row(z[absorbed])]
        sightline = np.exp(rng.normal(0.0, 0.25, (len(absorbed), 1))).astype(np.float32)
        continuum[absorbed] *= np.maximum(1.0 - opacity * sightline, 0.0)
        tilt = rng.normal(0.0, 0.1, n)
        continuum *= (FINE.wavelength / 7500.0).astype(np.float32) ** tilt[:, None].astype(np.float32)
        level = library["levels"][member, 0] * ((1.0 + z) * quasars.MASS_CONTINUA[0] / 7500.0) ** tilt
        lines = np.zeros((n, len(LINE_WAVELENGTH)))

        hosted = np.flatnonzero(z < 0.98 * galaxies.Z_MAX)
        ratio = self.population.host_ratio(magnitude[hosted], z[hosted], rng)
        light = luminosity[hosted] + np.log10(ratio / (1.0 + ratio))
        host = self.population.galaxy_rows(z[hosted], light, side, rng)
        host_lines, _ = self._lines_and_scale(host, z[hosted], magnitude[hosted], rng)
        light_of_host = self._continua_of_galaxies(
            host, z[hosted], rng.uniform(80.0, 180.0, len(hosted)), rng
        )
        light_of_host *= ratio[:, None].astype(np.float32)
        continuum[hosted] += light_of_host
        lines[hosted, :_N_GALAXY] = host_lines * ratio[:, None]

        amount = _f_lambda_r(magnitude) / np.maximum(continuum[:, _IN_R].mean(axis=1), 1e-4)
        at = rows[hosted]
        for k, pixels in enumerate(_IN_BANDS):
            whole = np.maximum(continuum[hosted, pixels].mean(axis=1), 1e-4)
            objects.host_share[at, k] = np.clip(light_of_host[:, pixels].mean(axis=1) / whole, 0.0, 1.0)
        emitted = self.population.log_emitted(z[hosted], amount[hosted] * ratio)
        galaxy_library = self.population.libraries.galaxies
        objects.host_log_mass[at] = emitted - galaxy_library["log_l"][host]
        objects.host_log_ssfr[at] = galaxy_library["log_ssfr"][host]
        narrow = np.flatnonzero(z < 2.0)
        emitted = self.population.log_emitted(z[narrow], amount[narrow])
        bright = np.log10(5100.0 * level[narrow]) + emitted
        lines[narrow, _N_GALAXY:] = quasars.draw_narrow_lines(level[narrow], bright, rng)
        amount = (amount * 1e17)[:, None]
        objects.member[rows], objects.z[rows], objects.magnitude[rows] = member, z, magnitude
        objects.continuum[rows] = continuum * amount.astype(np.float32)
        objects.line_flux[rows] = lines * (1.0 + z[:, None]) * amount
        objects.line_width[rows] = rng.uniform(120.0, 350.0, n)


def _draw_targets(kind: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw magnitudes and redshifts of galaxies of the kinds `_KINDS`."""
    n = len(kind)
    magnitude = np.where(
        kind == 0, _draw_magnitudes(15.0, BGS_FAINT, 0.35, n, rng), _draw_magnitudes(17.5, 22.0, 0.3, n, rng)
    )
    magnitude = np.where(kind == 1, rng.uniform(21.8, 23.6, n), magnitude)
    z = priors.draw_galaxy_redshifts(magnitude - 0.35, rng)
    for _ in range(10):
        far = (kind == 0) & (z > BGS_Z)
        z[far] = priors.draw_galaxy_redshifts(magnitude[far] - 0.35, rng)
    z = np.where((kind == 0) & (z > BGS_Z), rng.uniform(0.02, BGS_Z, n), z)
    return magnitude, np.where(kind == 1, rng.uniform(*ELG_Z, n), np.clip(z, 0.003, ELG_Z[1]))


def _draw_magnitudes(low: float, high: float, slope: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw magnitudes with counts ~ 10^(slope m)."""
    a, b = 10.0 ** (slope * low), 10.0 ** (slope * high)
    return np.asarray(np.log10(a + rng.random(n) * (b - a)) / slope)


def _f_lambda_r(magnitude: np.ndarray) -> np.ndarray:
    """f_lambda [erg/s/cm2/A] at 6420 A of an AB magnitude."""
    return np.asarray(10.0 ** (-0.4 * (magnitude + 48.6)) * LIGHT_SPEED / _R_PIVOT**2)


def _oii_flux(lines: np.ndarray, z: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Observed flux of [O II] 3727, 3729 [erg/s/cm2]."""
    return np.asarray(lines[:, _OII].sum(axis=1) * (1.0 + z) * scale)


def _whole_pixels(z: np.ndarray) -> np.ndarray:
    """Round redshifts to whole pixels."""
    return np.asarray(np.rint(np.log1p(z) / FINE.step), np.int64)


def _broaden_and_shift(continuum: np.ndarray, z: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Broaden spectra by a velocity dispersion [km/s] and shift them by the fraction of a pixel.

    ``continuum`` (N, P) is already shifted by the whole pixels of z. The dispersion is limited to 54 to
    180 km/s, the resolution of the library.
    """
    exact = np.log1p(z) / FINE.step
    fraction = (exact - np.rint(exact))[:, None]
    sigma = (np.clip(width, _MIN_WIDTH, _MAX_WIDTH) / _KM_PER_PIXEL)[:, None]
    kernel = np.exp(-0.5 * ((np.arange(-_REACH, _REACH + 1) + fraction) / sigma) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    reach = min(_REACH, int(np.ceil(3.2 * sigma.max(initial=0.0) + 0.5)))
    size = continuum.shape[1]
    padded = np.pad(continuum, ((0, 0), (reach, reach)), mode="edge")
    moved = np.zeros_like(continuum)
    for k in range(2 * reach + 1):
        weight = kernel[:, _REACH - reach + k, None].astype(np.float32)
        moved += weight * padded[:, k : k + size]
    return moved


def _redden(objects: Objects, rng: np.random.Generator) -> None:
    """Apply Galactic extinction in place, with E(B-V) of surveys at high latitude."""
    ebv, share = priors.draw_reddening(len(objects), rng, is_star=objects.class_code == _STAR)
    depth = (-0.4 * np.log(10.0) * ebv * share)[:, None]
    for begin in range(0, len(objects), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        objects.continuum[rows] *= np.exp((depth[rows] * EXTINCTION).astype(np.float32))
    observed = LINE_WAVELENGTH * (1.0 + objects.z[:, None])
    objects.line_flux[:] *= np.exp(depth * np.interp(observed, FINE.wavelength, EXTINCTION))
