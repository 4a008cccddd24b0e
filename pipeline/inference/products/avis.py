"""Rows of AVIS' product: embeddings, their coordinates in the atlas, and flags."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ojala.catalogs_schema.avis import AVIS, NOVEL, SCATTERED, AvisFlag
from ojala.catalogs_schema.cutouts import CUTOUTS, CutoutFlag
from ojala.models.avis.atlas import SIDES, Atlas, unplaced
from ojala.pipeline.inference.cutouts import has_cutout
from ojala.pipeline.inference.products.table import build_table

_IMAGE = f"{CUTOUTS.name}.image"
_DOUBTFUL = int(CutoutFlag.SATURATED | CutoutFlag.CENTRE_LOST)


def avis_table(table: pa.Table, predictions: dict[str, np.ndarray], atlas: Atlas | None) -> pa.Table:
    """The rows of the product.

    Parameters
    ----------
    table : pyarrow.Table
        N spectra, with the columns of their cut-outs if there are any.
    predictions : dict of str to ndarray
        The embeddings, (N, EMBEDDING_SIZE) each; NaN where there is none.
    atlas : Atlas or None
        Where the joint embeddings are placed; None leaves the columns of the atlas without values.
    """
    n = table.num_rows
    places, flags = unplaced(n), _of_inputs(table)
    if atlas is not None:
        fits = sides_of(predictions) == atlas.sides
        places = atlas.place(np.where(fits[:, None], predictions["embedding"], np.nan))
        flags |= _bits(~fits & ~_absent(predictions["embedding"]), AvisFlag.NOT_PLACED)
    flags |= _of_predictions(predictions, places)
    if atlas is not None:
        without_z = np.isfinite(places["novelty"]) & ~np.isfinite(places["z_nn"])
        flags |= _bits(without_z, AvisFlag.FEW_REDSHIFTS)
    return build_table(AVIS, table, {**predictions, **places, "flags": flags})


def sides_of(predictions: dict[str, np.ndarray]) -> np.ndarray:
    """Modality of each object, one of `ojala.models.avis.atlas.SIDES`; empty for nothing."""
    spectrum, image = (~_absent(predictions[f"embedding_{side}"]) for side in ("spectrum", "image"))
    return np.select([spectrum & image, spectrum, image], SIDES, "")


def _of_inputs(table: pa.Table) -> np.ndarray:
    """Flags that spectrum and cut-out tell."""
    flags = _bits(table["snr"].to_numpy() < 1.0, AvisFlag.LOW_SIGNAL)
    if _IMAGE not in table.column_names:
        return flags | int(AvisFlag.NO_CUTOUT)
    of_cutout = pc.fill_null(table[f"{CUTOUTS.name}.flags"], 0).to_numpy()
    flags |= _bits(~has_cutout(table), AvisFlag.NO_CUTOUT)
    flags |= _bits((of_cutout & CutoutFlag.BAND_MISSING) != 0, AvisFlag.BAND_MISSING)
    return np.asarray(flags | _bits((of_cutout & _DOUBTFUL) != 0, AvisFlag.IMAGE_DOUBTFUL))


def _of_predictions(predictions: dict[str, np.ndarray], places: dict[str, np.ndarray]) -> np.ndarray:
    """Flags that embeddings and places tell."""
    z, error = places["z_nn"], places["z_nn_err"]
    bits = {
        AvisFlag.NO_SPECTRUM: _absent(predictions["embedding_spectrum"]),
        AvisFlag.NO_IMAGE: _absent(predictions["embedding_image"]),
        AvisFlag.NOT_EMBEDDED: _absent(predictions["embedding"]),
        AvisFlag.Z_SCATTERED: error > SCATTERED * (1.0 + z),
        AvisFlag.NOVEL: places["novelty"] > NOVEL,
    }
    return np.asarray(sum(_bits(where, flag) for flag, where in bits.items()))


def _absent(embedding: np.ndarray) -> np.ndarray:
    return np.asarray(~np.isfinite(embedding).all(axis=1))


def _bits(where: np.ndarray, flag: AvisFlag) -> np.ndarray:
    return np.where(where, int(flag), 0).astype(np.int32)
