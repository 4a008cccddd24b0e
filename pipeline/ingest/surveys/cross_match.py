"""Cross-match of spectra by position and target."""

from __future__ import annotations

import healpy
import numpy as np

RADIUS = 2.0
"""Largest separation of two positions of one object [arcsec]."""

_ORDER = 16  # pixels of 3.2 arcsec: no pair closer than RADIUS lies beyond a neighbouring pixel


def cross_match(ra: np.ndarray, dec: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Group spectra by object: those within `RADIUS` of each other, or of the same target.

    Parameters
    ----------
    ra, dec : ndarray, shape (N,)
        Position [deg], NaN where not known.
    target : ndarray of int64, shape (N,)
        Key of the target.

    Returns
    -------
    ndarray of int64, shape (N,)
        Row of the first spectrum of the same object.
    """
    order = np.argsort(target, kind="stable")
    again = np.flatnonzero(np.diff(target[order]) == 0)
    first, second = _close_pairs(ra, dec)
    return _connected(
        len(target), np.concatenate([order[again], first]), np.concatenate([order[again + 1], second])
    )


def _close_pairs(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    placed = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if not len(placed):
        return placed, placed
    nside = healpy.order2nside(_ORDER)
    pixel = np.asarray(healpy.ang2pix(nside, ra[placed], dec[placed], nest=True, lonlat=True))
    vector = np.asarray(healpy.ang2vec(ra[placed], dec[placed], lonlat=True))
    order = np.argsort(pixel, kind="stable")
    ordered = pixel[order]
    pairs = []
    for near in (pixel, *healpy.get_all_neighbours(nside, pixel, nest=True)):
        begin = np.searchsorted(ordered, near, "left")
        count = np.searchsorted(ordered, near, "right") - begin
        one = np.repeat(np.arange(len(pixel)), count)
        step = np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)
        other = order[np.repeat(begin, count) + step]
        chord = np.linalg.norm(vector[one] - vector[other], axis=1)
        close = (one < other) & (chord <= 2.0 * np.sin(np.radians(RADIUS / 3600.0) / 2.0))
        pairs.append((one[close], other[close]))
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return placed[one], placed[other]


def _connected(n: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The smallest member of each row's connected group."""
    label = np.arange(n, dtype=np.int64)
    while True:
        lowest = np.minimum(label[one], label[other])
        if (label[one] == lowest).all() and (label[other] == lowest).all():
            return label
        np.minimum.at(label, one, lowest)
        np.minimum.at(label, other, lowest)
        label = label[label]
