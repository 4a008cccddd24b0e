"""Table and summary of a product from predictions that have the names of its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ojala.catalogs_schema.contract import NONE, Column, Contract
from ojala.catalogs_schema.photometry import KEY_COLUMNS
from ojala.catalogs_schema.receipt import REDSHIFT_EDGES, Summary
from ojala.catalogs_schema.spectra import KEY_NAMES

KEYS = frozenset({*KEY_NAMES, *(column.name for column in KEY_COLUMNS)})
"""Columns that products take over from their input."""

OUT_OF_RANGE = "OUT_OF_RANGE"
"""Name of the flag of rows with a prediction outside its column's range."""

PREDICTED = "predicted"
"""Name in a summary for the rows with a prediction, in place of a class, of a model that gives none."""


def build_table(
    contract: Contract, table: pa.Table, predictions: Mapping[str, np.ndarray | pa.Array]
) -> pa.Table:
    """Rows of a product.

    Parameters
    ----------
    contract : Contract
        Contract of the product. All columns but keys and positions are predictions.
    table : pyarrow.Table
        Input with keys and positions, N rows.
    predictions : mapping of str to ndarray or pyarrow.Array
        By column, or its name in `Contract.column_names`: N numbers, or (N, width) for a list of that size;
        words for text. NaN where there is no prediction. Names that are no column are left out.

    Returns
    -------
    pyarrow.Table
        N rows in the same order. A number that is not finite, or outside of its column's range, is null; for
        the latter the flag OUT_OF_RANGE is set, where the contract has it.

    Raises
    ------
    KeyError
        If a column is neither predicted nor a key.
    """
    predictions = {contract.name_of(name): values for name, values in predictions.items()}
    values, outside = _bounded(contract, predictions)
    for column in contract:
        if column.name in predictions:
            if column.name not in values:
                values[column.name] = _array(column, predictions[column.name])
        elif column.name in KEYS:
            values[column.name] = table[column.name].combine_chunks()
        else:
            raise KeyError(f"the model does not predict {column.name}, a column of {contract.name}")
    bits = {flag.name: int(flag) for flag in contract.flag_meanings}
    if OUT_OF_RANGE in bits:
        name = contract.name_of("flags")
        flags = np.asarray(predictions[name], np.int32)
        values[name] = pa.array(np.where(outside, flags | np.int32(bits[OUT_OF_RANGE]), flags))
    return pa.table([values[name] for name in contract.names], schema=contract.schema())


def _bounded(
    contract: Contract, predictions: Mapping[str, np.ndarray | pa.Array]
) -> tuple[dict[str, pa.Array], np.ndarray]:
    """Columns of numbers with null for NaN and for values out of range; rows that have the latter."""
    single, outside = _bounded_of_type(contract, predictions, pa.float32())
    double, further = _bounded_of_type(contract, predictions, pa.float64())
    return single | double, outside | further


def _bounded_of_type(
    contract: Contract, predictions: Mapping[str, np.ndarray | pa.Array], kind: pa.DataType
) -> tuple[dict[str, pa.Array], np.ndarray]:
    """The same of one type, all columns at once: in a small partition each call costs more than its rows."""
    columns = [c for c in contract if c.type == kind and c.name in predictions]
    if not columns:
        return {}, np.zeros(1, bool)
    block = np.stack([np.asarray(predictions[c.name], np.float64) for c in columns])
    low = np.array([[-np.inf if c.minimum is None else c.minimum] for c in columns])
    high = np.array([[np.inf if c.maximum is None else c.maximum] for c in columns])
    with np.errstate(over="ignore"):
        narrow = block.astype(kind.to_pandas_dtype())
    outside = ~(np.isfinite(narrow) & (narrow >= low) & (narrow <= high))
    arrays = {c.name: pa.array(narrow[i], mask=outside[i]) for i, c in enumerate(columns)}
    return arrays, np.asarray((~np.isnan(block) & outside).any(axis=0))


def _array(column: Column, values: np.ndarray | pa.Array) -> pa.Array:
    if pa.types.is_fixed_size_list(column.type):
        width, element = column.type.list_size, column.type.value_type
        flat = np.ascontiguousarray(values, dtype=element.to_pandas_dtype()).reshape(-1)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat, element), width)
    return values if isinstance(values, pa.Array) else pa.array(values, column.type)


def with_common_names(table: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """A product whose columns have names of their own, under those that all products share.

    Parameters
    ----------
    table : pyarrow.Table
        N rows of a main product, or some of its columns.
    names : mapping of str to str
        `Contract.column_names`; empty for a product that has the common names.

    Returns
    -------
    pyarrow.Table
        The same rows; those of contract 1, which had the common names, as they are. Where the product has
        redshifts for each class alone, ``z`` and ``z_err`` are those of the most probable class, null for
        stars.
    """
    common = {theirs: ours for ours, theirs in names.items()}
    table = table.rename_columns([common.get(name, name) for name in table.column_names])
    for part in ("", "_err"):
        each = [f"z_gal{part}", f"z_qso{part}"]
        if names and f"z{part}" not in table.column_names and {"class", *each} <= set(table.column_names):
            cases = pc.make_struct(pc.equal(table["class"], "GALAXY"), pc.equal(table["class"], "QSO"))
            z = pc.case_when(cases, *(table[name] for name in each))
            table = table.append_column(f"z{part}", z)
    return table


def summarise(
    contract: Contract,
    main: pa.Table,
    bands: Sequence[int] = (),
    *,
    redshift: str = "z",
    predicted: np.ndarray | None = None,
) -> Summary:
    """Counts over the rows of a main product, for the receipt.

    Parameters
    ----------
    contract : Contract
        Contract of the product.
    main : pyarrow.Table
        N rows of it.
    bands : sequence of int
        Rows with a usable value in each model band; empty for a model that reads no photometry.
    redshift : str
        Column of redshifts, by its common name.
    predicted : ndarray of bool, shape (N,), optional
        Rows with a prediction where the product has no ``class``; those with a redshift by default.
    """
    main = with_common_names(main, contract.column_names)
    z = np.asarray(main[redshift].to_numpy(zero_copy_only=False), np.float64)
    flags = main["flags"].to_numpy()
    if "class" in main.column_names:
        class_column = contract[contract.name_of("class")]
        names: tuple[str, ...] = tuple(word for word in class_column.allowed if word != NONE)
        words = main["class"].to_numpy(zero_copy_only=False)
    else:
        names = (PREDICTED,)
        words = np.where(np.isfinite(z) if predicted is None else predicted, PREDICTED, NONE)
    counts = {name: np.histogram(z[(words == name) & np.isfinite(z)], REDSHIFT_EDGES)[0] for name in names}
    return Summary(
        classes={name: int((words == name).sum()) for name in names} | {"none": int((words == NONE).sum())},
        expected={
            name: float(np.nansum(main[f"p_{name.lower()}"].to_numpy(zero_copy_only=False), dtype=np.float64))
            for name in names
            if f"p_{name.lower()}" in main.column_names
        },
        flagged=int((flags != 0).sum()),
        flags={flag.name or "": int(((flags & flag) != 0).sum()) for flag in contract.flag_meanings},
        redshifts={name: number.tolist() for name, number in counts.items() if number.any()},
        bands=list(bands),
    )
