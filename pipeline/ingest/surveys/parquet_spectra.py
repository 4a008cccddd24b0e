"""Parquet files with one spectrum per row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.table import SourceColumn, scale_to
from ojala.pipeline.ingest.surveys.kind import FileKind
from ojala.pipeline.ingest.surveys.spectrum import Spectrum, class_word, double
from ojala.pipeline.storage.units import schema_units

_NEEDED = ("id", "class", "subclass", "z", "ra", "dec", "wavelength", "flux", "ivar")
_LINES = {"Hb": "ew_hbeta", "OIII5007": "ew_oiii_5007", "Ha": "ew_halpha", "NII6583": "ew_nii_6584"}
_UNITS = {
    "wavelength": "Angstrom",
    "flux": "1e-17 erg / (s cm2 Angstrom)",
    "ivar": "1e34 s2 cm4 Angstrom2 / erg2",
    "z": "",
    "ra": "deg",
    "dec": "deg",
}
"""Units of the columns, to which others are converted."""

_BATCH = 64

EXPECTED = f"a Parquet file with the columns {', '.join(_NEEDED)}"


def read_parquet_spectra(path: UPath) -> Iterator[Spectrum]:
    """Read spectra from a Parquet file with one row each.

    Units that the file states are converted; where it states none, those of `_UNITS` are taken.

    Columns: ``id``, ``class``, ``subclass``, ``z``, ``ra``, ``dec`` and the lists ``wavelength``, ``flux``
    and ``ivar``; observed-frame equivalent widths of SDSS's pipeline, positive in emission, as ``ew_Ha``,
    ``ew_Hb``, ``ew_OIII5007``, ``ew_NII6583`` with ``_err``, where there are any. An ``id`` that starts with
    ``lamost`` is LAMOST's; all others are SDSS's.

    Raises
    ------
    SourceError
        A column is missing or has a unit that cannot be converted, or a row's lists are missing or differ
        in length.
    """
    try:
        with path.open("rb") as raw, pq.ParquetFile(raw) as file:
            missing = [name for name in _NEEDED if name not in file.schema_arrow.names]
            if missing:
                raise SourceError(f"lacks the columns {', '.join(missing)}: expected {EXPECTED}")
            lines = [f"ew_{line}{end}" for line in _LINES for end in ("", "_err")]
            names = [*_NEEDED, *(name for name in lines if name in file.schema_arrow.names)]
            try:
                units = schema_units(file.schema_arrow)
            except ValueError as error:
                raise SourceError(f"is a damaged Parquet file: {error}") from error
            scales = {
                name: scale_to(SourceColumn(name, units.get(name, "")), unit, hour_angle=name == "ra")
                for name, unit in _UNITS.items()
            }
            rows = 0
            for batch in file.iter_batches(batch_size=_BATCH, columns=names):
                yield from _spectra(batch, rows, scales)
                rows += batch.num_rows
    except pa.ArrowInvalid as error:
        raise SourceError(f"is a damaged Parquet file: {error}") from error


def _spectra(batch: pa.RecordBatch, rows_before: int, scales: Mapping[str, float]) -> Iterator[Spectrum]:
    arrays = {name: batch.column(name) for name in ("wavelength", "flux", "ivar")}
    rest = batch.drop_columns(list(arrays)).to_pylist()
    for k, row in enumerate(rest):
        missing = next((name for name, column in arrays.items() if not column[k].is_valid), None)
        if missing is not None:
            raise SourceError("is missing: leave the spectrum out", row=rows_before + k + 1, column=missing)
        wavelength, flux, ivar = (
            double(column[k].values.to_numpy(False)) * scales[name] for name, column in arrays.items()
        )
        if not len(wavelength) == len(flux) == len(ivar):
            raise SourceError("has lists of different lengths", row=rows_before + k + 1, column="flux")
        name, z = str(row["id"]), _number(row["z"])
        lamost = name.startswith("lamost")
        yield Spectrum(
            source=name,
            survey="LAMOST" if lamost else "SDSS",
            wavelength=wavelength,
            flux=flux,
            ivar=ivar,
            object_class=class_word(str(row["class"])),
            subclass=row["subclass"] if isinstance(row["subclass"], str) else "",
            z=z,
            trusted=True,
            ra=_number(row["ra"]) * scales["ra"],
            dec=_number(row["dec"]) * scales["dec"],
            labels=_equivalent_widths(row, z),
            relative=lamost,
        )


def _equivalent_widths(row: Mapping[str, object], z: float) -> dict[str, tuple[float, float]]:
    found = {}
    for line, name in _LINES.items():
        ew, error = _number(row.get(f"ew_{line}")), _number(row.get(f"ew_{line}_err"))
        if np.isfinite(ew) and error > 0.0:
            found[name] = (ew / (1.0 + z), error / (1.0 + z))
    return found


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else np.nan


KINDS = (
    FileKind(
        "collection of spectra",
        EXPECTED,
        matches_head=lambda head: head.startswith(b"PAR1"),
        read_spectra=lambda path, labels: read_parquet_spectra(path),
    ),
)
