"""Cut-outs of a catalogue as models read them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from catalogs_schema.cutouts import BLOCK, LETTERS, NOT_MEASURED, SIZE
from models.images import Images


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
