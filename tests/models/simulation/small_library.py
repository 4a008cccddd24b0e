"""Small libraries that are simulated for real, from templates made by formula."""

from __future__ import annotations

import numpy as np

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.models.simulation.photometry.photometer import Curves
from ojala.models.simulation.populations import galaxies, quasars, stars
from ojala.models.simulation.skies.photometric import Libraries
from ojala.models.simulation.wavelength_grid import COARSE, FINE


def box_curves() -> Curves:
    """Box-shaped curves with the bands' pivot wavelengths and widths."""
    curves = {}
    for band in MODEL_BANDS:
        edge = band.fwhm / 2.0
        wavelength = np.linspace(band.pivot - 1.1 * edge, band.pivot + 1.1 * edge, 400)
        curves[band.name] = (wavelength, (np.abs(wavelength - band.pivot) < edge).astype(float))
    return curves


def black_body(wavelength: np.ndarray, temperature: float) -> np.ndarray:
    return wavelength**-5.0 / np.expm1(1.4387769e8 / (wavelength * temperature)) * 1e20


def atmospheres() -> stars.Atmospheres:
    """Black bodies, the brighter in the blue the fewer metals."""
    wavelength = np.geomspace(2500.0, 70000.0, 600)
    m_h, teff, logg = np.array([-2.5, 0.5]), np.linspace(3500.0, 13000.0, 20), np.array([0.0, 2.5, 5.0])
    flux = np.array(
        [
            [[black_body(wavelength, t) * (wavelength / 5000.0) ** (0.1 * m) for _ in logg] for t in teff]
            for m in m_h
        ]
    )
    return stars.Atmospheres(wavelength, m_h, teff, logg, np.log(flux).astype(np.float32))


def archetypes(kind: str) -> stars.Archetypes:
    wavelength = np.linspace(3000.0, 11000.0, 4000)
    basis = np.stack([black_body(wavelength, 3000.0), black_body(wavelength, 3500.0)])
    return stars.Archetypes(kind, wavelength, basis, np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))


def quasar_templates() -> quasars.QuasarTemplates:
    """A flat continuum with Gaussian lines and the Lyman-alpha terms of the intergalactic medium."""
    wavelength = np.geomspace(980.0, 30000.0, 12000)
    lines = sum(np.exp(-0.5 * (np.log(wavelength / line) / 0.007) ** 2) for line in quasars.BROAD_LINES)
    return quasars.QuasarTemplates(
        wavelength=wavelength,
        median_lines=lines,
        continuum=np.ones_like(wavelength),
        strong_lines=1.5 * lines,
        blueshifted_lines=0.7 * lines,
        extinction_wavelength=np.array([500.0, 5500.0, 60000.0]),
        extinction=np.array([20.0, 3.1, 0.1]),
        forest=np.array([[1215.67, 1.690e-02, 2.354e-03, 1.026e-04]]),
        damped=np.array([[1215.67, 1.617e-04, 5.390e-05]]),
    )


def toy_galaxies(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Galaxies with a break at 4000 A and lines, in the form of `galaxies.simulate`."""
    fine, coarse = FINE.rest_wavelength(galaxies.Z_MAX), COARSE.rest_wavelength(galaxies.Z_MAX)
    slope, depth = rng.uniform(-1.5, 0.5, (n, 1)), rng.uniform(0.3, 1.0, (n, 1))
    blueward = np.where(fine < 4000.0, depth, 1.0)
    lines = 10.0 ** rng.uniform(-3.0, 3.0, (n, 1)) * rng.uniform(0.5, 2.0, (n, len(galaxies.LINES)))
    return {
        "fine": ((fine / 6000.0) ** slope * blueward).astype(np.float16),
        "coarse": ((coarse / 6000.0) ** -1.5 * np.ones((n, 1))).astype(np.float16),
        "lines": lines.astype(np.float32),
        "log_l": np.full(n, 29.5, np.float32),
        "log_ssfr": np.log10(lines[:, 0] * 1e-12 + 1e-14).astype(np.float32),
        "age": rng.uniform(0.1, 13.3, n).astype(np.float32),
        "family": rng.integers(0, 3, n).astype(np.int8),
        "z": rng.uniform(0.01, 1.28, n).astype(np.float32),
        "log_mass": rng.uniform(8.0, 11.5, n).astype(np.float32),
    }


def libraries() -> Libraries:
    """400 galaxies, some 200 stars and 200 quasars."""
    rng = np.random.default_rng(4)
    templates = quasar_templates()
    wavelength = np.geomspace(1150.0, 70000.0, 3000)
    a0v = ("single", wavelength, black_body(wavelength, 9500.0))
    white = ("hot WD", wavelength, black_body(wavelength, 30000.0))
    return Libraries(
        galaxies=toy_galaxies(400, rng),
        stars=stars.simulate(atmospheres(), [archetypes("M")], [a0v, white], 200, rng),
        quasars={**quasars.simulate(templates, 200, rng), "igm": quasars.igm_transmission(templates)},
    )
