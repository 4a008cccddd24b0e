"""Real stars of a library, seen by an instrument."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ojala.catalogs_schema.errors import InputError
from ojala.flows.mocks.stellar_libraries import observe, read_library
from ojala.models.simulation.spectroscopy.instruments import INSTRUMENTS
from ojala.models.simulation.wavelength_grid import to_vacuum
from tests.flows.mocks.library_stars import write_library

pytestmark = pytest.mark.unit


def test_stars_without_parameters_are_left_out_and_wavelengths_are_in_vacuum(tmp_path):
    library = read_library(write_library(tmp_path / "stars.parquet", 6))
    assert len(library) == 5
    assert "star/5" not in library.star
    line = library.wavelength[np.argmin(library.flux[0])]
    assert line == pytest.approx(float(to_vacuum(np.array(5000.0))), abs=0.9)


def test_a_line_is_where_velocity_puts_it_and_nothing_is_seen_beyond_the_library(tmp_path):
    library = read_library(write_library(tmp_path / "stars.parquet", 4))
    rng = np.random.default_rng(1)
    rows = np.array([2, 0, 1])
    drawn = observe(library, rows, INSTRUMENTS["SDSS"], (500.0, 500.0), rng)
    for row, shift, (wavelength, flux, ivar) in zip(rows, drawn.labels["z"], drawn.spectra, strict=True):
        assert (ivar[(wavelength < 3990.0) | (wavelength > 6020.0)] == 0.0).all()
        assert np.mean(ivar[(wavelength > 4010.0) & (wavelength < 5980.0)] > 0.0) > 0.98
        near = (wavelength > 4980.0) & (wavelength < 5025.0) & (ivar > 0.0)
        depth = 1.0 - flux[near] / np.median(flux[near])
        centre = np.average(wavelength[near], weights=np.maximum(depth, 0.0))
        assert centre == pytest.approx(5001.4 * (1.0 + shift), abs=0.5)
        assert drawn.labels["teff"][list(rows).index(row)] == library.teff[row].astype(np.float32)


def test_a_broader_instrument_makes_a_line_shallower(tmp_path):
    library = read_library(write_library(tmp_path / "stars.parquet", 2))
    lamost = INSTRUMENTS["LAMOST"]
    depth = []
    for factor in (1.0, 1.5):
        broader = dataclasses.replace(lamost, sigma=lamost.sigma * factor, calibration=0.0)
        drawn = observe(library, np.zeros(1, int), broader, (1e4, 1e4), np.random.default_rng(3))
        wavelength, flux, ivar = next(iter(drawn.spectra))
        near = (wavelength > 4950.0) & (wavelength < 5050.0) & (ivar > 0.0)
        depth.append(1.0 - flux[near].min() / np.median(flux[near]))
    assert depth[1] < 0.85 * depth[0]


def test_another_table_is_refused_by_the_names_of_what_it_lacks(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "teff": [5000.0]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"other\.parquet is no library of stars: it lacks .*logg, feh"):
        read_library(tmp_path / "other.parquet")
