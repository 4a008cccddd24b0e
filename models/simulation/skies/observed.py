"""Observed sky: labelled photometry drawn from observed spectra.

Synthetic photometry of each spectrum is computed once. A draw scales it to a magnitude, with the labels that
depend on luminosity, and adds the survey's noise and missing bands. Errors include the survey's noise and
that of the spectrum, which scales with it; spectra with too much noise are left out.

Spectra are split into training and held-out sides by object and by cell of the sky before any draw.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from astropy.cosmology import Planck18

from ojala.catalogs_schema.bands import MODEL_BANDS, REFERENCE_BAND
from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.ojala import Z_MAX
from ojala.models.data import LabelledPhotometry
from ojala.models.quantities import CLASSES, FINE_TUNED, QUANTITIES, Kind
from ojala.models.simulation.photometry import noise
from ojala.models.simulation.photometry.exposure import Camera, Exposure
from ojala.models.simulation.populations import priors
from ojala.models.simulation.skies.photometric import HELD_OUT_FRACTION, TRAINING_SHARES
from ojala.models.simulation.wavelength_grid import FINE, LIGHT_SPEED, redshifts

SPLIT_ORDER = 5
"""HEALPix order of the cells that are assigned to a side as a whole (1.8 degrees)."""

MIN_SIGNAL_TO_NOISE = 10.0
"""Minimum of the median signal-to-noise ratio of a spectrum's narrow bands."""

MIN_NARROW_BANDS = 20
"""Minimum number of narrow bands that a spectrum covers."""

MAX_EW_ERROR = (3.0, 0.3)
"""Largest error of an equivalent width as a label: 3 A or 30 %, whichever is larger."""

FOLDS = 4
"""Folds by object, for cross-validation."""

LUMINOSITY_SLOPE = {"log_mass": 1.0, "log_sfr": 1.0, "log_mbh": 0.5}
"""Exponents of the flux in labels that scale with it; a virial mass of a fixed line width goes as L^0.5
(Vestergaard & Peterson 2006)."""

IMAGING_SIGNAL_TO_NOISE = 3.0
"""Minimum signal-to-noise ratio of imaging for bands that the spectrum does not cover."""

_LINES = {"cont_halpha": 6564.6, "cont_hbeta": 4862.7}
_SIDEBAND = np.r_[-46:-20, 21:47]  # pixels beside a line where its continuum is read: 40 to 90 A at H alpha
_BANDS = [band.name for band in MODEL_BANDS]
_REFERENCE = _BANDS.index(REFERENCE_BAND)
_SCALED_BY = _BANDS.index("ls_r")
_NARROW = np.array([band.is_narrow for band in MODEL_BANDS])
_PIVOT = MODEL_BANDS[_REFERENCE].pivot
_QUANTITIES = [q for q in (*QUANTITIES, *FINE_TUNED) if q.kind is not Kind.CLASS]
_LABELS = [q.name for q in _QUANTITIES]


@dataclass(frozen=True, slots=True)
class ObservedSpectra:
    """N spectra of known class with labels and imaging.

    Attributes
    ----------
    exposure : Exposure
        The spectra.
    object_id, primary_id : ndarray of int64, shape (N,)
        Keys of the spectrum and of the best spectrum of the same object.
    class_code : ndarray of int64, shape (N,)
        Index into `CLASSES`.
    z : ndarray, shape (N,)
        Redshift; NaN only for stars.
    relative : ndarray of bool, shape (N,)
        Whether the flux has an arbitrary scale.
    ebv : ndarray, shape (N,)
        Galactic E(B-V) [mag], NaN where not known.
    labels, label_errors : dict of str to ndarray, shape (N,)
        Labels and their errors, NaN where not known.
    imaging, imaging_error : ndarray, shape (N, 63)
        Total flux densities of the same object [uJy], NaN where not known.
    """

    exposure: Exposure
    object_id: np.ndarray
    primary_id: np.ndarray
    class_code: np.ndarray
    z: np.ndarray
    relative: np.ndarray
    ebv: np.ndarray
    labels: dict[str, np.ndarray]
    label_errors: dict[str, np.ndarray]
    imaging: np.ndarray
    imaging_error: np.ndarray


