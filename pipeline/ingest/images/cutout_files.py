"""Cut-out files, as the viewer of the Legacy Survey gives them: all bands of a small piece of the sky.

The first image of the file is a cube (bands, rows, columns), or a plane where there is one band; ``BANDS``
names them. Further images may hold the inverse variance and the mask bits, by their ``IMAGETYP``.
"""

from __future__ import annotations

from astropy.io import fits
from upath import UPath

from ojala.catalogs_schema.cutouts import LETTERS
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.images.field import Field, Plane, require_nanomaggies, sky_geometry
from ojala.pipeline.ingest.images.kind import ImageKind

EXPECTED = "a cut-out of the Legacy Survey's viewer (an image of bands x rows x columns, with BANDS)"


def is_cutout(header: fits.Header) -> bool:
    """Whether this is the header of a cut-out's first image."""
    return "BANDS" in header


def cutout_field(path: UPath, images: dict[int, fits.Header], header: fits.Header) -> Field:
    """Read the field of a cut-out file.

    Parameters
    ----------
    path : UPath
        The file.
    images : dict of int to Header
        Its images by HDU number, in their order.
    header : Header
        Header of the first image.

    Raises
    ------
    SourceError
        If bands and planes do not match, there is none of g, r and z, or cut-outs cannot be made from it.
    """
    first = next(iter(images))
    require_nanomaggies(header)
    bands = str(header["BANDS"]).strip()
    wcs, shape = sky_geometry(header)
    planes: dict[str, dict[str, Plane]] = {"IMAGE": _planes(path, first, header, bands)}
    mask = None
    for number, other in list(images.items())[1:]:
        kind = str(other.get("IMAGETYP", other.get("EXTNAME", ""))).strip().upper()
        if (int(other["NAXIS2"]), int(other["NAXIS1"])) != shape:
            raise SourceError(f"has images of different sizes, in HDU {first} and {number}: get it again")
        if kind in ("INVVAR", "IVAR"):
            planes["INVVAR"] = _planes(path, number, other, bands)
        elif kind == "MASKBITS":
            mask = Plane(path, number)
    return Field(
        name=path.name,
        brick="",
        wcs=wcs,
        shape=shape,
        image=planes["IMAGE"],
        ivar=planes.get("INVVAR", {}),
        mask=mask,
    )


def _planes(path: UPath, number: int, header: fits.Header, bands: str) -> dict[str, Plane]:
    layers = int(header["NAXIS3"]) if int(header["NAXIS"]) == 3 else 1
    if layers != len(bands):
        raise SourceError(f"has {layers} planes in HDU {number}, but its BANDS are {bands!r}: get it again")
    if not set(LETTERS) & set(bands):
        raise SourceError(f"has the bands {bands!r}, none of {', '.join(LETTERS)}: ask for bands=grz")
    single = int(header["NAXIS"]) == 2
    return {
        band: Plane(path, number, None if single else bands.index(band)) for band in LETTERS if band in bands
    }


KIND = ImageKind(EXPECTED, list, is_cutout, cutout_field)
