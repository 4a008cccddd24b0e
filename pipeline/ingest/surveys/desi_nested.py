"""DESI DR1 as the HATS catalogue of LSDB, with the arms of the spectrograph in nested columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.columnar import column_names_of, read_batches
from ojala.pipeline.ingest.surveys.desi import ARMS, JoinedArms
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex
from ojala.pipeline.ingest.surveys.reader import reader
from ojala.pipeline.ingest.surveys.spectrum import Labels, Spectrum, class_word, double

EXPECTED = "LSDB's catalogue of DESI (Parquet with TARGETID, spectra_b, spectra_r and spectra_z)"

_ARMS = tuple(f"spectra_{arm.lower()}" for arm in ARMS)
_SCALARS = ("TARGETID", "TARGET_RA", "TARGET_DEC", "Z", "ZERR", "ZWARN", "SPECTYPE", "SUBTYPE", "EBV")
_BATCH = 64


def is_desi_nested(names: frozenset[str]) -> bool:
    """Whether a file with these columns is a leaf of LSDB's catalogue of DESI."""
    return "TARGETID" in names and any(arm in names for arm in _ARMS)


@reader("LSDB's catalogue of DESI", EXPECTED, columns=is_desi_nested)
def read_desi_nested(path: UPath, labels: LabelIndex | None = None) -> Iterator[Spectrum]:
    """Read the spectra of a leaf, with their arms joined as by `ojala.pipeline.ingest.surveys.desi`.

    Class and redshift are those of `labels` where these have them. The catalogue's own redshift is not
    trusted where it has no ZWARN, and a fibre without a target (a negative TARGETID) has none.

    Raises
    ------
    SourceError
        If the file is damaged, or a row has no pixels: names the row.
    """
    names = column_names_of(path)
    if not is_desi_nested(names):
        raise SourceError(f"is no leaf of LSDB's catalogue of DESI: expected {EXPECTED}")
    arms = [arm for arm in _ARMS if arm in names]
    scalars = [name for name in _SCALARS if name in names]
    join: JoinedArms | None = None
    before = 0
    for batch in read_batches(path, [*scalars, *arms], _BATCH):
        columns = {name: batch[name].to_pylist() for name in scalars}
        target = columns["TARGETID"]
        found = (labels or LabelIndex()).lookup("DESI", target)
        for k, targetid in enumerate(target):
            row = {name: values[k] for name, values in columns.items()}
            pixels = [batch[arm][k].as_py() for arm in arms]
            if any(arm is None for arm in pixels):
                raise SourceError("is missing: leave the spectrum out", row=before + k + 1, column=arms[0])
            wavelength, flux, ivar, mask = (
                double(np.concatenate([arm[name] for arm in pixels]))
                for name in ("wavelength", "flux", "ivar", "mask")
            )
            if join is None or not join.is_of(wavelength):
                join = JoinedArms(wavelength)
            flux, ivar, bits = join(flux, ivar, mask.astype(np.int64))
            labelled = found[k] or _own_labels(row)
            yield Spectrum(
                source=f"lsdb-{targetid}",
                survey="DESI",
                wavelength=join.wavelength,
                flux=flux,
                ivar=ivar,
                ra=_number(row.get("TARGET_RA")),
                dec=_number(row.get("TARGET_DEC")),
                mask=bits,
                target=str(targetid) if targetid >= 0 else "",
                ebv=_number(row.get("EBV")),
            ).labelled(labelled)
        before += len(target)


def _own_labels(row: dict[str, object]) -> Labels:
    if int(str(row["TARGETID"])) < 0:
        return Labels()
    return Labels(
        object_class=class_word(str(row.get("SPECTYPE") or "")),
        subclass=str(row.get("SUBTYPE") or ""),
        z=_number(row.get("Z")),
        z_err=_number(row.get("ZERR")),
        trusted=row.get("ZWARN", 1) == 0,
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else np.nan
