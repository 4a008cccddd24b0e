"""Trainings read the current release of a photometry catalogue that has grown, not its first."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.flows.training.finetune import table_labels
from ojala.flows.training.labelled import labelled_rows
from ojala.flows.training.ojala import ObservedPhotometry
from ojala.models.ojala.heads import FineTuning
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.ingest.update import update_photometry
from ojala.pipeline.quality.validation.truth import read_truth
from tests.helpers.survey import photometry_table

ROWS = 120


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """A catalogue of one tile to which another was added, and known objects of the second."""
    folder = tmp_path_factory.mktemp("grown")
    root = UPath(folder / "photometry")
    for tile in (1, 2):
        pq.write_table(photometry_table(ROWS, seed=tile, tile_id=tile), folder / f"{tile}.parquet")
    ingest_photometry([UPath(folder / "1.parquet")], root)
    update_photometry(root, [UPath(folder / "2.parquet")], add=True)
    columns = {
        "tile_id": pa.array(np.full(ROWS, 2, np.int32)),
        "number": pa.array(np.arange(1, ROWS + 1, dtype=np.int32)),
        "class": ["GALAXY"] * ROWS,
        "z": np.linspace(0.1, 0.5, ROWS),
        "log_mass": np.linspace(9.0, 11.0, ROWS),
    }
    pq.write_table(pa.table(columns), folder / "truth.parquet")
    return root, folder / "truth.parquet"


def test_labelled_objects_are_those_of_the_added_tile(survey):
    photometry, truth = survey
    assert len(labelled_rows(photometry, read_truth(UPath(truth)))) == ROWS
    tuning = FineTuning(name="log_mass", description="Stellar mass.", object_class="GALAXY")
    labels = table_labels(photometry, truth, tuning)
    assert len(labels.train) + len(labels.test) == ROWS


def test_objects_to_adapt_to_are_those_of_all_tiles(survey):
    photometry, _ = survey
    drawn = ObservedPhotometry(photometry).draw(40 * ROWS, np.random.default_rng(1))
    assert len(np.unique(drawn.flux[:, 0])) > 1.5 * ROWS
