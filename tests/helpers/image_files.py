"""Small files as the Legacy Survey and its viewer write them, 200 x 200 pixels about (150, 2) deg."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

RA, DEC, SIDE, SCALE = 150.0, 2.0, 200, 0.262


def header(
    ra: float = RA, dec: float = DEC, shape: tuple[int, int] = (SIDE, SIDE), scale: float = SCALE
) -> fits.Header:
    """North is up and east to the left; the position is that of the middle."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = ra, dec
    wcs.wcs.crpix = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    wcs.wcs.cd = np.array([[-scale, 0.0], [0.0, scale]]) / 3600.0
    return wcs.to_header()


def sky_of(x: float, y: float, head: fits.Header | None = None) -> tuple[float, float]:
    """Position of a pixel [deg]; the first one's centre is 0."""
    ra, dec = WCS(head or header()).wcs_pix2world(x, y, 0)
    return float(ra), float(dec)


def pixels(band: str) -> np.ndarray:
    """Every pixel of every band has a flux of its own [nanomaggy]."""
    rows, columns = np.indices((SIDE, SIDE), np.float32)
    return (columns + SIDE * rows + 1.0 + 1e5 * "grz".index(band)).astype(np.float32)


def write_plane(
    folder: Path,
    kind: str,
    band: str,
    data: np.ndarray,
    *,
    brick: str = "1500p020",
    ra: float = RA,
    packed: bool = True,
) -> Path:
    """One map of a brick, as image of the primary HDU or packed into a table (.fz)."""
    head = header(ra, shape=data.shape)
    head["BRICKNAM"], head["IMTYPE"] = brick, kind
    if band:
        head["FILTER"] = f"{band}d DECam k1038"
    name = f"legacysurvey-{brick}-{kind}{'-' if band else ''}{band}.fits"
    folder.mkdir(parents=True, exist_ok=True)
    if packed:
        path = folder / f"{name}.fz"
        fits.CompImageHDU(data, head, compression_type="GZIP_2", quantize_level=0.0).writeto(path)
    else:
        path = folder / name
        fits.PrimaryHDU(data, head).writeto(path)
    return path


def make_brick(
    folder: Path, bands: str = "grz", *, brick: str = "1500p020", ra: float = RA, whole: bool = True
) -> None:
    """A brick with inverse variances of 4, 5, 6 by band; ``whole``: with mask bits and widths 1.3, 1.2, 1.1.

    In g the pixels of columns 100 to 109 have no measurement; pixel (60, 60) is saturated in z.
    """
    for k, band in enumerate("grz"):
        if band not in bands:
            continue
        weight = np.full((SIDE, SIDE), 4.0 + k, np.float32)
        if band == "g":
            weight[:, 100:110] = 0.0
        write_plane(folder, "image", band, pixels(band), brick=brick, ra=ra)
        write_plane(folder, "invvar", band, weight, brick=brick, ra=ra, packed=False)
        if whole:
            width = np.full((SIDE, SIDE), 1.3 - 0.1 * k, np.float32)
            write_plane(folder, "psfsize", band, width, brick=brick, ra=ra)
    if whole:
        bits = np.zeros((SIDE, SIDE), np.int16)
        bits[60, 60] = 1 << 4
        write_plane(folder, "maskbits", "", bits, brick=brick, ra=ra)
        write_plane(folder, "nexp", "g", bits, brick=brick, ra=ra)


def make_cutout(
    path: Path,
    bands: str = "grz",
    *,
    size: int = 64,
    ivar: float | None = 9.0,
    scale: float = SCALE,
    noise: float = 0.1,
) -> np.ndarray:
    """A cut-out of the viewer about (150, 2) deg; returns its planes [nanomaggy]."""
    cube = np.random.default_rng(1).normal(0.0, noise, (len(bands), size, size)).astype(np.float32)
    head = header(shape=(size, size), scale=scale)
    head["BANDS"], head["SURVEY"], head["IMAGETYP"] = bands, "DECaLS", "IMAGE"
    planes = cube if len(bands) > 1 else cube[0]
    hdus = [fits.PrimaryHDU(planes, head)]
    if ivar is not None:
        weight = fits.ImageHDU(np.full_like(planes, ivar), head)
        weight.header["IMAGETYP"] = "INVVAR"
        hdus.append(weight)
    fits.HDUList(hdus).writeto(path)
    return cube


def write_objects(
    path: Path, places: dict[str, tuple[float, float]], head: fits.Header | None = None
) -> Path:
    """A CSV table of objects at pixels of the brick; the names are their ids."""
    lines = ["id,ra,dec"]
    lines += [
        ",".join([name, *(f"{value:.10f}" for value in sky_of(*at, head))]) for name, at in places.items()
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
