"""Coadds of the Legacy Survey: each plane of a brick is a file, ``legacysurvey-BRICK-image-g.fits.fz``.

Read are ``image`` and ``invvar`` of g, r and z, ``maskbits`` and ``psfsize``; the other maps of a brick are
passed over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from astropy.io import fits
from astropy.wcs import WCS
from upath import UPath

from ojala.catalogs_schema.cutouts import LETTERS
from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.images.field import Field, Plane, require_nanomaggies, sky_geometry
from ojala.pipeline.ingest.images.kind import ImageKind

EXPECTED = (
    "a coadd of the Legacy Survey (IMTYPE image, invvar, maskbits or psfsize, with the name of its brick)"
)

_NAME = re.compile(r"legacysurvey-\d{4}[pm]\d{3}-\w+-(\w+)\.fits")


@dataclass(frozen=True, slots=True, eq=False)
class BrickPlane:
    """One of a brick's planes.

    Attributes
    ----------
    brick : str
        Name of the brick.
    kind : str
        ``image``, ``invvar``, ``psfsize`` or ``maskbits``.
    band : str
        Letter of the band; empty for maskbits, which are of all bands.
    plane : Plane
        Location of the pixels.
    shape : tuple of int
        Rows and columns.
    wcs : WCS
        From position to pixel.
    """

    brick: str
    kind: str
    band: str
    plane: Plane
    shape: tuple[int, int]
    wcs: WCS


def is_brick_plane(header: fits.Header) -> bool:
    """Whether this is the header of a map of a brick, of any type."""
    return bool(_brick(header)) and "IMTYPE" in header


def brick_plane(path: UPath, images: dict[int, fits.Header], header: fits.Header) -> BrickPlane:
    """Read the header of a map of a brick.

    Raises
    ------
    SourceError
        If its type is not needed, or its band is unknown.
    """
    kind = str(header["IMTYPE"]).strip()
    if kind not in ("image", "invvar", "psfsize", "maskbits"):
        raise SourceError(f"is a map of {kind}, which cut-outs do not need: expected {EXPECTED}")
    band = "" if kind == "maskbits" else _band(path, header)
    if kind == "image":
        require_nanomaggies(header)
    wcs, shape = sky_geometry(header)
    return BrickPlane(_brick(header), kind, band, Plane(path, next(iter(images))), shape, wcs)


def brick_fields(planes: Sequence[BrickPlane]) -> list[Field]:
    """Group planes by brick, sorted by name; bricks without an image are left out.

    Raises
    ------
    IngestError
        If a brick has two planes of the same kind and band, or planes of different shapes.
    """
    bricks: dict[str, dict[tuple[str, str], BrickPlane]] = {}
    for one in planes:
        known = bricks.setdefault(one.brick, {})
        before = known.setdefault((one.kind, one.band), one)
        if before is not one:
            raise IngestError(
                f"{before.plane.path} and {one.plane.path} are both the {one.kind} {one.band} of brick "
                f"{one.brick}: name one of them"
            )
    return [
        _field(name, bricks[name]) for name in sorted(bricks) if any(k == "image" for k, _ in bricks[name])
    ]


def _field(name: str, planes: dict[tuple[str, str], BrickPlane]) -> Field:
    def of(kind: str) -> dict[str, Plane]:
        return {band: planes[kind, band].plane for band in LETTERS if (kind, band) in planes}

    first = planes["image", next(iter(of("image")))]
    for one in planes.values():
        if one.shape != first.shape:
            raise IngestError(
                f"{one.plane.path} has {one.shape[1]} x {one.shape[0]} pixels, but {first.plane.path} of the "
                f"same brick has {first.shape[1]} x {first.shape[0]}: get both from the same release"
            )
    mask = planes.get(("maskbits", ""))
    return Field(
        name=f"brick {name}",
        brick=name,
        wcs=first.wcs,
        shape=first.shape,
        image=of("image"),
        ivar=of("invvar"),
        psf=of("psfsize"),
        mask=None if mask is None else mask.plane,
    )


def _brick(header: fits.Header) -> str:
    return str(header.get("BRICKNAM", header.get("BRICK", ""))).strip()


def _band(path: UPath, header: fits.Header) -> str:
    """The band by the header's BAND, else by the file's name, else by FILTER.

    FILTER is that of the first exposure in the stack, in the spelling of its camera.
    """
    named = _NAME.match(path.name)
    words = [
        str(header.get("BAND", "")).strip(),
        named[1] if named else "",
        str(header.get("FILTER", "")).strip(),
    ]
    word = next((word for word in words if word), "")
    if word in LETTERS:
        return word
    raise SourceError(
        f"is of the band {word!r}, which cut-outs do not need: expected {', '.join(LETTERS)}"
        if word
        else "does not name its band: give it the name that it has in the Legacy Survey"
    )


KIND = ImageKind(EXPECTED, brick_fields, is_brick_plane, brick_plane)
