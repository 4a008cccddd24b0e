"""Answers about real objects against published parameters."""

import numpy as np
import pandas as pd
import pytest
from upath import UPath

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.flows.evaluation.real_labels import (
    blue_galaxies,
    residual_measures,
    stars,
    table_text,
    write_stars,
)
from ojala.flows.training.labelled import labelled_rows
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.quality.validation.truth import read_truth

N = 40


class Exact:
    """A model with given answers, which keeps the fluxes that it was given."""

    def __init__(self, answers: dict[str, np.ndarray]) -> None:
        self.answers, self.flux = answers, np.empty(0)

    def predict(self, flux: np.ndarray, error: np.ndarray, ebv: np.ndarray) -> dict[str, np.ndarray]:
        self.flux = flux
        return self.answers


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    columns = {
        "id": [f"miles/{k}" for k in range(N)],
        "set": ["miles"] * (N // 2) + ["galaxies_uvoptical"] * (N // 2),
        "z": [0.0] * (N // 2) + [0.3] * (N // 2),
        "teff": rng.uniform(4000.0, 7000.0, N),
        "logg": rng.uniform(1.0, 4.5, N),
        "feh": rng.uniform(-1.0, 0.3, N),
    }
    level = rng.uniform(50.0, 500.0, N)
    return pd.DataFrame(columns | {f"flux_{band.name}": level for band in MODEL_BANDS[:54]})


def test_stars_are_compared_with_their_parameters_at_the_stated_magnitude(table):
    own = table.iloc[: N // 2]
    offsets = {"teff": 50.0, "logg": 0.0, "fe_h": -0.1}
    labels = {"teff": "teff", "logg": "logg", "fe_h": "feh"}
    answers = {name: own[labels[name]].to_numpy() + offset for name, offset in offsets.items()}
    answers |= {f"{name}_err": np.full(N // 2, 0.05) for name in offsets}
    model = Exact(answers)
    found = stars(model, table)
    assert found["stars, i = 17, all: teff"] == pytest.approx(
        {"n": N / 2, "bias": 50.0, "sigma_nmad": 0.0, "within": 0.0}, abs=1e-9
    )
    assert found["stars, i = 17, all: logg"]["within"] == 1.0
    assert found["stars, i = 20, all: fe_h"]["bias"] == pytest.approx(-0.1)
    assert 0 < found["stars, i = 20, left out: teff"]["n"] < N / 2
    seen = 23.9 - 2.5 * np.log10(np.nanmedian(model.flux))
    assert seen == pytest.approx(20.2, abs=0.05)
    red = np.array([band.pivot for band in MODEL_BANDS]) > 7350.0
    assert np.isnan(model.flux[:, red]).all()


def test_stars_for_the_calibration_are_a_catalogue_with_truth(table, tmp_path):
    write_stars(table, tmp_path)
    ingest_photometry([UPath(tmp_path / "photometry.parquet")], UPath(tmp_path / "catalogue"))
    rows = labelled_rows(UPath(tmp_path / "catalogue"), read_truth(UPath(tmp_path / "truth.parquet")))
    own = np.sort(table["teff"].iloc[: N // 2].to_numpy(np.float32))
    np.testing.assert_allclose(np.sort(rows.labels["teff"]), np.repeat(own, 5), rtol=1e-3)
    assert np.isnan(rows.labels["z_gal"]).all()


def test_galaxies_that_are_taken_for_quasars_or_far_off_are_counted(table):
    code, z = np.zeros(N // 2, int), np.full(N // 2, 0.3)
    code[:5], z[:3] = 2, 0.8
    found = blue_galaxies(Exact({"class_code": code, "z_gal": z}), table)
    assert found["galaxies, i = 21"] == {"n": N / 2, "taken for quasars": 0.25, "beyond 0.15": 0.15}
    assert "| galaxies, i = 22 | 20 | 0.25 | 0.15 |" in table_text(found)


def test_unknown_labels_do_not_count():
    found = residual_measures(np.array([1.0, np.nan]), np.array([np.nan, 1.0]), np.ones(2))
    assert found["n"] == 0.0
    assert np.isnan(found["bias"])
