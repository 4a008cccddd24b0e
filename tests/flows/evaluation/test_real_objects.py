"""Classes and redshifts of the observed objects that no training saw."""

import numpy as np
import pytest

from ojala.flows.evaluation.real_objects import measures
from ojala.flows.mocks.real_objects import move_galaxies
from ojala.models.quantities import CLASSES
from ojala.pipeline.ingest.surveys.spectrum import Spectrum

pytestmark = pytest.mark.unit

N = 8


class Exact:
    """A model that predicts a class and redshifts that are off by so many of their errors."""

    def __init__(self, name: str, z: float, off: float) -> None:
        self.code, self.z, self.off = CLASSES.index(name), z, off

    def predict(self, flux: np.ndarray, error: np.ndarray, ebv: np.ndarray) -> dict[str, np.ndarray]:
        rows = len(flux)
        predicted = {"class_code": np.full(rows, self.code)}
        for short in ("gal", "qso"):
            predicted[f"z_{short}"] = np.full(rows, self.z + 0.01 * self.off)
            predicted[f"z_{short}_err"] = np.full(rows, 0.01)
        return predicted


class Flat:
    """Bands that all see a flux of 1."""

    def observe(self, wavelength: np.ndarray, flux: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, None]:
        return np.ones(63), None


@pytest.fixture
def galaxies() -> list[Spectrum]:
    wavelength = np.linspace(3600.0, 9800.0, 500)
    return [
        Spectrum(
            *(str(k), "SDSS", wavelength, np.ones(500), np.full(500, 100.0), 10.0, 40.0),
            object_class="GALAXY",
            z=0.2,
        )
        for k in range(N)
    ]


def test_only_chosen_objects_are_measured_and_all_weights_see_them(galaxies):
    models = {"right": Exact("GALAXY", 0.2, off=0.5), "wrong": Exact("QSO", 0.2, off=1.5)}
    rows = measures(models, galaxies, {"1", "3", "5"}, Flat(), 20.0, moved=False)
    assert [row["n"] for row in rows.values()] == [3, 3]
    assert rows["20, right"]["F1"] == 1.0
    assert rows["20, wrong"]["F1"] == 0.0
    assert [row["GALAXY within"] for row in rows.values()] == [1.0, 0.0]
    assert rows["20, right"]["GALAXY > 0.15"] == 0.0
    assert np.isnan(rows["20, right"]["QSO sigma_NMAD"])


def test_galaxies_alone_are_moved(galaxies):
    star = Spectrum(
        *("s", "SDSS", galaxies[0].wavelength, galaxies[0].flux, galaxies[0].ivar, 10.0, 40.0),
        object_class="STAR",
        z=0.0,
    )
    moved = move_galaxies([*galaxies, star], np.random.default_rng(1))
    assert moved[-1] is star
    assert all(0.08 <= one.z <= 0.40 for one in moved[:-1])
    assert len({one.z for one in moved}) == N + 1
