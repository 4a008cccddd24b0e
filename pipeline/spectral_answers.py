"""Spectra as models read them, and the answers to them as tables that keep their contract."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from catalogs_schema.contract import NONE, Column, Contract
from catalogs_schema.receipt import Summary
from catalogs_schema.spectra import KEY_NAMES
from models.spectra import Spectra
from pipeline.answers import REDSHIFT_EDGES

ANSWERED = "answered"
"""What a summary counts in place of a class where a model gives none."""

_OUT_OF_RANGE = "OUT_OF_RANGE"


def read_spectra(table: pa.Table) -> Spectra:
    """The spectra of a table that keeps the spectra contract, N rows."""
    column = table["wavelength"].combine_chunks()
    sizes = column.value_lengths().to_numpy()
    flat = [table[name].combine_chunks().flatten() for name in ("wavelength", "flux", "ivar")]
    values = [np.asarray(array.to_numpy(zero_copy_only=False), np.float32) for array in flat]
    return Spectra(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), *values)


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
    if _OUT_OF_RANGE in bits:
        flags = np.asarray(answers["flags"], np.int32)
        values["flags"] = pa.array(flags | np.where(strange, bits[_OUT_OF_RANGE], 0).astype(np.int32))
    return pa.table([values[name] for name in contract.names], schema=contract.schema())


def summarise(contract: Contract, main: pa.Table) -> Summary:
    """Counts over the rows of a product, for the receipt.

    Where it has no ``class``, rows with a redshift are counted as ``answered``.
    """
    z = np.asarray(main["z"].to_numpy(zero_copy_only=False), np.float64)
    flags = main["flags"].to_numpy()
    if "class" in contract.names:
        names: tuple[str, ...] = tuple(word for word in contract["class"].allowed if word != NONE)
        words = main["class"].to_numpy(zero_copy_only=False)
    else:
        names = (ANSWERED,)
        words = np.where(np.isfinite(z), ANSWERED, NONE)
    redshifts = {name: np.histogram(z[(words == name) & np.isfinite(z)], REDSHIFT_EDGES)[0] for name in names}
    return Summary(
        classes={name: int((words == name).sum()) for name in names} | {"none": int((words == NONE).sum())},
        expected={
            name: float(np.nansum(main[f"p_{name.lower()}"].to_numpy(zero_copy_only=False), dtype=np.float64))
            for name in names
            if f"p_{name.lower()}" in contract.names
        },
        flagged=int((flags != 0).sum()),
        flags={flag.name or "": int(((flags & flag) != 0).sum()) for flag in contract.remarks},
        redshifts={name: counts.tolist() for name, counts in redshifts.items() if counts.any()},
        bands=[],
    )


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
