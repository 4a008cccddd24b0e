"""Margin caches: for each partition the rows of others that lie within 10 arcsec of it, as HATS has them.

A row is in the margin of every partition that its HEALPix pixel of order `_ORDER`, or one of the eight pixels
around that, overlaps. The smallest distance across such a pixel is 16 arcsec, so the margin holds all rows
within 10 arcsec, and some that are up to three times as far, which readers sort out.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hats.catalog.dataset.table_properties import TableProperties
from hats.catalog.partition_info import PartitionInfo
from hats.pixel_math.healpix_pixel import HealpixPixel
from upath import UPath

from ojala.pipeline.storage.files import write_whole
from ojala.pipeline.storage.healpix import INDEX_ORDER, Partition, pixel_at, sky_order
from ojala.pipeline.storage.progress import counted

MARGIN_ARCSEC = 10.0
"""Width of margins [arcsec]."""

_ORDER = 13
_KEPT_LEAVES = 32  # leaves whose rows at their edges are kept in memory

MarginRows = dict[Partition, dict[Partition, np.ndarray]]
"""For each partition with a margin, the rows of it by the partition that they are in."""


def margin_name(name: str) -> str:
    """Name of the margin cache of a catalogue."""
    return f"{name}_{MARGIN_ARCSEC:g}arcsec"


def margin_rows(root: UPath, partitions: Sequence[Partition]) -> MarginRows:
    """Find the rows of a catalogue that are in the margins of its partitions, from their spatial index.

    Parameters
    ----------
    root : UPath
        Root of the catalogue.
    partitions : sequence of Partition
        Its partitions.
    """
    ordered = sky_order(partitions)
    first = np.array([p.pixel << 2 * (INDEX_ORDER - p.order) for p in ordered], np.int64)
    end = first + np.array([1 << 2 * (INDEX_ORDER - p.order) for p in ordered], np.int64)
    found: MarginRows = {}
    for number, partition in enumerate(counted(ordered, "partitions searched for margins")):
        with (root / partition.leaf).open("rb") as file:
            index = pq.read_table(file, columns=["_healpix_29"])["_healpix_29"].to_numpy()
        rows = np.flatnonzero(_at_edge(index, partition))
        row, other = _overlaps(index[rows], first, end)
        pairs = np.unique(np.stack([other, rows[row]]), axis=1)
        for target in np.unique(pairs[0]):
            if target != number:
                into = found.setdefault(ordered[target], {})
                into[partition] = pairs[1][pairs[0] == target]
    return found


def _at_edge(index: np.ndarray, partition: Partition) -> np.ndarray:
    """Whether the pixel of order `_ORDER` of each position, shape (N,), touches the partition's edge."""
    depth = max(0, _ORDER - partition.order)
    within = pixel_at(index, max(_ORDER, partition.order)) & ((1 << 2 * depth) - 1)
    # In the nested scheme one coordinate in a pixel is in the even bits, the other one in the odd bits.
    x = ((1 << 2 * depth) - 1) // 3
    y = 2 * x
    return np.asarray(((within & x) == 0) | ((within & x) == x) | ((within & y) == 0) | ((within & y) == y))


def _overlaps(index: np.ndarray, first: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions, and the partition that their pixel or one around it overlaps; pairs may repeat."""
    import healpy  # with matplotlib and astropy, seconds that most commands do not need

    pixel, place = np.unique(pixel_at(index, _ORDER), return_inverse=True)
    around = np.vstack([healpy.get_all_neighbours(2**_ORDER, pixel, nest=True).reshape(8, -1), pixel])
    shift = 2 * (INDEX_ORDER - _ORDER)
    low = np.searchsorted(end, around << shift, side="right")
    high = np.searchsorted(first, (around + 1) << shift, side="left")
    number = np.where(around < 0, 0, high - low).ravel()
    start = np.repeat(low.ravel(), number)
    step = np.arange(len(start)) - np.repeat(np.cumsum(number) - number, number)
    pairs = np.unique(np.stack([np.repeat(np.tile(np.arange(len(pixel)), 9), number), start + step]), axis=1)
    order = np.argsort(place, kind="stable")
    count = np.bincount(place, minlength=len(pixel))
    begin = np.cumsum(count) - count
    repeats = count[pairs[0]]
    offset = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return order[np.repeat(begin[pairs[0]], repeats) + offset], np.repeat(pairs[1], repeats)


def write_margin(
    root: UPath, to: UPath, rows: MarginRows, *, name: str, primary: str, facts: Mapping[str, str] = {}
) -> int:
    """Write the margin cache of a catalogue, and return the number of its rows.

    Parameters
    ----------
    root, to : UPath
        Roots of the catalogue and of the cache.
    rows : MarginRows
        From `margin_rows`, of this catalogue or of one with the same rows.
    name : str
        Name of the catalogue.
    primary : str
        How the cache names the catalogue.
    facts : mapping of str to str
        Further properties.
    """

    @functools.lru_cache(maxsize=_KEPT_LEAVES)
    def edge(partition: Partition) -> tuple[np.ndarray, pa.Table]:
        wanted = np.unique(np.concatenate([of[partition] for of in rows.values() if partition in of]))
        with (root / partition.leaf).open("rb") as file:
            table = pq.ParquetFile(file).read().take(pa.array(wanted))
        return wanted, table.replace_schema_metadata(None)

    partitions, total = sky_order(rows), 0
    for partition in counted(partitions, "margins written"):
        parts = []
        for source, chosen in rows[partition].items():
            known, table = edge(source)
            parts.append(table.take(pa.array(np.searchsorted(known, chosen))))
        table = pa.concat_tables(parts).sort_by("_healpix_29")
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        write_whole(to / partition.leaf, memoryview(sink.getvalue()))
        total += table.num_rows
    write_whole(to / "dataset/_common_metadata", (root / "dataset/_common_metadata").read_bytes())
    PartitionInfo.from_healpix([HealpixPixel(p.order, p.pixel) for p in partitions]).write_to_file(
        to / "partition_info.csv"
    )
    properties = {
        "obs_collection": margin_name(name),
        "dataproduct_type": "margin",
        "hats_nrows": total,
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": "_healpix_29",
        "hats_col_healpix_order": INDEX_ORDER,
        "hats_npix_suffix": ".parquet",
        "hats_primary_table_url": primary,
        "hats_margin_threshold": MARGIN_ARCSEC,
        "hats_version": "v1.0",
        **facts,
    }
    TableProperties.model_validate(properties).to_properties_file(to)
    return total
