"""Spectra of a table as models read them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ojala.models.data import Spectra


def read_spectra(table: pa.Table) -> Spectra:
    """The spectra of a table that keeps the spectra contract, N rows."""
    column = table["wavelength"].combine_chunks()
    sizes = column.value_lengths().to_numpy()
    flat = [table[name].combine_chunks().flatten() for name in ("wavelength", "flux", "ivar")]
    values = [np.asarray(array.to_numpy(zero_copy_only=False), np.float32) for array in flat]
    return Spectra(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), *values)
