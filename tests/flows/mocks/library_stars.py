"""A table of stars as those of MILES, made by formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def write_library(path: Path, n: int) -> Path:
    """Stars with one line at 5000 Angstrom in air; the temperature of the last one is not known."""
    rng = np.random.default_rng(4)
    wavelength = np.arange(4000.0, 6000.0, 0.9)
    teff = np.append(rng.uniform(4000.0, 7000.0, n - 1), np.nan)
    depth = rng.uniform(0.3, 0.6, n)
    flux = [
        (wavelength / 5000.0) ** (6000.0 / np.nan_to_num(t, nan=5000.0) - 1.0)
        * (1.0 - d * np.exp(-0.5 * ((wavelength - 5000.0) / 1.5) ** 2))
        for t, d in zip(teff, depth, strict=True)
    ]
    table = {
        "id": [f"star/{k}" for k in range(n)],
        "teff": teff,
        "logg": rng.uniform(2.0, 5.0, n),
        "feh": -2.0 * depth,
        "wavelength": [wavelength] * n,
        "flux": flux,
    }
    pq.write_table(pa.table(table), path)
    return path
