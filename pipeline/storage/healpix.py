"""HEALPix pixels: spatial index, partitions of the sky and their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ojala.catalogs_schema.errors import InputError

INDEX_ORDER = 29
"""HEALPix order of the spatial index column ``_healpix_29``."""


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """A HEALPix pixel (nested) that holds one leaf of a catalogue.

    Attributes
    ----------
    order : int
        HEALPix order, 0..29.
    pixel : int
        Pixel number at that order.
    """

    order: int
    pixel: int

    @property
    def name(self) -> str:
        """Short name, ``5/1234``."""
        return f"{self.order}/{self.pixel}"

    @property
    def leaf(self) -> str:
        """Path of the leaf under the catalogue's root, as HATS lays it down."""
        directory = self.pixel // 10_000 * 10_000
        return f"dataset/Norder={self.order}/Dir={directory}/Npix={self.pixel}.parquet"

    @property
    def area(self) -> float:
        """Area on the sky [deg2]."""
        return float(4 * 180**2 / np.pi / (12 * 4**self.order))

    @classmethod
    def parse(cls, name: str) -> Partition:
        """The partition with a name like ``5/1234``.

        Raises
        ------
        InputError
            If the name has another form or there is no such pixel.
        """
        try:
            order, pixel = (int(part) for part in name.split("/"))
        except ValueError:
            raise InputError(f"{name!r} is no partition: expected ORDER/PIXEL, like 5/1234") from None
        if not 0 <= order <= INDEX_ORDER or not 0 <= pixel < 12 * 4**order:
            raise InputError(f"{name!r} is no partition: there is no such HEALPix pixel")
        return cls(order, pixel)


def spatial_index(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """HEALPix pixel (nested, order 29) of each position.

    Parameters
    ----------
    ra, dec : ndarray, shape (N,)
        Position [deg].

    Returns
    -------
    ndarray of int64, shape (N,)
    """
    import healpy  # with matplotlib and astropy, seconds that most commands do not need

    return np.asarray(healpy.ang2pix(2**INDEX_ORDER, ra, dec, nest=True, lonlat=True), dtype=np.int64)


def pixel_at(index: np.ndarray, order: int) -> np.ndarray:
    """Pixel at a lower order of each spatial index, shape (N,)."""
    return index >> (2 * (INDEX_ORDER - order))


def adaptive_partitions(
    pixels: np.ndarray,
    counts: np.ndarray,
    order: int,
    tile_rows: int,
    divide: Callable[[int], list[Partition]] | None = None,
) -> list[Partition]:
    """The coarsest partitions of the sky with at most a number of rows each.

    Parameters
    ----------
    pixels : ndarray of int64, shape (M,)
        Distinct pixels that hold rows, at the finest order of the counts.
    counts : ndarray of int64, shape (M,)
        Rows in each of them.
    order : int
        That finest order.
    tile_rows : int
        Most rows a partition may hold.
    divide : callable, optional
        Gives the partitions within a pixel of that order that alone holds more rows.

    Returns
    -------
    list of Partition
        Those that hold rows, in order of the sky.

    Raises
    ------
    InputError
        If one pixel of the finest order holds more rows than `tile_rows` and cannot be divided.
    """
    if counts.max(initial=0) > tile_rows and divide is None:
        raise InputError(
            f"HEALPix pixel {order}/{pixels[counts.argmax()]} alone holds {counts.max():,} rows, more than "
            f"the {tile_rows:,} that a partition may hold: raise --tile-rows"
        )
    found = []
    undecided = np.ones(len(pixels), dtype=bool)
    for level in range(order + 1):
        ancestors, member = np.unique(pixels >> (2 * (order - level)), return_inverse=True)
        fits = np.bincount(member, weights=counts) <= tile_rows
        taken = np.unique(member[undecided & fits[member]])
        found += [Partition(level, int(pixel)) for pixel in ancestors[taken]]
        undecided &= ~fits[member]
    if divide is not None:
        found += [part for pixel in pixels[undecided].tolist() for part in divide(pixel)]
    return sky_order(found)


def partitions_of(index: np.ndarray, order: int, tile_rows: int) -> list[Partition]:
    """The coarsest partitions with at most a number of rows each, from the spatial index of each row.

    Raises
    ------
    InputError
        If one pixel of `order` holds more rows than `tile_rows`.
    """
    pixels, counts = np.unique(pixel_at(index, order), return_counts=True)
    return adaptive_partitions(pixels, counts, order, tile_rows)


def sky_order(partitions: Iterable[Partition]) -> list[Partition]:
    """Partitions sorted by their first position on the sky, as HATS sorts them."""
    return sorted(partitions, key=lambda p: (p.pixel << (2 * (INDEX_ORDER - p.order)), p.order))
