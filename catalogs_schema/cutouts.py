"""The contract of a cut-out catalogue: one row is what imaging shows around one object.

Images are arrays of one size, so that a column of them is read without a copy as an array of shape
(rows, 3, 64, 64). A survey's noise changes slowly over a cut-out: the inverse variance is stored as its mean
in blocks of 8 x 8 pixels, which are 0.8 kB a row in place of 49 kB, and the pixels without measurement, over
which the mean is not taken, are in the mask.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import pyarrow as pa

from ojala.catalogs_schema.bands import BY_NAME, Band
from ojala.catalogs_schema.columns import FLAGS, number, vector
from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.spectra import SPECTRA_KEYS

CUTOUT_BANDS: tuple[Band, ...] = tuple(BY_NAME[name] for name in ("ls_g", "ls_r", "ls_z"))
"""The bands of a cut-out, in the order of its planes."""

LETTERS: tuple[str, ...] = ("g", "r", "z")
"""Names of `CUTOUT_BANDS` in the files of the Legacy Survey."""

SIZE = 64
"""Pixels along a side of a cut-out."""

PIXEL_SCALE = 0.262
"""Side of a pixel [arcsec]: that of the coadds of the Legacy Survey."""

BLOCK = 8
"""Pixels along a side of a block, which has one inverse variance a band."""

NANOMAGGY = 3.631
"""uJy in one nanomaggy, the unit of the Legacy Survey (AB magnitude 22.5)."""

SURVEY_BITS = 0xFF_FFFF
"""Bits of ``mask`` that are the Legacy Survey's own."""

NOT_MEASURED: tuple[int, ...] = tuple(1 << bit for bit in (24, 25, 26))
"""Bits of ``mask``, by band, of pixels without a measurement."""

SATURATED_BITS: tuple[int, ...] = tuple(1 << bit for bit in (2, 3, 4))
"""The survey's bits, by band, of pixels that touch a saturated one."""

_PIXELS = len(CUTOUT_BANDS) * SIZE**2
_BLOCKS = len(CUTOUT_BANDS) * (SIZE // BLOCK) ** 2


class CutoutFlag(enum.IntFlag):
    """Flags of a row. Bits are never reused for another meaning."""

    NO_IMAGE = 1 << 0
    NO_POSITION = 1 << 1
    NOT_COVERED = 1 << 2
    BAND_MISSING = 1 << 3
    SHIFTED = 1 << 4
    HOLES = 1 << 5
    CENTRE_LOST = 1 << 6
    SATURATED = 1 << 7
    IVAR_ESTIMATED = 1 << 8
    NO_PSF = 1 << 9


FLAG_MEANINGS: Mapping[enum.IntFlag, str] = {
    CutoutFlag.NO_IMAGE: "no pixel was measured in any band: image and inverse variance are zero",
    CutoutFlag.NO_POSITION: "the object has no position, so that nothing could be cut out",
    CutoutFlag.NOT_COVERED: "the object lies in none of the images that were given",
    CutoutFlag.BAND_MISSING: "a band was measured nowhere in the cut-out, another was",
    CutoutFlag.SHIFTED: "the object lies near the edge of its image: the cut-out was moved into the image by "
    "shift_x and shift_y, and the object is not at its centre",
    CutoutFlag.HOLES: "a band that was measured has pixels without measurement",
    CutoutFlag.CENTRE_LOST: "in a band that was measured, the pixel of the object has no measurement",
    CutoutFlag.SATURATED: "within 2 arcsec of the object, a pixel touches a saturated one",
    CutoutFlag.IVAR_ESTIMATED: "the inverse variance of a band was not given and was estimated from the "
    "scatter of its pixels",
    CutoutFlag.NO_PSF: "the width of the point-spread function is not known in a band that was measured",
}
"""One sentence per bit."""


def _place(name: str, axis: str) -> Column:
    return Column(
        name,
        pa.float32(),
        "pix",
        f"pos.cartesian.{name};instr.det",
        f"{axis} of the object in the cut-out; the centre of the first pixel is 0, that of the cut-out "
        f"{(SIZE - 1) / 2:g}",
        minimum=-0.5,
        maximum=SIZE - 0.5,
    )


def _shift(axis: str) -> Column:
    return Column(
        f"shift_{axis}",
        pa.int16(),
        "pix",
        f"pos.cartesian.{axis};arith.diff",
        f"pixels by which the cut-out was moved along {axis} to lie within its image",
        nullable=False,
    )


CUTOUTS = Contract(
    name="cutouts",
    version="1.0.0",
    title="Cut-outs",
    description=(
        "One row per row of a catalogue of spectra or photometry, in a partition of the same name and in the "
        "same order, with its key: the image around the object in the coadds of the Legacy Survey, "
        f"{SIZE} x {SIZE} pixels in g, r and z. Arrays run over bands, then rows from south to north, then "
        "pixels along a row from east to west. A pixel without a measurement has the flux 0 and a bit of "
        "`mask`. 1 nanomaggy is 3.631 uJy."
    ),
    columns=(
        *SPECTRA_KEYS,
        vector(
            "image",
            pa.float32(),
            _PIXELS,
            "uJy",
            "phot.flux.density;em.opt",
            f"flux density f_nu (AB) in each pixel, 3 x {SIZE} x {SIZE}, sky subtracted, not corrected for "
            "Galactic extinction; 0 where not measured",
        ),
        vector(
            "ivar",
            pa.float32(),
            _BLOCKS,
            "uJy**-2",
            "stat.weight;phot.flux.density",
            f"mean inverse variance of the measured pixels in each block of {BLOCK} x {BLOCK} of image, "
            f"3 x {SIZE // BLOCK} x {SIZE // BLOCK}; 0 where none is",
        ),
        vector(
            "mask",
            pa.int32(),
            SIZE**2,
            "",
            "meta.code.qual",
            f"bits of each pixel, {SIZE} x {SIZE}: to 2**23 the maskbits of the Legacy Survey; 2**24, 2**25 "
            "and 2**26: no measurement in g, r, z",
        ),
        Column(
            "bands",
            pa.string(),
            "",
            "instr.bandpass",
            "bands with a measurement, such as grz",
            nullable=False,
            allowed=("NONE", "g", "r", "z", "gr", "gz", "rz", "grz"),
        ),
        number(
            "pixel_scale",
            "arcsec",
            "phys.angSize;instr.pixel",
            "side of a pixel; null without image",
            0.0,
        ),
        *(
            Column(
                f"psf_fwhm_{letter}",
                pa.float32(),
                "arcsec",
                "phys.angSize;instr.det.psf",
                f"full width at half maximum of the point-spread function in {letter}",
                minimum=0.0,
            )
            for letter in LETTERS
        ),
        _place("x", "column"),
        _place("y", "row"),
        _shift("x"),
        _shift("y"),
        Column(
            "brick",
            pa.string(),
            "",
            "meta.id;obs.field",
            "brick of the Legacy Survey; NONE where the image is a file of its own or there is none",
            nullable=False,
        ),
        FLAGS,
    ),
    flag_meanings=FLAG_MEANINGS,
)
"""Image cut-outs of a catalogue's objects."""