@dataclass(frozen=True, slots=True)
class Members:
    """Synthetic photometry of spectra, of galaxies possibly at several redshifts, for draws.

    Attributes
    ----------
    flux, error : ndarray of float32, shape (M, 63)
        Flux densities and the errors from the spectrum's own noise, relative to the flux density in iSDSS;
        NaN where not covered.
    class_code, object_id, primary_id : ndarray of int64, shape (M,)
        As in `ObservedSpectra`.
    ebv : ndarray of float32, shape (M,)
        Galactic E(B-V) [mag].
    labels : ndarray of float32, shape (M, number of labels)
        In the order of `QUANTITIES` without the class, then `FINE_TUNED`; those in `LUMINOSITY_SLOPE` for
        1 uJy in iSDSS.
    """

    flux: np.ndarray
    error: np.ndarray
    class_code: np.ndarray
    object_id: np.ndarray
    primary_id: np.ndarray
    ebv: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.flux)

    @classmethod
    def joined(cls, parts: Iterable[Members]) -> Members:
        """Concatenate members."""
        every = list(parts)
        return cls(*(np.concatenate([getattr(part, field.name) for part in every]) for field in fields(cls)))


def split_sides(index: np.ndarray, object_id: np.ndarray, primary_id: np.ndarray) -> np.ndarray:
    """Assign spectra to the sides of the split: 0 training, 1 held out, -1 neither.

    The side of a cell depends on its number alone, so further spectra change nothing. An object is on the
    side of its best spectrum; its other spectra in cells of the other side are on neither.

    Parameters
    ----------
    index : ndarray of int64, shape (N,)
        HEALPix pixel of order 29 (nested).
    object_id, primary_id : ndarray of int64, shape (N,)
        As in `ObservedSpectra`.

    Returns
    -------
    ndarray of int8, shape (N,)
    """
    own = _held_out_cell(index >> 2 * (29 - SPLIT_ORDER))
    order = np.argsort(object_id)
    at = np.minimum(np.searchsorted(object_id[order], primary_id), len(order) - 1)
    best = order[at]
    here = object_id[best] == primary_id
    objects = np.where(here, own[best], own)
    return np.where(own == objects, own.astype(np.int8), np.int8(-1))


def _held_out_cell(cell: np.ndarray) -> np.ndarray:
    """Whether a cell is held out, from the hash of its number."""
    return np.asarray(_splitmix64(cell) < np.uint64(int(HELD_OUT_FRACTION * 2**64)))


def _splitmix64(number: np.ndarray) -> np.ndarray:
    """Compute the splitmix64 hash of integers; uint64."""
    with np.errstate(over="ignore"):
        mixed = number.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return np.asarray(mixed)


def fold_of(primary_id: np.ndarray) -> np.ndarray:
    """Fold of cross-validation, 0 to `FOLDS` - 1, from the keys of objects alone."""
    return (_splitmix64(primary_id) % np.uint64(FOLDS)).astype(np.int64)


def synthesise_photometry(spectra: ObservedSpectra, camera: Camera, moves: Sequence[float] = ()) -> Members:
    """Compute synthetic photometry of spectra, of galaxies also at other redshifts.

    Spectra without coverage of iSDSS and `MIN_NARROW_BANDS`, or with too much noise, are left out.

    Parameters
    ----------
    spectra : ObservedSpectra
        The spectra.
    camera : Camera
        Bands.
    moves : sequence of float
        Steps in ln(1 + z) to further redshifts of galaxies.
    """
    own_flux, own_error = camera.synthesise_photometry(spectra.exposure)
    parts = [_members(spectra, own_flux, own_error, own_flux, 0)]
    for move in moves:
        pixels = round(move / FINE.step)
        flux, error = camera.synthesise_photometry(spectra.exposure.shifted(pixels))
        parts.append(_members(spectra, flux, error, own_flux, pixels))
    return Members.joined(parts)


