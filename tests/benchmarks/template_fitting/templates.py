"""Template photometry for the comparison with template fitting: galaxies, quasars and stars in 63 bands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.models.simulation.photometry.photometer import Photometer
from ojala.models.simulation.populations import quasars
from ojala.models.simulation.wavelength_grid import COARSE, COARSE_PER_FINE, FINE, Lattice, redshifts, windows
from ojala.pipeline.ingest.reference.templates import read_atmospheres, read_pickles, read_quasar_templates

PIXELS_PER_STEP = 5
"""Fine pixels from one trial redshift to the next: 0.0015 in ln(1 + z)."""

GALAXY_Z_MAX, QUASAR_Z_MAX = 1.2, 4.5
"""Highest trial redshifts."""

QUASARS = 22
"""Number of quasar templates, the most dissimilar ones, whose sums cover most others."""

QUASARS_DRAWN = 400
"""Number of simulated quasars for the choice."""

HOST_Z_MAX = 1.0
"""Redshift up to which the templates of EAZY 1.1 are added to quasars as hosts."""

_COMPARED = (1150.0, 8000.0)  # rest-frame range [Angstrom] of the comparison of quasars

STAR_TEFF_STEP = 2
"""Stride over the nodes of the atmospheres' temperatures."""

STAR_REDDENING = (0.0, 0.1, 0.3)
"""E(B-V) [mag] of the star templates."""

_REST_Z_MAX = 4.6  # the rest-frame lattice reaches blue enough for the highest trial redshift
_K_X = np.array([band.k_x for band in MODEL_BANDS])


@dataclass(frozen=True, slots=True)
class TemplateGrid:
    """Template photometry at trial redshifts.

    Attributes
    ----------
    z : ndarray, shape (K,)
        Trial redshifts, evenly spaced in ln(1 + z).
    flux : ndarray of float32, shape (K, T, 63)
        f_nu in the order of `MODEL_BANDS`, of arbitrary scale.
    """

    z: np.ndarray
    flux: np.ndarray


def galaxy_grid(directory: Path, photometer: Photometer) -> TemplateGrid:
    """Make the grid of the templates of EAZY 1.1 with lines and of twelve FSPS templates, to z = 1.2.

    Parameters
    ----------
    directory : Path
        Folder with ``eazy_v1.1_sed*.dat*`` and ``tweak_fsps_QSF_12_v3_*.dat*`` somewhere below it.
    photometer : Photometer
        Bands.

    Raises
    ------
    FileNotFoundError
        Templates are missing.
    """
    fine, coarse = _on_lattices(_tables(directory, "eazy_v1.1_sed") + _tables(directory, "tweak_fsps_QSF"))
    steps = _steps(GALAXY_Z_MAX)
    return TemplateGrid(redshifts(steps), _redshifted(fine, coarse, _REST_Z_MAX, steps, photometer))


def quasar_grid(directory: Path, photometer: Photometer, seed: int = 22) -> TemplateGrid:
    """Make the grid of quasars of `populations.quasars` with mean IGM absorption, and hosts, to z = 4.5.

    The first `QUASARS` templates are the quasars: redshifts are better with hosts, classes without. Arguments
    and errors are those of `galaxy_grid`; the folder also contains the files of the quasar model.
    """
    templates = read_quasar_templates(directory)
    drawn = quasars.simulate(templates, QUASARS_DRAWN, np.random.default_rng(seed))
    chosen = _unlike(drawn["fine"], QUASARS)
    steps = _steps(QUASAR_Z_MAX)
    igm = quasars.igm_transmission(templates)
    flux = _redshifted(drawn["fine"][chosen], drawn["coarse"][chosen], quasars.Z_MAX, steps, photometer, igm)
    hosts = _redshifted(*_on_lattices(_tables(directory, "eazy_v1.1_sed")), _REST_Z_MAX, steps, photometer)
    hosts[redshifts(steps) > HOST_Z_MAX] = 0.0
    return TemplateGrid(redshifts(steps), np.concatenate([flux, hosts], axis=1))


