"""Small releases as other programs may write them: a collection of leaves without receipts and records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.ojala import PDF_COLUMNS
from ojala.pipeline.runs.published import class_column
from ojala.pipeline.storage.hats import finalise_catalogue, read_counts, read_leaves, write_collection
from ojala.pipeline.storage.parquet import LeafRecord


def filled(contract: Contract, rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Values within the range of each column of a contract, for the objects of some rows."""
    n, columns = rows.num_rows, []
    for column in contract:
        low = 0.0 if column.minimum is None else max(column.minimum, -10.0)
        high = low + 3.0 if column.maximum is None else min(column.maximum, low + 3.0)
        if column.name in rows.column_names:
            columns.append(rows[column.name].combine_chunks())
        elif column.name in PDF_COLUMNS.values():
            columns.append(pa.array([[np.float16(0.5), np.float16(0.5)]] * n, column.type))
        elif pa.types.is_list(column.type):
            columns.append(pa.array([[300, 301]] * n, column.type))
        elif pa.types.is_fixed_size_list(column.type):
            values = rng.standard_normal(n * column.type.list_size).astype(np.float16)
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values), column.type.list_size))
        elif pa.types.is_string(column.type):
            columns.append(pa.array(rng.choice(column.allowed[1:], n)))
        elif pa.types.is_integer(column.type):
            columns.append(pa.array(rng.integers(0, 3, n)).cast(column.type))
        else:
            columns.append(pa.array(rng.uniform(low, high, n)).cast(column.type))
    return pa.Table.from_arrays(columns, names=contract.names)


def make_release(photometry: UPath, out: UPath, contracts: tuple[Contract, ...], word: str = "") -> UPath:
    """A collection of some products over a catalogue, as another program may write it: without receipts."""
    rng, roots = np.random.default_rng(1), {}
    for contract in contracts:
        root, leaves = out / "products" / contract.name, {}
        for partition in read_leaves(photometry):
            table = filled(
                contract, pq.read_table((photometry / partition.leaf).path, partitioning=None), rng
            )
            if word and contract is contracts[0]:
                name = class_column(contract).name
                at = table.column_names.index(name)
                table = table.set_column(at, name, pa.array([word] * table.num_rows))
            path = Path((root / partition.leaf).path)
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path)
            leaves[partition] = LeafRecord(partition.leaf, table.num_rows, path.stat().st_size, "0" * 64)
        finalise_catalogue(root, contract, leaves, name=contract.name, skymap=read_counts(photometry))
        roots[contract.name] = root
    write_collection(out, photometry, roots, name="photometry")
    return out
