"""Redshift PDFs as the vectors store them: the most probable bins of each row, one row after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ojala.catalogs_schema.ojala import PDF_BINS, PDF_STEP

Z_EDGES = np.expm1(PDF_STEP * np.arange(PDF_BINS + 1))
"""Redshifts at the edges of the bins, shape (1826,)."""

Z_CENTRES = 0.5 * (Z_EDGES[:-1] + Z_EDGES[1:])
"""Redshifts in the middle of the bins, shape (1825,)."""

_CHUNK = 4096  # rows made dense at a time: 60 MB


@dataclass(frozen=True, slots=True)
class RedshiftPdfs:
    """Redshift PDFs of N rows, M bins in all.

    Attributes
    ----------
    count : ndarray of int, shape (N,)
        Stored bins of each row; 0 for a row without PDF.
    bins : ndarray of int, shape (M,)
        Numbers of the bins, ascending in each row.
    probability : ndarray, shape (M,)
        Probability of each of them.
    """

    count: np.ndarray
    bins: np.ndarray
    probability: np.ndarray

    def __len__(self) -> int:
        return len(self.count)

    @classmethod
    def from_table(cls, table: pa.Table, name: str) -> RedshiftPdfs:
        """Those of a table of vectors, by the name of the column of probabilities."""
        probability = table[name].combine_chunks()
        return cls(
            probability.value_lengths().to_numpy(zero_copy_only=False),
            table[f"{name}_bin"].combine_chunks().flatten().to_numpy(),
            probability.flatten().to_numpy(),
        )

    @classmethod
    def from_dense(cls, pdf: np.ndarray) -> RedshiftPdfs:
        """Those whose probabilities in all bins are given, shape (N, 1825)."""
        row, bins = np.nonzero(pdf)
        return cls(np.bincount(row, minlength=len(pdf)), bins, pdf[row, bins])

    @classmethod
    def join(cls, parts: Iterable[RedshiftPdfs]) -> RedshiftPdfs:
        """All rows of some others, one after the other."""
        parts = [cls(*(np.zeros(0, np.int64),) * 2, np.zeros(0, np.float16)), *parts]
        columns = zip(*((p.count, p.bins, p.probability) for p in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def take(self, rows: np.ndarray) -> RedshiftPdfs:
        """Some rows, by a mask of shape (N,) or by their indices in any order."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        count = self.count[rows]
        start = (np.cumsum(self.count) - self.count)[rows]
        place = np.repeat(start - (np.cumsum(count) - count), count) + np.arange(count.sum())
        return RedshiftPdfs(count, self.bins[place], self.probability[place])

    def dense(self) -> np.ndarray:
        """Probability of every bin, float64, shape (N, 1825), of sum 1; all zero for a row without PDF."""
        pdf = np.zeros((len(self), PDF_BINS))
        pdf[np.repeat(np.arange(len(self)), self.count), self.bins] = self.probability
        total = pdf.sum(axis=1, keepdims=True)
        return np.asarray(np.divide(pdf, total, out=pdf, where=total > 0))

    def density(self) -> np.ndarray:
        """Density in z in every bin, float64, shape (N, 1825), of integral 1, in the arithmetic of qp."""
        width = np.diff(Z_EDGES)
        density = self.dense() / width
        total = np.sum(density * width, axis=1)[:, None]
        return np.asarray(np.divide(density, total, out=density, where=total > 0))

    def chunks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of the rows, and `density` of each, so that memory is bounded."""
        for start in range(0, len(self), _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, len(self)))
            yield slice(start, start + len(rows)), self.take(rows).density()


def bin_position(z: np.ndarray) -> np.ndarray:
    """Where redshifts lie in bins: the bin's number, and linear in z within it; negative below z = 0."""
    cell = np.clip(np.searchsorted(Z_EDGES, z, side="right") - 1, 0, PDF_BINS - 1)
    return np.asarray(cell + (z - Z_EDGES[cell]) / (Z_EDGES[cell + 1] - Z_EDGES[cell]))