def _unlike(spectra: np.ndarray, number: int) -> np.ndarray:
    """Choose members farthest from each other in log flux, the median one first; shape (number,)."""
    wavelength = FINE.rest_wavelength(quasars.Z_MAX)
    seen = np.flatnonzero((wavelength > _COMPARED[0]) & (wavelength < _COMPARED[1]))[::8]
    shape = np.log(np.maximum(spectra[:, seen].astype(np.float32), 1e-4))
    shape -= shape.mean(axis=1, keepdims=True)
    chosen = [int(((shape - np.median(shape, axis=0)) ** 2).sum(axis=1).argmin())]
    distance = np.full(len(shape), np.inf)
    while len(chosen) < number:
        distance = np.minimum(distance, ((shape - shape[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(distance.argmax()))
    return np.array(chosen)


def _tables(directory: Path, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read wavelength [Angstrom] and f_lambda from the first two columns of all ``<name>*.dat*``."""
    paths = sorted(directory.rglob(f"{name}*.dat*"))
    if not paths:
        raise FileNotFoundError(f"no {name}*.dat under {directory}")
    columns = [np.loadtxt(path, unpack=True) for path in paths]
    return [(table[0], table[1]) for table in columns]


def star_grid(directory: Path, photometer: Photometer) -> TemplateGrid:
    """Make the grid of Castelli & Kurucz (2004) and Pickles (1998) stars with reddening, at z = 0."""
    nodes = read_atmospheres(directory)
    chosen = [int(np.argmin(np.abs(nodes.logg - g))) for g in (2.0, 4.5)]
    flux = np.exp(nodes.log_flux[:, ::STAR_TEFF_STEP][:, :, chosen]).reshape(-1, len(nodes.wavelength))
    spectra = [(nodes.wavelength, spectrum) for spectrum in flux]
    spectra += list(read_pickles(directory).values())
    fine, coarse = _on_lattices(spectra)
    bare = _redshifted(fine, coarse, _REST_Z_MAX, np.array([0]), photometer)[0]
    reddened = [bare * 10.0 ** (-0.4 * ebv * _K_X) for ebv in STAR_REDDENING]
    return TemplateGrid(np.zeros(1), np.concatenate(reddened).astype(np.float32)[None])


def _steps(z_max: float) -> np.ndarray:
    """Shifts [fine pixels] of the trial redshifts."""
    return np.arange(PIXELS_PER_STEP, FINE.shift(z_max) + 1, PIXELS_PER_STEP)


def _on_lattices(spectra: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Rebin spectra to the rest-frame pixels of the two lattices, conserving flux; float32."""
    fine, coarse = (
        np.array([_binned(*spectrum, lattice) for spectrum in spectra]) for lattice in (FINE, COARSE)
    )
    level = np.nanmedian(np.where(fine > 0.0, fine, np.nan), axis=1, keepdims=True)
    return (fine / level).astype(np.float32), (coarse / level).astype(np.float32)


def _binned(wavelength: np.ndarray, flux: np.ndarray, lattice: Lattice) -> np.ndarray:
    centre = lattice.rest_wavelength(_REST_Z_MAX)
    edge = np.append(centre, centre[-1] * np.exp(lattice.step)) * np.exp(-0.5 * lattice.step)
    area = np.concatenate([[0.0], np.cumsum(0.5 * (flux[1:] + flux[:-1]) * np.diff(wavelength))])
    return np.asarray(np.diff(np.interp(edge, wavelength, area)) / np.diff(edge))


def _redshifted(
    fine: np.ndarray,
    coarse: np.ndarray,
    rest_z_max: float,
    steps: np.ndarray,
    photometer: Photometer,
    igm: np.ndarray | None = None,
) -> np.ndarray:
    """Compute template photometry at each shift, float32 of shape (len(steps), T, 63).

    ``rest_z_max`` is the largest redshift of the rest-frame lattices of ``fine`` and ``coarse``.
    """
    rows = np.arange(len(fine))
    out = np.empty((len(steps), len(fine), len(MODEL_BANDS)), np.float32)
    for k, step in enumerate(steps.tolist()):
        shift = np.full(len(fine), step)
        seen = windows(fine, FINE.rest_first(rest_z_max), rows, shift, FINE)
        if igm is not None:
            seen *= igm[quasars.igm_row(redshifts(np.array(step)))]
        far = np.rint(shift / COARSE_PER_FINE).astype(np.int64)
        infrared = windows(coarse, COARSE.rest_first(rest_z_max), rows, far, COARSE)
        out[k] = photometer.continuum(seen, infrared)
    return out
