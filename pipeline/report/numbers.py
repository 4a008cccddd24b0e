"""The numbers of a report, as they stand in ``quality.json`` and on the page."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

from catalogs_schema.bands import MODEL_BANDS
from catalogs_schema.contract import NONE
from catalogs_schema.value_added import CLASSES
from pipeline.answers import REDSHIFT_BIN
from pipeline.report.account import RunAccount
from pipeline.report.quality import (
    ANSWERS,
    class_scores,
    class_scores_by_magnitude,
    confusion_matrix,
    label_samples,
    redshift_samples,
    scores_by_magnitude,
    wrong_classes,
    wrong_redshifts,
)
from pipeline.report.truth import Matched

SAMPLES_APART = 6
"""Samples that are judged apart, the largest; more are in the total alone."""


def run_numbers(account: RunAccount, without_receipt: int, seconds: float) -> dict[str, Any]:
    """What a run did.

    Parameters
    ----------
    account : RunAccount
        Its receipts, added up.
    without_receipt : int
        Partitions of the photometry of which there is no receipt.
    seconds : float
        From the run's first start to its end.
    """
    rows_in, rows_out = int(account.rows_in.sum()), int(account.rows_out.sum())
    return {
        "rows": {
            "in": rows_in,
            "out": rows_out,
            "equal": rows_in == rows_out and not account.unequal,
            "flagged": account.flagged,
        },
        "partitions": {
            "done": int(account.done.sum()),
            "failed": int((~account.done).sum()),
            "without_receipt": without_receipt,
            "unequal": account.unequal,
            "failures": dict(account.failures),
        },
        "seconds": {
            "wall": seconds,
            "at_work": float(account.seconds.sum()),
            "stages": {stage: float(values.sum()) for stage, values in account.stages.items()},
        },
        "rows_per_second": rows_out / seconds if seconds > 0 else None,
        "peak_rss": int(account.peak_rss.max(initial=0.0)),
        "classes": account.classes,
        "expected_classes": account.expected,
        "flags": account.flags,
        "redshifts": {
            "bin_width": REDSHIFT_BIN,
            "rows": {name: counts.tolist() for name, counts in account.redshifts.items()},
        },
        "bands": {band.name: int(n) for band, n in zip(MODEL_BANDS, account.bands, strict=True)},
        "rows_summarised": account.rows_summarised,
    }


def truth_numbers(matched: Matched) -> dict[str, Any]:
    """How good the answers are, over all matched objects and per sample."""
    return {
        "rows": matched.truth_rows,
        "matched": matched.rows.num_rows,
        "not_in_catalogue": matched.truth_unanswered,
        "catalogue_rows_without_truth": matched.catalogue_unknown,
        "all": _scores(matched),
        "samples": {name: _scores(part) for name, part in samples_of(matched).items()},
    }


def samples_of(matched: Matched) -> dict[str, Matched]:
    """The matched objects of each sample, the smallest first; none where there are not two."""
    if "sample" not in matched.remarks:
        return {}
    words = matched.words("true_sample")
    counts = {name: int((words == name).sum()) for name in set(words)}
    names = sorted(counts, key=lambda name: (-counts[name], name))[:SAMPLES_APART]
    if len(names) < 2:
        return {}
    return {("not named" if n == NONE else n): matched.only(words == n) for n in reversed(names)}


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


def _scores(matched: Matched) -> dict[str, Any]:
    counts = confusion_matrix(matched.words("true_class"), matched.words("class"))
    samples = redshift_samples(matched)
    return {
        "confusion": {"true": list(CLASSES), "answers": list(ANSWERS), "counts": counts.tolist()},
        "classes": class_scores(counts),
        "classes_by_magnitude": class_scores_by_magnitude(matched),
        "redshifts": {s.column: {"objects": s.name} | s.scores() for s in samples},
        "redshifts_by_magnitude": {s.column: scores_by_magnitude(s) for s in samples},
        "labels": {s.name: {"unit": s.unit} | s.scores for s in label_samples(matched)},
        "wrong_classes": wrong_classes(matched),
        "wrong_redshifts": wrong_redshifts(matched),
    }
