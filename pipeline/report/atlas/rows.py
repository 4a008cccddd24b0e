"""Sample of rows of a run of AVIS, with their spectra and cut-outs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.avis import AVIS
from ojala.catalogs_schema.cutouts import CUTOUTS
from ojala.catalogs_schema.spectra import SPECTRA
from ojala.pipeline.inference.join import KEY, join_auxiliary
from ojala.pipeline.storage.healpix import Partition

_FACTS = (KEY, "survey", "source_id", "class", "subclass", "z", "trusted", "snr")
_ARRAYS = (KEY, "wavelength", "flux", "ivar")
CUTOUT_COLUMNS = (KEY, "image", "ivar", "mask", "psf_fwhm_g", "psf_fwhm_r", "psf_fwhm_z", "x", "y")
"""Columns of cut-outs that pictures are made of."""

PARTITION = "partition"
"""Column of `read_rows` with the index of the row's partition."""

_COMMON = {theirs: ours for ours, theirs in AVIS.column_names.items()}
_AVIS = tuple(name for name in (_COMMON.get(name, name) for name in AVIS.names) if "embedding" not in name)


def read_rows(product: UPath, source: UPath, chosen: Sequence[Partition], most: int) -> pa.Table:
    """Rows with coordinates on the map, as many of each partition, without spectra and images.

    Parameters
    ----------
    product, source : UPath
        Roots of the product and of the spectra.
    chosen : sequence of Partition
        Partitions to take rows from.
    most : int
        Most rows in all.

    Returns
    -------
    pyarrow.Table
        The product's columns but the embeddings, by their common names, facts of the spectra as
        ``spectra.column``, and `PARTITION`.
    """
    parts = []
    for number, partition in enumerate(chosen):
        rows = read_avis(product / partition.leaf, _AVIS)
        rows = rows.filter(pc.is_valid(rows["map_x"]))
        take = np.linspace(0, rows.num_rows - 1, min(most // len(chosen) + 1, rows.num_rows)).astype(int)
        rows = rows.take(take)
        facts = read_keyed(source / partition.leaf, _FACTS, rows[KEY].combine_chunks())
        rows = join_auxiliary(rows, facts, SPECTRA.name).drop_columns([f"{SPECTRA.name}.{KEY}"])
        parts.append(rows.append_column(PARTITION, pa.array(np.full(len(take), number))))
    return pa.concat_tables(parts).slice(0, most)


def with_pictures(
    rows: pa.Table, source: UPath, cutouts: UPath | None, chosen: Sequence[Partition]
) -> pa.Table:
    """Join spectra and cut-outs to rows of `read_rows`; only the row groups that hold them are read.

    Returns
    -------
    pyarrow.Table
        The rows in their order with ``spectra.column``, and ``cutouts.column``, null where there is none.
    """
    parts = []
    for number in np.unique(rows[PARTITION].to_numpy()).tolist():
        own, leaf = rows.filter(pc.equal(rows[PARTITION], number)), chosen[number].leaf
        keys = own[KEY].combine_chunks()
        own = join_auxiliary(own, read_keyed(source / leaf, _ARRAYS, keys), SPECTRA.name)
        if cutouts is not None:
            own = join_auxiliary(own, read_keyed(cutouts / leaf, CUTOUT_COLUMNS, keys), CUTOUTS.name)
        parts.append(own)
    return pa.concat_tables(parts)


def read_avis(path: UPath, columns: Sequence[str]) -> pa.Table:
    """Columns of a leaf of AVIS, by their common names, which those of contract 1 had."""
    with path.open("rb") as raw, pq.ParquetFile(raw) as file:
        there = file.schema_arrow.names
        return file.read(
            columns=[name if name in there else AVIS.name_of(name) for name in columns]
        ).rename_columns(list(columns))


def read_keyed(path: UPath, columns: Sequence[str], keys: pa.Array) -> pa.Table:
    """Columns of a leaf, of the rows with these keys; only row groups that hold them are read."""
    with path.open("rb") as raw, pq.ParquetFile(raw) as file:
        at = pc.index_in(keys, file.read(columns=[KEY])[KEY].combine_chunks()).drop_null().to_numpy()
        sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        groups, of_group = np.unique(np.searchsorted(ends, at, side="right"), return_inverse=True)
        if not len(groups):
            return file.schema_arrow.empty_table().select(list(columns))
        read = file.read_row_groups(groups.tolist(), columns=list(columns))
        before = np.concatenate([[0], np.cumsum(np.array(sizes)[groups])[:-1]])
        begin = (ends - sizes)[groups]
        return read.take(at - begin[of_group] + before[of_group])
