"""The section of the page on answers beside the truth."""

from __future__ import annotations

import io
from typing import Any

import pyarrow.csv

from catalogs_schema.contract import NONE
from pipeline.report.numbers import samples_of
from pipeline.report.quality import ANSWERS, LISTED, label_samples, redshift_samples
from pipeline.report.truth import Matched, Truth
from pipeline.report.truth_figures import label_drawing, magnitude_drawing, redshift_truth_drawing


def truth_section(truth: Truth, matched: Matched, numbers: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of a truth.

    Parameters
    ----------
    truth, matched : Truth, Matched
        What is known, and the answers beside it.
    numbers : dict
        `truth_numbers` of them.
    """
    parts = samples_of(matched)
    blocks = [_block(name, part, numbers["samples"][name], i) for i, (name, part) in enumerate(parts.items())]
    return {
        "path": truth.path,
        "rows": numbers["rows"],
        "matched": numbers["matched"],
        "not_in_catalogue": numbers["not_in_catalogue"],
        "unknown": numbers["catalogue_rows_without_truth"],
        "ignored": truth.ignored,
        "answers": ["no class" if name == NONE else name for name in ANSWERS],
        "all": _tables("", numbers["all"]),
        "blocks": blocks or [_block("", matched, numbers["all"], 0)],
        "apart": bool(blocks),
    }


def objects_csv(matched: Matched) -> bytes:
    """Answer and truth of each matched object, in the order of the survey's key."""
    sink = io.BytesIO()
    pyarrow.csv.write_csv(matched.rows.sort_by([("tile_id", "ascending"), ("number", "ascending")]), sink)
    return sink.getvalue()


def _block(name: str, matched: Matched, scores: dict[str, Any], number: int) -> dict[str, Any]:
    """Everything about one sample: tables, figures and wrong answers."""
    samples = [sample for sample in redshift_samples(matched) if sample.column != "z"]
    by_magnitude = {s.name: scores["redshifts_by_magnitude"][s.column] for s in samples}
    columns = {s.name: s.column for s in samples}
    return _tables(name, scores) | {
        "redshift_drawing": redshift_truth_drawing(samples, f"truth-z-{number}") if samples else None,
        "magnitude_drawing": magnitude_drawing(by_magnitude, columns, f"truth-magnitude-{number}"),
        "label_drawing": label_drawing(label_samples(matched), f"truth-labels-{number}"),
        "magnitudes": [{"name": n, "column": columns[n], "rows": rows} for n, rows in by_magnitude.items()],
        "class_magnitudes": scores["classes_by_magnitude"],
        "labels": [{"name": label} | row for label, row in scores["labels"].items()],
        "wrong_classes": scores["wrong_classes"][:LISTED],
        "wrong_classes_total": len(scores["wrong_classes"]),
        "wrong_redshifts": scores["wrong_redshifts"][:LISTED],
        "wrong_redshifts_total": len(scores["wrong_redshifts"]),
    }


def _tables(name: str, scores: dict[str, Any]) -> dict[str, Any]:
    """Confusion matrix with shares of the true class, class scores and redshift scores."""
    matrix = []
    for true, counts in zip(scores["confusion"]["true"], scores["confusion"]["counts"], strict=True):
        shares = [count / max(sum(counts), 1) for count in counts]
        cells = zip(ANSWERS, counts, shares, strict=True)
        matrix.append(
            {
                "name": true,
                "cells": [{"count": c, "share": s, "right": answer == true} for answer, c, s in cells],
            }
        )
    redshifts = [{"name": r["objects"], "column": column} | r for column, r in scores["redshifts"].items()]
    return {"name": name, "matrix": matrix, "classes": scores["classes"], "redshifts": redshifts}
