"""Replicas of a catalogue, and questions to them, as the benchmark of queries makes and asks them."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hats.io.validation import is_valid_catalog
from upath import UPath

from ojala.catalogs_schema.ojala import OJALA
from ojala.pipeline.storage.healpix import Partition, pixel_at
from tests.benchmarks.catalogues import ORDER, answers_for_the_mock_sky, publish_replicas, replica_leaf
from tests.benchmarks.queries import (
    CONE,
    CUT,
    ENGINES,
    HEADS,
    READS,
    STATISTIC,
    Target,
    agree,
    cost,
    needed_bytes,
    table_row,
)

pytestmark = pytest.mark.integration

ROWS = 400


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    few = answers_for_the_mock_sky(tmp_path_factory.mktemp("sky"), rows=50, model="empty")
    words = pa.array(["QSO", "GALAXY"] * 25)
    z = pa.array(np.linspace(0.01, 4.0, 50), pa.float32())
    few = few.set_column(
        few.schema.get_field_index("ojala_class"), OJALA.schema().field("ojala_class"), words
    )
    return few.set_column(few.schema.get_field_index("z"), OJALA.schema().field("z"), z)


@pytest.fixture(scope="module")
def target(answers, tmp_path_factory):
    root = tmp_path_factory.mktemp("catalogue") / "ojala"
    publish_replicas(UPath(root), answers, partitions=4, rows=ROWS)
    return Target.at_corner(str(root), Partition(ORDER, 0))


def test_replicas_keep_the_contract_in_the_order_of_the_sky(answers):
    partition = Partition(ORDER, 7)
    table = replica_leaf(answers, partition, ROWS)
    assert OJALA.violations(table) == []
    index = table["_healpix_29"].to_numpy()
    assert (np.diff(index) >= 0).all()
    assert set(pixel_at(index, ORDER)) == {7}
    assert len(set(table["object_id"].to_pylist())) == ROWS
    assert table.equals(replica_leaf(answers, partition, ROWS))


def test_measured_numbers_of_replicas_do_not_repeat_but_round_ones_do(answers):
    table = replica_leaf(answers, Partition(ORDER, 7), ROWS)
    measured = table["z"].to_numpy()
    assert len(set(measured)) > 5 * len(set(answers["z"].to_numpy()))
    nearest = np.abs(measured[:, None] / answers["z"].to_numpy() - 1).min(axis=1)
    assert nearest.max() < 2e-4
    assert set(table["p_galaxy"].to_pylist()) == {1.0}


def test_the_catalogue_is_one_that_hats_finds_valid(target):
    assert is_valid_catalog(target.root, strict=True)


@pytest.mark.parametrize("question", READS)
def test_engines_find_what_the_rows_hold(target, question):
    rows = pa.concat_tables([pq.ParquetFile(leaf).read() for leaf in target.leaves]).to_pandas()
    z = rows["z"].astype(float)
    ra, dec, centre = np.radians(rows["ra"]), np.radians(rows["dec"]), np.radians([target.ra, target.dec])
    cosine = np.sin(dec) * np.sin(centre[1]) + np.cos(dec) * np.cos(centre[1]) * np.cos(ra - centre[0])
    chosen = {
        CONE: cosine > np.cos(np.radians(1.0)),
        CUT: (rows["ojala_class"] == "QSO") & z.between(2, 3),
        STATISTIC: z > 0,
    }[question]
    found = z[chosen]
    assert len(found) > 0
    expected = (len(found), found.sum()) if question != STATISTIC else (found.mean(), found.std(ddof=0))
    assert agree([expected, *(engine(question, target) for engine in ENGINES.values())])


def test_bytes_needed_are_those_of_the_columns_asked_for(target):
    leaves = [pq.ParquetFile(leaf).metadata for leaf in target.leaves]
    z = OJALA.names.index("z")
    sizes = [metadata.row_group(0).column(z).total_compressed_size for metadata in leaves]
    assert needed_bytes(STATISTIC, target) == sum(sizes)
    away = dataclasses.replace(target, ra=200.0, dec=-60.0)
    assert needed_bytes(CONE, away) == 0


def test_a_question_costs_time_and_bytes(target):
    found = cost("DuckDB", STATISTIC, target, repeats=1)
    assert found.warm > 0
    assert found.asked > needed_bytes(STATISTIC, target)
    assert table_row(STATISTIC, "DuckDB", found, 1_000_000).count("|") == len(HEADS) + 1


def test_different_answers_do_not_agree():
    assert agree([(2.0, 1.0), (2.0, 1.0 + 1e-9)])
    assert not agree([(2.0, 1.0), (3.0, 1.0)])
