"""What the report shows of answers to spectra."""

import numpy as np
import pytest

from ojala.pipeline.report.spectra_figures import embedding_drawing, map_of, survey_drawing

pytestmark = pytest.mark.integration

CLASSES = np.repeat(["GALAXY", "STAR", "QSO", "NONE"], 20).astype(object)
SURVEY_Z = np.concatenate(
    [np.linspace(0.01, 0.5, 20), np.zeros(20), np.linspace(0.5, 3.0, 20), np.full(20, np.nan)]
)


def test_redshifts_beside_the_survey_say_how_many_are_far_off():
    z = SURVEY_Z.copy()
    z[[0, 45]] += 1.0
    z[30] = 2.0  # a star, whose redshift no one compares
    drawing = survey_drawing(z, SURVEY_Z, CLASSES)
    assert "40 objects, 2 differ by more than 0.15" in drawing.alt


def test_nothing_is_drawn_where_there_is_nothing_to_compare():
    nothing = np.full(len(CLASSES), np.nan)
    assert survey_drawing(nothing, SURVEY_Z, CLASSES) is None
    assert embedding_drawing(None, CLASSES, SURVEY_Z) is None
    assert embedding_drawing(np.full((80, 8), np.nan, np.float32), CLASSES, SURVEY_Z) is None


def test_a_map_keeps_apart_what_the_embedding_keeps_apart():
    rng = np.random.default_rng(1)
    embedding = rng.normal(0.0, 0.1, (80, 8)).astype(np.float32)
    embedding[:, 0] += np.repeat([0.0, 5.0, 10.0, 15.0], 20)
    place, how = map_of(embedding)
    centres = place.reshape(4, 20, 2).mean(axis=1)
    spread = place.reshape(4, 20, 2).std(axis=1).max()
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)[np.triu_indices(4, 1)]
    assert apart.min() > 3.0 * spread
    assert embedding_drawing(embedding, CLASSES, SURVEY_Z).alt.count(how) == 1


def test_pacmap_makes_the_map_where_it_is_installed():
    pytest.importorskip("pacmap", reason="extra atlas")
    _, how = map_of(np.random.default_rng(1).normal(size=(60, 8)).astype(np.float32))
    assert how == "PaCMAP"
