"""Spectra and their cut-outs become embeddings with a place in the atlas, partition by partition."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import lsdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.catalogs_schema.avis import AVIS, EMBEDDING_SIZE, AvisFlag
from ojala.catalogs_schema.cutouts import CUTOUTS
from ojala.models.avis.atlas import read_atlas
from ojala.models.checkpoint import WeightsError
from ojala.models.data import Pairs
from ojala.pipeline.inference.adapters.avis import AvisAdapter
from ojala.pipeline.inference.adapters.base import ModelError
from ojala.pipeline.inference.join import join_auxiliary
from ojala.pipeline.inference.products.avis import avis_table
from ojala.pipeline.ingest.cutouts import ingest_cutouts
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.config import ConfigError, read_config
from ojala.pipeline.runs.region import parse_region
from ojala.pipeline.runs.releases import ReleaseError
from ojala.pipeline.storage.hats import CatalogueError, read_leaves
from tests.helpers import image_files
from tests.helpers.avis_survey import (
    AvisSurvey,
    make_avis_survey,
    save_small_weights,
    toy_atlas,
    write_toy_atlas,
)
from tests.helpers.survey import Finished, plan_run, run_and_publish, without_report

pytestmark = [pytest.mark.integration, pytest.mark.processor]


@pytest.fixture(scope="module")
def survey(tmp_path_factory) -> AvisSurvey:
    return make_avis_survey(tmp_path_factory.mktemp("avis"))


@pytest.fixture(scope="module")
def finished(survey, tmp_path_factory) -> Finished:
    out = tmp_path_factory.mktemp("out")
    write_toy_atlas(out / "atlas.safetensors", survey.weights)
    return run_and_publish(
        survey.config(out, atlas=str(out / "atlas.safetensors"), margins=True), report=True
    )


def table_of(catalogue: UPath) -> pa.Table:
    tables = [pq.read_table((catalogue / partition.leaf).path) for partition in read_leaves(catalogue)]
    return pa.concat_tables(tables).sort_by("object_id")


def vectors(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table[name].combine_chunks().flatten()).reshape(-1, EMBEDDING_SIZE)


def test_every_spectrum_has_a_row_with_what_could_be_seen_of_it(finished, survey):
    spectra, cutouts, made = (
        table_of(root) for root in (survey.spectra, survey.cutouts, finished.run / "avis")
    )
    assert finished.record.status == "complete"
    assert made["object_id"].to_pylist() == spectra["object_id"].to_pylist()
    assert not AVIS.violations(made)
    with_image = np.array([bands != "NONE" for bands in cutouts["bands"].to_pylist()])
    assert with_image.sum() == 3
    flags = made["avis_flags"].to_numpy()
    np.testing.assert_array_equal((flags & AvisFlag.NO_IMAGE) == 0, with_image)
    np.testing.assert_array_equal(np.isfinite(vectors(made, "avis_embedding_image")).all(axis=1), with_image)
    joint, of_spectrum = vectors(made, "avis_embedding"), vectors(made, "avis_embedding_spectrum")
    np.testing.assert_allclose(np.linalg.norm(joint, axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(joint[~with_image], of_spectrum[~with_image])
    assert not (flags & (AvisFlag.NO_CUTOUT | AvisFlag.NOT_EMBEDDED)).any()


def test_places_are_those_of_the_atlas(finished):
    made = table_of(finished.run / "avis")
    both = np.isfinite(vectors(made, "avis_embedding_image")).all(axis=1)
    places = read_atlas(Path(finished.config.atlas)).place(vectors(made, "avis_embedding")[both])
    for name, expected in places.items():
        # Of another batch than in the run: equal within rounding.
        found = made[AVIS.name_of(name)].to_numpy()[both]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(np.isfinite(made["map3_z"].to_numpy()), both)


def test_an_atlas_of_pairs_does_not_place_what_has_no_image(finished):
    made = table_of(finished.run / "avis")
    alone = (made["avis_flags"].to_numpy() & AvisFlag.NO_IMAGE) != 0
    np.testing.assert_array_equal((made["avis_flags"].to_numpy() & AvisFlag.NOT_PLACED) != 0, alone)
    assert (made["cluster"].to_numpy()[alone] == -1).all()
    assert np.isnan(made["z_nn"].to_numpy()[alone]).all()


def test_what_was_read_is_told(finished, survey):
    assert finished.record.auxiliary == str(survey.cutouts)
    assert finished.record.assets["atlas"] == read_atlas(Path(finished.config.atlas)).sha256
    document = json.loads((finished.run / "provenance" / "prov.json").read_text())
    assert document["entity"]["ojala:cutouts"]["prov:location"] == str(survey.cutouts)
    assert document["entity"]["ojala:atlas"]["ojala:sha256"] == finished.record.assets["atlas"]
    leaf = next((finished.run / "avis" / "dataset").rglob("Npix=*.parquet"))
    footer = pq.read_metadata(leaf.path).metadata
    assert footer[b"ojala.cutouts"] == b"cutouts"
    assert len(footer[b"ojala.input_sha256"].split()) == 2
    page = (finished.run / "report" / "index.html").read_text()
    assert str(survey.cutouts) in page
    assert finished.record.assets["atlas"] in page


def test_a_release_is_verified_and_opened_with_its_spectra(finished):
    assert list(verify(finished.out)) == []
    found = lsdb.open_catalog(str(finished.out)).load_extension("avis").compute()
    assert len(found) == 5
    assert {"flux", "avis_embedding", "z_nn"} <= set(found.columns)


def test_another_cutout_makes_only_its_partition_stale(finished, survey, tmp_path):
    image_files.make_brick(tmp_path / "new", brick="1510p020", ra=151.0)
    ingest_cutouts([UPath(survey.brick), UPath(tmp_path / "new")], survey.spectra, UPath(tmp_path / "c"))
    config = finished.config.model_copy(update={"cutouts": str(tmp_path / "c")})
    plan = plan_run(config)
    before, after = read_leaves(survey.cutouts), read_leaves(UPath(tmp_path / "c"))
    changed = {p for p in before if before[p].sha256 != after[p].sha256}
    assert len(changed) == 1
    assert {entry.partition for entry in plan.to_do} == changed
    assert plan.states() == {"done": len(before) - 1, "stale: input": 1}


def test_another_atlas_makes_all_partitions_stale(finished, survey, tmp_path):
    write_toy_atlas(tmp_path / "atlas.safetensors", survey.weights, seed=2)
    config = finished.config.model_copy(update={"atlas": str(tmp_path / "atlas.safetensors")})
    assert set(plan_run(config).states()) == {"stale: configuration"}


def test_a_region_cannot_have_an_atlas_of_its_own(finished, survey, tmp_path):
    write_toy_atlas(tmp_path / "atlas.safetensors", survey.weights, seed=2)
    config = finished.config.model_copy(update={"atlas": str(tmp_path / "atlas.safetensors")})
    with pytest.raises(ReleaseError, match="another atlas"):
        plan_run(config, parse_region("cone:150,2,1"))


def test_an_atlas_of_other_weights_is_refused(survey, tmp_path):
    save_small_weights(tmp_path / "other.safetensors", seed=2)
    write_toy_atlas(tmp_path / "atlas.safetensors", tmp_path / "other.safetensors")
    config = survey.config(tmp_path / "out", atlas=str(tmp_path / "atlas.safetensors"))
    with pytest.raises(WeightsError, match=r"is an atlas of the weights .* or make an atlas of these"):
        plan_run(config)


def test_a_worker_needs_the_very_atlas_of_the_plan(finished):
    spec = finished.config.spec()
    wanted = {asset.role: asset.sha256 for asset in spec.read_assets()} | {"atlas": "0" * 64}
    with pytest.raises(ModelError, match=r"SHA-256 of atlas is .*: every worker needs the same files"):
        replace(spec, assets=tuple(wanted.items())).load()


def test_the_atlas_beside_the_weights_is_taken(survey, tmp_path):
    save_small_weights(tmp_path / "mine.safetensors")
    weights = str(tmp_path / "mine.safetensors")
    assert survey.config(tmp_path / "out", weights=weights).atlas == ""
    write_toy_atlas(tmp_path / "mine-atlas.safetensors", tmp_path / "mine.safetensors")
    config = survey.config(tmp_path / "out", weights=weights)
    assert config.atlas == str(tmp_path / "mine-atlas.safetensors")
    assert type(config).from_record(config.to_record()) == config


def test_cutouts_of_other_partitions_are_refused(survey, tmp_path):
    objects = image_files.write_objects(tmp_path / "objects.csv", {"1": (100.0, 100.0)})
    ingest_cutouts([UPath(survey.brick)], UPath(objects), UPath(tmp_path / "cutouts"))
    with pytest.raises(CatalogueError, match=f"ojala cutouts IMAGES --objects {survey.spectra} --out"):
        plan_run(survey.config(tmp_path / "out", cutouts=str(tmp_path / "cutouts")))


def test_what_holds_no_cutouts_is_refused(survey, tmp_path):
    with pytest.raises(CatalogueError, match="is no catalogue of cutouts: it has no column"):
        plan_run(survey.config(tmp_path / "out", cutouts=str(survey.spectra)))


def test_spectra_alone_are_embedded_and_say_so(survey, tmp_path, monkeypatch):
    without_report(monkeypatch)
    alone = run_and_publish(survey.config(tmp_path / "out", cutouts=None))
    made = table_of(alone.run / "avis")
    flags = made["avis_flags"].to_numpy()
    assert (flags & AvisFlag.NO_CUTOUT != 0).all()
    assert (flags & AvisFlag.NO_IMAGE != 0).all()
    np.testing.assert_array_equal(vectors(made, "avis_embedding"), vectors(made, "avis_embedding_spectrum"))
    assert set(made["cluster"].to_pylist()) == {-1}
    assert made["z_nn"].null_count == made["map_x"].null_count == len(made)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model": "avis", "cutouts": "c"}, "model avis reads spectra: give --spectra"),
        ({"model": "specpt", "spectra": "s", "cutouts": "c"}, "leave --cutouts out"),
        ({"model": "specpt", "spectra": "s", "atlas": "a"}, "leave --atlas out"),
    ],
)
def test_a_model_is_given_what_it_reads(flags, message):
    with pytest.raises(ConfigError, match=message):
        read_config(None, {"out": "o", **flags})


def test_rows_join_by_key_whatever_their_order(survey):
    spectra, cutouts = table_of(survey.spectra), table_of(survey.cutouts)
    shuffled = cutouts.take([3, 0, 4, 2])
    joined = join_auxiliary(spectra, shuffled, CUTOUTS.name)
    assert joined["cutouts.object_id"].to_pylist() == [
        key if key != cutouts["object_id"][1].as_py() else None for key in spectra["object_id"].to_pylist()
    ]
    same, given = (
        AvisAdapter().read_inputs(joined),
        AvisAdapter().read_inputs(join_auxiliary(spectra, cutouts, CUTOUTS.name)),
    )
    rows = [0, 2, 3, 4]
    np.testing.assert_array_equal(same.images.flux[rows], given.images.flux[rows])
    assert given.images.ivar.any()
    assert not same.images.ivar[1].any()
    names = [name for name in AVIS.column_names if "embed" in name]
    predictions = {name: np.ones((5, EMBEDDING_SIZE), np.float32) for name in names}
    flags = avis_table(joined, predictions, None)["avis_flags"].to_numpy()
    np.testing.assert_array_equal((flags & AvisFlag.NO_CUTOUT) != 0, np.arange(5) == 1)


def test_a_key_that_comes_twice_is_refused(survey):
    cutouts = table_of(survey.cutouts)
    with pytest.raises(ValueError, match="comes more than once"):
        join_auxiliary(cutouts, pa.concat_tables([cutouts, cutouts.slice(0, 1)]), CUTOUTS.name)


def test_rows_in_doubt_are_flagged(survey):
    spectra = join_auxiliary(table_of(survey.spectra), table_of(survey.cutouts), CUTOUTS.name)
    atlas = toy_atlas("w")
    embedding = np.full((5, EMBEDDING_SIZE), np.nan, np.float32)
    middle = atlas.embedding[:56].mean(axis=0)
    embedding[0] = atlas.embedding[0]
    embedding[1] = -middle / np.linalg.norm(middle)
    embedding[2] = middle / np.linalg.norm(middle)
    predictions = dict.fromkeys(("embedding", "embedding_image", "embedding_spectrum"), embedding)
    flags = avis_table(spectra, predictions, atlas)["avis_flags"].to_numpy()
    assert not flags[0] & (AvisFlag.NOVEL | AvisFlag.Z_SCATTERED | AvisFlag.NOT_EMBEDDED)
    assert flags[1] & AvisFlag.NOVEL
    assert flags[2] & AvisFlag.Z_SCATTERED
    missing = AvisFlag.NOT_EMBEDDED | AvisFlag.NO_IMAGE | AvisFlag.NO_SPECTRUM
    assert (flags[3:] & missing == missing).all()


def test_pairs_are_as_many_images_as_spectra(survey):
    pairs = AvisAdapter().read_inputs(table_of(survey.spectra))
    with pytest.raises(ValueError, match="5 spectra, but 3 images"):
        Pairs(pairs.spectra, pairs.images.rows(0, 3))
