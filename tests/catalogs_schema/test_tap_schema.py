"""TAP_SCHEMA and the resource descriptor of DaCHS say of each column what its contract says."""

import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pyarrow as pa
import pytest
from astropy import units as u

from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.data_model import CONTRACTS
from ojala.catalogs_schema.tap_schema import adql_name, dachs_descriptor, tap_sql

TAP_SCHEMA = {
    "schemas": "schema_name PRIMARY KEY, utype, description, schema_index",
    "tables": "schema_name, table_name PRIMARY KEY, table_type, utype, description, table_index",
    "columns": "table_name, column_name, datatype NOT NULL, arraysize, xtype, description, utype, unit, ucd, "
    "indexed NOT NULL, principal NOT NULL, std NOT NULL, column_index, PRIMARY KEY (table_name, column_name)",
    "keys": "key_id PRIMARY KEY, from_table, target_table, description, utype",
    "key_columns": "key_id, from_column, target_column",
}
"""Tables of TAP 1.1, section 4."""

READ = """
import json, sys
from gavo import api, base, rscdesc
text = open(sys.argv[1], encoding="utf-8").read().partition("?>")[2]
tables = base.parseFromString(rscdesc.RD, text).tables
print(json.dumps({t.id: [[c.name, c.unit, c.ucd, c.description] for c in t.columns] for t in tables}))
"""
"""Program for the Python of DaCHS: tables of a descriptor as DaCHS understands them."""


def loaded(contracts) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.execute("ATTACH ':memory:' AS tap_schema")
    for table, columns in TAP_SCHEMA.items():
        database.execute(f"CREATE TABLE tap_schema.{table} ({columns})")
    database.executescript(tap_sql("survey", contracts))
    database.row_factory = sqlite3.Row
    return database


def test_every_column_comes_back_with_its_type_unit_ucd_and_description():
    database = loaded(CONTRACTS)
    for contract in CONTRACTS:
        rows = database.execute(
            "SELECT * FROM tap_schema.columns WHERE table_name = ? ORDER BY column_index",
            (f"survey.{contract.name}",),
        ).fetchall()
        assert [row["column_name"] for row in rows] == [adql_name(column) for column in contract]
        for row, column in zip(rows, contract, strict=True):
            assert row["description"] == column.description
            assert row["ucd"] == column.ucd
            assert (row["unit"] or "") == column.unit
            assert (row["datatype"] == "char") == pa.types.is_string(column.type)
            assert bool(row["arraysize"]) == (
                pa.types.is_nested(column.type) or pa.types.is_string(column.type)
            )


def test_each_table_but_the_first_refers_to_it_by_a_key_that_both_have():
    database = loaded(CONTRACTS[:3])
    keys = database.execute("SELECT * FROM tap_schema.keys NATURAL JOIN tap_schema.key_columns").fetchall()
    assert [row["from_table"] for row in keys] == ["survey.ojala", "survey.ojala_vectors"]
    for row in keys:
        for table, column in ((row["from_table"], "from_column"), (row["target_table"], "target_column")):
            found = database.execute(
                "SELECT count(*) FROM tap_schema.columns WHERE table_name = ? AND column_name = ?",
                (table, row[column]),
            )
            assert found.fetchone()[0] == 1


def test_a_description_with_quotes_and_tags_stays_text():
    evil = "it's '); DROP TABLE tap_schema.columns; -- <b>&"
    contract = Contract("t", "1.0.0", evil, evil, (Column("object_id", pa.int64(), "", "meta.id", evil),))
    row = loaded([contract]).execute("SELECT description FROM tap_schema.columns").fetchone()
    assert row[0] == evil
    table = ET.fromstring(dachs_descriptor("survey", [contract], evil).encode()).find("table")
    assert table.find("column").get("description") == evil


def test_the_descriptor_has_each_table_with_its_columns_and_an_import():
    resource = ET.fromstring(dachs_descriptor("survey", CONTRACTS, "A survey").encode())
    assert resource.get("schema") == "survey"
    for contract, table in zip(CONTRACTS, resource.findall("table"), strict=True):
        assert table.get("id") == contract.name
        columns = {column.get("name"): column for column in table.findall("column")}
        assert list(columns) == [adql_name(column) for column in contract]
        for column in contract:
            assert columns[adql_name(column)].get("ucd") == column.ucd
            u.Unit(columns[adql_name(column)].get("unit"), format="vounit")
        tables = [make.get("table") for make in resource.iterfind("data/make")]
        assert tables.count(contract.name) == 1


def test_dachs_reads_the_descriptor(tmp_path):
    dachs = shutil.which("dachs")
    if dachs is None:
        pytest.skip("DaCHS is not installed (Debian's gavodachs2-server)")
    (tmp_path / "inputs" / "survey").mkdir(parents=True)
    (tmp_path / "gavorc").write_text(f"[general]\nrootDir: {tmp_path}\n")
    descriptor = tmp_path / "inputs" / "survey" / "q.rd"
    descriptor.write_text(dachs_descriptor("survey", CONTRACTS[:3], "A survey"))
    settings = str(tmp_path / "gavorc")
    done = subprocess.run(
        [Path(dachs).read_text().splitlines()[0].removeprefix("#!").strip(), "-c", READ, str(descriptor)],
        capture_output=True,
        text=True,
        env=os.environ | {"GAVOSETTINGS": settings, "GAVOCUSTOM": settings},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    tables = json.loads(done.stdout)
    for contract in CONTRACTS[:3]:
        assert tables[contract.name] == [[adql_name(c), c.unit, c.ucd, c.description] for c in contract]
