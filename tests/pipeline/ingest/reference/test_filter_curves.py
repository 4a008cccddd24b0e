from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.pipeline.ingest.reference.filter_curves import read_curves

DATA = Path(__file__).parents[4].parent / "shared" / "data" / "filters"


@pytest.mark.skipif(not DATA.exists(), reason="the transmission curves are not part of the repository")
def test_the_measured_curves_have_the_pivots_of_the_bands():
    curves = read_curves(DATA)
    assert list(curves) == [band.name for band in MODEL_BANDS]
    for band in MODEL_BANDS:
        wavelength, transmission = curves[band.name]
        assert (np.diff(wavelength) > 0).all()
        assert (transmission >= 0).all()
        pivot = np.sqrt(
            np.trapezoid(transmission * wavelength, wavelength)
            / np.trapezoid(transmission / wavelength, wavelength)
        )
        # The published curve of iSDSS lies redder than the pivot that the survey's tables give.
        expected = 7656.0 if band.name == "iSDSS" else band.pivot
        assert pivot == pytest.approx(expected, rel=2e-3), band.name


def test_a_missing_curve_is_named_with_its_home(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"OAJ_JPAS\.uJava\.dat .*SVO"):
        read_curves(tmp_path)
