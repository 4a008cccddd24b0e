"""Table of ratios and magnitudes that the authors of OJALÁ (arXiv:2604.00661) read.

Columns ``<APERTURE>_J0378`` to ``_J0910`` are f_lambda relative to that in iSDSS, ``MAG_i MAG_G MAG_R MAG_Z
MAG_W1 MAG_W2`` AB magnitudes and ``AUTO_iSDSS`` the Kron f_lambda in iSDSS [1e-19 erg/s/cm2/Angstrom]. All
that is a number is a measurement, also 99 and 0. The other columns of such a table are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ojala.catalogs_schema.bands import BANDS, BY_NAME, KRON_BAND, NARROW_BANDS, REFERENCE_BAND
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.table import SourceColumn
from ojala.pipeline.ingest.jpas import flux_units, parsing
from ojala.pipeline.storage.units import parse_unit

MAGNITUDES = {
    "mag_i": REFERENCE_BAND,
    "mag_g": "ls_g",
    "mag_r": "ls_r",
    "mag_z": "ls_z",
    "mag_w1": "W1",
    "mag_w2": "W2",
}
"""Columns of AB magnitudes (lower case) and their bands."""

KRON_COLUMN = "auto_isdss"
"""Column of the Kron flux (lower case)."""

_RATIO = re.compile(r"(?P<aperture>\w+)_j0\d{3}")


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """Columns of such a table, in lower case.

    Attributes
    ----------
    ratios, errors : dict of str to str
        Columns of ratios to iSDSS, and of their errors where there are any, by band.
    magnitudes : dict of str to str
        Columns of magnitudes by band.
    kron : str or None
        Column of the Kron flux.
    """

    ratios: dict[str, str]
    errors: dict[str, str]
    magnitudes: dict[str, str]
    kron: str | None

    @property
    def read(self) -> tuple[str, ...]:
        """All columns."""
        kron = () if self.kron is None else (self.kron,)
        return (*self.ratios.values(), *self.errors.values(), *self.magnitudes.values(), *kron)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the contract's order."""
        return tuple(band.name for band in BANDS if band.name in self.ratios | self.magnitudes)

    def fluxes(self, batch: pa.RecordBatch, names: Mapping[str, SourceColumn]) -> dict[str, np.ndarray]:
        """Flux densities by the contract's columns, N rows each [uJy]; NaN where missing.

        Ratios are multiplied by the iSDSS flux of MAG_i; where that is missing, by the Kron flux, which then
        is the only one in iSDSS: the ratio of the two stays. Without either a ratio is no flux and is left
        out.

        Raises
        ------
        SourceError
            If a cell is no number.
        """

        def numbers(name: str) -> np.ndarray:
            return parsing.numbers(batch[name], names[name].name)

        missing = np.full(batch.num_rows, np.nan)
        found: dict[str, np.ndarray] = {}
        unit = parse_unit(flux_units.ARCHIVE_UNIT["flambda"])
        per_unit = {
            band.name: flux_units.microjansky_per(unit, band.pivot)
            for band in (*NARROW_BANDS, BY_NAME[REFERENCE_BAND])
        }
        with np.errstate(over="ignore", invalid="ignore"):
            kron = missing if self.kron is None else numbers(self.kron) * per_unit[REFERENCE_BAND]
            found[KRON_BAND.flux_column] = kron
            for name, column in self.magnitudes.items():
                magnitude = numbers(column)
                magnitude = np.where(np.isfinite(magnitude), magnitude, np.nan)
                found[BY_NAME[name].flux_column] = flux_units.AB_ZERO_UJY * 10.0 ** (-0.4 * magnitude)
            reference = found.get(BY_NAME[REFERENCE_BAND].flux_column, missing)
            reference = np.where(np.isnan(reference), kron, reference)
            for columns, attribute in ((self.ratios, "flux_column"), (self.errors, "error_column")):
                for name, column in columns.items():
                    scale = reference * (per_unit[name] / per_unit[REFERENCE_BAND])
                    found[getattr(BY_NAME[name], attribute)] = numbers(column) * scale
        return found


def find(names: Mapping[str, SourceColumn], aperture: str) -> PublishedTable | None:
    """Find the columns of such a table; None where a file has no ratios to iSDSS.

    Parameters
    ----------
    names : mapping of str to SourceColumn
        The file's columns by their names in lower case.
    aperture : str
        Aperture of the ratios.

    Raises
    ------
    SourceError
        If it has ratios, but none of this aperture; names those it has.
    """
    found = {match["aperture"] for name in names if (match := _RATIO.fullmatch(name))} - {"flux"}
    found = {one for one in found if all(f"{one}_{band.name.lower()}" in names for band in NARROW_BANDS)}
    if not found:
        return None
    if aperture.lower() not in found:
        raise SourceError(
            f"has ratios to iSDSS in {', '.join(sorted(one.upper() for one in found))}, not in "
            f"{aperture.upper()}: choose one with --aperture"
        )
    ratios = {band.name: f"{aperture.lower()}_{band.name.lower()}" for band in NARROW_BANDS}
    errors = {name: f"{column}_err" for name, column in ratios.items() if f"{column}_err" in names}
    magnitudes = {band: name for name, band in MAGNITUDES.items() if name in names}
    return PublishedTable(ratios, errors, magnitudes, KRON_COLUMN if KRON_COLUMN in names else None)
