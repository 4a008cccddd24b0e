"""Figures of the results, times and memory of a run."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ojala.catalogs_schema.bands import MODEL_BANDS, System
from ojala.catalogs_schema.receipt import REDSHIFT_EDGES
from ojala.pipeline.report.svg import (
    BLUE,
    CLASS_COLOURS,
    GREEN,
    INK,
    MANY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    Drawing,
    counts_on,
    draw,
    scatter,
)
from ojala.pipeline.runs.totals import RunTotals

SYSTEM_COLOURS = {System.JPAS: BLUE, System.LEGACY: GREEN, System.WISE: ORANGE}
STAGE_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)

STACKS = 60
"""Bars of the figure of stages; more partitions than these share bars."""


def redshift_drawing(totals: RunTotals) -> Drawing | None:
    """N(z) per class; None where no row has a redshift."""
    found = totals.redshifts
    if not found:
        return None

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for axes, (name, counts) in zip(panels, found.items(), strict=True):
            last = min(np.flatnonzero(counts)[-1] + 3, len(counts))
            colour = CLASS_COLOURS.get(name, INK)
            axes.stairs(counts[:last], REDSHIFT_EDGES[: last + 1], fill=True, color=colour, alpha=0.3)
            axes.stairs(counts[:last], REDSHIFT_EDGES[: last + 1], color=colour, linewidth=1.4)
            axes.set(
                title=f"{name}: {counts.sum():,} redshifts",
                xlabel="redshift z",
                xlim=(0, REDSHIFT_EDGES[last]),
            )
            axes.set_ylim(bottom=0)
            counts_on(axes.yaxis)
        panels[0].set_ylabel("rows per bin of 0.05")

    peaks = [f"{name} peaks at z = {REDSHIFT_EDGES[c.argmax()] + 0.025:.2f}" for name, c in found.items()]
    return draw(
        "nz",
        paint,
        (10.6, 3.1),
        f"Redshift distribution: {'; '.join(peaks)}",
        "Redshift of the most probable class, in bins of 0.05. Counts, not corrected for uncertain "
        "classes or for wide PDFs.",
    )


def band_drawing(totals: RunTotals) -> Drawing | None:
    """Part of the rows with a usable value in each band; None where no photometry was summarised."""
    if not totals.rows_summarised or totals.bands is None:
        return None
    order = np.argsort([band.pivot for band in MODEL_BANDS])
    bands = [MODEL_BANDS[i] for i in order]
    usable = 100.0 * totals.bands[order] / totals.rows_summarised

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        place = np.arange(len(bands))
        # The missing part is drawn too, so that an empty band is seen as empty and not overlooked.
        axes.bar(place, 100.0, width=0.82, color=INK, alpha=0.07)
        axes.bar(place, usable, width=0.82, color=[SYSTEM_COLOURS[band.system] for band in bands])
        axes.set_xticks(place, [band.name for band in bands], rotation=90, fontsize=7.5)
        axes.set(xlim=(-0.7, len(bands) - 0.3), ylim=(0, 100), ylabel="rows with a usable value [%]")
        axes.set_xlabel("band, by pivot wavelength (0.35 to 4.6 µm)")
        axes.grid(visible=False, axis="x")
        handles = [Patch(color=colour, label=str(system)) for system, colour in SYSTEM_COLOURS.items()]
        axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2)

    worst = bands[int(usable.argmin())]
    return draw(
        "bands",
        paint,
        (10.6, 3.4),
        f"Usable values per band: {usable.min():.0f} % ({worst.name}) to {usable.max():.0f} % of the rows",
        "A value is usable if its flux and its error are finite, and the error positive. The grey part is "
        "missing; the model predicts from what is there.",
    )


def stage_drawing(totals: RunTotals) -> Drawing | None:
    """Seconds per partition by stage, and against rows; None where nothing was done."""
    chosen = np.flatnonzero(totals.done)
    if not len(chosen):
        return None
    chosen = chosen[np.argsort(totals.seconds[chosen], kind="stable")]
    groups = np.array_split(chosen, min(STACKS, len(chosen)))
    grouped = len(chosen) > STACKS

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1.35, 1.0))
        bottom = np.zeros(len(groups))
        for colour, (stage, seconds) in zip(STAGE_COLOURS, totals.stages.items(), strict=False):
            height = np.array([seconds[group].mean() for group in groups])
            left.bar(np.arange(1, len(groups) + 1), height, 0.86, bottom=bottom, color=colour, label=stage)
            bottom += height
        share = f" (bars are means of {len(groups[0])})" if grouped else ""
        left.set(
            title="Seconds by stage",
            xlabel=f"partitions, fastest to slowest{share}",
            ylabel="wall-clock time [s]",
        )
        left.grid(visible=False, axis="x")
        left.set_xlim(0.3, len(groups) + 0.7)
        left.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if grouped:
            left.set_xticks([1, len(groups)], ["fastest", "slowest"])
        left.legend(loc="upper left")
        left.set_ylim(0, bottom.max() * 1.12 or 1.0)
        scatter(
            right,
            totals.rows_out[chosen],
            totals.seconds[chosen],
            s=_dot(chosen),
            color=BLUE,
            alpha=0.6,
            linewidths=0,
        )
        right.set(title="Seconds against rows", xlabel="rows of the partition", ylabel="wall-clock time [s]")
        right.set_xlim(left=0)
        right.set_ylim(0, 1.1 * totals.seconds[chosen].max() or 1.0)
        counts_on(right.xaxis)

    total = {stage: float(seconds.sum()) for stage, seconds in totals.stages.items()}
    whole = sum(total.values()) or 1.0
    shares = ", ".join(f"{stage} {100 * seconds / whole:.0f} %" for stage, seconds in total.items())
    median = float(np.median(totals.seconds[chosen]))
    return draw(
        "stages",
        paint,
        (10.6, 3.3),
        f"Time per partition: median {median:.2f} s, slowest {totals.seconds[chosen].max():.2f} s; {shares}",
        f"{len(chosen):,} partitions that were done. Time by stage, summed over them: {shares}.",
    )


def rate_drawing(totals: RunTotals) -> Drawing | None:
    """Distributions of rows per second and of peak memory; None where nothing was done."""
    timed = totals.done & (totals.seconds > 0)
    if not timed.any():
        return None
    rates = totals.rows_out[timed] / totals.seconds[timed]
    memory = totals.peak_rss[timed] / 2**20

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        left.hist(rates, bins=_bins(rates), color=BLUE, alpha=0.75)
        left.axvline(float(np.median(rates)), color=INK, linewidth=1.2)
        left.set(
            title=f"Rows per second, median {np.median(rates):,.0f}", xlabel="rows per second of a partition"
        )
        left.set_ylabel("partitions")
        scatter(right, totals.rows_in[timed], memory, s=_dot(rates), color=GREEN, alpha=0.6, linewidths=0)
        right.set(title=f"Peak memory, at most {memory.max():,.0f} MiB", xlabel="rows of the partition")
        right.set_ylabel("resident memory [MiB]")
        right.set_ylim(0, 1.1 * memory.max())
        right.set_xlim(left=0)
        for axis in (left.xaxis, left.yaxis, right.xaxis, right.yaxis):
            counts_on(axis)

    return draw(
        "rates",
        paint,
        (10.6, 2.9),
        f"Median {np.median(rates):,.0f} rows per second in a partition; peak memory {memory.max():,.0f} MiB",
        "Rows per second within a partition, by one worker (the vertical line is the median). Memory is the "
        "peak of the worker's process up to that partition, so it never falls in the life of a worker.",
    )


def class_drawing(totals: RunTotals) -> Drawing | None:
    """Rows per class and the summed probabilities; None where no row was summarised."""
    if not totals.rows_summarised:
        return None
    counts = totals.classes

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        place = np.arange(len(counts))[::-1]
        colours = [CLASS_COLOURS.get(name, INK) for name in counts]
        axes.barh(place, list(counts.values()), height=0.6, color=colours, alpha=0.85)
        marks = [place[list(counts).index(name)] for name in totals.expected]
        axes.plot(list(totals.expected.values()), marks, "|", color=INK, markersize=20, markeredgewidth=2.2)
        axes.set_yticks(place, ["no class" if name == "NONE" else name for name in counts])
        axes.set_xlabel("rows")
        axes.grid(visible=False, axis="y")
        counts_on(axes.xaxis)

    words = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    caption = "Bars: rows per most probable class."
    caption += " Upright marks: the number expected from the probabilities, summed over all rows."
    return draw("classes", paint, (7.2, 2.2), f"Rows per class: {words}", caption)


def _dot(values: np.ndarray) -> float:
    """Size of a point, smaller where there are many."""
    return 26.0 if len(values) < 200 else 14.0 if len(values) < MANY else 4.0


def _bins(values: np.ndarray) -> np.ndarray:
    """Edges of at most 40 bins, fewer where there are few values; one where all values are equal."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.array([low * 0.95 - 0.5, low * 1.05 + 0.5])
    return np.linspace(low, high, int(np.clip(np.sqrt(len(values)) * 2, 5, 40)) + 1)
