"""Fields: pieces of the sky with planes of pixels in files, read box by box."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from upath import UPath

from ojala.catalogs_schema.cutouts import PIXEL_SCALE, SIZE
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.fits import damage_errors, open_hdus
from ojala.pipeline.ingest.images.stamps import StampFile, StampPlane

_SCALE_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class Plane:
    """Pixels (rows, columns) in a file.

    Attributes
    ----------
    path : UPath
        The file.
    hdu : int
        Number of its HDU.
    layer : int or None
        Index of the plane in a cube; None where the HDU holds one plane.
    """

    path: UPath
    hdu: int
    layer: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A piece of the sky.

    Attributes
    ----------
    name : str
        Name in messages; fields are sorted by it.
    brick : str
        Brick of the Legacy Survey; empty for other fields.
    wcs : WCS
        From position to column and row.
    shape : tuple of int
        Rows and columns, which all planes have.
    image : mapping of str to Plane
        Flux [nanomaggy] by the band's letter.
    ivar : mapping of str to Plane
        Inverse variance [1/nanomaggy2], where available.
    psf : mapping of str to Plane
        Full width at half maximum of the point-spread function [arcsec], where known.
    mask : Plane or None
        The survey's mask bits.
    """

    name: str
    brick: str
    wcs: WCS
    shape: tuple[int, int]
    image: Mapping[str, Plane | StampPlane]
    ivar: Mapping[str, Plane | StampPlane] = field(default_factory=dict)
    psf: Mapping[str, Plane | StampPlane] = field(default_factory=dict)
    mask: Plane | None = None

    @property
    def centre(self) -> tuple[float, float]:
        """Position of the middle of the field [deg]."""
        rows, columns = self.shape
        ra, dec = self.wcs.wcs_pix2world((columns - 1) / 2, (rows - 1) / 2, 0)
        return float(ra), float(dec)

    @property
    def scale(self) -> float:
        """Side of a pixel [arcsec]."""
        return float(np.mean(proj_plane_pixel_scales(self.wcs)) * 3600.0)

    @property
    def radius(self) -> float:
        """Upper limit of the distance from the middle to a corner [deg]."""
        return 1.01 * float(np.hypot(*self.shape)) / 2 * self.scale / 3600.0

    def pixels(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Column and row of positions [deg] within `radius`; the first pixel's centre is 0."""
        x, y = self.wcs.wcs_world2pix(ra, dec, 0)
        return np.asarray(x), np.asarray(y)

    def margin(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance to the nearest edge [pixel]; negative outside."""
        rows, columns = self.shape
        return np.asarray(np.minimum.reduce([x + 0.5, columns - 0.5 - x, y + 0.5, rows - 0.5 - y]))

    @property
    def files(self) -> list[UPath]:
        """All its files, by name."""
        planes = [*self.image.values(), *self.ivar.values(), *self.psf.values()]
        planes += [] if self.mask is None else [self.mask]
        return sorted({plane.path for plane in planes}, key=str)


def sky_geometry(header: fits.Header) -> tuple[WCS, tuple[int, int]]:
    """Read world coordinates and shape (rows, columns) from the header of an image or a cube.

    Raises
    ------
    SourceError
        If it has no position on the sky, pixels of another size, or too few pixels for a cut-out.
    """
    wcs = WCS(header, naxis=2)
    if not wcs.has_celestial:
        raise SourceError("has no position on the sky: its header has no CTYPE1 and CTYPE2 with RA and DEC")
    scale = proj_plane_pixel_scales(wcs) * 3600.0
    if np.abs(scale / PIXEL_SCALE - 1.0).max() > _SCALE_TOLERANCE:
        raise SourceError(
            f"has pixels of {scale[0]:.3f} x {scale[1]:.3f} arcsec, expected {PIXEL_SCALE}: ask the cut-out "
            f"service for pixscale={PIXEL_SCALE}, or name the coadds of the Legacy Survey"
        )
    rows, columns = int(header["NAXIS2"]), int(header["NAXIS1"])
    if min(rows, columns) < SIZE:
        raise SourceError(
            f"has {columns} x {rows} pixels, but a cut-out has {SIZE} x {SIZE}: get a larger image"
        )
    return wcs, (rows, columns)


def require_nanomaggies(header: fits.Header) -> None:
    """Refuse an image whose header states another unit of its fluxes than nanomaggies.

    Raises
    ------
    SourceError
        If it does.
    """
    unit = str(header.get("BUNIT", "")).strip()
    if unit.lower() not in ("", "nanomaggy", "nanomaggies", "nmgy", "nanomaggy/pixel", "nanomaggy/pix"):
        raise SourceError(f"has fluxes in {unit!r} (BUNIT), expected nanomaggies")


class OpenFiles:
    """Context manager that keeps the files of fields open between reads."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._files: dict[UPath, fits.HDUList] = {}
        self._stamps: dict[UPath, StampFile] = {}

    def __enter__(self) -> OpenFiles:
        return self

    def __exit__(self, *problem: object) -> None:
        self._stack.close()

    def read(self, plane: Plane | StampPlane, rows: slice, columns: slice) -> np.ndarray:
        """A box of pixels, in the machine's byte order.

        Raises
        ------
        SourceError
            If the file is damaged: names it.
        """
        try:
            if isinstance(plane, StampPlane):
                file = self._stamps.setdefault(plane.path, StampFile(plane.path))
                return file.read(plane, rows, columns)
            if plane.path not in self._files:
                self._files[plane.path] = self._stack.enter_context(open_hdus(plane.path))
            with damage_errors():
                section = self._files[plane.path][plane.hdu].section
                box = section[rows, columns] if plane.layer is None else section[plane.layer, rows, columns]
        except SourceError as fault:
            raise SourceError(fault.in_file(plane.path)) from fault
        except OSError as problem:
            raise SourceError(f"{plane.path} cannot be read: {problem}") from problem
        return np.asarray(box).astype(box.dtype.newbyteorder("="))
