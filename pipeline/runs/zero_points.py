"""Zero points of bands in the tiles of a survey, from measured against predicted bands in the receipts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.receipt import BandResiduals, Receipt
from ojala.models.evaluation.metrics import NMAD
from ojala.pipeline.inference.products.band_residuals import weighted_median

CHANCE = 0.01
"""Probability that chance alone takes any band of any tile beyond the limit."""

_LEAST_ERROR = 1e-6  # of an offset: no zero point is known better


@dataclass(frozen=True, slots=True)
class ZeroPoints:
    """Zero points of the 63 model bands in T tiles; NaN where too few objects tell.

    A model errs in a band everywhere alike; so the offset of a tile is compared with the median of all tiles.

    Attributes
    ----------
    tiles : tuple of str
        Numbers of the tiles.
    position : ndarray, shape (T, 2)
        Mean right ascension and declination of their rows [deg].
    rows : ndarray of int, shape (T,)
        Rows of the tiles.
    n : ndarray of int, shape (T, 63)
        Measurements that count.
    offset, offset_err : ndarray, shape (T, 63)
        Weighted median of measured / predicted - 1 and its standard error.
    median, median_err : ndarray, shape (63,)
        Median of the offsets over the tiles, weighted by their inverse variance, and its standard error.
    pull, pull_err : ndarray, shape (63,)
        Median of (measured - predicted) / error over all objects and its standard error.
    scatter : float
        Factor by which deviations of all bands and tiles scatter more than their errors, at least 1.
    limit : float
        Deviation in standard errors that chance exceeds in one of 100 such surveys, in any band of any tile.
    """

    tiles: tuple[str, ...]
    position: np.ndarray
    rows: np.ndarray
    n: np.ndarray
    offset: np.ndarray
    offset_err: np.ndarray
    median: np.ndarray
    median_err: np.ndarray
    pull: np.ndarray
    pull_err: np.ndarray
    scatter: float
    limit: float

    @property
    def deviation(self) -> np.ndarray:
        """Offset less the median of the band, shape (T, 63)."""
        return np.asarray(self.offset - self.median)

    @property
    def deviation_err(self) -> np.ndarray:
        """Standard error of the deviation, shape (T, 63)."""
        return np.asarray(self.scatter * np.hypot(self.offset_err, self.median_err))

    @property
    def sigma(self) -> np.ndarray:
        """Deviation in standard errors, shape (T, 63)."""
        return np.asarray(self.deviation / self.deviation_err)

    @property
    def excess(self) -> np.ndarray:
        """Deviation in size beyond what chance makes likely, at least 0, shape (T, 63)."""
        return np.asarray(np.maximum(np.abs(self.deviation) - self.limit * self.deviation_err, 0.0))

    @property
    def beyond_chance(self) -> np.ndarray:
        """Deviations that chance does not make likely, bool, shape (T, 63)."""
        return np.asarray(self.excess > 0)

    @property
    def farthest(self) -> tuple[int, int]:
        """Tile and band of the largest deviation beyond chance; without any, of that in standard errors."""
        size = self.excess if self.beyond_chance.any() else np.abs(self.sigma)
        tile, band = np.unravel_index(int(np.nanargmax(size)), size.shape)
        return int(tile), int(band)


def zero_points_of(receipts: Sequence[Receipt]) -> ZeroPoints | None:
    """Zero points by tile, from the receipts of a run; None where no bands were predicted."""
    parts: dict[str, list[BandResiduals]] = defaultdict(list)
    for receipt in receipts:
        for tile, residuals in receipt.summary.band_residuals.items() if receipt.summary else ():
            parts[tile].append(residuals)
    return combine_tiles(parts)


def combine_tiles(parts: Mapping[str, Sequence[BandResiduals]]) -> ZeroPoints | None:
    """Zero points from the parts of each tile in partitions; None where no part has any.

    Parts are averaged with the inverse of their variances.
    """
    tiles = sorted(parts, key=lambda tile: (len(tile), tile))
    if not tiles:
        return None
    offset, offset_err = _stack([_average(parts[tile], "offset") for tile in tiles])
    pull, pull_err = _stack([_average(parts[tile], "pull") for tile in tiles])
    median, median_err = _survey_median(offset, offset_err)
    survey_pull, survey_pull_err = _survey_median(pull, pull_err)
    deviation = (offset - median) / np.hypot(offset_err, median_err)
    known = np.isfinite(deviation)
    if not known.any():
        return None
    rows = [np.array([part.rows for part in parts[tile]]) for tile in tiles]
    places = [np.array([(part.ra, part.dec) for part in parts[tile]]) for tile in tiles]
    return ZeroPoints(
        tiles=tuple(tiles),
        position=np.array([_centre(place, count) for place, count in zip(places, rows, strict=True)]),
        rows=np.array([count.sum() for count in rows]),
        n=np.array([np.sum([part.n for part in parts[tile]], axis=0) for tile in tiles]),
        offset=offset,
        offset_err=offset_err,
        median=median,
        median_err=median_err,
        pull=survey_pull,
        pull_err=survey_pull_err,
        scatter=max(1.0, float(NMAD * np.median(np.abs(deviation[known])))),
        limit=-NormalDist().inv_cdf(0.5 * CHANCE / int(known.sum())),
    )


def _average(parts: Sequence[BandResiduals], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Average of a statistic over parts of a tile and its standard error, shape (63,); NaN without any."""
    values, errors = (
        np.array([getattr(part, f"{name}{end}") for part in parts], dtype=np.float64) for end in ("", "_err")
    )
    weights = np.where(np.isfinite(values), np.maximum(errors, _LEAST_ERROR) ** -2.0, 0.0)
    total = weights.sum(axis=0)
    with np.errstate(all="ignore"):
        average = np.where(total > 0, (weights * np.nan_to_num(values)).sum(axis=0) / total, np.nan)
        return average, np.where(total > 0, total**-0.5, np.nan)


def _survey_median(values: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Medians over the tiles, weighted by the inverse variance, and their standard errors, shape (63,)."""
    weights = np.nan_to_num(errors**-2.0)
    there = weights.sum(axis=0) > 0
    median, error = np.full((2, len(MODEL_BANDS)), np.nan)
    median[there] = weighted_median(values[:, there], weights[:, there])
    error[there] = np.sqrt(0.5 * np.pi / weights[:, there].sum(axis=0))
    return median, error


def _stack(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    values, errors = zip(*pairs, strict=True)
    return np.array(values), np.array(errors)


def _centre(places: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """Mean of positions [deg] weighted by rows; right ascensions may lie on both sides of 0."""
    around = (places[:, 0] - places[0, 0] + 180.0) % 360.0 - 180.0
    ra = (places[0, 0] + np.average(around, weights=rows)) % 360.0
    return float(ra), float(np.average(places[:, 1], weights=rows))
