"""Spectra as models read them, and counts over their answers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ojala.catalogs_schema.contract import NONE, Contract
from ojala.catalogs_schema.receipt import REDSHIFT_EDGES, Summary
from ojala.models.data import Spectra

ANSWERED = "answered"
"""What a summary counts in place of a class where a model gives none."""


def read_spectra(table: pa.Table) -> Spectra:
    """The spectra of a table that keeps the spectra contract, N rows."""
    column = table["wavelength"].combine_chunks()
    sizes = column.value_lengths().to_numpy()
    flat = [table[name].combine_chunks().flatten() for name in ("wavelength", "flux", "ivar")]
    values = [np.asarray(array.to_numpy(zero_copy_only=False), np.float32) for array in flat]
    return Spectra(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), *values)


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
