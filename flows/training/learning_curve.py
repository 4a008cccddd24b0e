"""Learning curve of a training: losses and measures on held-out objects against draws, as SVG."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from ojala.catalogs_schema.files import atomic_file
from ojala.models.training.trainer import METRICS_FILE

Checks = Mapping[str, tuple[str, ...]]
"""Keys of measures in the records of held-out objects, by their names in the legend."""

_POINTS = 40


def write_curve(
    path: Path, batch_size: int, losses: Sequence[str], checks: Checks, metrics: Path | None = None
) -> None:
    """Write the learning curve of a training.

    Parameters
    ----------
    path : Path
        File to write.
    batch_size : int
        Draws of a step.
    losses : sequence of str
        Losses to draw (medians of runs of steps).
    checks : mapping
        Measures to draw.
    metrics : Path, optional
        Records of the training; by default those in the folder of ``path``.
    """
    curve = learning_curve(metrics or path.with_name(METRICS_FILE), batch_size, losses, checks)
    with atomic_file(path) as file:
        file.write(curve)


def learning_curve(metrics: Path, batch_size: int, losses: Sequence[str], checks: Checks) -> bytes:
    """Plot losses and held-out measures of the records of a training as SVG; see `write_curve`."""
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [record for record in records if "loss" in record]
    held_out = [record for record in records if "held_out" in record]
    with mpl.rc_context({"svg.hashsalt": "learning curve"}):
        figure = Figure(figsize=(9.0, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name in losses:
            points = [(r["step"] * batch_size, r["loss"][name]) for r in steps if name in r["loss"]]
            if points:
                runs = np.array_split(np.array(points), min(len(points), _POINTS))
                left.plot(*np.array([np.median(run, axis=0) for run in runs]).T, label=name)
        for name, keys in checks.items():
            figures = [functools.reduce(_of, keys, record["held_out"]) for record in held_out]
            right.plot([record["step"] * batch_size for record in held_out], figures, marker="o", label=name)
        left.set(xlabel="draws", ylabel="loss")
        right.set(xlabel="draws", ylabel="held-out draws", yscale="log")
        for axes in (left, right):
            axes.locator_params(axis="x", nbins=5)
            axes.legend(fontsize="small", frameon=False)
        picture = io.BytesIO()
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()


def _of(measures: object, key: str) -> object:
    return measures.get(key, np.nan) if isinstance(measures, dict) else np.nan
