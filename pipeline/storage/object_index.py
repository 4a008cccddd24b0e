"""Index of a catalogue by ``object_id``: the partition of each object, as LSDB's ``id_search`` reads it.

Its files hold ranges of keys. `PARTS` lists them with the partitions whose objects they have, and
``leaves.csv`` the leaves that the index was made from. The index of an earlier catalogue is continued: files
with no object of a leaf that has changed are linked.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from upath import UPath

from ojala.pipeline.storage.files import link_files, list_files, write_whole
from ojala.pipeline.storage.hats import LEAVES, CatalogueError, leaves_text, open_leaf, read_leaves
from ojala.pipeline.storage.healpix import Partition, sky_order
from ojala.pipeline.storage.parquet import LeafRecord

KEY = "object_id"
"""Column of the index."""

PARTS = "parts.json"
"""List of the files of an index."""

PART_ROWS = 1_000_000
"""About the number of rows of a file."""

SORTED_ROWS = 10_000_000
"""Rows that are sorted at a time."""

_GROUP_ROWS = 100_000


class IndexPart(BaseModel):
    """File of an index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: int
    rows: int
    bytes: int
    sha256: str
    partitions: tuple[str, ...]

    @property
    def path(self) -> str:
        """Path of the file, below the root of the index."""
        return f"dataset/index/part.{self.first}.parquet"


_PARTS = TypeAdapter(list[IndexPart])

_Rows = tuple[np.ndarray, np.ndarray]
"""Keys, sorted, and the number of the partition of each."""


def read_parts(index: UPath) -> list[IndexPart]:
    """The files of an index, in the order of their keys.

    Raises
    ------
    CatalogueError
        If the list cannot be read; says where.
    """
    try:
        return _PARTS.validate_json((index / PARTS).read_bytes())
    except ValidationError as problem:
        raise CatalogueError(f"{index / PARTS} cannot be read: {problem.errors()[0]['msg']}") from problem


def is_stale(index: UPath, leaves: Mapping[Partition, LeafRecord]) -> bool:
    """Whether an index was made from other leaves than these."""
    return dict(read_leaves(index)) != dict(leaves)


