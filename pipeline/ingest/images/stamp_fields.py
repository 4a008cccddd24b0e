"""Fields of the images of the Multimodal Universe: one for each row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.columnar import column_names_of
from ojala.pipeline.ingest.images.field import Field
from ojala.pipeline.ingest.images.kind import ImageKind
from ojala.pipeline.ingest.images.stamps import (
    EXPECTED,
    StampFile,
    StampPlane,
    is_stamps,
    stamp_geometry,
    stamp_positions,
)


def stamp_fields(path: UPath) -> list[Field]:
    """Fields of the rows of a file that have a position.

    Bands and size are those of the first row; a row of another shape is found when it is cut.

    Raises
    ------
    SourceError
        If the file is damaged, has images of no band of the Legacy Survey, or too small ones.
    """
    positions = list(stamp_positions(path))
    if not positions:
        return []
    first = StampFile(path).stamp(0)
    layers = {letter: layer for layer, letter in enumerate(first.bands) if letter}
    if not layers:
        raise SourceError("has images of other bands than g, r and z of the Legacy Survey (des-g, ...)")
    size = first.flux.shape[1]
    names = column_names_of(path)
    members = {name for name in ("ivar", "psf_fwhm") if {f"image.{name}", f"image_{name}"} & names}

    def planes(row: int, member: str) -> dict[str, StampPlane]:
        return {letter: StampPlane(path, row, layer, member) for letter, layer in layers.items()}

    return [
        Field(
            name=f"{path.name} row {row + 1:09d}",
            brick="",
            wcs=stamp_geometry(ra, dec, size),
            shape=(size, size),
            image=planes(row, "flux"),
            ivar=planes(row, "ivar") if "ivar" in members else {},
            psf=planes(row, "psf_fwhm") if "psf_fwhm" in members else {},
        )
        for row, (ra, dec) in enumerate(positions)
        if np.isfinite(ra) and np.isfinite(dec)
    ]


def _joined(parts: Sequence[list[Field]]) -> list[Field]:
    return list(chain.from_iterable(parts))


KIND = ImageKind(EXPECTED, _joined, matches_columns=is_stamps, read_columns=stamp_fields)
