"""From a run's embeddings to an atlas, to a run that is placed in it, to the page that shows it."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ojala.catalogs_schema.avis import AvisFlag
from ojala.flows.cli.app import app
from ojala.models.avis import atlas_fit
from ojala.models.avis.atlas import read_atlas
from ojala.pipeline.report.atlas.sample import draw_sample
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.record import RecordError
from ojala.pipeline.storage.hats import read_leaves
from tests.helpers.avis_survey import AvisSurvey, make_avis_survey
from tests.helpers.survey import Finished, run_and_publish, without_report

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def survey(tmp_path_factory) -> AvisSurvey:
    return make_avis_survey(tmp_path_factory.mktemp("avis"))


@pytest.fixture(scope="module")
def finished(survey, tmp_path_factory) -> Finished:
    """A run without an atlas."""
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        return run_and_publish(survey.config(tmp_path_factory.mktemp("out")))


@pytest.fixture
def simple_maps(monkeypatch):
    """Maps by a random projection, and atlases of few objects; the real ones have tests of their own."""

    def projected(points, dimensions, seed):
        direction = np.random.default_rng(seed).standard_normal((points.shape[1], dimensions))
        return (points @ direction).astype(np.float32)

    monkeypatch.setattr(atlas_fit, "fit_map", projected)
    monkeypatch.setattr(atlas_fit, "MIN_OBJECTS", 3)


def ask(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_sample_is_of_objects_that_are_seen_with_redshifts_that_are_sure(finished, survey):
    product, spectra = (
        pa.concat_tables([pq.read_table((root / p.leaf).path) for p in read_leaves(root)])
        for root in (finished.run / "avis", survey.spectra)
    )
    every = draw_sample(finished.run, 100, seed=1)
    assert (len(every.embedding), every.sides, product.num_rows) == (3, "both", 5)
    given = dict(zip(spectra["object_id"].to_pylist(), spectra["z"].to_pylist(), strict=True))
    own = np.asarray(product["avis_embedding"].combine_chunks().flatten()).reshape(5, -1)
    for vector, z in zip(every.embedding, every.z, strict=True):
        key = product["object_id"][int(np.linalg.norm(own - vector, axis=1).argmin())].as_py()
        assert z == pytest.approx(given[key])
    assert every.weights_sha256 == finished.record.weights_sha256
    seen = own[(product["avis_flags"].to_numpy() & AvisFlag.NO_IMAGE) == 0]
    assert {tuple(v) for v in every.embedding.tolist()} == {tuple(v) for v in seen.tolist()}
    same = draw_sample(finished.run, 2, seed=4)
    np.testing.assert_array_equal(same.embedding, draw_sample(finished.run, 2, seed=4).embedding)
    assert len(same.embedding) == 2


def test_a_run_of_another_model_has_no_atlas(tmp_path, photometry):
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        other = run_and_publish(
            RunConfig(photometry=str(photometry), out=str(tmp_path), model="empty", engine="serial")
        )
    with pytest.raises(RecordError, match="an atlas is made of a run of AVIS"):
        draw_sample(other.run, 10, seed=1)


def test_few_embeddings_make_no_atlas(finished, tmp_path):
    result = ask("atlas", finished.run, "--out", tmp_path / "atlas.safetensors")
    assert result.exit_code == 3
    assert "an atlas needs 100 to 20,000 embeddings, there are 3" in result.output
    assert not any(tmp_path.iterdir())


def test_the_page_asks_for_an_atlas_first(finished, tmp_path):
    result = ask("atlas-page", finished.run, "--out", tmp_path / "page")
    assert result.exit_code == 3
    assert f"ojala atlas {finished.run} --out FILE" in result.output


def test_an_atlas_is_made_used_and_shown(simple_maps, monkeypatch, finished, survey, tmp_path):
    monkeypatch.setattr("ojala.models.avis.atlas.N_NEIGHBOURS", 1)
    monkeypatch.setattr(atlas_fit, "N_NEIGHBOURS", 1)
    atlas = tmp_path / "atlas.safetensors"
    monkeypatch.setattr(
        atlas_fit, "clusters_on_map", lambda p: (np.zeros(3, np.int32), np.ones(3, np.float32))
    )
    made = ask("atlas", finished.run, "--out", atlas, "--json")
    assert made.exit_code == 0, made.output
    facts = json.loads(made.output)
    assert (facts["objects"], facts["with_redshift"], facts["clusters"]) == (3, 3, 1)
    assert facts["sha256"] == read_atlas(atlas, finished.record.weights_sha256).sha256
    config = finished.config.model_copy(update={"atlas": str(atlas)})
    asked = ["--model", "avis", "--spectra", config.spectra, "--cutouts", config.cutouts]
    asked += ["--out", config.out, "--weights", config.weights, "--engine", "serial"]
    planned = ask("plan", *asked, "--atlas", atlas, "--json")
    assert set(json.loads(planned.output)["states"]) == {"stale: configuration"}
    placed = run_and_publish(config)
    shown = ask("atlas-page", placed.run, "--out", tmp_path / "page", "--json")
    assert json.loads(shown.output)["rows"] == 3
    assert (tmp_path / "page" / "atlas.html").exists()
