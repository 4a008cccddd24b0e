"""Real stars of spectral libraries with known parameters, as spectrographs would observe them.

A library is a Parquet table: ``id``, ``teff`` [K], ``logg``, ``feh`` [dex], lists ``wavelength`` [Angstrom,
air] and ``flux`` (relative f_lambda, dereddened), and optionally ``radvel`` [km/s] where wavelengths are not
at rest. MILES (Sanchez-Blazquez et al. 2006; parameters of Cenarro et al. 2007) and STELIB (Le Borgne et al.
2003) have a resolution of 2.5 to 3 Angstrom: that of SDSS and LAMOST, but not of DESI in the red or of GALAH.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.ndimage import gaussian_filter1d

from ojala.catalogs_schema.errors import InputError
from ojala.flows.mocks.stellar_corrections import fold_of
from ojala.models.data import LabelledSpectra, Spectra
from ojala.models.quantities import CLASSES
from ojala.models.simulation.skies.spectroscopic import EXTINCTION, LABELS
from ojala.models.simulation.spectroscopy.instruments import Instrument
from ojala.models.simulation.spectroscopy.observing import expose
from ojala.models.simulation.wavelength_grid import FINE, to_vacuum

RESOLUTION = 2.5 / 2.3548
"""Standard deviation of the libraries' line spread function [Angstrom]."""

_COLUMNS = ("id", "teff", "logg", "feh", "wavelength", "flux")
_STEP = 0.9  # Angstrom: that of MILES
_TELLURIC = ((6860.0, 6960.0), (7160.0, 7350.0), (7580.0, 7710.0), (8100.0, 8400.0), (9250.0, 12000.0))
_LIGHT = 2.99792458e5  # km/s
_LEVEL = 10.0  # median flux of a star [1e-17 erg/s/cm2/A]
_WIDTH_STEP = 0.5  # Angstrom


@dataclass(frozen=True, slots=True)
class StellarLibrary:
    """N real stars on one grid of wavelengths.

    Attributes
    ----------
    star : ndarray of str, shape (N,)
        Identifiers.
    wavelength : ndarray, shape (P,)
        [Angstrom], vacuum, at rest, evenly spaced.
    flux : ndarray of float32, shape (N, P)
        Relative f_lambda; NaN where there is no measurement.
    teff, logg, fe_h : ndarray, shape (N,)
        [K], dex, dex.
    fold : ndarray of int, shape (N,)
        See `ojala.flows.mocks.stellar_corrections.fold_of`.
    """

    star: np.ndarray
    wavelength: np.ndarray
    flux: np.ndarray
    teff: np.ndarray
    logg: np.ndarray
    fe_h: np.ndarray
    fold: np.ndarray

    def __len__(self) -> int:
        return len(self.star)


def read_library(path: Path) -> StellarLibrary:
    """Read the stars of a library whose three parameters are known.

    Raises
    ------
    InputError
        A column is missing, or no star has the three parameters.
    """
    names = pq.read_schema(path).names
    if missing := [name for name in _COLUMNS if name not in names]:
        raise InputError(f"{path} is no library of stars: it lacks the columns {', '.join(missing)}")
    columns = [*_COLUMNS, *(["radvel"] if "radvel" in names else [])]
    table = pq.read_table(path, columns=columns).to_pandas().dropna(subset=["teff", "logg", "feh"])
    if table.empty:
        raise InputError(f"{path}: no star has teff, logg and feh")
    grids = [to_vacuum(np.asarray(grid, float)) for grid in table["wavelength"]]
    if "radvel" in table:
        speed = table["radvel"].fillna(0.0)
        grids = [grid / (1.0 + v / _LIGHT) for grid, v in zip(grids, speed, strict=True)]
    wavelength = np.arange(min(g[0] for g in grids), max(g[-1] for g in grids), _STEP)
    flux = np.full((len(table), len(wavelength)), np.nan, np.float32)
    for row, grid, values in zip(flux, grids, table["flux"], strict=True):
        row[:] = np.interp(wavelength, grid, np.asarray(values, float), left=np.nan, right=np.nan)
    if "radvel" in table:  # observed from the ground and not corrected
        for low, high in _TELLURIC:
            flux[:, (wavelength > low) & (wavelength < high)] = np.nan
    return StellarLibrary(
        table["id"].to_numpy(str),
        wavelength,
        flux,
        table["teff"].to_numpy(float),
        table["logg"].to_numpy(float),
        table["feh"].to_numpy(float),
        np.array([fold_of(star) for star in table["id"]]),
    )