def write_object_index(
    root: UPath,
    to: UPath,
    leaves: Mapping[Partition, LeafRecord],
    *,
    name: str,
    primary: str,
    base: UPath | None = None,
    facts: Mapping[str, str] = {},
    part_rows: int = PART_ROWS,
) -> list[IndexPart]:
    """Write the index of a catalogue.

    Keys are sorted in ranges of `SORTED_ROWS`, each of which reads the column once more, so that memory is
    bounded. Where there is an earlier index, only leaves that have changed are read.

    Parameters
    ----------
    root, to : UPath
        Roots of the catalogue and of the index.
    leaves : mapping of Partition to LeafRecord
        Leaves of the catalogue.
    name, primary : str
        Name of the index, and how it names the catalogue.
    base : UPath, optional
        Index of an earlier catalogue, on the same store.
    facts : mapping of str to str
        Further properties.
    part_rows : int
        About the number of rows of one file.

    Returns
    -------
    list of IndexPart
        Its files.
    """
    from hats.catalog.dataset.table_properties import TableProperties

    before = {} if base is None else read_leaves(base)
    partitions = sky_order({*leaves, *before})
    parts: list[IndexPart] = []
    if base is not None and _is_whole(base):
        changed = [p for p in partitions if before.get(p) != leaves.get(p)]
        kept, ranges = _continued(root, base, partitions, changed, leaves)
        link_files(base, to, ([part.path] for part in kept))
        parts += kept
    else:
        ranges = _sorted_ranges(root, partitions, max(part_rows, SORTED_ROWS))
    for keys, place in ranges:
        number = max(1, round(len(keys) / part_rows))
        bounds = [len(keys) * i // number for i in range(number + 1)]
        parts += [_write_part(to, keys[a:b], place[a:b], partitions) for a, b in pairwise(bounds) if a < b]
    parts.sort(key=lambda part: part.first)
    _write_metadata(to, parts)
    write_whole(to / PARTS, _PARTS.dump_json(parts, indent=1))
    write_whole(to / LEAVES, leaves_text(leaves).encode())
    properties = {
        "obs_collection": name,
        "dataproduct_type": "index",
        "hats_nrows": sum(part.rows for part in parts),
        "hats_primary_table_url": primary,
        "hats_index_column": KEY,
        "hats_version": "v1.0",
        **facts,
    }
    TableProperties.model_validate(properties).to_properties_file(to)
    return parts


def _is_whole(index: UPath) -> bool:
    """Whether the files of an index are there."""
    files = list_files(index)
    parts = read_parts(index)
    return bool(parts) and all(p.path in files and files[p.path].bytes == p.bytes for p in parts)


def _continued(
    root: UPath,
    base: UPath,
    partitions: Sequence[Partition],
    changed: Sequence[Partition],
    leaves: Mapping[Partition, LeafRecord],
) -> tuple[list[IndexPart], Iterator[_Rows]]:
    """Files of an earlier index that stay, and the rows of the others without those of changed leaves."""
    new = _range(root, partitions, [p for p in changed if p in leaves], None, None)
    parts = read_parts(base)
    bounds = np.searchsorted(new[0], [part.first for part in parts[1:]])
    slices = list(pairwise([0, *bounds.tolist(), len(new[0])]))
    names = {partition.name for partition in changed}
    stays = [
        begin == end and names.isdisjoint(part.partitions)
        for part, (begin, end) in zip(parts, slices, strict=True)
    ]

    def rows() -> Iterator[_Rows]:
        codes = _codes(partitions)
        ordered = np.argsort(codes)
        gone = np.isin(codes, _codes(changed))
        for part, (begin, end), stay in zip(parts, slices, stays, strict=True):
            if stay:
                continue
            with (base / part.path).open("rb") as file:
                old = pq.read_table(file)
            code = _code(old["Norder"].to_numpy().astype(np.int64), old["Npix"].to_numpy().astype(np.int64))
            place = ordered[np.searchsorted(codes, code, sorter=ordered)].astype(np.int32)
            keep = ~gone[place]
            yield _sorted(
                np.concatenate([old[KEY].to_numpy()[keep], new[0][begin:end]]),
                np.concatenate([place[keep], new[1][begin:end]]),
            )

    return [part for part, stay in zip(parts, stays, strict=True) if stay], rows()


def _codes(partitions: Sequence[Partition]) -> np.ndarray:
    return _code(
        np.array([p.order for p in partitions], np.int64), np.array([p.pixel for p in partitions], np.int64)
    )


def _code(order: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """One number for each pixel of any order (the IVOA's NUNIQ)."""
    return np.asarray((4 << 2 * order) + pixel)


def _sorted_ranges(root: UPath, partitions: Sequence[Partition], size: int) -> Iterator[_Rows]:
    """All rows, in ranges of keys of about `size` rows."""
    sample = [keys[::1000] for keys in _keys(root, partitions)]
    ordered = np.sort(np.concatenate([np.empty(0, np.int64), *sample]))
    for low, high in pairwise([None, *ordered[:: max(1, size // 1000)][1:].tolist(), None]):
        yield _range(root, partitions, partitions, low, high)


def _range(
    root: UPath,
    partitions: Sequence[Partition],
    chosen: Sequence[Partition],
    low: int | None,
    high: int | None,
) -> _Rows:
    """Keys of some partitions from ``low`` to below ``high``, and the number of the partition of each."""
    number = {partition: n for n, partition in enumerate(partitions)}
    found, place = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
    for partition, every in zip(chosen, _keys(root, chosen), strict=True):
        keys = every if low is None else every[every >= low]
        keys = keys if high is None else keys[keys < high]
        found.append(keys)
        place.append(np.full(len(keys), number[partition], np.int32))
    return _sorted(np.concatenate(found), np.concatenate(place))


def _sorted(keys: np.ndarray, place: np.ndarray) -> _Rows:
    order = np.argsort(keys, kind="stable")
    return keys[order], place[order]


def _keys(root: UPath, partitions: Sequence[Partition]) -> Iterator[np.ndarray]:
    for partition in partitions:
        with open_leaf(root, partition) as file:
            keys = file.read(columns=[KEY])[KEY].to_numpy()
        yield keys


def _write_part(to: UPath, keys: np.ndarray, place: np.ndarray, partitions: Sequence[Partition]) -> IndexPart:
    order = np.array([p.order for p in partitions], np.uint8)
    pixel = np.array([p.pixel for p in partitions], np.uint64)
    sink = pa.BufferOutputStream()
    table = pa.table({KEY: keys, "Norder": order[place], "Npix": pixel[place]})
    pq.write_table(table, sink, compression="zstd", row_group_size=_GROUP_ROWS)
    content = memoryview(sink.getvalue())
    part = IndexPart(
        first=int(keys[0]),
        rows=len(keys),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        partitions=tuple(partitions[n].name for n in np.unique(place)),
    )
    write_whole(to / part.path, content)
    return part


def _write_metadata(to: UPath, parts: Sequence[IndexPart]) -> None:
    """Write the footers of all files as one, which readers look keys up in."""
    schema = pa.schema([(KEY, pa.int64()), ("Norder", pa.uint8()), ("Npix", pa.uint64())])
    footers = []
    for part in parts:
        with (to / part.path).open("rb") as file:
            footer = pq.read_metadata(file)
        footer.set_file_path(part.path.removeprefix("dataset/"))
        footers.append(footer)
    for file_name, collected in (("_metadata", footers), ("_common_metadata", None)):
        content = io.BytesIO()
        pq.write_metadata(schema, content, metadata_collector=collected)
        write_whole(to / "dataset" / file_name, content.getvalue())
