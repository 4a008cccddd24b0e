"""Cut-outs of a catalogue as models read them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ojala.catalogs_schema.cutouts import BLOCK, CUTOUTS, LETTERS, NOT_MEASURED, SIZE
from ojala.models.data import Images
from ojala.pipeline.inference.join import split_auxiliary


def read_cutouts(table: pa.Table) -> Images:
    """The cut-outs of a table that keeps the cut-outs contract, as models read them."""
    shape = (table.num_rows, len(LETTERS), SIZE, SIZE)
    flux, ivar, mask = (
        table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        for name in ("image", "ivar", "mask")
    )
    blocks = ivar.reshape(*shape[:2], SIZE // BLOCK, SIZE // BLOCK)
    pixels = np.repeat(np.repeat(blocks, BLOCK, axis=2), BLOCK, axis=3)
    bits = mask.reshape(shape[0], 1, SIZE, SIZE)
    lost = (bits & np.array(NOT_MEASURED, np.int32).reshape(1, -1, 1, 1)) != 0
    psf = [table[f"psf_fwhm_{letter}"].to_numpy() for letter in LETTERS]
    return Images(
        flux=np.array(flux, np.float32).reshape(shape),
        ivar=np.where(lost, np.float32(0.0), pixels),
        psf_fwhm=np.stack(psf, axis=1).astype(np.float32),
    )


def has_cutout(table: pa.Table) -> np.ndarray:
    """Which of N rows have a cut-out, shape (N,)."""
    name = f"{CUTOUTS.name}.image"
    if name not in table.column_names:
        return np.zeros(table.num_rows, bool)
    return np.asarray(pc.is_valid(table[name]).to_numpy())


def joined_images(table: pa.Table) -> Images:
    """Images of N rows from the columns of their cut-outs, without a usable pixel where there is none."""
    there = has_cutout(table)
    if len(there) and there.all():
        return read_cutouts(split_auxiliary(table, CUTOUTS.name))
    planes = (table.num_rows, len(LETTERS), SIZE, SIZE)
    images = Images(
        flux=np.zeros(planes, np.float32),
        ivar=np.zeros(planes, np.float32),
        psf_fwhm=np.full(planes[:2], np.nan, np.float32),
    )
    if there.any():
        read = read_cutouts(split_auxiliary(table.filter(pa.array(there)), CUTOUTS.name))
        images.flux[there], images.ivar[there], images.psf_fwhm[there] = read.flux, read.ivar, read.psf_fwhm
    return images