def _members(
    spectra: ObservedSpectra, flux: np.ndarray, error: np.ndarray, own_flux: np.ndarray, pixels: int
) -> Members:
    """Make members at redshifts shifted by whole pixels."""
    z = (1.0 + spectra.z) * (1.0 + redshifts(np.array(pixels))) - 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        signal = np.where(_NARROW, flux / error, np.nan)
        covered = np.isfinite(signal).sum(axis=1)
        good = (flux[:, _REFERENCE] > 0.0) & (covered >= MIN_NARROW_BANDS)
        good[good] = np.nanmedian(signal[good], axis=1) >= MIN_SIGNAL_TO_NOISE
    if pixels:
        good &= (spectra.class_code == CLASSES.index("GALAXY")) & (z > 0.003)
    kept = np.flatnonzero(good)
    reference = flux[kept, _REFERENCE]
    total = _total_over_spectrum(spectra, own_flux)[kept]
    relative, own_noise = flux[kept] / reference[:, None], error[kept] / reference[:, None]
    if not pixels:
        _fill_from_imaging(relative, own_noise, spectra, kept, reference * total)
    labels = _labels(spectra, kept, z[kept], reference * total, pixels)
    labels |= _continua(spectra.exposure.shifted(pixels), kept, z[kept], reference)
    of_class = [spectra.class_code[kept] == CLASSES.index(q.applies_to or "") for q in _QUANTITIES]
    nothing = np.full(len(kept), np.nan)
    table = [
        np.where(own, labels.get(name, nothing), np.nan) for name, own in zip(_LABELS, of_class, strict=True)
    ]
    return Members(
        relative,
        own_noise,
        spectra.class_code[kept],
        spectra.object_id[kept],
        spectra.primary_id[kept],
        spectra.ebv[kept].astype(np.float32),
        np.stack(table, axis=1).astype(np.float32),
    )


def _total_over_spectrum(spectra: ObservedSpectra, flux: np.ndarray) -> np.ndarray:
    """Flux ratio of imaging and spectrum (fibre loss), shape (N,); 1 where not known."""
    imaging, error = spectra.imaging[:, _SCALED_BY], spectra.imaging_error[:, _SCALED_BY]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = imaging / flux[:, _SCALED_BY]
        known = (imaging > IMAGING_SIGNAL_TO_NOISE * error) & (ratio > 0.0) & np.isfinite(ratio)
    return np.where(known, ratio, 1.0)


def _fill_from_imaging(
    flux: np.ndarray, error: np.ndarray, spectra: ObservedSpectra, kept: np.ndarray, total: np.ndarray
) -> None:
    """Fill bands without coverage, mostly W1 and W2, with imaging in place."""
    imaging, its_error = spectra.imaging[kept] / total[:, None], spectra.imaging_error[kept] / total[:, None]
    with np.errstate(invalid="ignore"):
        fill = np.isnan(flux) & (imaging > IMAGING_SIGNAL_TO_NOISE * its_error)
    fill &= np.isfinite(spectra.imaging[kept, _SCALED_BY])[:, None]
    flux[fill], error[fill] = imaging[fill], its_error[fill]


def _labels(
    spectra: ObservedSpectra, kept: np.ndarray, z: np.ndarray, reference: np.ndarray, pixels: int
) -> dict[str, np.ndarray]:
    """Labels of the members; those that depend on luminosity for 1 uJy in iSDSS."""
    labels = {name: values[kept] for name, values in spectra.labels.items()}
    for name in labels:
        if name.startswith("ew_"):
            error = spectra.label_errors[name][kept]
            poor = error > np.maximum(MAX_EW_ERROR[0], MAX_EW_ERROR[1] * np.abs(labels[name]))
            labels[name] = np.where(poor, np.nan, labels[name])
    dimming = np.zeros(len(kept))
    if pixels:
        here = spectra.z[kept]
        dimming = 2.0 * (_log_distance(here) - _log_distance(z)) - np.log10((1.0 + z) / (1.0 + here))
    with np.errstate(invalid="ignore", divide="ignore"):
        level = np.where(spectra.relative[kept], np.nan, np.log10(reference) + dimming)
    for name, slope in LUMINOSITY_SLOPE.items():
        if name in labels:
            labels[name] = labels[name] - slope * level
    return labels | {"z_gal": z, "z_qso": z}


def _log_distance(z: np.ndarray) -> np.ndarray:
    """log10 of the luminosity distance [Mpc], interpolated to 1e-4."""
    return np.asarray(np.interp(np.log(z), *_distance_table()))


@functools.cache
def _distance_table() -> tuple[np.ndarray, np.ndarray]:
    z = np.geomspace(1e-3, 2.0 * Z_MAX, 2000)
    return np.log(z), np.log10(Planck18.luminosity_distance(z).to_value("Mpc"))


def _continua(
    exposure: Exposure, kept: np.ndarray, z: np.ndarray, reference: np.ndarray
) -> dict[str, np.ndarray]:
    """Measure continua at the lines over f_lambda of iSDSS: medians of both sides of a line."""
    level = reference * 1e-29 * LIGHT_SPEED / _PIVOT**2 / 1e-17
    continua = {}
    for name, wavelength in _LINES.items():
        with np.errstate(invalid="ignore"):
            line = np.nan_to_num(np.log(wavelength * (1.0 + z)) / FINE.step, nan=-1e6)
        pixel = np.rint(line).astype(np.int64)[:, None] - FINE.first + _SIDEBAND
        inside = (pixel >= 0) & (pixel < FINE.size)
        clipped = np.clip(pixel, 0, FINE.size - 1)
        seen = inside & exposure.valid[kept[:, None], clipped]
        values = np.where(seen, exposure.fine[kept[:, None], clipped], np.nan)
        enough = seen.sum(axis=1) > len(_SIDEBAND) // 2
        median = np.full(len(kept), np.nan)
        median[enough] = np.nanmedian(values[enough], axis=1)
        continua[name] = np.where(median > 0.0, median / level, np.nan)
    return continua


