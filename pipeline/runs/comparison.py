"""Gates that compare a run with the published release: lost rows, changed rows, drifts of its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.runs.coverage import find_loss
from ojala.pipeline.runs.gate import Finding, RunEvidence, gate, sample

NULL_SAMPLE = 256
"""Partitions whose null shares are compared with the published release's."""

KS_COEFFICIENT = 1.63
"""Coefficient of the 1 % point of the two-sample Kolmogorov-Smirnov statistic (Smirnov 1948)."""

SIGMAS = 3.0
"""Standard deviations of the change of a share that chance may cause."""


@gate("share of the published release's rows that are lost", warn=0.0, fail=0.001, exact=True)
def coverage(run: RunEvidence) -> Finding:
    """All rows and all of the sky of the published release are there, except those withdrawn on purpose."""
    if run.published is None:
        return Finding("there is no published release to compare with")
    release = run.published[0]
    try:
        loss = find_loss(release, UPath(run.record.source))
    except (OSError, ValueError) as problem:
        return Finding(f"could not be compared with release {release.name}: {problem}", "warn")
    return Finding(loss.text, value=loss.share, rows=loss.rows_before, numbers=loss.numbers())


@gate("share of rows of another class, or whose redshift moved by more than its error", warn=0.1, fail=0.5)
def changes(run: RunEvidence) -> Finding:
    """Rows that were there before have the same class and redshift."""
    try:
        found = run.difference
    except (OSError, ValueError) as problem:
        return Finding(f"could not be compared with the published release: {problem}", "warn")
    if found is None:
        return Finding("there is no published release to compare with")
    numbers = {name: float(count) for name, count in found.total.model_dump().items()}
    return Finding(found.text, "pass", found.share, found.total.compared, numbers)


@gate("change of a column's share of nulls", warn=0.05, fail=0.3, compares=True)
def null_drift(run: RunEvidence) -> Finding:
    """Columns are null as often as before."""
    pairs = sample(run.reprocessed, NULL_SAMPLE)
    release, _ = run.published or (run.run, ())
    try:
        new, rows_now = _null_counts(run.run, [receipt for receipt, _ in pairs])
        old, rows_before = _null_counts(release, [receipt for _, receipt in pairs])
    except (OSError, pa.ArrowException) as problem:
        return Finding(f"could not be compared: {problem}", "warn")
    changes = {
        column: (abs(now - before), now, before)
        for column in new.keys() & old.keys()
        for now, before in [(new[column] / max(rows_now, 1), old[column] / max(rows_before, 1))]
    }
    worst = max(changes, key=lambda column: changes[column][0], default="")
    drift, now, before = changes.get(worst, (0.0, 0.0, 0.0))
    text = (
        f"column {worst} is null in {now:.1%} of the reprocessed rows, {before:.1%} before "
        f"({len(pairs):,} partitions)"
    )
    return _drift(drift, text, rows_now, partitions=float(len(pairs)))


def _null_counts(run: UPath, receipts: Sequence[Receipt]) -> tuple[dict[str, int], int]:
    """Nulls per column of the main product, and rows, from the footers of leaves."""
    counts: dict[str, int] = {}
    total = 0
    for receipt in receipts:
        with (run / receipt.leaves[0].path).open("rb") as file:
            footer = pq.read_metadata(file)
        total += footer.num_rows
        for group in range(footer.num_row_groups):
            for index in range(footer.num_columns):
                column = footer.row_group(group).column(index)
                if column.statistics is not None and column.statistics.has_null_count:
                    name = column.path_in_schema
                    counts[name] = counts.get(name, 0) + column.statistics.null_count
    return counts, total


@gate("change of the share of any one flag", warn=0.05, fail=0.3, compares=True)
def flag_drift(run: RunEvidence) -> Finding:
    """Flags are as frequent as before."""
    new, old = run.changed
    return _share_drift("flag", new.flags, new.rows_summarised, old.flags, old.rows_summarised)


@gate("change of the share of a class", warn=0.03, fail=0.15, compares=True)
def class_drift(run: RunEvidence) -> Finding:
    """Classes are as frequent as before."""
    new, old = run.changed
    return _share_drift("class", new.classes, new.rows_summarised, old.classes, old.rows_summarised)


def _share_drift(noun: str, new: Mapping[str, int], n: int, old: Mapping[str, int], m: int) -> Finding:
    """Largest change of a share of n rows against one of m, beyond `SIGMAS` standard deviations of chance."""
    changes = {}
    for key in sorted(new.keys() | old.keys()):
        share, before = new.get(key, 0) / max(n, 1), old.get(key, 0) / max(m, 1)
        pooled = min((share + before) / 2, 1.0)
        chance = SIGMAS * math.sqrt(pooled * (1 - pooled) * (1 / max(n, 1) + 1 / max(m, 1)))
        changes[key] = (max(abs(share - before) - chance, 0.0), share, before)
    worst = max(changes, key=lambda key: changes[key][0], default="")
    drift, share, before = changes.get(worst, (0.0, 0.0, 0.0))
    text = f"{noun} {worst}: {share:.1%} of the reprocessed rows, {before:.1%} before"
    return _drift(drift, text, n, share=share, share_before=before)


@gate("largest distance of the cumulative N(z) of a class", warn=0.05, fail=0.2, compares=True)
def redshift_drift(run: RunEvidence) -> Finding:
    """The redshift distribution of each class is as before, beyond the 1 % point of Kolmogorov-Smirnov."""
    new, old = run.changed
    now, before = new.redshifts, old.redshifts
    worst, drift = "", 0.0
    for name in now.keys() & before.keys():
        n, m = now[name].sum(), before[name].sum()
        if not n or not m:
            continue
        distance = float(np.abs(np.cumsum(now[name]) / n - np.cumsum(before[name]) / m).max())
        distance -= KS_COEFFICIENT * math.sqrt(1 / n + 1 / m)
        if distance > drift:
            worst, drift = name, distance
    return _drift(drift, f"N(z) of {worst} moved by {drift:.3f} in its cumulative form", new.rows_summarised)


def _drift(drift: float, text: str, count: int, **numbers: float) -> Finding:
    numbers = {"drift": drift, "rows": float(count), **numbers}
    return Finding(text if drift else "no drift", "pass", drift, count, numbers)
