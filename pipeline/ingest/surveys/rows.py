"""Conversion of spectra to rows of the spectra contract."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.spectra import IMAGING_BANDS, LABEL_NAMES, SPECTRA
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.surveys.spectrum import Spectrum, name_key
from ojala.pipeline.storage.healpix import INDEX_ORDER, spatial_index

CROSS_MATCHED = ("primary_id", "n_spectra")
"""Columns from the cross-match of all spectra, which `spectra_table` leaves out."""

_PIXELS = 12 * 4**INDEX_ORDER


def spectra_table(spectra: Sequence[Spectrum]) -> pa.Table:
    """Rows of the contract, in its order of columns but for `CROSS_MATCHED`.

    Values outside of their column's range, or not a number, become null.

    Parameters
    ----------
    spectra : sequence of Spectrum
        At least one.

    Raises
    ------
    SourceError
        If wavelengths do not increase, or a spectrum's arrays differ in length.
    """
    for spectrum in spectra:
        _check(spectrum)
    valid = [s.valid for s in spectra]
    ra, dec = (np.array([getattr(s, name) for s in spectra], np.float64) for name in ("ra", "dec"))
    columns: dict[str, pa.Array] = {
        "_healpix_29": pa.array(_index(spectra, ra, dec)),
        "object_id": pa.array([object_id(s) for s in spectra], pa.int64()),
        "survey": pa.array([s.survey for s in spectra]),
        "source_id": _text([s.source for s in spectra]),
        "target_id": _text([s.target for s in spectra]),
        "ra": _within("ra", ra),
        "dec": _within("dec", dec),
        "wavelength": _lists("wavelength", [s.wavelength for s in spectra]),
        "flux": _lists("flux", [_finite(s.flux) for s in spectra]),
        "ivar": _lists("ivar", [np.where(v, s.ivar, 0.0) for s, v in zip(spectra, valid, strict=True)]),
        "mask": _lists("mask", [_bits(s) for s in spectra]),
        "relative_flux": pa.array([s.relative for s in spectra]),
        "snr": pa.array(np.array([s.signal_to_noise for s in spectra], np.float32)),
        "class": _text([s.object_class for s in spectra]),
        "subclass": _text([s.subclass for s in spectra]),
        "z": _within("z", np.array([s.z for s in spectra])),
        "z_err": _within("z_err", np.array([s.z_err for s in spectra])),
        "trusted": pa.array([s.trusted for s in spectra]),
        "ebv": _within("ebv", np.array([s.ebv for s in spectra])),
    }
    nothing = (np.nan, np.nan)
    for band in IMAGING_BANDS:
        pairs = np.array([s.imaging.get(band.name, nothing) for s in spectra])
        columns |= _pair(band.flux_column, pairs)
    for name in LABEL_NAMES:
        columns |= _pair(name, np.array([s.labels.get(name, nothing) for s in spectra]))
    return pa.table({name: columns[name] for name in SPECTRA.names if name not in CROSS_MATCHED})


def object_id(spectrum: Spectrum) -> int:
    """Key of a spectrum, from its survey and name."""
    return name_key(f"{spectrum.survey}/{spectrum.source}")


def target_key(spectrum: Spectrum) -> int:
    """Key of an object, shared by its visits: from its name in the survey, or else that of the spectrum."""
    return name_key(f"{spectrum.survey}/{spectrum.target or spectrum.source}")


def _check(spectrum: Spectrum) -> None:
    if not len(spectrum.wavelength) == len(spectrum.flux) == len(spectrum.ivar):
        raise SourceError(f"has arrays of different lengths in {spectrum.source}", column="flux")
    if not (np.isfinite(spectrum.wavelength).all() and (np.diff(spectrum.wavelength) > 0.0).all()):
        raise SourceError(f"has wavelengths that do not increase in {spectrum.source}", column="wavelength")


def _index(spectra: Sequence[Spectrum], ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    placed = _on_the_sky(ra, dec)
    index = np.array([target_key(s) % _PIXELS for s in spectra], np.int64)
    index[placed] = spatial_index(ra[placed], dec[placed])
    return index


def _on_the_sky(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    return np.asarray((ra >= 0.0) & (ra <= 360.0) & (np.abs(dec) <= 90.0))


def _finite(flux: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(flux), flux, 0.0)


def _bits(spectrum: Spectrum) -> np.ndarray:
    return np.zeros(len(spectrum.flux), np.int32) if spectrum.mask is None else spectrum.mask


def _lists(name: str, arrays: Sequence[np.ndarray]) -> pa.Array:
    kind = SPECTRA[name].type
    offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays])]).astype(np.int32)
    values = np.concatenate(arrays).astype(kind.value_type.to_pandas_dtype())
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), type=kind)


def _text(words: Sequence[str]) -> pa.Array:
    return pa.array([word or NONE for word in words], pa.string())


def _within(name: str, values: np.ndarray) -> pa.Array:
    """Null where a value is not a number or outside of its column's range."""
    column = SPECTRA[name]
    outside = ~np.isfinite(values)
    if column.minimum is not None:
        outside |= values < column.minimum
    if column.maximum is not None:
        outside |= values > column.maximum
    return pa.array(np.where(outside, 0.0, values), column.type, mask=outside)


def _pair(name: str, pairs: np.ndarray) -> dict[str, pa.Array]:
    """A quantity and its error; no error without a quantity."""
    value = _within(name, pairs[:, 0])
    known = value.is_valid().to_numpy(zero_copy_only=False)
    return {name: value, f"{name}_err": _within(f"{name}_err", np.where(known, pairs[:, 1], np.nan))}