class ObservedSky:
    """Sampler of labelled photometry from observed spectra.

    70,000 draws per second on one busy core.

    Parameters
    ----------
    members : Members
        One side of the split.
    """

    def __init__(self, members: Members) -> None:
        if not len(members):
            raise InputError(
                "no spectrum of this side can be drawn from: none covers iSDSS with enough signal"
            )
        self.members = members
        _, of_object, count = np.unique(members.primary_id, return_inverse=True, return_counts=True)
        weight = 1.0 / count[of_object]  # objects are equally probable, whatever their number of spectra
        self._rows = [np.flatnonzero(members.class_code == code) for code in range(len(CLASSES))]
        self._cumulative = [np.cumsum(weight[rows]) for rows in self._rows]
        self._slope = np.array([LUMINOSITY_SLOPE.get(name, 0.0) for name in _LABELS], np.float32)

    def draw(
        self,
        n: int,
        rng: np.random.Generator,
        *,
        shares: tuple[float, float, float] = TRAINING_SHARES,
        i_range: tuple[float, float] = (15.0, 22.5),
        all_bands: bool = False,
    ) -> LabelledPhotometry:
        """Draw ``n`` objects; see `draw_members`."""
        return self.draw_members(n, rng, shares=shares, i_range=i_range, all_bands=all_bands)[0]

    def draw_members(
        self,
        n: int,
        rng: np.random.Generator,
        *,
        shares: tuple[float, float, float] = TRAINING_SHARES,
        i_range: tuple[float, float] = (15.0, 22.5),
        all_bands: bool = False,
    ) -> tuple[LabelledPhotometry, np.ndarray]:
        """Draw ``n`` objects with their members.

        Parameters
        ----------
        n : int
            Number of objects.
        rng : Generator
            Source of randomness; the same state gives the same objects.
        shares : tuple of float
            Shares of galaxies, stars and quasars; missing classes are left out.
        i_range : tuple of float
            Range of the iSDSS magnitude; numbers rise to the faint end.
        all_bands : bool
            Keep all bands that the spectrum covers.

        Returns
        -------
        photometry : LabelledPhotometry
            Objects of all classes in random order.
        member : ndarray of int64, shape (n,)
            Row of each in `members`.
        """
        present = np.array(
            [share if len(rows) else 0.0 for share, rows in zip(shares, self._rows, strict=True)]
        )
        code = rng.choice(len(CLASSES), n, p=present / present.sum())
        row = np.empty(n, np.int64)
        for k, (rows, cumulative) in enumerate(zip(self._rows, self._cumulative, strict=True)):
            mine = np.flatnonzero(code == k)
            if len(mine):
                at = np.searchsorted(cumulative, rng.random(len(mine)) * cumulative[-1])
                row[mine] = rows[np.minimum(at, len(rows) - 1)]
        level = noise.to_flux(priors.draw_magnitudes(n, rng, i_range)).astype(np.float32)
        flux = self.members.flux[row] * level[:, None]
        lost = np.zeros(flux.shape, bool)
        if not all_bands:
            lost = ~noise.draw_observed(n, rng) & np.isfinite(flux)
            lost[(np.isfinite(flux) & ~lost).sum(axis=1) == 0] = False
        depth = noise.draw_depths(n, rng)
        noiseless = noise.apply_zero_points(flux, rng)
        own_noise = self.members.error[row] * level[:, None]
        flux, error = noise.add_noise(np.where(lost, np.float32(np.nan), noiseless), depth, rng)
        error = np.hypot(error, own_noise)
        labels = self.members.labels[row] + self._slope * np.log10(level)[:, None]
        return (
            LabelledPhotometry(
                flux,
                error,
                self.members.ebv[row],
                self.members.class_code[row],
                {name: np.ascontiguousarray(labels[:, k]) for k, name in enumerate(_LABELS)},
                noiseless,
                own_noise,
            ),
            row,
        )
