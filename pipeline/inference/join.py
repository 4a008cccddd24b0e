"""A second catalogue joined to the rows of the first by their key."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

KEY = "object_id"
"""The key by which rows join."""


def join_auxiliary(table: pa.Table, other: pa.Table, name: str) -> pa.Table:
    """A table with the columns of another.

    Parameters
    ----------
    table : pyarrow.Table
        N rows.
    other : pyarrow.Table
        Rows of the same partition in any order; those with other keys are left out.
    name : str
        Name of the other's contract.

    Returns
    -------
    pyarrow.Table
        N rows in the order of ``table``, the columns of ``other`` as ``name.column``, null where it has no
        row of the key.

    Raises
    ------
    ValueError
        If ``other`` has a key twice, or none.
    """
    if KEY not in other.column_names:
        raise ValueError(f"has no column {KEY}")
    keys = other[KEY].combine_chunks()
    if pc.count_distinct(keys).as_py() != len(keys):
        twice = next(row["values"] for row in pc.value_counts(keys).to_pylist() if row["counts"] > 1)
        raise ValueError(f"{KEY} {twice} comes more than once")
    at = pc.index_in(table[KEY].combine_chunks(), keys)
    if at.null_count or not np.array_equal(at.to_numpy(), np.arange(len(keys))):
        other = other.take(at)
    for column in other.column_names:
        table = table.append_column(f"{name}.{column}", other[column])
    return table


def split_auxiliary(table: pa.Table, name: str) -> pa.Table:
    """The columns that `join_auxiliary` gave a table under this name, by their own names."""
    names = [column for column in table.column_names if column.startswith(f"{name}.")]
    return table.select(names).rename_columns([column.removeprefix(f"{name}.") for column in names])
