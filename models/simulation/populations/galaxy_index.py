"""Index of library galaxies by redshift and luminosity."""

from __future__ import annotations

import numpy as np

_Z_EDGES = np.array([0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0])
_LUMINOSITY_EDGES = np.arange(36.2, 41.5, 0.2)
_MIN_MEMBERS = 8  # of a cell


class GalaxyIndex:
    """Index of the members of a galaxy library in cells of redshift and luminosity.

    Parameters
    ----------
    rows : ndarray of int, shape (M,)
        Rows of the library.
    z, log_luminosity : ndarray, shape (M,)
        Redshift, and log10 of L_lambda at 6000 A [erg/s/A], that the member was made for.
    age : ndarray, shape (M,)
        Time since its first star [Gyr].
    weight : ndarray, shape (M,)
        Relative chance of being drawn.
    """

    def __init__(
        self,
        rows: np.ndarray,
        z: np.ndarray,
        log_luminosity: np.ndarray,
        age: np.ndarray,
        weight: np.ndarray,
    ) -> None:
        self.rows = rows
        self._by_age = rows[np.argsort(age, kind="stable")]
        self._age = np.sort(age)
        self._age_cumulative = np.cumsum(weight[np.argsort(age, kind="stable")])
        cell = self._cell(z, log_luminosity)
        order = np.argsort(cell, kind="stable")
        self._by_cell = rows[order]
        self._cumulative = np.concatenate(([0.0], np.cumsum(weight[order])))
        columns = len(_LUMINOSITY_EDGES) + 1
        start = np.searchsorted(cell[order], np.arange((len(_Z_EDGES) + 1) * columns + 1))
        full = np.flatnonzero(np.diff(start) >= min(_MIN_MEMBERS, len(rows)))
        if not len(full):
            full = np.array([np.diff(start).argmax()])
        every = np.arange(len(start) - 1)
        # A sparse cell is replaced by the nearest full one; a step in redshift counts as three in luminosity.
        distance = np.abs(every[:, None] % columns - full % columns) + 3 * np.abs(
            every[:, None] // columns - full // columns
        )
        instead = full[distance.argmin(axis=1)]
        self._begin, self._end = start[instead], start[instead + 1]

    @staticmethod
    def _cell(z: np.ndarray, log_luminosity: np.ndarray) -> np.ndarray:
        column = np.digitize(log_luminosity, _LUMINOSITY_EDGES)
        return np.asarray(np.digitize(z, _Z_EDGES) * (len(_LUMINOSITY_EDGES) + 1) + column)

    def draw_similar(self, z: np.ndarray, log_luminosity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw members of about the same redshifts and luminosities; int64, shape (N,)."""
        cell = self._cell(z, log_luminosity)
        begin, end = self._begin[cell], self._end[cell]
        low, high = self._cumulative[begin], self._cumulative[end]
        at = np.searchsorted(self._cumulative, low + rng.random(len(z)) * (high - low), side="right") - 1
        return np.asarray(self._by_cell[np.clip(at, begin, end - 1)])

    def draw_any(self, oldest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw members not older than ``oldest`` [Gyr], shape (N,); int64, shape (N,)."""
        count = np.maximum(np.searchsorted(self._age, oldest), 1)
        target = rng.random(len(oldest)) * self._age_cumulative[count - 1]
        return np.asarray(self._by_age[np.minimum(np.searchsorted(self._age_cumulative, target), count - 1)])
