"""Tables of a product from answers that have the names of its columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.spectra import KEY_NAMES

OUT_OF_RANGE = "OUT_OF_RANGE"


def contract_table(contract: Contract, table: pa.Table, answers: dict[str, np.ndarray]) -> pa.Table:
    """Rows of a product.

    Parameters
    ----------
    contract : Contract
        Of the product. Keys and positions are taken over from the spectra, all other columns are answers.
    table : pyarrow.Table
        Spectra, N rows.
    answers : dict of str to ndarray
        By column: N numbers, or (N, width) for a list of that size; words for text. NaN where there is no
        answer.

    Returns
    -------
    pyarrow.Table
        N rows in the same order. A number that is not finite, or outside of its column's range, is null; in
        the latter case the flag OUT_OF_RANGE, where the contract has it, says so.
    """
    values: dict[str, pa.Array] = {}
    strange = np.zeros(table.num_rows, bool)
    for column in contract:
        if column.name in answers:
            values[column.name], outside = _column(column, answers[column.name])
            strange |= outside
        elif column.name in KEY_NAMES:
            values[column.name] = table[column.name].combine_chunks()
        else:
            raise KeyError(f"the model does not answer {column.name}, which {contract.name} has")
    bits = {flag.name: int(flag) for flag in contract.remarks}
    if OUT_OF_RANGE in bits:
        flags = np.asarray(answers["flags"], np.int32)
        values["flags"] = pa.array(flags | np.where(strange, bits[OUT_OF_RANGE], 0).astype(np.int32))
    return pa.table([values[name] for name in contract.names], schema=contract.schema())


def _column(column: Column, answer: np.ndarray) -> tuple[pa.Array, np.ndarray]:
    """The answers as a column of the contract, and where they are out of its range."""
    inside = np.ones(len(answer), bool)
    if pa.types.is_fixed_size_list(column.type):
        width, element = column.type.list_size, column.type.value_type
        flat = np.ascontiguousarray(answer, dtype=element.to_pandas_dtype()).reshape(-1)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat, element), width), ~inside
    if not pa.types.is_floating(column.type):
        return pa.array(answer, column.type), ~inside
    with np.errstate(over="ignore"):
        numbers = np.asarray(answer, column.type.to_pandas_dtype())
    known = np.isfinite(numbers)
    low = -np.inf if column.minimum is None else column.minimum
    high = np.inf if column.maximum is None else column.maximum
    inside = (numbers >= low) & (numbers <= high)
    return pa.array(numbers, column.type, mask=~(known & inside)), ~inside & ~np.isnan(answer)
