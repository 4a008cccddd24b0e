"""The questions of docs/queries.md have one answer in DuckDB, Polars, LSDB and ADQL."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from upath import UPath

from ojala.catalogs_schema.ojala import OJALA
from ojala.pipeline.storage.hats import read_leaves
from tests.helpers.releases import make_release
from tests.helpers.survey import ingest_table, photometry_table

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "queries.md").read_text()
BLOCK = re.compile(r"```(?:sql|python)\n(.*?)```", re.DOTALL)
QUESTIONS = re.findall(r"^## \d+\. (.*?)\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """Paths of a release whose values fill the ranges of their columns."""
    # LSDB takes its time with each partition.
    photometry = ingest_table(photometry_table(300), tmp_path_factory.mktemp("survey"), tile_rows=200)
    assert len(read_leaves(photometry)) == 4
    out = make_release(photometry, UPath(tmp_path_factory.mktemp("release")), (OJALA,))
    published = Path(out.path) / "published"
    published.mkdir()
    (published / "ojala").symlink_to(Path(out.path) / "products" / "ojala")
    return {"OUT": out.path, "PHOTOMETRY": photometry.path}


def at(code: str, places: dict[str, str]) -> str:
    for word, path in places.items():
        code = re.sub(rf"(?<=[\"']){word}(?=[/\"'])", path, code)
    return code


@pytest.fixture(scope="module")
def database(places) -> duckdb.DuckDBPyConnection:
    """Views of the page, and what ADQL has beyond SQL."""
    connection = duckdb.connect()
    connection.execute(at(BLOCK.findall(PAGE)[0], places))
    connection.execute("CREATE SCHEMA tap")
    for name in ("ojala", "photometry"):
        connection.execute(f"CREATE VIEW tap.{name} AS SELECT * FROM main.{name}")
    connection.execute("CREATE MACRO POINT(a, b) AS {'ra': radians(a), 'dec': radians(b)}")
    connection.execute(
        "CREATE MACRO DISTANCE(a, b) AS degrees(2 * asin(sqrt(pow(sin((a.dec - b.dec) / 2), 2) "
        "+ cos(a.dec) * cos(b.dec) * pow(sin((a.ra - b.ra) / 2), 2))))"
    )
    return connection


@pytest.fixture(scope="module")
def names(places) -> dict:
    found: dict = {}
    exec(at(BLOCK.findall(PAGE)[1], places), found)
    return found


def adql(query: str) -> str:
    """A query in ADQL as DuckDB reads it."""
    query = query.replace("ojala.ojala", "tap.ojala").replace("ojala.photometry", "tap.photometry")
    top = re.search(r"SELECT TOP (\d+)", query)
    return query.replace(top[0], "SELECT") + f"\nLIMIT {top[1]}" if top else query


def ordered(table: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame({name: np.asarray(table[name]) for name in table.columns})
    return table.sort_values(list(table.columns)[:1]).reset_index(drop=True)


def test_there_are_ten_questions_each_in_four_languages():
    assert len(QUESTIONS) == 10
    for question, text in QUESTIONS:
        assert re.findall(r"^(\w+):$", text, re.MULTILINE) == ["DuckDB", "Polars", "LSDB", "ADQL"], question


@pytest.mark.parametrize("number", range(10))
def test_all_four_give_the_same_rows(number, database, names):
    in_duckdb, in_polars, in_lsdb, in_adql = BLOCK.findall(QUESTIONS[number][1])
    expected = ordered(database.execute(in_duckdb).df())
    assert len(expected), "the question has an answer"
    results = {"ADQL": database.execute(adql(in_adql)).df()}
    for name, code in (("Polars", in_polars), ("LSDB", in_lsdb)):
        exec(code, names)
        results[name] = names["result"] if name == "LSDB" else names["result"].to_pandas()
    for name, result in results.items():
        found = ordered(result)
        assert list(found.columns) == list(expected.columns), name
        pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-4, obj=name)
