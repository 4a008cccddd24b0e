"""Section on the accuracy to expect of the redshifts of all rows, by odds and magnitude."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ojala.pipeline.quality.validation.result import Expected, ExpectedCell
from ojala.pipeline.report.calibration_figures import errorbars
from ojala.pipeline.report.svg import BLUE, GREEN, INK, ORANGE, VERMILION, Drawing, draw, plain_logs

PARTITIONS_READ = 64
"""Most partitions that the report of a run reads, evenly spaced over the sky; `ojala validate` reads all."""

CUTS_DRAWN = {0.5: BLUE, 0.8: ORANGE, 0.95: GREEN}
"""Cuts in odds whose completeness is drawn by magnitude."""

FEWEST_ROWS = 20
"""Rows that a cell must hold to be drawn."""


def expected_section(expected: Sequence[Expected]) -> list[dict[str, Any]]:
    """Context of the template, one block for each class."""
    return [
        {
            "expected": one,
            "by_odds": one.by_odds,
            "by_magnitude": one.by_magnitude,
            "completeness": [[cell.completeness for cell in one.at(cut)] for cut in CUTS_DRAWN],
            "cuts": list(CUTS_DRAWN),
            "drawing": _drawing(one),
        }
        for one in expected
    ]


def _drawing(one: Expected) -> Drawing:
    def paint(figure: Figure) -> None:
        grid = figure.subplots(2, 3)
        odds = [cell for cell in one.by_odds if cell.rows >= FEWEST_ROWS]
        bright = [cell for cell in one.by_magnitude if cell.rows >= FEWEST_ROWS]
        panels = (
            (grid[0], odds, [cell.odds_min for cell in odds], "least z_odds"),
            (grid[1], bright, [_middle(cell) for cell in bright], "iSDSS magnitude (AB, as observed)"),
        )
        for (sigma, outliers, kept), cells, x, label in panels:
            _measure(sigma, cells, x, "sigma_nmad", 1.0)
            _measure(outliers, cells, x, "outliers_15", 100.0)
            sigma.set(ylabel="σ_NMAD", xlabel=label, yscale="log")
            plain_logs(sigma.yaxis)
            outliers.set(ylabel="|Δz| > 0.15 [%]", xlabel=label)
            outliers.set_ylim(bottom=0)
            kept.set(ylabel="rows kept [%]", xlabel=label, ylim=(0, 103))
        grid[0][2].plot([c.odds_min for c in odds], [100 * c.completeness for c in odds], color=INK)
        for cut, colour in CUTS_DRAWN.items():
            cells = [cell for cell in one.at(cut) if cell.magnitude in [c.magnitude for c in bright]]
            shares = [100 * cell.completeness for cell in cells]
            grid[1][2].plot([_middle(c) for c in cells], shares, "o-", color=colour, label=f"odds ≥ {cut:g}")
        if bright:
            grid[1][2].legend(loc="lower left")
        grid[0][0].legend(loc="lower left")

    whole = one.by_odds[0].predicted
    return draw(
        f"expected-{one.objects.lower()}",
        paint,
        (10.6, 5.4),
        f"Redshifts of {one.rows:,} rows of class {one.objects}: expected sigma_NMAD "
        f"{_number(whole.sigma_nmad, '.4f')}, outliers {_number(whole.outliers_15, '.1%')}",
        "Accuracy that the redshift PDFs predict, of all rows (line) and of those with a true redshift "
        "(dashed), and what is achieved on the latter (points, with bootstrap errors). Above: of the rows "
        "with at least so high odds; below: by magnitude.",
    )


def _measure(axes: Axes, cells: Sequence[ExpectedCell], x: list[float], name: str, factor: float) -> None:
    def values(of: Callable[[ExpectedCell], Any]) -> list[float]:
        found = [getattr(of(cell), name) for cell in cells]
        return [np.nan if value is None else factor * value for value in found]

    axes.plot(x, values(lambda cell: cell.predicted), color=BLUE, label="all rows, predicted")
    known = [(at, cell) for at, cell in zip(x, cells, strict=True) if cell.achieved is not None]
    if known:
        of_known = values(lambda cell: cell.predicted_of_known)
        axes.plot(x, of_known, color=INK, linestyle=(0, (4, 3)), linewidth=1.0, label="with truth, predicted")
        errorbars(
            axes,
            [at for at, _ in known],
            [getattr(cell.achieved, name) for _, cell in known],
            color=VERMILION,
            marker="o",
            label="with truth, achieved",
            factor=factor,
        )


def _middle(cell: ExpectedCell) -> float:
    low, high = cell.magnitude.low, cell.magnitude.high
    if low is None or high is None:
        return (high - 0.5) if high is not None else ((low or 0.0) + 0.5)
    return 0.5 * (low + high)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
