"""Images of the Multimodal Universe: rows of Parquet or HDF5 with an image around each object.

``image`` is a struct of ``band``, ``flux`` [nanomaggy], ``ivar``, ``psf_fwhm`` and ``scale`` [arcsec],
over bands; in HDF5 the data sets ``image_band``, ``image_array`` or ``image_flux`` and so on. The object is
taken to lie at the middle, which is true to a pixel, with north up. Images of other pixels than those of the
Legacy Survey are rebinned to them; flux is conserved. The member ``mask`` is not read: it is a summary of the
survey's bits, true where they are good in one release.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.wcs import WCS
from upath import UPath

from ojala.catalogs_schema.cutouts import LETTERS, PIXEL_SCALE, SIZE
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.columnar import read_batches

EXPECTED = "images of the Multimodal Universe (Parquet or HDF5 with object_id, ra, dec and image)"

CAMERAS = ("des", "decam", "bass", "mzls", "90prime")
"""First parts of the names of bands, such as ``des-g``, whose g, r and z are those of the Legacy Survey."""

_MEMBERS = ("band", "flux", "array", "ivar", "psf_fwhm", "scale")
_BATCH = 16
_SAME_SCALE = 0.02


def is_stamps(names: frozenset[str]) -> bool:
    """Whether a file with these columns holds images of the Multimodal Universe."""
    flux = {"image.flux", "image_flux", "image_array"} & names
    return bool(flux) and {"object_id", "ra", "dec"} <= names


@dataclass(frozen=True, slots=True)
class StampPlane:
    """One band of the image of a row.

    Attributes
    ----------
    path : UPath
        The file.
    row : int
        Number of the row.
    layer : int
        Number of the band in the row.
    member : str
        ``flux``, ``ivar`` or ``psf_fwhm``.
    """

    path: UPath
    row: int
    layer: int
    member: str


@dataclass(frozen=True, slots=True, eq=False)
class Stamp:
    """The images of a row, with pixels of 0.262 arcsec.

    Attributes
    ----------
    bands : tuple of str
        Letters of the bands; empty for those that are not of the Legacy Survey.
    flux, ivar : ndarray of float32, shape (B, N, N)
        Flux [nanomaggy] and its inverse variance; the latter is None where the file has none.
    psf_fwhm : ndarray of float32, shape (B,)
        Width of the point-spread function [arcsec], NaN where not known.
    """

    bands: tuple[str, ...]
    flux: np.ndarray
    ivar: np.ndarray | None
    psf_fwhm: np.ndarray


class StampFile:
    """Rows of a file, read forwards in small batches.

    Parameters
    ----------
    path : UPath
        The file.
    """

    def __init__(self, path: UPath) -> None:
        self._path = path
        self._batches: Iterator[dict[str, Any]] = iter(())
        self._begin, self._end = 0, 0
        self._batch: dict[str, Any] = {}
        self._stamp: tuple[int, Stamp] | None = None

    def read(self, plane: StampPlane, rows: slice, columns: slice) -> np.ndarray:
        """A box of pixels of a plane; of the point-spread function's width the same in each pixel.

        Raises
        ------
        SourceError
            If the file is damaged, or has not that many rows.
        """
        if self._stamp is None or self._stamp[0] != plane.row:
            self._stamp = plane.row, self.stamp(plane.row)
        stamp = self._stamp[1]
        if plane.member == "psf_fwhm":
            box = stamp.flux[plane.layer, rows, columns]
            return np.full_like(box, stamp.psf_fwhm[plane.layer])
        values = stamp.flux if plane.member == "flux" else stamp.ivar
        assert values is not None
        return np.asarray(values[plane.layer, rows, columns])

    def stamp(self, row: int) -> Stamp:
        """The images of a row; rows are best asked for in their order.

        Raises
        ------
        SourceError
            If the file is damaged, or has not that many rows.
        """
        if row < self._begin or not self._batch:
            names = [*(f"image.{name}" for name in _MEMBERS), *(f"image_{name}" for name in _MEMBERS)]
            self._batches = iter(read_batches(self._path, names, _BATCH))
            self._begin = self._end = 0
        while row >= self._end:
            self._batch = next(self._batches, {})
            if not self._batch:
                raise SourceError(f"has {self._end} rows, not {row + 1}: it has changed while it was read")
            self._begin = self._end
            self._end += len(next(iter(self._batch.values())))
        return _stamp(self._batch, row - self._begin, row)


def stamp_positions(path: UPath) -> Iterator[tuple[float, float]]:
    """Right ascension and declination of each row [deg], NaN where there is none.

    Raises
    ------
    SourceError
        If the file is damaged.
    """
    for batch in read_batches(path, ["ra", "dec"], 8192):
        columns = (batch[name] for name in ("ra", "dec"))
        ra, dec = (
            column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column
            for column in columns
        )
        yield from zip(ra.astype(float).tolist(), dec.astype(float).tolist(), strict=True)


def stamp_geometry(ra: float, dec: float, size: int) -> WCS:
    """World coordinates of an image of `size` pixels around a position [deg]."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = ra, dec
    wcs.wcs.crpix = (size + 1) / 2, (size + 1) / 2
    wcs.wcs.cdelt = -PIXEL_SCALE / 3600.0, PIXEL_SCALE / 3600.0
    return wcs


