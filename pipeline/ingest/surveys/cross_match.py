"""Cross-match of spectra by position and target."""

from __future__ import annotations

import healpy
import numpy as np

RADIUS = 2.0
"""Largest separation of two positions of one object [arcsec]."""

TARGET_RADIUS = 60.0
"""Largest separation of two positions of one target [arcsec]; farther apart, its name was given twice."""

_ORDER = 16  # pixels of 3.2 arcsec: no pair closer than RADIUS lies beyond a neighbouring pixel


def cross_match(ra: np.ndarray, dec: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Group spectra by object: those within `RADIUS` of each other, or of the same target (`TARGET_RADIUS`).

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
    one, other = order[again], order[again + 1]
    apart = _chord(_vector(ra[one], dec[one]) - _vector(ra[other], dec[other])) > _chord_of(TARGET_RADIUS)
    first, second = _close_pairs(ra, dec)
    return _connected(
        len(target), np.concatenate([one[~apart], first]), np.concatenate([other[~apart], second])
    )


def _close_pairs(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    placed = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if not len(placed):
        return placed, placed
    nside = healpy.order2nside(_ORDER)
    pixel = np.asarray(healpy.ang2pix(nside, ra[placed], dec[placed], nest=True, lonlat=True))
    vector = _vector(ra[placed], dec[placed])
    order = np.argsort(pixel, kind="stable")
    ordered = pixel[order]
    pairs = []
    for near in (pixel, *healpy.get_all_neighbours(nside, pixel, nest=True)):
        begin = np.searchsorted(ordered, near, "left")
        count = np.searchsorted(ordered, near, "right") - begin
        one = np.repeat(np.arange(len(pixel)), count)
        step = np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)
        other = order[np.repeat(begin, count) + step]
        close = (one < other) & (_chord(vector[one] - vector[other]) <= _chord_of(RADIUS))
        pairs.append((one[close], other[close]))
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return placed[one], placed[other]


def _vector(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Unit vectors (N, 3) of positions [deg]; NaN where there is none."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _chord(difference: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(difference, axis=1))


def _chord_of(arcsec: float) -> float:
    return float(2.0 * np.sin(np.radians(arcsec / 3600.0) / 2.0))


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
