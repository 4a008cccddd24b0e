"""The numbers of a report, as they stand in ``quality.json`` and on the page."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

from catalogs_schema.bands import MODEL_BANDS
from pipeline.answers import REDSHIFT_BIN
from pipeline.report.account import RunAccount


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
        "bands": {}
        if account.bands is None
        else {band.name: int(n) for band, n in zip(MODEL_BANDS, account.bands, strict=True)},
        "rows_summarised": account.rows_summarised,
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
