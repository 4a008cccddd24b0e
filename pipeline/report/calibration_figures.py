"""Figures of classification and of the calibration of probabilities."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ojala.pipeline.quality.validation.result import ClassBin, Measure, RedshiftCalibration, Scores
from ojala.pipeline.report.svg import BLUE, CLASS_COLOURS, CLASS_MARKERS, INK, Drawing, draw

FEWEST = 5
"""Objects that a bin must hold for its measures to be drawn or printed."""


def class_drawing(scores: Scores, anchor: str) -> Drawing | None:
    """F1 of each class by magnitude, and the reliability of class probabilities; None without classes."""
    calibration = scores.class_calibration
    if calibration is None:
        return None

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
        _f1_by_magnitude(left, scores.classes_by_magnitude)
        right.plot([0, 1], [0, 1], color=INK, linewidth=0.9)
        shown = [r for r in calibration.reliability if r.n >= FEWEST]
        errorbars(right, [r.probability for r in shown], [r.right for r in shown], color=BLUE, marker="o")
        for r in shown:
            right.annotate(
                f"{r.n:,}",
                (r.probability, r.right.value or 0.0),
                textcoords="offset points",
                xytext=(7, -10),
                fontsize=8,
            )
        right.set(xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal")
        right.set(
            title="Reliability", xlabel="probability of the predicted class", ylabel="part that is right"
        )

    error = calibration.expected_calibration_error
    return draw(
        anchor,
        paint,
        (10.6, 3.4),
        f"F1 of each class by magnitude, and how often predictions are right; expected calibration error "
        f"{error.value or 0.0:.3f}",
        f"Left: F1 by iSDSS magnitude; a point stands for at least {FEWEST} true members. Right: part of the "
        "predictions that are right against the probability that they were given, with their numbers; on the "
        "line where probabilities are frequencies. Bars are bootstrap errors.",
    )


def pit_drawing(found: tuple[RedshiftCalibration, ...], anchor: str) -> Drawing | None:
    """Histograms of the probability integral transform; None where there are no redshift PDFs."""
    if not found:
        return None

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for axes, c in zip(panels, found, strict=True):
            edges, counts = np.array(c.pit_edges), np.array(c.pit_counts)
            density = counts / c.n / np.diff(edges)
            colour = CLASS_COLOURS[c.objects]
            axes.stairs(density, edges, fill=True, color=colour, alpha=0.3)
            axes.stairs(density, edges, color=colour, linewidth=1.4)
            scatter = np.sqrt(np.maximum(counts, 1.0)) / c.n / np.diff(edges)
            middle = 0.5 * (edges[1:] + edges[:-1])
            axes.errorbar(middle, density, scatter, fmt="none", ecolor=colour, elinewidth=1.0)
            axes.axhline(1.0, color=INK, linewidth=0.9)
            axes.set(title=f"{c.objects}: {c.n:,}, KS {c.ks_distance.value or 0.0:.3f}", xlim=(0, 1))
            axes.set(xlabel="cumulative probability at the true redshift", ylim=(0, None))
        panels[0].set_ylabel("density")

    words = ", ".join(f"{c.objects} {c.ks_distance.value or 0.0:.3f}" for c in found)
    source = {
        "z_pdf": "From the PDFs.",
        "quantiles": "From the catalogue's quantiles, which are the bins' edges.",
    }[found[0].source]
    return draw(
        anchor,
        paint,
        (10.6, 2.8) if len(found) > 1 else (6.4, 2.8),
        f"Probability integral transform of the redshift PDFs; distance from uniform: {words}",
        "Probability integral transform of objects of right class: level where the PDFs are right, high in "
        "the middle where they are too wide, at the ends where they are too narrow. "
        f"{source} Bars are Poisson errors.",
    )


def errorbars(
    axes: Axes,
    x: list[float],
    measures: list[Measure],
    *,
    color: str,
    marker: str,
    label: str | None = None,
    factor: float = 1.0,
) -> None:
    """Measures with their errors, joined by a line; absent ones are left out."""
    known = [(at, m.value, m.error or 0.0) for at, m in zip(x, measures, strict=True) if m.value is not None]
    axes.errorbar(
        [at for at, _, _ in known],
        [factor * value for _, value, _ in known],
        [factor * error for _, _, error in known],
        color=color,
        marker=marker,
        label=label,
        markersize=5,
        elinewidth=1.0,
        linewidth=1.4,
    )


def at_least_wide(axes: Axes, span: float = 0.6) -> None:
    """Widen the horizontal axis to a span, so that bins that lie close do not look far apart."""
    low, high = axes.get_xlim()
    if high - low < span:
        middle = 0.5 * (low + high)
        axes.set_xlim(middle - 0.5 * span, middle + 0.5 * span)


def _f1_by_magnitude(axes: Axes, bins: tuple[ClassBin, ...]) -> None:
    for name, colour in CLASS_COLOURS.items():
        shown = [b for b in bins if b.interval.middle is not None and b.scores.classes[name].n >= FEWEST]
        middle = [b.interval.middle or 0.0 for b in shown]
        errorbars(
            axes,
            middle,
            [b.scores.classes[name].f1 for b in shown],
            color=colour,
            marker=CLASS_MARKERS[name],
            label=name,
        )
    lowest = min(
        (c.f1.value or 0.0 for b in bins for c in b.scores.classes.values() if c.n >= FEWEST), default=0
    )
    axes.set(title="F1 by magnitude", xlabel="iSDSS magnitude (AB, as observed)", ylabel="F1")
    axes.set_ylim(min(0.9 * lowest, 0.8), 1.02)
    at_least_wide(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left")
