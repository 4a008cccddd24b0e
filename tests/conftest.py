"""Small real catalogues that many tests read."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import settings
from upath import UPath

from catalogs_schema.bands import MODEL_BANDS
from pipeline.config import RunConfig
from tests.survey import Finished, carry_through, ingest_table, photometry_table

# Tests run side by side; networks with all cores each would only fight.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("short", max_examples=100, deadline=None)
settings.register_profile("soak", max_examples=5_000, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The long forms of the tests of faults; see `make soak`."""
    parser.addoption("--soak", action="store_true", help="run the long forms of tests that have one")


def pytest_configure(config: pytest.Config) -> None:
    """How many cases hypothesis tries."""
    settings.load_profile("soak" if config.getoption("--soak") else "short")


@pytest.fixture(scope="session")
def photometry(tmp_path_factory: pytest.TempPathFactory) -> UPath:
    """A photometry catalogue of 300 objects in several partitions. Read only."""
    return ingest_table(photometry_table(300), tmp_path_factory.mktemp("survey"))


@pytest.fixture(scope="session")
def finished(photometry: UPath, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The catalogue of the empty model over those objects, with vectors. Read only."""
    out = tmp_path_factory.mktemp("catalogue")
    return carry_through(
        RunConfig(photometry=str(photometry), out=str(out), model="empty", engine="serial", vectors=True)
    )


@pytest.fixture
def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flux, error [uJy] and E(B-V) of 20 objects as models read them."""
    table = photometry_table(20)
    flux = np.stack([table[b.flux_column].to_numpy() for b in MODEL_BANDS], axis=1)
    error = np.stack([table[b.error_column].to_numpy() for b in MODEL_BANDS], axis=1)
    return flux, error, table["ebv"].to_numpy()
