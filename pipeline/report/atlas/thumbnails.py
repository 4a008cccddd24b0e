"""Cut-outs as pictures, and sizes of objects from their pixels."""

from __future__ import annotations

import io

import numpy as np
from astropy.visualization import make_lupton_rgb
from PIL import Image

from ojala.catalogs_schema.cutouts import PIXEL_SCALE, SIZE

ACROSS = 40
"""Pictures in a row of the sheet."""

POINT, EXTENDED = "like a point", "extended"
"""Morphology as the cut-outs tell it."""

_STRETCH, _SOFTENING = 0.6, 8.0  # uJy in r; of the inverse hyperbolic sine
_BALANCE = (0.65, 1.0, 1.76)  # z, r and g: the Legacy Survey's viewer has 2.2, 3.4 and 6.0
_APERTURE = 5.0  # arcsec
_CLEAR = 20.0  # signal to noise within the aperture
_POINT_RADIUS = 0.62  # half-light radius of a Moffat profile over its full width at half maximum
_BROADER = 1.2


def sheet_of(flux: np.ndarray) -> bytes:
    """Colour pictures of cut-outs on one sheet, `ACROSS` in a row, north up and east to the left.

    Parameters
    ----------
    flux : ndarray, shape (N, 3, SIZE, SIZE)
        In g, r and z [uJy].

    Returns
    -------
    bytes
        A JPEG file.
    """
    down = -(-len(flux) // ACROSS)
    sheet = np.zeros((max(down, 1) * SIZE, ACROSS * SIZE, 3), np.uint8)
    for i, planes in enumerate(flux):
        row, column = divmod(i, ACROSS)
        sheet[row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE] = picture(*planes)
    return jpeg(sheet)


def picture(g: np.ndarray, r: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Colour picture of a cut-out, north up and east to the left.

    Parameters
    ----------
    g, r, z : ndarray, shape (SIZE, SIZE)
        Flux densities [uJy].

    Returns
    -------
    ndarray of uint8, shape (SIZE, SIZE, 3)
    """
    balanced = [weight * plane for weight, plane in zip(_BALANCE, (z, r, g), strict=True)]
    with np.errstate(invalid="ignore"):  # where nothing was measured, all three are zero
        return np.asarray(make_lupton_rgb(*balanced, stretch=_STRETCH, Q=_SOFTENING)[::-1])


def jpeg(image: np.ndarray) -> bytes:
    """JPEG file of an image of shape (rows, columns, 3)."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=85)
    return content.getvalue()


def half_light(flux: np.ndarray, ivar: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Radii that hold half of the light within 5 arcsec in r, as observed, with the seeing [arcsec].

    Parameters
    ----------
    flux, ivar : ndarray, shape (N, SIZE, SIZE)
        In r [uJy, 1/uJy2].
    x, y : ndarray, shape (N,)
        Column and row of each object; NaN where it has no image.

    Returns
    -------
    ndarray of float, shape (N,)
        NaN where the aperture leaves the image or has lost pixels, or its signal to noise is below 20.
    """
    found = np.full(len(flux), np.nan)
    rows, columns = np.indices((SIZE, SIZE))
    for i in range(len(flux)):
        radius = np.hypot(columns - x[i], rows - y[i]) * PIXEL_SCALE
        inside = radius <= _APERTURE
        room = min(x[i], y[i], SIZE - 1 - x[i], SIZE - 1 - y[i]) * PIXEL_SCALE
        if not room >= _APERTURE or not (ivar[i][inside] > 0.0).all():
            continue
        sky = np.median(flux[i][(radius > _APERTURE) & (ivar[i] > 0.0)])
        order = np.argsort(radius[inside])
        light = (flux[i][inside] - sky)[order]
        total = light.sum()
        if total > _CLEAR * np.sqrt((1.0 / ivar[i][inside]).sum()):
            # Half of a pixel's light is within the circle through its centre.
            within = np.maximum.accumulate(np.cumsum(light) - 0.5 * light)
            found[i] = np.interp(0.5 * total, within, radius[inside][order])
    return found


def morphology(radius: np.ndarray, psf_fwhm: np.ndarray) -> np.ndarray:
    """`POINT` or `EXTENDED` by half-light radius and seeing [arcsec]; empty where either is not known."""
    known = np.isfinite(radius) & np.isfinite(psf_fwhm)
    broad = radius > _BROADER * _POINT_RADIUS * psf_fwhm
    return np.where(known, np.where(broad, EXTENDED, POINT), "")
