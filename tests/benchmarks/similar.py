"""Recall and time of `ojala similar` against brute force, on embeddings in random order.

    python -m tests.benchmarks.similar [--rows 1000000] [--queries 200]

OJALA embeds the bundled mock sky. Further rows lie between an object and one of its ten nearest ones, with
scatter of a third of their distance, so that they are spread as dense samples of the same embeddings. On the
sky neighbours in the catalogue are not alike: rows are in random order.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.ojala import OJALA_VECTORS
from ojala.flows.demo.run import PATCH
from ojala.pipeline import run as survey_run
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.published import Product
from ojala.pipeline.similarity import open_index
from ojala.pipeline.storage.hats import LEAVES, leaves_text
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.parquet import LeafRecord
from tests.helpers.survey import plan_run

LEAF_ROWS, NEIGHBOURS, K = 100_000, 10, 50


def embeddings_of_the_mock_sky(folder: Path) -> np.ndarray:
    """Embeddings of the 6,000 objects of the bundled mock sky, shape (N, D)."""
    sky = pd.read_parquet(PATCH / "mock_sky.parquet")
    pq.write_table(pa.Table.from_pandas(sky, preserve_index=False), folder / "sky.parquet")
    ingest_photometry([UPath(folder / "sky.parquet")], UPath(folder / "photometry"))
    places = {"photometry": str(folder / "photometry"), "out": str(folder / "out")}
    plan = plan_run(RunConfig(**places, engine="serial", vectors=True))
    run = survey_run.begin(plan)
    paths = [run / leaf.path for one in survey_run.execute(plan) for leaf in one.leaves]
    tables = [pq.ParquetFile(path.path).read() for path in paths if OJALA_VECTORS.name in str(path)]
    values = pa.concat_tables(tables)["embedding"].combine_chunks().flatten().to_numpy()
    found = values.astype(np.float32).reshape(-1, OJALA_VECTORS["embedding"].type.list_size)
    return found[(found != 0).any(axis=1)]


def dense_sample(seeds: np.ndarray, rows: int, random: np.random.Generator) -> np.ndarray:
    """Rows between objects and those near them, half precision of shape (rows, D)."""
    units = seeds / np.linalg.norm(seeds, axis=1, keepdims=True)
    near = np.argsort(-(units @ units.T), axis=1)[:, 1 : NEIGHBOURS + 1]
    made = np.empty((rows, seeds.shape[1]), np.float16)
    for start in range(0, rows, LEAF_ROWS):
        one = random.integers(0, len(seeds), min(LEAF_ROWS, rows - start))
        other = near[one, random.integers(0, NEIGHBOURS, len(one))]
        step = seeds[other] - seeds[one]
        scatter = np.linalg.norm(step, axis=1, keepdims=True) / 3 / np.sqrt(seeds.shape[1])
        between = seeds[one] + random.uniform(0, 1, (len(one), 1)) * step
        made[start : start + len(one)] = between + scatter * random.standard_normal(step.shape)
    return made


def write_leaves(root: Path, embeddings: np.ndarray) -> Product:
    """A product with these embeddings in partitions of the sky."""
    leaves = {}
    for number, start in enumerate(range(0, len(embeddings), LEAF_ROWS)):
        part = embeddings[start : start + LEAF_ROWS]
        keys = np.arange(start, start + len(part))
        lists = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), part.shape[1])
        place = {"object_id": keys, "ra": keys % 360.0, "dec": keys % 90.0}
        partition = Partition(5, number)
        path = root / partition.leaf
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(place | {"embedding": lists}), path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        leaves[partition] = LeafRecord(partition.leaf, len(part), path.stat().st_size, sha256)
    (root / LEAVES).write_text(leaves_text(leaves))
    (root / "hats.properties").touch()
    return Product(OJALA_VECTORS.name, UPath(root), OJALA_VECTORS)


def nearest(embeddings: np.ndarray, key: int) -> np.ndarray:
    """The K most similar of the other objects by brute force."""
    own, cosine = embeddings[key].astype(np.float32), np.empty(len(embeddings), np.float32)
    for start in range(0, len(embeddings), LEAF_ROWS):
        part = embeddings[start : start + LEAF_ROWS].astype(np.float32)
        cosine[start : start + LEAF_ROWS] = part @ own / np.linalg.norm(part, axis=1)
    cosine[key] = -2
    return np.argpartition(-cosine, K)[:K]


def main() -> None:
    """Print recall and times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=200)
    asked = parser.parse_args()
    random = np.random.default_rng(0)
    with TemporaryDirectory() as place:
        folder = Path(place)
        embeddings = dense_sample(embeddings_of_the_mock_sky(folder), asked.rows, random)
        product = write_leaves(folder / OJALA_VECTORS.name, embeddings)
        begin = time.process_time(), time.perf_counter()
        index = open_index(product, folder / "indexes")
        processor, seconds = time.process_time() - begin[0], time.perf_counter() - begin[1]
        size = sum(path.stat().st_size for path in (folder / "indexes").iterdir()) / 2**20
        print(
            f"{asked.rows:,} rows: index {processor:.0f} s of processor time, {seconds:.0f} s, {size:.0f} MiB"
        )
        begin = time.process_time(), time.perf_counter()
        index = open_index(product, folder / "indexes")
        print(f"opened in {time.process_time() - begin[0]:.2f} s of processor time")
        shares, times = [], []
        for key in random.choice(asked.rows, asked.queries, replace=False).tolist():
            start = time.perf_counter()
            found = index.nearest(key, K).object_id
            times.append(time.perf_counter() - start)
            shares.append(len(np.intersect1d(found, nearest(embeddings, key))) / K)
        print(
            f"recall@{K} of {asked.queries} queries: mean {np.mean(shares):.3f}, least {min(shares):.2f}; "
            f"median {np.median(times) * 1e3:.1f} ms, longest {max(times) * 1e3:.0f} ms"
        )


if __name__ == "__main__":
    main()
