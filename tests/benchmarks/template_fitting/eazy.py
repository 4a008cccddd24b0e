"""Redshifts by eazy-py (Brammer et al. 2008; extra ``comparison``) with given template photometry.

Its input files (filters, templates, template error, column names) are written to a temporary folder, without
a download. The grid of template photometry is passed in: eazy-py takes a quarter of an hour for 57 narrow
bands.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from astropy.table import Table

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.models.simulation.photometry.photometer import Curves
from ojala.models.simulation.wavelength_grid import FINE
from tests.benchmarks.template_fitting.fit import SYSTEMATIC, TemplateFit
from tests.benchmarks.template_fitting.templates import PIXELS_PER_STEP, TemplateGrid

_MISSING = -99.0


def fit_with_eazy(flux: np.ndarray, error: np.ndarray, grid: TemplateGrid, curves: Curves) -> TemplateFit:
    """Fit non-negative sums of all templates at each trial redshift with eazy-py, in one process, no prior.

    Parameters
    ----------
    flux, error : ndarray, shape (N, 63)
        Flux densities and errors [uJy], NaN where missing.
    grid : TemplateGrid
        Template photometry.
    curves : Curves
        Transmission curves of the bands.

    Raises
    ------
    ModuleNotFoundError
        eazy is not installed.
    """
    with (
        tempfile.TemporaryDirectory() as name,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        from eazy.photoz import PhotoZ

        folder = Path(name)
        _write_files(folder, curves, grid.flux.shape[1])
        step = PIXELS_PER_STEP * FINE.step
        parameters = {
            "CATALOG_FILE": _catalogue(flux, error),
            "FILTERS_RES": str(folder / "filters.res"),
            "TEMPLATES_FILE": str(folder / "templates.param"),
            "TEMP_ERR_FILE": str(folder / "template_error.dat"),
            "TEMP_ERR_A2": 0.0,
            "SYS_ERR": SYSTEMATIC,
            "APPLY_PRIOR": "n",
            "MW_EBV": 0.0,
            "VERBOSITY": 0,
            "Z_MIN": grid.z[0],
            "Z_MAX": np.expm1(np.log1p(grid.z[-1]) + 0.5 * step),
            "Z_STEP": step,
        }
        fits = PhotoZ(
            translate_file=str(folder / "translate"),
            params=parameters,
            load_prior=False,
            tempfilt_data=grid.flux.copy(),
        )
        started = time.process_time()
        fits.fit_catalog(n_proc=0, get_best_fit=False, verbose=False)
        fits.evaluate_zml(prior=False)
        seconds = time.process_time() - started
    return TemplateFit(np.asarray(fits.chi2_fit.min(axis=1), float), np.asarray(fits.zml, float), seconds)


def _catalogue(flux: np.ndarray, error: np.ndarray) -> Table:
    """Make a table of fluxes and errors in columns F1, E1, F2 ..."""
    table = Table({"id": np.arange(1, len(flux) + 1)})
    missing = ~(np.isfinite(flux) & np.isfinite(error))
    for i in range(flux.shape[1]):
        table[f"F{i + 1}"] = np.where(missing[:, i], _MISSING, flux[:, i])
        table[f"E{i + 1}"] = np.where(missing[:, i], _MISSING, error[:, i])
    return table


def _write_files(folder: Path, curves: Curves, templates: int) -> None:
    filters = []
    for band in MODEL_BANDS:
        wavelength, transmission = curves[band.name]
        filters.append(f"{len(wavelength)} {band.name} lambda_c= {band.pivot:.1f}\n")
        pairs = zip(wavelength, transmission, strict=True)
        filters += [f"{k} {at:.4f} {through:.6e}\n" for k, (at, through) in enumerate(pairs, start=1)]
    (folder / "filters.res").write_text("".join(filters))
    # The photometry is passed in, so the spectra are placeholders.
    (folder / "template.dat").write_text("".join(f"{at} 1.0\n" for at in np.geomspace(100.0, 1e5, 200)))
    listing = "".join(f"{k} {folder / 'template.dat'} 1.0\n" for k in range(1, templates + 1))
    (folder / "templates.param").write_text(listing)
    (folder / "template_error.dat").write_text("".join(f"{at} 1.0\n" for at in np.geomspace(100, 1e6, 50)))
    (folder / "translate").write_text("")
