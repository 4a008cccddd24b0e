"""Absorption lines are as strong as in the Sun and in Arcturus, and as sharp as an instrument sees."""

import numpy as np
import pytest

from ojala.models.quantities import CLASSES
from ojala.models.simulation.skies.photometric import MockSky
from ojala.models.simulation.skies.spectroscopic import SpectraSky
from ojala.models.simulation.spectroscopy import stellar_lines
from ojala.models.simulation.spectroscopy.instruments import INSTRUMENTS
from ojala.models.simulation.wavelength_grid import to_vacuum

SUN = (5777.0, 4.44, 0.0, 0.0)
ARCTURUS = (4286.0, 1.66, -0.52, 0.25)

MEASURED = {
    5638.262: (80.0, 104.9),
    5679.026: (59.6, 72.7),
    5705.465: (38.0, 62.7),
    5731.762: (57.7, 83.0),
    5778.458: (22.1, 74.7),
    5855.082: (22.4, 37.1),
    6003.012: (84.0, 112.4),
    6056.005: (72.6, 85.2),
    6151.618: (49.8, 119.7),
    6703.575: (36.8, 92.7),
    6705.102: (46.4, 64.3),
    5234.624: (82.9, 88.7),
    6432.677: (41.3, 47.0),
    6516.077: (54.7, 59.0),
}
"""Equivalent widths [mA] in the Sun and Arcturus of Fe I and (the last three) Fe II, by wavelength in air:
measurements that come with q2 (Ramirez et al. 2014)."""


def widths_of(*stars: tuple[float, ...]) -> np.ndarray:
    return stellar_lines.equivalent_widths(*np.array(stars).T)


def at(air: float) -> int:
    return int(np.abs(stellar_lines.WAVELENGTH - to_vacuum(np.array(air))).argmin())


@pytest.mark.parametrize(("star", "column"), [(SUN, 0), (ARCTURUS, 1)])
def test_lines_are_as_strong_as_measured(star, column):
    widths = 1000.0 * widths_of(star)[0]
    off = np.log10([widths[at(line)] / values[column] for line, values in MEASURED.items()])
    assert abs(np.median(off)) < 0.1
    assert np.abs(off).max() < 0.3


def test_lines_tell_temperature_gravity_and_metallicity():
    sun, cooler, giant, poor = widths_of(
        SUN, (5000.0, 4.44, 0.0, 0.0), (5777.0, 2.5, 0.0, 0.0), (5777.0, 4.44, -1.0, 0.3)
    )
    neutral, ion = at(6703.575), at(6516.077)
    assert cooler[neutral] > 1.5 * sun[neutral]
    assert giant[ion] > 1.3 * sun[ion]
    assert poor[neutral] < 0.2 * sun[neutral]
    assert cooler[-1] < 0.6 * sun[-1] < 0.6 * widths_of((7000.0, 4.2, 0.0, 0.0))[0, -1]  # H alpha
    assert (widths_of((20000.0, 4.9, 0.0, 0.0), (np.nan, np.nan, np.nan, np.nan)) == 0.0).all()


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_at_the_library_s_resolution_nothing_changes(name):
    instrument = INSTRUMENTS[name]
    seen = stellar_lines.transmission(
        widths_of(SUN, ARCTURUS, (6500.0, 4.2, -0.3, 0.0)),
        np.array([0.0, 3e-4, -3e-4]),
        np.full(3, 5.0),
        instrument,
    )
    pixel = np.gradient(instrument.wavelength)
    near = np.abs(instrument.wavelength - np.arange(4000.0, 8900.0, 11.0)[:, None])
    kernel = np.maximum(1.0 - near / stellar_lines.LIBRARY_STEP, 0.0) * pixel
    inside = np.abs(kernel.sum(axis=1) / stellar_lines.LIBRARY_STEP - 1.0) < 0.01
    smooth = seen @ (kernel[inside] / kernel[inside].sum(axis=1, keepdims=True)).T
    assert np.abs(smooth - 1.0).mean() < 0.005
    assert np.abs(smooth - 1.0).max() < 0.04


def test_each_instrument_sees_a_line_as_sharply_as_it_can():
    """The strongest iron line of GALAH's windows in the Sun, which moves with the star."""
    line = at(4891.494)
    widths, velocity = np.zeros((1, len(stellar_lines.WAVELENGTH)), np.float32), np.array([2e-4])
    widths[0, line] = widths_of(SUN)[0, line]
    depth = {}
    for name in ("SDSS", "GALAH"):
        grid = INSTRUMENTS[name].wavelength
        seen = stellar_lines.transmission(widths, velocity, np.full(1, 4.0), INSTRUMENTS[name])[0]
        near = np.abs(grid - stellar_lines.WAVELENGTH[line]) < 8.0
        assert grid[near][seen[near].argmin()] == pytest.approx(
            stellar_lines.WAVELENGTH[line] * (1.0 + 2e-4), abs=0.8
        )
        depth[name] = 1.0 - seen[near].min()
    assert depth["GALAH"] > 0.55
    assert depth["SDSS"] < 0.2


def test_only_stars_with_parameters_have_them(sky: MockSky):
    objects = SpectraSky(sky.population).draw_objects(120, np.random.default_rng(3))
    lined = objects.absorption.any(axis=1)
    known = np.isfinite(objects.labels["teff"]) & (objects.labels["teff"] < stellar_lines.HOTTEST)
    np.testing.assert_array_equal(lined, known)
    assert (objects.class_code[lined] == CLASSES.index("STAR")).all()
    assert lined.sum() > 5