def _stamp(batch: dict[str, Any], k: int, row: int) -> Stamp:
    flux = _member(batch, k, "flux", "array")
    if flux is None or flux.ndim != 3 or flux.shape[1] != flux.shape[2]:
        raise SourceError("is missing, or no stack of square images", row=row + 1, column="image.flux")
    ivar, scale, psf_fwhm = (_member(batch, k, name) for name in ("ivar", "scale", "psf_fwhm"))
    if ivar is not None and ivar.shape != flux.shape:
        raise SourceError("has another shape than the flux", row=row + 1, column="image.ivar")
    arcsec = PIXEL_SCALE if scale is None else float(np.ravel(scale)[0])
    flux, ivar = rebinned(flux.astype(np.float32), ivar, arcsec)
    if flux.shape[1] < SIZE:
        raise SourceError(
            f"has {flux.shape[1]} pixels of {PIXEL_SCALE} arcsec, but a cut-out has {SIZE}",
            row=row + 1,
            column="image.flux",
        )
    widths = np.full(len(flux), np.nan, np.float32) if psf_fwhm is None else np.ravel(psf_fwhm)
    return Stamp(tuple(_letter(word) for word in _words(batch, k)), flux, ivar, widths.astype(np.float32))


def rebinned(flux: np.ndarray, ivar: np.ndarray | None, scale: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Images (B, N, N) with pixels of 0.262 arcsec around the same middle, as they are within 2 %.

    A new pixel has the flux of the pixels that it covers, by area, and the variance of that sum; it has no
    inverse variance where it covers a pixel without one.
    """
    if abs(scale / PIXEL_SCALE - 1.0) <= _SAME_SCALE:
        return flux, ivar
    n = flux.shape[1]
    new = int(n * scale / PIXEL_SCALE)
    edges = (np.arange(new + 1) - new / 2.0) * PIXEL_SCALE / scale + n / 2.0
    old = np.arange(n)
    covered = np.clip(np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old), 0.0, None)
    total = (covered @ np.nan_to_num(flux) @ covered.T).astype(np.float32)
    if ivar is None:
        return total, None
    known = (ivar > 0.0) & np.isfinite(ivar) & np.isfinite(flux)
    variance = np.divide(1.0, ivar, out=np.zeros(ivar.shape), where=known)
    variance = covered**2 @ variance @ covered.T**2
    whole = (covered > 0.0).astype(float) @ ~known @ (covered > 0.0).T.astype(float) == 0.0
    inverse = np.divide(1.0, variance, out=np.zeros_like(variance), where=whole & (variance > 0.0))
    return total, inverse.astype(np.float32)


def _member(batch: dict[str, Any], k: int, *names: str) -> np.ndarray | None:
    """Numbers of a member of a row's image, with their shape; None without one."""
    for name in names:
        column = batch.get(f"image_{name}")
        if column is not None:  # HDF5
            return np.asarray(column[k])
        if "image" in batch and batch["image"].type.get_field_index(name) >= 0:
            values = batch["image"].field(name)[k].values
            if values is None:
                return None
            lengths = [len(values)]
            while pa.types.is_list(values.type):
                values = values.flatten()
                lengths.append(len(values))
            shape = [lengths[0], *(n // max(m, 1) for m, n in pairwise(lengths))]
            numbers = np.asarray(values.to_numpy(zero_copy_only=False))
            return numbers.reshape(shape) if np.prod(shape) == len(numbers) else None
    return None


def _words(batch: dict[str, Any], k: int) -> list[str]:
    if "image_band" in batch:
        return [word.decode() if isinstance(word, bytes) else str(word) for word in batch["image_band"][k]]
    return [str(word) for word in batch["image"].field("band")[k].as_py()]


def _letter(word: str) -> str:
    camera, _, letter = word.strip().lower().rpartition("-")
    return letter if letter in LETTERS and (not camera or camera in CAMERAS) else ""
