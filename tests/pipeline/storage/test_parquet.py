import hashlib
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.votable import CONTENT_KEY
from ojala.pipeline.storage.files import sha256_of, write_whole
from ojala.pipeline.storage.parquet import FEW_ROWS, ROW_GROUP_ROWS, ContractError, write_leaf

CONTRACT = Contract(
    "small",
    "1.0.0",
    "Small",
    "For tests.",
    (Column("x", pa.float32(), "uJy", "phot.flux", "x", minimum=0.0),),
)
TABLE = pa.table({"x": pa.array([1.0, None, 3.0], pa.float32())})


def test_a_leaf_carries_its_rows_its_header_and_its_provenance(tmp_path):
    record = write_leaf(UPath(tmp_path / "a" / "leaf.parquet"), TABLE, CONTRACT, {"ojala.run_id": "r1"})
    file = pq.ParquetFile(record.path)
    assert file.read().equals(TABLE)
    assert file.schema_arrow.metadata[b"ojala.run_id"] == file.metadata.metadata[b"ojala.run_id"] == b"r1"
    assert CONTENT_KEY.encode() in file.metadata.metadata
    assert CONTENT_KEY.encode() not in file.schema_arrow.metadata, "it would be in the footer twice"
    assert file.schema_arrow.field("x").metadata[b"unit"] == b"uJy"
    assert record.rows == 3
    assert record.bytes == os.path.getsize(record.path)
    assert record.sha256 == hashlib.sha256(UPath(record.path).read_bytes()).hexdigest()
    assert record.sha256 == sha256_of(UPath(record.path))


def test_the_same_table_makes_the_same_bytes(tmp_path):
    first, second = (write_leaf(UPath(tmp_path / name), TABLE, CONTRACT, {}) for name in "ab")
    assert first.sha256 == second.sha256


def test_a_table_that_breaks_its_contract_is_not_written(tmp_path):
    broken = pa.table({"x": pa.array([1.0, -1.0], pa.float32())})
    with pytest.raises(ContractError, match=r"leaf.parquet: column x, row 1: value -1.0 outside"):
        write_leaf(UPath(tmp_path / "leaf.parquet"), broken, CONTRACT, {})
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_file_before_it(tmp_path):
    path = UPath(tmp_path / "file")
    write_whole(path, b"before")
    with pytest.raises(TypeError):
        write_whole(path, "text is not bytes")
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file"):
        write_whole(UPath(tmp_path / "file" / "below"), b"x")


def test_infinite_fluxes_are_kept_as_they_are(tmp_path):
    contract = Contract("c", "1", "C", "", (Column("x", pa.float32(), "uJy", "phot.flux", "any value"),))
    table = pa.table({"x": pa.array([np.inf, -np.inf], pa.float32())})
    record = write_leaf(UPath(tmp_path / "leaf.parquet"), table, contract, {})
    assert pq.ParquetFile(record.path).read().equals(table)


def test_leaves_of_many_rows_are_compressed_in_row_groups_with_statistics_and_those_of_few_are_not(tmp_path):
    few = pa.table({"x": pa.array(np.arange(FEW_ROWS - 1), pa.float32())})
    many = pa.table({"x": pa.array(np.arange(ROW_GROUP_ROWS + 1), pa.float32())})
    small, large = (
        pq.ParquetFile(write_leaf(UPath(tmp_path / name), table, CONTRACT, {}).path)
        for name, table in (("few", few), ("many", many))
    )
    assert small.metadata.row_group(0).column(0).compression == "UNCOMPRESSED"
    assert small.read().equals(few)
    first, second = (large.metadata.row_group(number) for number in range(2))
    assert first.column(0).compression == "ZSTD"
    assert (first.num_rows, second.num_rows) == (ROW_GROUP_ROWS, 1)
    assert first.column(0).statistics.max == second.column(0).statistics.min - 1
    assert large.read().equals(many)


def test_the_order_of_a_tables_columns_is_not_that_of_its_leaf(tmp_path):
    contract = Contract("c", "1", "C", "", tuple(Column(n, pa.float32(), "", "", n) for n in "ab"))
    swapped = pa.table({name: pa.array([1.0], pa.float32()) for name in "ba"})
    record = write_leaf(UPath(tmp_path / "leaf.parquet"), swapped, contract, {})
    assert pq.ParquetFile(record.path).schema_arrow.names == ["a", "b"]
