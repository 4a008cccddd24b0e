from __future__ import annotations

import numpy as np
import pytest

from ojala.models.simulation.wavelength_grid import COARSE, FINE, redshifts, shifts, to_vacuum, windows


def test_a_redshift_label_is_exactly_the_shift_of_its_spectrum():
    z = redshifts(shifts(np.array([0.0, 0.1, 1.2, 4.7])))
    np.testing.assert_array_equal(shifts(z), shifts(redshifts(shifts(z))))
    np.testing.assert_allclose(z, [0.0, 0.1, 1.2, 4.7], atol=FINE.step * 3.0)


def test_the_window_of_a_redshifted_source_holds_its_rest_wavelengths():
    rest = FINE.rest_wavelength(2.0)
    shift = shifts(np.array([0.5, 1.9]))
    seen = windows(rest[None].astype(np.float32), FINE.rest_first(2.0), np.array([0, 0]), shift, FINE)
    for row, z in zip(seen, redshifts(shift), strict=True):
        np.testing.assert_allclose(row * (1.0 + z), FINE.wavelength, rtol=1e-6)


def test_a_redshift_beyond_the_library_is_refused():
    library = np.ones((1, len(FINE.rest_wavelength(1.0))), np.float32)
    with pytest.raises(ValueError, match="leave a library"):
        windows(library, FINE.rest_first(1.0), np.array([0]), shifts(np.array([1.5])), FINE)


@pytest.mark.parametrize("lattice", [FINE, COARSE])
def test_lattices_cover_what_they_say(lattice):
    assert lattice.wavelength[0] <= lattice.blue
    assert lattice.wavelength[-1] >= lattice.red
    np.testing.assert_allclose(np.diff(np.log(lattice.wavelength)), lattice.step)


def test_vacuum_wavelengths_of_known_lines():
    # Morton (1991): H alpha 6562.79 in air, 6564.61 in vacuum; [O III] 5006.84, 5008.24.
    np.testing.assert_allclose(
        to_vacuum(np.array([6562.79, 5006.84, 1215.67])), [6564.61, 5008.24, 1215.67], atol=0.02
    )


def test_wavelengths_in_air_become_those_in_vacuum():
    # Sodium D2 and H alpha, air and vacuum (NIST).
    np.testing.assert_allclose(to_vacuum(np.array([5889.951, 6562.79])), [5891.583, 6564.60], atol=0.02)