def observe(
    library: StellarLibrary,
    rows: np.ndarray,
    instrument: Instrument,
    signal_to_noise: tuple[float, float],
    rng: np.random.Generator,
    *,
    ebv: float = 0.0,
) -> LabelledSpectra:
    """Observe stars of a library once each with an instrument.

    Parameters
    ----------
    library : StellarLibrary
        The stars.
    rows : ndarray of int, shape (N,)
        Stars to observe.
    instrument : Instrument
        The instrument; it must not resolve more than the library.
    signal_to_noise : tuple of float
        Range of the median signal-to-noise ratio per pixel, uniform in its logarithm.
    rng : Generator
        Source of randomness: radial velocity, extinction, depth, calibration errors, noise, lost pixels.
    ebv : float
        Scale of an exponential distribution of Galactic E(B-V) [mag].

    Returns
    -------
    LabelledSpectra
        All pixels of the instrument, with an inverse variance of 0 where the library has no measurement.
    """
    grid, n = instrument.wavelength, len(rows)
    z = np.clip(rng.normal(0.0, 80.0, n), -400.0, 400.0) / _LIGHT
    truth, covered = np.empty((n, len(grid)), np.float32), np.empty((n, len(grid)), bool)
    for k, (row, shift) in enumerate(zip(rows, z, strict=True)):
        known = np.isfinite(library.flux[row])
        filled = np.interp(library.wavelength, library.wavelength[known], library.flux[row][known])
        truth[k] = _through_optics(library.wavelength, filled, shift, instrument)
        covered[k] = np.interp(grid / (1.0 + shift), library.wavelength, known, left=0.0, right=0.0) == 1.0
        truth[k] *= _LEVEL / np.median(truth[k][covered[k]])
    if ebv:
        extinction = np.interp(grid, FINE.wavelength, EXTINCTION)
        truth *= 10.0 ** (-0.4 * extinction * rng.exponential(ebv, (n, 1))).astype(np.float32)
    flux, ivar = expose(truth, np.zeros(n, bool), instrument, signal_to_noise, rng)
    ivar[~covered] = 0.0
    size = len(grid)
    spectra = Spectra(
        np.arange(n + 1, dtype=np.int64) * size,
        np.tile(grid.astype(np.float32), n),
        flux.ravel(),
        ivar.ravel(),
    )
    labels = {name: np.full(n, np.nan, np.float32) for name in LABELS}
    labels["z"][:] = z
    for name in ("teff", "logg", "fe_h"):
        labels[name][:] = getattr(library, name)[rows]
    return LabelledSpectra(spectra, np.full(n, CLASSES.index("STAR")), labels, np.asarray(rows, np.int64))


def _through_optics(
    wavelength: np.ndarray, flux: np.ndarray, shift: float, instrument: Instrument
) -> np.ndarray:
    """Flux on the pixels of an instrument, with its resolution where it is lower than the library's.

    Smoothed with widths in steps of `_WIDTH_STEP` on the library's grid, and interpolated between these.
    """
    extra = np.sqrt(np.maximum(instrument.sigma**2 - RESOLUTION**2, 0.0)) / _WIDTH_STEP
    widths = _WIDTH_STEP * np.arange(int(extra.max()) + 2)
    rest = instrument.wavelength / (1.0 + shift)
    seen = np.stack(
        [np.interp(rest, wavelength, gaussian_filter1d(flux, w / _STEP) if w else flux) for w in widths]
    )
    low = extra.astype(int)
    pixels, share = np.arange(len(rest)), extra - low
    return np.asarray(seen[low, pixels] * (1.0 - share) + seen[low + 1, pixels] * share)
