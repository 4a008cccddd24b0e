"""Totals of a run, summed over its receipts."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.ojala import CLASSES
from ojala.catalogs_schema.receipt import REDSHIFT_BIN, REDSHIFT_EDGES, Receipt
from ojala.pipeline.runs.receipts import seconds_at_work
from ojala.pipeline.storage.healpix import Partition


@dataclass(frozen=True, slots=True)
class Worker:
    """Work of one worker process.

    Attributes
    ----------
    host, pid : str, int
        Machine and process.
    partitions, rows : int
        How much it finished.
    seconds : float
        Wall-clock seconds in which it was at a partition or at several, failed ones too.
    peak_rss : int
        Peak resident memory [bytes].
    """

    host: str
    pid: int
    partitions: int
    rows: int
    seconds: float
    peak_rss: int


@dataclass(frozen=True)
class RunTotals:
    """The receipts of a run, one entry per partition in the arrays.

    Attributes
    ----------
    receipts : tuple of Receipt
        In the order of the sky.
    partitions : tuple of Partition
        Their partitions.
    rows_in, rows_out : ndarray of int64
        Rows read and written.
    done : ndarray of bool
        Whether the partition was written whole.
    seconds : ndarray of float
        Wall-clock seconds of the last attempt.
    stages : dict of str to ndarray of float
        Wall-clock seconds per stage.
    peak_rss : ndarray of float
        Peak resident memory of the worker by then [bytes].
    """

    receipts: tuple[Receipt, ...]
    partitions: tuple[Partition, ...]
    rows_in: np.ndarray
    rows_out: np.ndarray
    done: np.ndarray
    seconds: np.ndarray
    stages: dict[str, np.ndarray]
    peak_rss: np.ndarray

    @cached_property
    def unequal(self) -> list[str]:
        """Names of the partitions whose rows out differ from their rows in, failed ones apart."""
        wrong = self.done & (self.rows_in != self.rows_out)
        return [self.partitions[i].name for i in np.flatnonzero(wrong)]

    @cached_property
    def failures(self) -> list[tuple[str, str]]:
        """Name and last error of each partition that failed."""
        found = []
        for receipt in self.receipts:
            if receipt.status == "failed":
                error = receipt.attempts[-1].error if receipt.attempts else None
                found.append((receipt.partition, error or "no error was recorded"))
        return found

    @cached_property
    def flags(self) -> dict[str, int]:
        """Rows per flag, all flags of the contract named."""
        return {name: self._count("flags", name) for name in self._named("flags")}

    @cached_property
    def classes(self) -> dict[str, int]:
        """Rows per most probable class (or that were predicted, by a model that gives none), NONE last."""
        named = [name for name in self._named("classes") if name not in ("none", NONE)]
        counts = {name: self._count("classes", name) for name in named or CLASSES}
        return counts | {NONE: self._count("classes", "none") + self._count("classes", NONE)}

    @cached_property
    def expected(self) -> dict[str, float]:
        """Per class, its probability summed over all rows: how many objects of it are expected."""
        return {
            name: sum(r.summary.expected.get(name, 0.0) for r in self.receipts if r.summary)
            for name in self._named("expected")
        }

    @cached_property
    def flagged(self) -> int:
        """Rows with any flag."""
        return sum(r.summary.flagged for r in self.receipts if r.summary)

    @cached_property
    def redshifts(self) -> dict[str, np.ndarray]:
        """Rows per redshift bin, per class that has redshifts."""
        found = {}
        for name in self._named("redshifts"):
            counts = np.zeros(len(REDSHIFT_EDGES) - 1, dtype=np.int64)
            for receipt in self.receipts:
                if receipt.summary and name in receipt.summary.redshifts:
                    counts += np.asarray(receipt.summary.redshifts[name], dtype=np.int64)
            if counts.any():
                found[name] = counts
        return found

    @cached_property
    def bands(self) -> np.ndarray | None:
        """Rows with a usable value per model band, shape (63,); None where spectra were read."""
        found = [receipt.summary.bands for receipt in self.receipts if receipt.summary]
        if found and not any(found):
            return None
        counts = np.zeros(len(MODEL_BANDS), dtype=np.int64)
        for bands in found:
            counts += np.asarray(bands, dtype=np.int64)
        return counts

    @cached_property
    def rows_summarised(self) -> int:
        """Rows of the partitions that carry a summary; the denominator of all fractions."""
        return sum(r.rows_out for r in self.receipts if r.summary)

    @cached_property
    def workers(self) -> list[Worker]:
        """Worker processes, the busiest first."""
        found: dict[tuple[str, int], list[float]] = {}
        for receipt in self.receipts:
            for attempt in receipt.attempts:
                found.setdefault((attempt.host, attempt.pid), [0, 0, 0.0, 0])
            if receipt.attempts:
                last = receipt.attempts[-1]
                entry = found[last.host, last.pid]
                entry[0] += receipt.status == "done"
                entry[1] += receipt.rows_out
                entry[3] = max(entry[3], receipt.peak_rss)
        attempts = (attempt for receipt in self.receipts for attempt in receipt.attempts)
        for worker, seconds in seconds_at_work(attempts).items():
            found[worker][2] = seconds
        workers = [
            Worker(h, p, int(n), int(rows), s, int(rss)) for (h, p), (n, rows, s, rss) in found.items()
        ]
        return sorted(workers, key=lambda w: (-w.rows, w.host, w.pid))

    def _named(self, table: str) -> list[str]:
        """Counts of one table of the summaries, in the order of the first that names it."""
        tables = (getattr(receipt.summary, table) for receipt in self.receipts if receipt.summary)
        return list(dict.fromkeys(name for one in tables for name in one))

    def _count(self, table: str, key: str) -> int:
        return sum(getattr(r.summary, table).get(key, 0) for r in self.receipts if r.summary)


def totals_of(receipts: Sequence[Receipt]) -> RunTotals:
    """Add up the receipts of a run.

    Parameters
    ----------
    receipts : sequence of Receipt
        One per partition.

    Raises
    ------
    ValueError
        If two receipts are of the same partition; names it.
    """
    ordered = sorted(receipts, key=lambda r: _position(Partition.parse(r.partition)))
    for first, second in itertools.pairwise(ordered):
        if first.partition == second.partition:
            raise ValueError(f"two receipts of partition {first.partition}: a run has one per partition")
    stages = sorted({stage for r in ordered for stage in r.seconds}, key=_stage_order(ordered))
    return RunTotals(
        receipts=tuple(ordered),
        partitions=tuple(Partition.parse(r.partition) for r in ordered),
        rows_in=np.array([r.rows_in for r in ordered], dtype=np.int64),
        rows_out=np.array([r.rows_out for r in ordered], dtype=np.int64),
        done=np.array([r.status == "done" for r in ordered], dtype=bool),
        seconds=np.array([_seconds(r) for r in ordered], dtype=np.float64),
        stages={s: np.array([r.seconds.get(s, 0.0) for r in ordered]) for s in stages},
        peak_rss=np.array([r.peak_rss for r in ordered], dtype=np.float64),
    )


def _position(partition: Partition) -> tuple[float, int]:
    return partition.pixel / 4.0**partition.order, partition.order


def _stage_order(receipts: Sequence[Receipt]) -> Callable[[str], tuple[int, str]]:
    """Stages come in the order of the first receipt that has them: the order in which they ran."""
    first: dict[str, int] = {}
    for receipt in receipts:
        for place, stage in enumerate(receipt.seconds):
            first.setdefault(stage, place)
    return lambda stage: (first[stage], stage)


def _seconds(receipt: Receipt) -> float:
    return receipt.attempts[-1].seconds if receipt.attempts else sum(receipt.seconds.values())


def run_numbers(totals: RunTotals, without_receipt: int, seconds: float, run_id: str = "") -> dict[str, Any]:
    """Totals of a run; rates and times at work are those of the partitions that it processed itself.

    Parameters
    ----------
    totals : RunTotals
        Its receipts, added up.
    without_receipt : int
        Partitions of the input without a receipt.
    seconds : float
        From the run's first start to its end.
    run_id : str
        The run; partitions of another one were linked. Empty where all are its own.
    """
    own = np.array([not run_id or r.run_id in ("", run_id) for r in totals.receipts], dtype=bool)
    computed = int(totals.rows_out[own].sum())
    rows_in, rows_out = int(totals.rows_in.sum()), int(totals.rows_out.sum())
    return {
        "rows": {
            "in": rows_in,
            "out": rows_out,
            "computed": computed,
            "linked": rows_out - computed,
            "equal": rows_in == rows_out and not totals.unequal,
            "flagged": totals.flagged,
        },
        "partitions": {
            "done": int(totals.done.sum()),
            "failed": int((~totals.done).sum()),
            "without_receipt": without_receipt,
            "unequal": totals.unequal,
            "failures": dict(totals.failures),
        },
        "seconds": {
            "wall": seconds,
            "at_work": float(totals.seconds[own].sum()),
            "stages": {stage: float(values[own].sum()) for stage, values in totals.stages.items()},
        },
        "rows_per_second": computed / seconds if seconds > 0 else None,
        "peak_rss": int(totals.peak_rss.max(initial=0.0)),
        "classes": totals.classes,
        "expected_classes": totals.expected,
        "flags": totals.flags,
        "redshifts": {
            "bin_width": REDSHIFT_BIN,
            "rows": {name: counts.tolist() for name, counts in totals.redshifts.items()},
        },
        "bands": {}
        if totals.bands is None
        else {band.name: int(n) for band, n in zip(MODEL_BANDS, totals.bands, strict=True)},
        "rows_summarised": totals.rows_summarised,
    }


def finite(value: object) -> object:
    """The same with None for numbers that are not finite, which JSON does not know."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def seconds_between(started: str, ended: str) -> float:
    """Seconds from one ISO 8601 time to another; times without a zone are UTC."""
    first, last = (dt.datetime.fromisoformat(text) for text in (started, ended))
    first, last = (time if time.tzinfo else time.replace(tzinfo=dt.UTC) for time in (first, last))
    return (last - first).total_seconds()
