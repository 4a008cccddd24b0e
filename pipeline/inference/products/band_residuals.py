"""Measured against predicted bands by tile of the survey: what shows a zero point that is off."""

from __future__ import annotations

from typing import Any

import numpy as np

from ojala.catalogs_schema.receipt import BandResiduals
from ojala.models.data import CALIBRATION_FLOOR
from ojala.models.evaluation.metrics import NMAD
from ojala.pipeline.inference.photometry import Photometry

MIN_SIGNAL = 3.0
"""A measurement counts if its prediction is so many times the error of both together."""

MIN_OBJECTS = 30
"""Fewer measurements than this in a band of a tile give no median."""

MAX_TILES = 32
"""Most tiles of a partition, those with most rows, so that receipts stay small."""

_MEDIAN = np.sqrt(0.5 * np.pi)  # standard error of the median over that of the mean, for Gaussian scatter


def band_residuals(
    tile_id: np.ndarray,
    position: np.ndarray,
    photometry: Photometry,
    predicted: np.ndarray,
    predicted_error: np.ndarray,
) -> dict[str, BandResiduals]:
    """Compare the bands of N objects with their predictions, tile by tile.

    The offset of a band is the median of measured / predicted - 1, each object weighted by the inverse of its
    standard error: the maximum-likelihood estimate for errors that fall off exponentially. Its standard error
    is sqrt(pi / 2) s / sqrt(sum of 1 / error^2), with s the scatter (1.4826 MAD, weighted by 1 / error^2) of
    the residuals in units of their errors, so that errors that are too small or too large do not matter.

    Parameters
    ----------
    tile_id : ndarray of int, shape (N,)
        Tile of the survey.
    position : ndarray, shape (N, 2)
        Right ascension and declination [deg].
    photometry : Photometry
        The measurements.
    predicted, predicted_error : ndarray, shape (N, 63)
        Predicted flux densities and their standard errors [uJy]; NaN where there are none.

    Returns
    -------
    dict of str to BandResiduals
        By the number of the tile; tiles with fewer than `MIN_OBJECTS` rows, and all but the `MAX_TILES`
        largest, are left out.
    """
    with np.errstate(all="ignore"):
        error = np.maximum(photometry.error, CALIBRATION_FLOOR * np.abs(photometry.flux))
        sigma = np.hypot(error, predicted_error) / predicted
        used = photometry.usable & (predicted > 0) & (sigma * MIN_SIGNAL < 1.0)
        relative = np.where(used, photometry.flux / predicted - 1.0, np.nan).astype(np.float64)
        sigma = np.where(used, sigma, np.nan).astype(np.float64)
    tiles, place, rows = np.unique(tile_id, return_inverse=True, return_counts=True)
    found = {}
    for tile in sorted(np.argsort(-rows, kind="stable")[:MAX_TILES]):
        if rows[tile] >= MIN_OBJECTS:
            chosen = place == tile
            ra, dec = _mean_position(position[chosen])
            found[str(tiles[tile])] = BandResiduals(
                rows=int(rows[tile]), ra=ra, dec=dec, **_statistics(relative[chosen], sigma[chosen])
            )
    return found


def _statistics(relative: np.ndarray, sigma: np.ndarray) -> dict[str, Any]:
    """Medians and their errors per band, from relative residuals and their errors, shape (N, 63)."""
    n = np.isfinite(relative).sum(axis=0)
    enough = n >= MIN_OBJECTS
    relative, sigma = relative[:, enough], sigma[:, enough]
    offset = weighted_median(relative, 1.0 / sigma)
    scatter = NMAD * weighted_median(np.abs((relative - offset) / sigma), sigma**-2.0)
    pull = np.nanmedian(relative / sigma, axis=0)
    pull_scatter = NMAD * np.nanmedian(np.abs(relative / sigma - pull), axis=0)
    measures = {
        "offset": offset,
        "offset_err": _MEDIAN * scatter / np.sqrt(np.nansum(sigma**-2.0, axis=0)),
        "pull": pull,
        "pull_err": _MEDIAN * pull_scatter / np.sqrt(n[enough]),
    }
    lists: dict[str, list[Any]] = {"n": n.tolist()}
    for name, values in measures.items():
        numbers = iter(values.tolist())
        lists[name] = [float(f"{next(numbers):.6g}") if known else None for known in enough]
    return lists


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Medians of the columns of some values (N, K) with weights, NaN left out; each column has a number."""
    order = np.argsort(values, axis=0)  # NaN comes last
    weights = np.nan_to_num(np.take_along_axis(weights, order, axis=0))
    below = np.cumsum(weights, axis=0)
    middle = (below < 0.5 * below[-1]).sum(axis=0)
    return np.asarray(np.take_along_axis(np.take_along_axis(values, order, axis=0), middle[None], axis=0)[0])


def _mean_position(position: np.ndarray) -> tuple[float, float]:
    """Mean right ascension and declination [deg] of positions (N, 2) on a small part of the sky."""
    ra, dec = position.T
    around = (ra - ra[0] + 180.0) % 360.0 - 180.0
    return round(float((ra[0] + around.mean()) % 360.0), 5), round(float(dec.mean()), 5)
