from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from ojala.models.simulation.populations.stars import KINDS
from ojala.pipeline.ingest.reference import templates

pytestmark = pytest.mark.integration

DATA = Path(__file__).parents[4].parent / "shared" / "data" / "templates"
needs_data = pytest.mark.skipif(
    not DATA.exists(), reason="the template libraries are not part of the repository"
)


def test_gravities_outside_the_grid_take_the_nearest_one():
    empty, faint, bright = np.zeros(3), np.full(3, 1.0), np.full(3, 2.0)
    filled = templates._nearest_gravity([empty, empty, faint, bright, empty])
    np.testing.assert_array_equal(filled[:, 0], [1.0, 1.0, 1.0, 2.0, 2.0])


def test_archetypes_are_combinations_of_the_basis(tmp_path):
    basis = np.stack([np.full(800, 1.0), np.linspace(0.0, 1.0, 800)])
    primary = fits.PrimaryHDU(basis)
    primary.header["CRVAL1"], primary.header["CDELT1"] = 3000.0, 0.1
    fits.HDUList([primary, fits.ImageHDU(np.array([[2.0, 1.0]]))]).writeto(
        tmp_path / "rrtemplate-STAR-M-v0.1.fits"
    )
    read = templates.read_archetypes(tmp_path, "M")
    np.testing.assert_allclose(read.wavelength, 3000.95 + 2.0 * np.arange(40))
    assert (read.coefficients @ read.basis)[0, 0] == pytest.approx(2.0, abs=0.02)
    assert (read.coefficients @ read.basis)[0, -1] == pytest.approx(3.0, abs=0.02)


def test_an_absent_library_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="qsosed_emlines"):
        templates.read_quasar_templates(tmp_path)


@needs_data
def test_the_atmospheres_of_the_sun_and_of_vega():
    grid = templates.read_atmospheres(DATA, teff_max=10000.0)
    assert grid.log_flux.shape[:3] == (8, len(grid.teff), 11)
    for teff, logg, m_h in ((5772.0, 4.44, 0.0), (9600.0, 4.0, -0.5)):
        flux = grid.spectrum(m_h, teff, logg)
        bolometric = np.trapezoid(flux, grid.wavelength)  # 2500 A .. 7 um: nearly all of it
        assert 0.6 < bolometric / (5.670e-5 * teff**4) < 1.05  # Stefan-Boltzmann [erg/s/cm2]


@needs_data
def test_the_quasar_templates_have_their_lines_where_they_belong():
    read = templates.read_quasar_templates(DATA)
    near = (read.wavelength > 6000.0) & (read.wavelength < 7000.0)
    peak = read.wavelength[near][read.median_lines[near].argmax()]
    assert peak == pytest.approx(6564.6, abs=15.0)
    assert read.forest.shape == (39, 4)
    assert read.damped.shape == (39, 3)


@needs_data
def test_pickles_types_rise_to_the_red_from_a_to_m():
    library = templates.read_pickles(DATA)
    colour = [np.interp(8000.0, *library[t]) / np.interp(4500.0, *library[t]) for t in ("a0v", "g2v", "m4v")]
    assert colour[0] < colour[1] < colour[2]


@needs_data
def test_single_stars_are_of_known_kinds_and_white_dwarfs_are_hot():
    single = templates.read_single_stars(DATA)
    assert {kind for kind, _, _ in single} <= set(KINDS)
    colour = {
        kind: np.interp(4500.0, wavelength, flux) / np.interp(7500.0, wavelength, flux)
        for kind, wavelength, flux in single
        if kind in ("hot WD", "M")
    }
    assert colour["hot WD"] > 3.0 > 0.3 > colour["M"]  # the L dwarf counts as M
