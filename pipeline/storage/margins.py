"""Margin caches: for each partition the rows of others that lie within 10 arcsec of it, as HATS has them.

A row is in the margin of every partition that its HEALPix pixel of order `_ORDER`, or one of the eight pixels
around that, overlaps. The smallest distance across such a pixel is 16 arcsec, so the margin holds all rows
within 10 arcsec, and some that are up to three times as far, which readers sort out.

The margin of a partition depends on the leaves around it alone. Its key is a hash of theirs; with the same
key the margin of an earlier catalogue is linked, and `stale_margins` finds those that have another one.
"""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.pipeline.storage.files import READERS, is_local, link_files, list_files, write_whole
from ojala.pipeline.storage.hats import CatalogueError, open_leaf, read_schema
from ojala.pipeline.storage.healpix import INDEX_ORDER, Partition, pixel_at, sky_order
from ojala.pipeline.storage.parquet import LeafRecord

MARGIN_ARCSEC = 10.0
"""Width of margins [arcsec]."""

MARGINS = "margins.csv"
"""List of the margins of a cache, empty ones too, with their keys."""

_ORDER = 13
_FORM = f"1 {MARGIN_ARCSEC:g} {_ORDER}"
_HEADER = "order,pixel,rows,bytes,sha256,key"
_BATCH = 20_000  # rows of a leaf that are in memory at a time


@dataclass(frozen=True, slots=True)
class Margin:
    """Margin of a partition.

    Attributes
    ----------
    rows, bytes : int
        Size; a margin without rows has no file.
    sha256 : str
        Hash of its file; empty without one.
    key : str
        Hash of what it was made from.
    """

    rows: int
    bytes: int
    sha256: str
    key: str


def margin_name(name: str) -> str:
    """Name of the margin cache of a catalogue."""
    return f"{name}_{MARGIN_ARCSEC:g}arcsec"


def surroundings(partitions: Sequence[Partition]) -> dict[Partition, list[Partition]]:
    """The partitions around each one, of which some may be too far away to have rows in its margin.

    Parameters
    ----------
    partitions : sequence of Partition
        Partitions of a catalogue, which do not overlap.
    """
    ordered = sky_order(partitions)
    first, end = np.array([_range(p) for p in ordered], np.int64).reshape(-1, 2).T
    found = {}
    for number, partition in enumerate(ordered):
        level = min(partition.order, _ORDER)
        pixel = np.array([partition.pixel >> 2 * (partition.order - level)])
        low, high = _around(pixel, level)
        begin = np.searchsorted(end, low[0], side="right")
        stop = np.searchsorted(first, high[0], side="left")
        numbers = {int(i) for a, b in zip(begin, stop, strict=True) for i in range(a, b)} - {number}
        found[partition] = [ordered[i] for i in sorted(numbers)]
    return found


def _range(partition: Partition) -> tuple[int, int]:
    """First pixel of `INDEX_ORDER` in a partition, and the first behind it."""
    shift = 2 * (INDEX_ORDER - partition.order)
    return partition.pixel << shift, (partition.pixel + 1) << shift


