"""Section of a page on predictions against true values."""

from __future__ import annotations

import io
from typing import Any

import pyarrow.csv

from ojala.pipeline.quality.validation.result import Classification, Scores, Validation
from ojala.pipeline.quality.validation.samples import (
    label_samples,
    redshift_samples,
    wrong_classes,
    wrong_redshifts,
)
from ojala.pipeline.quality.validation.scores import samples_of
from ojala.pipeline.quality.validation.truth import Matched
from ojala.pipeline.report.calibration_figures import FEWEST, class_drawing, pit_drawing
from ojala.pipeline.report.truth_figures import bins_drawing, label_drawing, redshift_truth_drawing

LISTED = 60
"""Wrong predictions that each table on the page shows."""


def truth_section(matched: Matched, found: Validation) -> dict[str, Any]:
    """Context of the template for predictions against true values.

    Parameters
    ----------
    matched : Matched
        Predictions and true values.
    found : Validation
        The measures of them.
    """
    parts = samples_of(matched)
    blocks = [_block(name, part, found.samples[name], i) for i, (name, part) in enumerate(parts.items())]
    return {
        "found": found,
        "all": _tables(found.all),
        "blocks": blocks or [_block("", matched, found.all, 0)],
        "apart": bool(blocks),
        "fewest": FEWEST,
    }


def objects_csv(matched: Matched) -> bytes:
    """Answer and truth of each matched object, in the order of the survey's key."""
    sink = io.BytesIO()
    pyarrow.csv.write_csv(matched.rows.sort_by([("tile_id", "ascending"), ("number", "ascending")]), sink)
    return sink.getvalue()


def _block(name: str, matched: Matched, scores: Scores, number: int) -> dict[str, Any]:
    """Everything about one sample: tables, figures and wrong predictions."""
    samples = [sample for sample in redshift_samples(matched) if sample.given == "true class"]
    by_class = {r.objects: r for r in scores.redshifts if r.given == "true class" and r.selection == "all"}
    classes, redshifts = wrong_classes(matched), wrong_redshifts(matched)
    return _tables(scores) | {
        "name": name,
        "class_drawing": class_drawing(scores, f"truth-class-{number}"),
        "redshift_drawing": redshift_truth_drawing(samples, f"truth-z-{number}") if samples else None,
        "magnitude_drawing": bins_drawing(
            {name: r.by_magnitude for name, r in by_class.items()},
            "iSDSS magnitude (AB, as observed)",
            f"truth-magnitude-{number}",
        ),
        "true_z_drawing": bins_drawing(
            {name: r.by_redshift for name, r in by_class.items()}, "true redshift", f"truth-by-z-{number}"
        ),
        "pit_drawing": pit_drawing(scores.redshift_calibration, f"truth-pit-{number}"),
        "label_drawing": label_drawing(label_samples(matched), f"truth-labels-{number}"),
        "wrong_classes": classes[:LISTED],
        "wrong_classes_total": len(classes),
        "wrong_redshifts": redshifts[:LISTED],
        "wrong_redshifts_total": len(redshifts),
    }


def _tables(scores: Scores) -> dict[str, Any]:
    """Measures, and the confusion matrices with shares of the true class."""
    return {
        "scores": scores,
        "matrix": _matrix(scores.classification),
        "diagrams": [{"diagram": d, "matrix": _matrix(d.scores)} for d in scores.diagrams],
    }


def _matrix(found: Classification) -> list[dict[str, Any]]:
    matrix = []
    for true, counts in zip(found.classes, found.confusion, strict=True):
        shares = [count / max(sum(counts), 1) for count in counts]
        cells = zip(found.predictions, counts, shares, strict=True)
        matrix.append(
            {
                "name": true,
                "cells": [
                    {"count": c, "share": s, "right": prediction == true} for prediction, c, s in cells
                ],
            }
        )
    return matrix
