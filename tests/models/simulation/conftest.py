from __future__ import annotations

import pytest

from ojala.models.simulation.photometry.photometer import Photometer
from ojala.models.simulation.skies.photometric import Libraries, MockSky
from tests.models.simulation.small_library import box_curves, libraries


@pytest.fixture(scope="session")
def photometer() -> Photometer:
    return Photometer(box_curves())


@pytest.fixture(scope="session")
def small() -> Libraries:
    return libraries()


@pytest.fixture(scope="session")
def sky(small: Libraries, photometer: Photometer) -> MockSky:
    return MockSky(small, photometer)
