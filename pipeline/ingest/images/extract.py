"""Cutting images out of fields, as rows of the cut-outs contract."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.cutouts import (
    BLOCK,
    CUTOUTS,
    LETTERS,
    NANOMAGGY,
    NOT_MEASURED,
    PIXEL_SCALE,
    SATURATED_BITS,
    SIZE,
    SURVEY_BITS,
    CutoutFlag,
)
from ojala.catalogs_schema.spectra import KEY_NAMES
from ojala.pipeline.ingest.images.field import Field, OpenFiles

_SATURATED_WITHIN = 2.0 / PIXEL_SCALE  # pixels
_BLOCKS = SIZE // BLOCK
_APART = 4  # pixels


@dataclass(frozen=True, slots=True, eq=False)
class Cutout:
    """Row of one object without its key; as in `CUTOUTS`, arrays with their full shapes."""

    image: np.ndarray
    ivar: np.ndarray
    mask: np.ndarray
    psf_fwhm: np.ndarray
    x: float
    y: float
    shift: tuple[int, int]
    brick: str
    scale: float
    flags: CutoutFlag


def cut_out(field: Field, files: OpenFiles, x: float, y: float) -> Cutout:
    """The cut-out around a place within a field.

    Parameters
    ----------
    field : Field
        The field.
    files : OpenFiles
        Its files.
    x, y : float
        Column and row of the object in the field.

    Raises
    ------
    SourceError
        If a file is damaged: names it.
    """
    rows, columns = field.shape
    (left, shift_x), (bottom, shift_y) = _start(x, columns), _start(y, rows)
    box = (slice(bottom, bottom + SIZE), slice(left, left + SIZE))
    flags = CutoutFlag.SHIFTED if shift_x or shift_y else CutoutFlag(0)
    image = np.zeros((len(LETTERS), SIZE, SIZE), np.float32)
    ivar = np.zeros_like(image)
    psf_fwhm = np.full(len(LETTERS), np.nan, np.float32)
    for k, band in enumerate(LETTERS):
        if band not in field.image:
            continue
        image[k] = files.read(field.image[band], *box) * NANOMAGGY
        if band in field.ivar:
            ivar[k] = files.read(field.ivar[band], *box) / NANOMAGGY**2
        else:
            ivar[k] = estimated_ivar(image[k])
            flags |= CutoutFlag.IVAR_ESTIMATED
        if band in field.psf:
            pixel = (slice(place, place + 1) for place in (_pixel(y, rows), _pixel(x, columns)))
            psf_fwhm[k] = files.read(field.psf[band], *pixel)[0, 0]
    bits = np.zeros((SIZE, SIZE), np.int32)
    if field.mask is not None:
        bits |= (files.read(field.mask, *box).astype(np.int64) & SURVEY_BITS).astype(np.int32)
    return _checked(image, ivar, bits, psf_fwhm, (x - left, y - bottom), (shift_x, shift_y), field, flags)


def _start(place: float, length: int) -> tuple[int, int]:
    """First pixel of a cut-out around a place along an axis, and by how much it was moved into the field."""
    wanted = round(place - (SIZE - 1) / 2)
    start = min(max(wanted, 0), length - SIZE)
    return start, start - wanted


def _pixel(place: float, length: int) -> int:
    return min(max(round(place), 0), length - 1)


def estimated_ivar(image: np.ndarray) -> np.ndarray:
    """Inverse variance of an image (rows, columns) without one, the same for all pixels; 0 where it is zero.

    From the scatter of differences between pixels that are so far apart that the resampling of coadds does
    not correlate their noise. It is larger than what the survey gives, by half in a brick in g: resampling
    also makes the scatter of single pixels smaller.
    """
    measured = np.isfinite(image) & (image != 0.0)
    pairs = measured[:, _APART:] & measured[:, :-_APART]
    if not pairs.any():
        return np.zeros_like(image)
    difference = (image[:, _APART:] - image[:, :-_APART])[pairs]
    sigma = 1.4826 * np.median(np.abs(difference)) / np.sqrt(2.0)
    return np.where(measured & (sigma > 0.0), 1.0 / max(sigma, 1e-30) ** 2, 0.0).astype(np.float32)


def _checked(
    image: np.ndarray,
    ivar: np.ndarray,
    bits: np.ndarray,
    psf_fwhm: np.ndarray,
    place: tuple[float, float],
    shift: tuple[int, int],
    field: Field,
    flags: CutoutFlag,
) -> Cutout:
    """Mark the pixels without measurement, average the inverse variance, and set flags."""
    x, y = place
    measured = np.isfinite(image) & np.isfinite(ivar) & (ivar > 0.0)
    image, ivar = np.where(measured, image, 0.0), np.where(measured, ivar, 0.0)
    for k, bit in enumerate(NOT_MEASURED):
        bits |= np.where(measured[k], 0, bit).astype(np.int32)
    observed = measured.any(axis=(1, 2))
    counts = _by_block(measured.astype(np.float32))
    psf_fwhm = np.where((psf_fwhm > 0.0) & observed, psf_fwhm, np.nan).astype(np.float32)
    if not observed.any():
        flags |= CutoutFlag.NO_IMAGE
    elif not observed.all():
        flags |= CutoutFlag.BAND_MISSING
    if not measured[observed].all():
        flags |= CutoutFlag.HOLES
    if not measured[observed, _pixel(y, SIZE), _pixel(x, SIZE)].all():
        flags |= CutoutFlag.CENTRE_LOST
    columns, rows = np.meshgrid(np.arange(SIZE) - x, np.arange(SIZE) - y)
    near = np.hypot(columns, rows) <= _SATURATED_WITHIN
    if (bits[near] & sum(SATURATED_BITS)).any():
        flags |= CutoutFlag.SATURATED
    if np.isnan(psf_fwhm[observed]).any():
        flags |= CutoutFlag.NO_PSF
    return Cutout(
        image=image,
        ivar=_by_block(ivar) / np.maximum(counts, 1.0),
        mask=bits,
        psf_fwhm=psf_fwhm,
        x=x,
        y=y,
        shift=shift,
        brick=field.brick,
        scale=field.scale,
        flags=flags,
    )


def _by_block(planes: np.ndarray) -> np.ndarray:
    """Sums of (bands, SIZE, SIZE) in blocks, (bands, SIZE / BLOCK, SIZE / BLOCK)."""
    blocks = planes.reshape(len(planes), _BLOCKS, BLOCK, _BLOCKS, BLOCK)
    return np.asarray(blocks.sum(axis=(2, 4), dtype=np.float64))


class CutoutRows:
    """The cut-outs of N objects, put in one by one."""

    def __init__(self, keys: pa.Table) -> None:
        n = keys.num_rows
        self.keys = keys
        self.image = np.zeros((n, len(LETTERS), SIZE, SIZE), np.float32)
        self.ivar = np.zeros((n, len(LETTERS), _BLOCKS, _BLOCKS), np.float32)
        self.mask = np.full((n, SIZE, SIZE), sum(NOT_MEASURED), np.int32)
        self.psf_fwhm = np.full((n, len(LETTERS)), np.nan, np.float32)
        self.place = np.full((n, 2), np.nan, np.float32)
        self.shift = np.zeros((n, 2), np.int16)
        self.scale = np.full(n, np.nan, np.float32)
        self.brick = [NONE] * n
        without = CutoutFlag.NO_IMAGE | CutoutFlag.NO_POSITION
        placed = keys["ra"].is_valid().to_numpy() & keys["dec"].is_valid().to_numpy()
        self.flags = np.where(placed, int(CutoutFlag.NO_IMAGE | CutoutFlag.NOT_COVERED), int(without))

    def put(self, row: int, cutout: Cutout) -> None:
        """Give an object its cut-out."""
        self.image[row], self.ivar[row], self.mask[row] = cutout.image, cutout.ivar, cutout.mask
        self.psf_fwhm[row], self.place[row] = cutout.psf_fwhm, (cutout.x, cutout.y)
        self.shift[row], self.scale[row], self.flags[row] = cutout.shift, cutout.scale, int(cutout.flags)
        self.brick[row] = cutout.brick or NONE

    def table(self) -> pa.Table:
        """The rows of the contract."""
        columns: dict[str, pa.Array] = {name: self.keys[name] for name in KEY_NAMES}
        for name in ("image", "ivar", "mask"):
            flat = getattr(self, name).reshape(-1)
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=CUTOUTS[name].type)
        measured = np.asarray((self.ivar > 0.0).any(axis=(2, 3)))
        words = ["".join(letter for letter, on in zip(LETTERS, row, strict=True) if on) for row in measured]
        columns["bands"] = pa.array([word or NONE for word in words])
        columns["pixel_scale"] = _known(self.scale)
        for k, letter in enumerate(LETTERS):
            columns[f"psf_fwhm_{letter}"] = _known(self.psf_fwhm[:, k])
        for k, axis in enumerate("xy"):
            columns[axis] = _known(self.place[:, k])
            columns[f"shift_{axis}"] = pa.array(self.shift[:, k])
        columns["brick"] = pa.array(self.brick, pa.string())
        columns["flags"] = pa.array(self.flags.astype(np.int32))
        return pa.table({name: columns[name] for name in CUTOUTS.names}).cast(CUTOUTS.schema())


def _known(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.float32(), mask=np.isnan(values))
