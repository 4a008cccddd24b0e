"""Similar objects: the index finds what brute force finds, and belongs to its leaves."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.catalogs_schema.ojala import OJALA, OJALA_VECTORS
from ojala.pipeline.runs.published import read_release
from ojala.pipeline.similarity import find_similar, open_index
from ojala.pipeline.storage.hats import read_leaves
from tests.helpers.commands import here
from tests.helpers.releases import make_release

pytest.importorskip("usearch", reason="usearch is not installed (extra similar)")

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def release(photometry, tmp_path_factory) -> UPath:
    return make_release(photometry, UPath(tmp_path_factory.mktemp("release")), (OJALA, OJALA_VECTORS))


@pytest.fixture(scope="module")
def vectors(release) -> dict[int, np.ndarray]:
    root = release / "products" / OJALA_VECTORS.name
    table = pa.concat_tables(
        pq.read_table((root / one.leaf).path, partitioning=None) for one in read_leaves(root)
    )
    return {
        row["object_id"]: np.array(row["embedding"], np.float32)
        for row in table.select(["object_id", "embedding"]).to_pylist()
    }


def test_the_nearest_are_those_of_brute_force(release, vectors):
    keys = np.array(sorted(vectors))
    units = np.stack([vectors[key] / np.linalg.norm(vectors[key]) for key in keys])
    shares = []
    for i in (3, 100, 250):
        found = find_similar(release, str(keys[i]), 50).similar
        cosine = units @ units[i]
        best = keys[np.argsort(-cosine)[1:51]]
        shares.append(len(set(best) & set(found.object_id)) / 50)
        np.testing.assert_allclose(
            found.similarity, cosine[np.searchsorted(keys, found.object_id)], atol=1e-5
        )
        assert keys[i] not in found.object_id
    assert min(shares) >= 0.95


def test_an_object_is_named_by_its_position_too(release):
    root = release / "products" / OJALA_VECTORS.name
    leaf = pq.read_table((root / next(iter(read_leaves(root))).leaf).path, partitioning=None).to_pylist()[0]
    done = here("similar", release, "--like", f"{leaf['ra']},{leaf['dec'] + 1e-4}", "-k", "5", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["like"] == leaf["object_id"]
    assert len(facts["objects"]) == 5


@pytest.mark.parametrize(
    ("like", "words"), [("1", "has no embedding"), ("1,2", "no object with an embedding"), ("M31", "neither")]
)
def test_what_is_not_there_is_refused(release, like, words):
    done = here("similar", release, "--like", like)
    assert done.exit_code == 3
    assert words in done.stderr


def test_an_index_of_other_leaves_is_not_used(photometry, tmp_path):
    out = make_release(photometry, UPath(tmp_path / "out"), (OJALA_VECTORS,))
    folder = tmp_path / "indexes"
    open_index(read_release(out).products[0], folder)
    listing = out / "products" / OJALA_VECTORS.name / "leaves.csv"
    listing.write_text(listing.read_text().replace("0" * 64, "1" * 64))
    open_index(read_release(out).products[0], folder)
    assert len(list(folder.glob("*.usearch"))) == 2
    assert not list(folder.glob(".*"))


def test_objects_without_an_embedding_are_left_out(photometry, tmp_path):
    out = make_release(photometry, UPath(tmp_path / "out"), (OJALA_VECTORS,))
    root = out / "products" / OJALA_VECTORS.name
    path = (root / next(iter(read_leaves(root))).leaf).path
    table = pq.read_table(path, partitioning=None)
    lost = table["object_id"][0].as_py()
    values = np.stack([np.array(row, np.float16) for row in table["embedding"].to_pylist()])
    values[0] = np.nan
    at = table.column_names.index("embedding")
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    pq.write_table(table.set_column(at, "embedding", lists), path)
    index = open_index(read_release(out).products[0], tmp_path / "indexes")
    assert len(index) == 299
    assert lost not in index
