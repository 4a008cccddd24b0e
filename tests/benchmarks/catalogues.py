"""A published catalogue of millions of rows, for benchmarks: the answers for the mock sky, over and over.

Every replica of an object has a place of its own, and the lowest bits of its measured numbers are drawn
anew: numbers that came again to the last bit would compress as no catalogue does.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import healpy
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.ojala import OJALA
from ojala.catalogs_schema.photometry import PHOTOMETRY
from ojala.flows.bench.flow import survey
from ojala.flows.demo.run import PATCH
from ojala.pipeline import run as survey_run
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.storage.hats import SKYMAP_ORDER, finalise_catalogue, read_leaves
from ojala.pipeline.storage.healpix import INDEX_ORDER, Partition, pixel_at, spatial_index
from ojala.pipeline.storage.parquet import LeafRecord, write_leaf
from tests.helpers.survey import plan_run

ORDER = 4
"""Order of the partitions, of 13.4 deg2 each."""

NOISE_BITS = 10
"""Lowest bits of a number's 23-bit mantissa that are drawn anew: a change of less than 2e-4 of it."""


def answers_for_the_mock_sky(folder: Path, rows: int | None = None, model: str = "ojala") -> pa.Table:
    """The value-added rows of the bundled mock sky, in the columns of `OJALA`.

    Parameters
    ----------
    folder : Path
        Where the run that makes them may write.
    rows : int, optional
        Only so many of its 6,000 objects.
    model : str
        Model to ask.
    """
    sky = pd.read_parquet(PATCH / "mock_sky.parquet").head(rows)
    pq.write_table(pa.Table.from_pandas(sky, preserve_index=False), folder / "sky.parquet")
    ingest_photometry([UPath(folder / "sky.parquet")], UPath(folder / "photometry"))
    config = RunConfig(
        photometry=str(folder / "photometry"), out=str(folder / "out"), model=model, engine="serial"
    )
    plan = plan_run(config)
    run = survey_run.begin(plan)
    receipts = list(survey_run.execute(plan))
    leaves = [str(run / leaf.path) for receipt in receipts for leaf in receipt.leaves]
    return pa.concat_tables([pq.ParquetFile(leaf).read() for leaf in leaves]).replace_schema_metadata(None)


def replica_leaf(answers: pa.Table, partition: Partition, rows: int) -> pa.Table:
    """Rows of a partition: answers drawn with replacement, at places spread evenly over it.

    Parameters
    ----------
    answers : pyarrow.Table
        Rows in the columns of `OJALA`.
    partition : Partition
        Where; its number seeds the draw.
    rows : int
        How many.
    """
    random = np.random.default_rng((partition.order, partition.pixel))
    shift = 2 * (INDEX_ORDER - partition.order)
    index = np.sort(random.integers(partition.pixel << shift, partition.pixel + 1 << shift, rows))
    ra, dec = healpy.pix2ang(healpy.order2nside(INDEX_ORDER), index, nest=True, lonlat=True)
    number = random.permutation(rows).astype(np.int32) + 1
    tile = np.full(rows, 90_000 + partition.pixel, np.int32)
    drawn = answers.take(random.integers(0, answers.num_rows, rows)).combine_chunks()
    own = {
        "_healpix_29": spatial_index(ra, dec),
        "ra": ra,
        "dec": dec,
        "tile_id": tile,
        "number": number,
        "object_id": (tile.astype(np.int64) << 32) + number,
    }
    columns = []
    for column in OJALA:
        if column.name in own:
            columns.append(pa.array(own[column.name], column.type))
        elif column.type == pa.float32():
            columns.append(_with_noise(drawn[column.name].combine_chunks(), random))
        else:
            columns.append(drawn[column.name])
    return pa.Table.from_arrays(columns, schema=OJALA.schema())


def _with_noise(values: pa.Array, random: np.random.Generator) -> pa.Array:
    """Numbers with other lowest bits; round ones such as 0 and 1 stay, since they are no measurements."""
    there = values.is_valid().to_numpy(zero_copy_only=False)
    bits = values.fill_null(0.0).to_numpy(zero_copy_only=False).view(np.uint32)
    low = np.uint32(2**NOISE_BITS - 1)
    noise = random.integers(0, low, len(bits), dtype=np.uint32, endpoint=True)
    measured = bits & low != 0
    return pa.array(np.where(measured, bits & ~low | noise, bits).view(np.float32), mask=~there)


def publish_replicas(
    root: UPath, answers: pa.Table, partitions: int, rows: int
) -> dict[Partition, LeafRecord]:
    """Write a catalogue of replicas as a run writes and finalises its own.

    Parameters
    ----------
    root : UPath
        Root of the catalogue.
    answers : pyarrow.Table
        Rows in the columns of `OJALA`.
    partitions, rows : int
        How many partitions, and rows in each.
    """
    leaves = {}
    counts = np.zeros(healpy.order2npix(SKYMAP_ORDER), dtype=np.int64)
    for pixel in range(partitions):
        partition = Partition(ORDER, pixel)
        table = replica_leaf(answers, partition, rows)
        np.add.at(counts, pixel_at(table["_healpix_29"].to_numpy(), SKYMAP_ORDER), 1)
        record = write_leaf(root / partition.leaf, table, OJALA, {"ojala.partition": partition.name})
        leaves[partition] = replace(record, path=partition.leaf)
    finalise_catalogue(root, OJALA, leaves, name=root.name, skymap=counts)
    return leaves


SURVEY_ORDER = 6
"""Order of the partitions: 10,128 of them are the sky of J-PAS."""


def simulate(folder: Path, partitions: int, rows: int) -> UPath:
    """A photometry catalogue of so many partitions, all of them with the same objects.

    All leaves are one file by many names: what is simulated takes the disk of one partition.

    Parameters
    ----------
    folder : Path
        An empty folder; gets the catalogue and what it is made of.
    partitions, rows : int
        Number of partitions, and of rows in each.
    """
    few = survey(folder / "few", rows, tile_rows=rows)
    ((partition, leaf),) = read_leaves(few).items()
    root = UPath(folder / "photometry")
    places = [Partition(SURVEY_ORDER, pixel) for pixel in range(partitions)]
    for place in places:
        name_again(Path(few.path, partition.leaf), Path(root.path, place.leaf))
    leaves = {place: LeafRecord(place.leaf, leaf.rows, leaf.bytes, leaf.sha256) for place in places}
    counts = np.zeros(healpy.order2npix(SKYMAP_ORDER), dtype=np.int64)
    counts[[place.pixel << 2 * (SKYMAP_ORDER - SURVEY_ORDER) for place in places]] = rows
    finalise_catalogue(root, PHOTOMETRY, leaves, name="simulated", skymap=counts)
    return root


def name_again(source: Path, target: Path) -> None:
    """Give a file another name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, target)
