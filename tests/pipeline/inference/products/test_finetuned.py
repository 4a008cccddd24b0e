"""Heads of a user's own make a product beside the catalogue; its contract is what they say of themselves."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from astropy.table import Table

from ojala.catalogs_schema.finetuned import HEADS_PRODUCT, FinetunedHead, heads_contract
from ojala.models.checkpoint import file_sha256
from ojala.models.ojala.checkpoint import save as save_weights
from ojala.models.ojala.heads import FineTuning, Head, fit_head, save_head
from ojala.models.ojala.network import Ojala, OjalaConfig
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.config import ConfigError, RunConfig, read_config
from ojala.pipeline.runs.record import read_record
from ojala.pipeline.runs.region import parse_region
from ojala.pipeline.runs.releases import ReleaseError, pointers
from tests.helpers.survey import Finished, plan_run, run_and_publish, without_report

WIDTH = 16
TINY = OjalaConfig(
    width=WIDTH, encoder=((2, 32),), decoder=((2, 32),), trunk=(32,), pre_norm=True, reads_errors=True
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, Ojala(TINY), name="tiny", version="1", training={})
    return path


def write_head(path: Path, weights_sha256: str, seed: int = 0, **changed: str) -> Path:
    """A head for galaxies that was tuned on noise."""
    rng = np.random.default_rng(seed)
    said = {"name": "log_mass_again", "description": "log10 of the stellar mass in solar masses, anew."}
    tuning = FineTuning(
        **said | {"object_class": "GALAXY", "unit": "kpc", "ucd": "phys.mass"} | changed, epochs=1
    )
    embedding = torch.as_tensor(rng.normal(size=(200, WIDTH)), dtype=torch.float32)
    head: Head = fit_head(embedding, rng.normal(10.0, 1.0, 200), np.full(200, np.nan), tuning, weights_sha256)
    save_head(path, head)
    return path


@pytest.fixture(scope="module")
def head(weights) -> Path:
    return write_head(weights.parent / "mine.safetensors", file_sha256(weights))


@pytest.fixture(scope="module")
def with_head(photometry, weights, head, tmp_path_factory) -> Finished:
    """A finished run with one head."""
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        return run_and_publish(
            RunConfig(
                photometry=str(photometry),
                out=str(tmp_path_factory.mktemp("out")),
                weights=str(weights),
                heads=(str(head),),
                engine="serial",
                batch_size=48,
            )
        )


def test_a_run_with_a_head_is_whole_and_publishes_its_product(with_head):
    assert with_head.record.status == "complete"
    assert list(verify(with_head.out)) == []
    assert set(pointers(with_head.out)) == {"ojala", HEADS_PRODUCT}
    own, main = (
        pd.read_parquet(with_head.run / product / "dataset").sort_values("object_id", ignore_index=True)
        for product in (HEADS_PRODUCT, "ojala")
    )
    assert (own["object_id"] == main["object_id"]).all()
    given = own["log_mass_again"].notna()
    assert (given == (main["p_galaxy"] >= 0.01)).all()
    assert given.any()
    assert (own["log_mass_again_err"][given] > 0).all()


def test_leaves_describe_the_quantity_as_the_head_does(with_head):
    leaf = next((with_head.run / HEADS_PRODUCT / "dataset").glob("**/Npix=*.parquet"))
    column = Table.read(leaf, format="parquet.votable")["log_mass_again"]
    assert (str(column.unit), column.dtype) == ("kpc", np.float32)
    said = "log10 of the stellar mass in solar masses, anew; given where p_galaxy >= 0.01"
    assert " ".join(column.description.split()) == said
    footer = pq.read_metadata(leaf).metadata
    sha256 = with_head.record.heads[0].sha256
    assert footer[b"ojala.head.log_mass_again"].decode() == sha256
    assert sha256 in (with_head.run / "provenance" / "prov.json").read_text()


def test_the_same_head_has_nothing_to_do_and_another_one_everything(with_head, weights, tmp_path):
    assert plan_run(with_head.config).to_do == []
    other = write_head(tmp_path / "other.safetensors", file_sha256(weights), seed=1)
    plan = plan_run(with_head.config.model_copy(update={"heads": (str(other),)}))
    assert plan.states() == {"stale: configuration": len(plan.entries)}


def test_a_region_cannot_have_other_columns_than_its_catalogue(with_head, weights, tmp_path):
    other = write_head(tmp_path / "other.safetensors", file_sha256(weights), name="log_age")
    config = with_head.config.model_copy(update={"heads": (str(other),)})
    with pytest.raises(ReleaseError, match=r"\(log_mass_again\) have other columns"):
        plan_run(config, parse_region("cone:245.5,43.9,0.2"))


def test_a_record_gives_back_the_heads_it_was_made_with(with_head, head):
    described = read_record(with_head.run).config
    assert described["heads.0"] == str(head)
    assert RunConfig.from_record(described).heads == (str(head),)


def test_a_head_of_other_weights_is_refused_before_anything_is_done(with_head, tmp_path):
    other = write_head(tmp_path / "other.safetensors", "0" * 64)
    config = with_head.config.model_copy(update={"heads": (str(other),)})
    with pytest.raises(ValueError, match=r"other\.safetensors: belongs to the weights 000000000000"):
        plan_run(config)


def test_a_head_must_not_answer_what_the_catalogue_or_another_head_has():
    def described(name: str) -> FinetunedHead:
        return FinetunedHead(name=name, unit="", ucd="", description="d", object_class="STAR", sha256="")

    with pytest.raises(ValueError, match="the catalogue has a column log_mass without"):
        heads_contract([described("log_mass")])
    with pytest.raises(ValueError, match="the catalogue has a column age without"):
        heads_contract([described("age"), described("age")])
    assert heads_contract([described("age")])["age_err"].ucd == "stat.error"


def test_heads_are_for_ojala_alone():
    with pytest.raises(ConfigError, match="model empty has no use for heads"):
        read_config(None, {"photometry": "a", "out": "b", "model": "empty", "heads": ["c"]})
