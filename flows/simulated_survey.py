"""Photometry catalogues of any size from one leaf of the mock sky, which stands for all of them."""

from __future__ import annotations

import os
from pathlib import Path

import healpy
import numpy as np
from upath import UPath

from catalogs_schema.photometry import PHOTOMETRY
from flows.bench.flow import survey
from pipeline.catalogue import SKYMAP_ORDER, finalise_catalogue, read_leaves
from pipeline.leaf import LeafRecord
from pipeline.sky import Partition

ORDER = 6
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
    places = [Partition(ORDER, pixel) for pixel in range(partitions)]
    for place in places:
        name_again(Path(few.path, partition.leaf), Path(root.path, place.leaf))
    leaves = {place: LeafRecord(place.leaf, leaf.rows, leaf.bytes, leaf.sha256) for place in places}
    counts = np.zeros(healpy.order2npix(SKYMAP_ORDER), dtype=np.int64)
    counts[[place.pixel << 2 * (SKYMAP_ORDER - ORDER) for place in places]] = rows
    finalise_catalogue(root, PHOTOMETRY, leaves, name="simulated", skymap=counts)
    return root


def name_again(source: Path, target: Path) -> None:
    """Give a file another name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, target)
