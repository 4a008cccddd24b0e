import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.pipeline.quality.verify import verify
from ojala.pipeline.storage.hats import CatalogueError, read_leaves


@pytest.fixture
def collection(finished, tmp_path):
    """A copy of a published collection with its photometry, to be damaged."""
    shutil.copytree(finished.photometry.path, tmp_path / "photometry")
    shutil.copytree(finished.out.path, tmp_path / "out")
    pointer = tmp_path / "out" / "collection.properties"
    lines = pointer.read_text().splitlines()
    pointer.write_text(
        "\n".join(
            "hats_primary_table_url=../photometry" if line.startswith("hats_primary_table_url") else line
            for line in lines
        )
    )
    return UPath(tmp_path / "out")


def run_of(collection):
    return next((collection / "runs").iterdir())


def leaf_of(collection, product="ojala"):
    return sorted((run_of(collection) / product).rglob("Npix=*.parquet"), key=str)[0]


def found(root):
    return [str(damage) for damage in verify(root)]


def test_a_whole_collection_run_and_catalogue_have_no_damage(collection):
    assert found(collection) == []
    assert found(run_of(collection)) == []
    assert found(collection.parent / "photometry") == []


def test_a_folder_that_is_none_of_them_is_refused(tmp_path):
    with pytest.raises(CatalogueError, match="neither a collection, a run nor a catalogue"):
        found(UPath(tmp_path))


def test_one_flipped_byte_is_found_and_its_file_named(collection):
    leaf = leaf_of(collection)
    content = bytearray(leaf.read_bytes())
    content[len(content) // 2] ^= 1
    leaf.write_bytes(bytes(content))
    assert found(collection) == [f"{leaf}: SHA-256 differs from checksums.sha256"]


def test_a_truncated_photometry_leaf_is_found(collection):
    leaf = sorted((collection.parent / "photometry").rglob("Npix=*.parquet"), key=str)[0]
    leaf.write_bytes(leaf.read_bytes()[:1000])
    assert f"{leaf}: SHA-256 differs from leaves.csv" in found(collection)


@pytest.mark.parametrize("name", ["ojala/hats.properties", "report/index.html", "provenance/prov.json"])
def test_a_missing_file_is_found(collection, name):
    (run_of(collection) / name).unlink()
    assert f"{run_of(collection) / name}: missing" in found(collection)


def test_a_missing_leaf_is_found(collection):
    leaf = leaf_of(collection, "ojala_vectors")
    leaf.unlink()
    assert f"{leaf}: missing" in found(collection)


def test_missing_checksums_and_pointers_are_found(collection):
    (run_of(collection) / "checksums.sha256").unlink()
    assert found(collection) == [f"{run_of(collection) / 'checksums.sha256'}: missing"]
    pointer = collection / f"ojala-{run_of(collection).name}.properties"
    pointer.unlink()
    assert f"{pointer}: missing" in found(collection)


def forge(collection, table):
    """Replace a leaf with a table, with checksums that agree: only its content is wrong."""
    import hashlib

    leaf = leaf_of(collection)
    old = hashlib.sha256(leaf.read_bytes()).hexdigest()
    pq.write_table(table, leaf.path)
    sums = run_of(collection) / "checksums.sha256"
    sums.write_text(sums.read_text().replace(old, hashlib.sha256(leaf.read_bytes()).hexdigest()))
    return leaf


def content_of(collection):
    return pq.ParquetFile(leaf_of(collection).path).read()


def test_a_lost_row_is_found_even_where_checksums_agree(collection):
    table = content_of(collection)
    leaf = forge(collection, table.slice(1))
    assert found(collection) == [f"{leaf}: {table.num_rows - 1} rows, expected {table.num_rows}"]


def test_a_row_that_is_there_twice_instead_of_another_is_found(collection):
    table = content_of(collection)
    index = np.arange(table.num_rows)
    index[1] = 0
    leaf = forge(collection, table.take(pa.array(index)))
    assert found(collection) == [f"{leaf}: its objects are not those of the input's partition"]


def test_a_value_out_of_range_is_found(collection):
    table = content_of(collection)
    column = table.schema.get_field_index("p_star")
    wrong = table.set_column(
        column, table.schema.field("p_star"), [pa.array([2.0] * table.num_rows, pa.float32())]
    )
    leaf = forge(collection, wrong)
    assert found(collection) == [f"{leaf}: column p_star, row 0: value 2.0 outside [0, 1]"]


def test_a_partition_that_the_photometry_does_not_have_is_found(collection):
    root = run_of(collection) / "ojala"
    extra = next(iter(read_leaves(root)))
    listing = collection.parent / "photometry" / "leaves.csv"
    kept = [
        line
        for line in listing.read_text().splitlines()
        if not line.startswith(f"{extra.order},{extra.pixel},")
    ]
    listing.write_text("\n".join(kept) + "\n")
    assert f"{root / extra.leaf}: the input has no such partition" in found(collection)