def _around(pixels: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Ranges of `INDEX_ORDER` of pixels and the eight around each; two arrays of shape (N, 9)."""
    import cdshealpix.nested  # it imports astropy.coordinates

    near = cdshealpix.nested.neighbours(pixels.astype(np.uint64), order, num_threads=1)
    near = np.where(near < 0, pixels[:, None], near)  # eight corners of the sky have seven neighbours
    shift = 2 * (INDEX_ORDER - order)
    return near << shift, (near + 1) << shift


def margin_keys(
    leaves: Mapping[Partition, LeafRecord], around: Mapping[Partition, Sequence[Partition]]
) -> dict[Partition, str]:
    """Key of the margin of each partition: a hash of the leaves around it."""
    keys = {}
    for partition, others in around.items():
        text = "".join(f"\n{other.name} {leaves[other].sha256}" for other in others)
        keys[partition] = hashlib.sha256(f"{_FORM} {partition.name}{text}".encode()).hexdigest()
    return keys


def read_margins(cache: UPath) -> dict[Partition, Margin]:
    """The margins of a cache by partition.

    Raises
    ------
    CatalogueError
        If the list cannot be read; says where.
    """
    header, *lines = (cache / MARGINS).read_text().splitlines() or [""]
    margins = {}
    for line in lines if header == _HEADER else [header]:
        try:
            order, pixel, rows, size, sha256, key = line.split(",")
            margins[Partition.parse(f"{order}/{pixel}")] = Margin(int(rows), int(size), sha256, key)
        except ValueError as problem:
            raise CatalogueError(f"{cache / MARGINS}: {line!r} is no margin: {problem}") from problem
    return margins


def stale_margins(cache: UPath, leaves: Mapping[Partition, LeafRecord]) -> list[Partition]:
    """Partitions whose margin is missing, or was made from other leaves than these, in order of the sky."""
    margins = read_margins(cache)
    keys = margin_keys(leaves, surroundings(list(leaves)))
    wrong = {p for p, key in keys.items() if p not in margins or margins[p].key != key}
    return sky_order(wrong | (margins.keys() - keys.keys()))


def write_margins(
    root: UPath,
    to: UPath,
    leaves: Mapping[Partition, LeafRecord],
    *,
    name: str,
    base: UPath | None = None,
    facts: Mapping[str, str] = {},
) -> dict[Partition, Margin]:
    """Write the margin cache of a catalogue; each leaf is read once at most.

    Parameters
    ----------
    root, to : UPath
        Roots of the catalogue and of the cache.
    leaves : mapping of Partition to LeafRecord
        Leaves of the catalogue.
    name : str
        Name of the catalogue.
    base : UPath, optional
        Cache of an earlier catalogue, on the same store, whose margins with the same key are linked.
    facts : mapping of str to str
        Further properties.

    Returns
    -------
    dict of Partition to Margin
        The margins, empty ones too.
    """
    from hats.catalog.dataset.table_properties import TableProperties
    from hats.catalog.partition_info import PartitionInfo
    from hats.pixel_math.healpix_pixel import HealpixPixel

    around = surroundings(list(leaves))
    keys = margin_keys(leaves, around)
    margins = _reusable(base, keys)
    if base is not None:
        link_files(base, to, ([p.leaf] for p, margin in margins.items() if margin.rows))
    schema = read_schema(root)
    wanted = {p: around[p] for p in keys if p not in margins}
    with ThreadPoolExecutor(2 if is_local(to) else READERS) as pool:
        written = []
        for partition, parts in _rows(root, wanted, pool):
            if parts:
                written.append((partition, pool.submit(_write, to / partition.leaf, parts, schema)))
            else:
                margins[partition] = Margin(0, 0, "", keys[partition])
        for partition, result in written:
            margins[partition] = Margin(*result.result(), keys[partition])
    ordered = sky_order(margins)
    common = io.BytesIO()
    pq.write_metadata(schema, common)
    write_whole(to / "dataset/_common_metadata", common.getvalue())
    there = [HealpixPixel(p.order, p.pixel) for p in ordered if margins[p].rows]
    PartitionInfo.from_healpix(there).write_to_file(to / "partition_info.csv")
    lines = [_HEADER]
    for p in ordered:
        one = margins[p]
        lines.append(f"{p.order},{p.pixel},{one.rows},{one.bytes},{one.sha256},{one.key}")
    write_whole(to / MARGINS, ("\n".join(lines) + "\n").encode())
    properties = {
        "obs_collection": margin_name(name),
        "dataproduct_type": "margin",
        "hats_nrows": sum(margin.rows for margin in margins.values()),
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": "_healpix_29",
        "hats_col_healpix_order": INDEX_ORDER,
        "hats_npix_suffix": ".parquet",
        "hats_primary_table_url": name,
        "hats_margin_threshold": MARGIN_ARCSEC,
        "hats_version": "v1.0",
        **facts,
    }
    TableProperties.model_validate(properties).to_properties_file(to)
    return margins


def _reusable(base: UPath | None, keys: Mapping[Partition, str]) -> dict[Partition, Margin]:
    """Margins of an earlier cache that have these keys and whose files are there."""
    if base is None:
        return {}
    files = list_files(base)
    return {
        partition: margin
        for partition, margin in read_margins(base).items()
        if margin.key == keys.get(partition)
        and (not margin.rows or (partition.leaf in files and files[partition.leaf].bytes == margin.bytes))
    }


def _rows(
    root: UPath, wanted: Mapping[Partition, Sequence[Partition]], pool: ThreadPoolExecutor
) -> Iterator[tuple[Partition, list[pa.Table]]]:
    """Rows of the margin of each partition, as soon as all leaves around it were read."""
    targets: dict[Partition, list[Partition]] = defaultdict(list)
    for partition, others in wanted.items():
        for other in others:
            targets[other].append(partition)
        if not others:
            yield partition, []
    left = {partition: len(others) for partition, others in wanted.items()}
    parts: dict[Partition, list[pa.Table]] = defaultdict(list)
    sources = sky_order(targets)
    for start in range(0, len(sources), READERS):
        some = sources[start : start + READERS]
        edges = pool.map(lambda source: _edge(root, source, targets[source]), some)
        for source, edge in zip(some, edges, strict=True):
            for partition in targets[source]:
                if partition in edge:
                    parts[partition].append(edge[partition])
                left[partition] -= 1
                if not left[partition]:
                    yield partition, parts.pop(partition, [])


def _edge(root: UPath, source: Partition, targets: Sequence[Partition]) -> dict[Partition, pa.Table]:
    """Rows of a leaf that are in the margins of other partitions, by these."""
    with open_leaf(root, source) as file:
        index = file.read(columns=["_healpix_29"])["_healpix_29"].to_numpy()
        chosen = _margin_rows(index, source, targets)
        if not chosen:
            return {}
        rows = np.unique(np.concatenate(list(chosen.values())))
        found, start = [], 0
        for batch in file.iter_batches(_BATCH):
            begin, end = np.searchsorted(rows, [start, start + batch.num_rows])
            found.append(batch.take(pa.array(rows[begin:end] - start)))
            start += batch.num_rows
    table = pa.Table.from_batches(found).replace_schema_metadata(None)
    return {target: table.take(pa.array(np.searchsorted(rows, some))) for target, some in chosen.items()}


def _margin_rows(
    index: np.ndarray, source: Partition, targets: Sequence[Partition]
) -> dict[Partition, np.ndarray]:
    """Numbers of the rows that are in the margins of other partitions, from the spatial index of all."""
    edge = np.flatnonzero(_at_edge(index, source))
    pixel, place = np.unique(pixel_at(index[edge], _ORDER), return_inverse=True)
    low, high = _around(pixel, _ORDER)
    found = {}
    for target in targets:
        first, end = _range(target)
        near = np.asarray(((low < end) & (high > first)).any(axis=1))
        rows = edge[near[place]]
        if len(rows):
            found[target] = rows
    return found


def _at_edge(index: np.ndarray, partition: Partition) -> np.ndarray:
    """Whether the pixel of order `_ORDER` of each position, shape (N,), touches the partition's edge."""
    depth = max(0, _ORDER - partition.order)
    within = pixel_at(index, max(_ORDER, partition.order)) & ((1 << 2 * depth) - 1)
    # In the nested scheme one coordinate in a pixel is in the even bits, the other one in the odd bits.
    x = ((1 << 2 * depth) - 1) // 3
    y = 2 * x
    return np.asarray(((within & x) == 0) | ((within & x) == x) | ((within & y) == 0) | ((within & y) == y))


def _write(path: UPath, parts: Sequence[pa.Table], schema: pa.Schema) -> tuple[int, int, str]:
    """Write a margin in the order of its spatial index; its rows, bytes and hash."""
    table = pa.concat_tables(parts, promote_options="permissive")
    table = table.select([name for name in schema.names if name in table.column_names])
    sink = pa.BufferOutputStream()
    pq.write_table(table.sort_by("_healpix_29"), sink, compression="zstd")
    content = memoryview(sink.getvalue())
    write_whole(path, content)
    return table.num_rows, len(content), hashlib.sha256(content).hexdigest()
