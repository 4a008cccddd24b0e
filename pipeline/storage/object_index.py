"""Index of a catalogue by ``object_id``: the partition of each object, as LSDB's ``id_search`` reads it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hats.catalog.dataset.table_properties import TableProperties
from upath import UPath

from ojala.pipeline.storage.files import write_whole
from ojala.pipeline.storage.healpix import Partition, sky_order
from ojala.pipeline.storage.progress import counted

KEY = "object_id"
"""Column of the index."""

PART_ROWS = 10_000_000
"""Rows of the index that are sorted, and stored in a file, at a time."""

_GROUP_ROWS = 100_000


def write_object_index(
    root: UPath,
    to: UPath,
    partitions: Sequence[Partition],
    *,
    name: str,
    primary: str,
    facts: Mapping[str, str] = {},
    part_rows: int = PART_ROWS,
) -> None:
    """Write the index of a catalogue.

    Keys are sorted in ranges of `part_rows`, each of which reads the column once more, so that memory is
    bounded.

    Parameters
    ----------
    root, to : UPath
        Roots of the catalogue and of the index.
    partitions : sequence of Partition
        Partitions of the catalogue.
    name, primary : str
        Name of the index, and how it names the catalogue.
    facts : mapping of str to str
        Further properties.
    part_rows : int
        About the number of rows of one file.
    """
    ordered, collected, total = sky_order(partitions), [], 0
    sample = np.sort(np.concatenate([np.empty(0, np.int64), *(k[::1000] for k in _keys(root, ordered))]))
    bounds = [*sample[:: max(1, part_rows // 1000)][1:], None]
    low: int | None = None
    for number, high in enumerate(counted(bounds, "parts of the index written")):
        keys, place = _range(root, ordered, low, high)
        low = high
        path = f"dataset/index/part.{number:05d}.parquet"
        table = pa.table(
            {
                KEY: keys,
                "Norder": np.array([p.order for p in ordered], np.uint8)[place],
                "Npix": np.array([p.pixel for p in ordered], np.uint64)[place],
            }
        )
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=_GROUP_ROWS)
        write_whole(to / path, memoryview(sink.getvalue()))
        footer = pq.read_metadata(io.BytesIO(sink.getvalue()))
        footer.set_file_path(path.removeprefix("dataset/"))
        collected.append(footer)
        total += table.num_rows
    for file, footers in (("_metadata", collected), ("_common_metadata", None)):
        content = io.BytesIO()
        pq.write_metadata(table.schema, content, metadata_collector=footers)
        write_whole(to / "dataset" / file, content.getvalue())
    properties = {
        "obs_collection": name,
        "dataproduct_type": "index",
        "hats_nrows": total,
        "hats_primary_table_url": primary,
        "hats_index_column": KEY,
        "hats_version": "v1.0",
        **facts,
    }
    TableProperties.model_validate(properties).to_properties_file(to)


def _keys(root: UPath, partitions: Sequence[Partition]) -> Iterator[np.ndarray]:
    for partition in partitions:
        with (root / partition.leaf).open("rb") as file:
            yield pq.read_table(file, columns=[KEY])[KEY].to_numpy()


def _range(
    root: UPath, partitions: Sequence[Partition], low: int | None, high: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Keys from ``low`` to below ``high``, sorted, and the number of the partition of each."""
    found, place = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
    for number, keys in enumerate(_keys(root, partitions)):
        keys = keys if low is None else keys[keys >= low]
        chosen = keys if high is None else keys[keys < high]
        found.append(chosen)
        place.append(np.full(len(chosen), number, np.int32))
    keys, numbers = np.concatenate(found), np.concatenate(place)
    order = np.argsort(keys, kind="stable")
    return keys[order], numbers[order]
