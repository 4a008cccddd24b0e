"""Figures of predictions against true values."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from ojala.pipeline.quality.validation.result import RedshiftBin
from ojala.pipeline.quality.validation.samples import CATASTROPHIC, LabelSample, RedshiftSample
from ojala.pipeline.report.calibration_figures import FEWEST, at_least_wide, errorbars
from ojala.pipeline.report.svg import (
    BLUE,
    CLASS_COLOURS,
    CLASS_MARKERS,
    INK,
    MANY,
    VERMILION,
    Drawing,
    counts_on,
    draw,
    plain_logs,
    scatter,
)

LABELS_ABREAST = 4
"""Quantities in one line of their figure."""

DENSE = 20_000
"""More objects than this are shown as a density."""


def redshift_truth_drawing(samples: list[RedshiftSample], anchor: str) -> Drawing:
    """Redshifts against true ones, with the residuals below; one column per sample, of which there is one."""
    beyond = {sample.name: 0 for sample in samples}

    def paint(figure: Figure) -> None:
        grid = figure.subplots(
            2,
            len(samples),
            squeeze=False,
            sharex="col",
            height_ratios=(2.6, 1.0),
            gridspec_kw={"hspace": 0.04},
        )
        for column, sample in enumerate(samples):
            above, below = grid[0][column], grid[1][column]
            predicted = np.isfinite(sample.z)
            limit = _limit(sample.dz[predicted])
            dz = np.clip(sample.dz, -limit, limit)
            beyond[sample.name] = int((np.abs(sample.dz[predicted]) > limit).sum())
            top = 1.05 * max(float(sample.z_true.max()), float(np.nanmax(sample.z, initial=0.0)), 0.1)
            _cloud(above, sample, sample.z)
            _cloud(below, sample, dz)
            above.plot([0, top], [0, top], color=INK, linewidth=0.9)
            for side in (-0.15, 0.15):
                above.plot(
                    [0, top], [side, top + side * (1 + top)], color=INK, linewidth=0.7, linestyle=(0, (4, 3))
                )
                if abs(side) < limit:
                    below.axhline(side, color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
            below.axhline(0.0, color=INK, linewidth=0.9)
            above.set(xlim=(0, top), ylim=(0, top), title=f"{sample.name}: {int(predicted.sum()):,}")
            below.set(ylim=(-limit * 1.08, limit * 1.08), xlabel="true redshift")
            if column == 0:
                above.set_ylabel(f"{sample.column}")
                below.set_ylabel("Δz / (1 + z)")
            else:
                above.set_ylabel(sample.column)
        if any(not sample.class_right.all() for sample in samples):
            grid[0][0].legend(loc="lower right", markerscale=1.6)

    words = [_summary(sample) for sample in samples]
    drawing = draw(
        anchor,
        paint,
        (10.6, 5.6) if len(samples) > 1 else (6.4, 6.0),
        f"Redshift against true redshift. {' '.join(words)}",
        "Redshift given the class against the true one, and the residual below. Dashed: |Δz| = 0.15 (1 + z). "
        "Vermilion crosses are objects whose most probable class is wrong.",
    )
    outside = [f"{count:,} {name.lower()}" for name, count in beyond.items() if count]
    if not outside:
        return drawing
    caption = (
        f"{drawing.caption} Residuals beyond the lower panel are drawn on its edge: {', '.join(outside)}."
    )
    return Drawing(drawing.name, drawing.svg, drawing.alt, caption)


def bins_drawing(bins: dict[str, tuple[RedshiftBin, ...]], axis: str, anchor: str) -> Drawing | None:
    """Bias, scatter and outliers by magnitude or redshift; None where no bin holds enough objects.

    Parameters
    ----------
    bins : dict of str to tuple of RedshiftBin
        The bins of each class.
    axis : str
        Quantity of the bins.
    anchor : str
        Anchor on the page.
    """
    drawn = {name: [b for b in found if b.scores.n >= FEWEST] for name, found in bins.items()}
    if not any(drawn.values()):
        return None
    panels = (
        ("bias", "median Δz / (1 + z)", 1.0),
        ("sigma_nmad", "σ_NMAD", 1.0),
        ("outliers_15", "|Δz| > 0.15 (1 + z) [%]", 100.0),
    )

    def paint(figure: Figure) -> None:
        for axes, (key, label, factor) in zip(figure.subplots(1, 3), panels, strict=True):
            for name, found in drawn.items():
                errorbars(
                    axes,
                    [b.interval.middle or 0.0 for b in found],
                    [getattr(b.scores, key) for b in found],
                    color=CLASS_COLOURS[name],
                    marker=CLASS_MARKERS[name],
                    label=name,
                    factor=factor,
                )
            axes.set(xlabel=axis, title=label)
            at_least_wide(axes)
            if key == "bias":
                axes.axhline(0.0, color=INK, linewidth=0.8)
                axes.legend(loc="best")
            elif key == "sigma_nmad":
                axes.set_yscale("log")
                plain_logs(axes.yaxis)
            else:
                worst = max(factor * (b.scores.outliers_15.value or 0.0) for v in drawn.values() for b in v)
                axes.set_ylim(-0.05 * max(worst, 1.0), 1.15 * max(worst, 1.0))

    return draw(
        anchor,
        paint,
        (10.6, 3.1),
        f"Bias, scatter and outliers of the redshifts against {axis}; see the table below",
        "Redshift given the true class. Points stand at the median of their bin, with bootstrap errors; bins "
        f"of fewer than {FEWEST} are not drawn.",
    )


def label_drawing(samples: list[LabelSample], anchor: str) -> Drawing | None:
    """Each scalar label against its true value; None where there is none with enough objects."""
    shown = [sample for sample in samples if len(sample.value) >= FEWEST and not sample.selection]
    if not shown:
        return None
    lines = -(-len(shown) // LABELS_ABREAST)

    def paint(figure: Figure) -> None:
        panels = figure.subplots(lines, LABELS_ABREAST, squeeze=False).ravel()
        for axes in panels[len(shown) :]:
            axes.remove()
        for axes, sample in zip(panels, shown, strict=False):
            low, high = np.percentile(np.concatenate([sample.value, sample.truth]), [0.5, 99.5])
            margin = 0.05 * (high - low) or 1.0
            limits = (low - margin, high + margin)
            if sample.name.startswith("ew_"):
                for scale, axis in ((axes.set_xscale, axes.xaxis), (axes.set_yscale, axes.yaxis)):
                    scale("symlog", linthresh=10.0)
                    axis.set_major_locator(FixedLocator([-100, -10, 0, 10, 100, 1000]))
                    axis.set_minor_locator(NullLocator())
                    counts_on(axis)
            scatter(axes, sample.truth, sample.value, s=5, color=BLUE, alpha=0.4, linewidths=0)
            axes.plot(limits, limits, color=INK, linewidth=0.9)
            unit = {"": "", "Angstrom": " [Å]"}.get(sample.unit, f" [{sample.unit}]")
            axes.set(title=f"{sample.name}{unit}", xlim=limits, ylim=limits, aspect="equal")
            axes.tick_params(labelsize=8)
        figure.supxlabel("true value", fontsize=10)
        figure.supylabel("prediction", fontsize=10)

    names = ", ".join(sample.name for sample in shown)
    return draw(
        anchor,
        paint,
        (10.6, 2.6 * lines + 0.4),
        f"Predictions against true values of {names}; the numbers stand in the table below",
        "Predictions against true values, for objects of the class for which the quantity has a meaning. "
        "The line is equality. Axes show the central 99 % of the values; widths are linear within ±10 Å.",
    )


def _cloud(axes: Axes, sample: RedshiftSample, y: np.ndarray) -> None:
    predicted = np.isfinite(y)
    right, wrong = predicted & sample.class_right, predicted & ~sample.class_right
    if predicted.sum() > DENSE:
        axes.hexbin(
            sample.z_true[predicted],
            y[predicted],
            gridsize=90,
            bins="log",
            mincnt=1,
            cmap="cividis",
            rasterized=True,
        )
        return
    few = predicted.sum() < MANY
    style = {"s": 12 if few else 5, "alpha": 0.65 if few else 0.35, "linewidths": 0}
    colour, marker = CLASS_COLOURS[sample.objects], CLASS_MARKERS[sample.objects]
    scatter(axes, sample.z_true[right], y[right], color=colour, marker=marker, label="class right", **style)
    wrong_style = {
        "s": 20 if few else 12,
        "linewidths": 1.0 if few else 0.7,
        "marker": "x",
        "color": VERMILION,
    }
    scatter(axes, sample.z_true[wrong], y[wrong], label="class wrong", **wrong_style)


def _limit(dz: np.ndarray) -> float:
    """Half-height of the residuals' panel: most of them fit."""
    most = 1.2 * np.percentile(np.abs(dz), 95.0) if len(dz) else np.inf
    return next((limit for limit in (0.02, 0.05, 0.1, 0.2) if most < limit), 0.3)


def _summary(sample: RedshiftSample) -> str:
    dz = sample.dz[np.isfinite(sample.dz)]
    return f"{sample.name}: {len(dz):,} objects, {np.sum(np.abs(dz) > CATASTROPHIC)} beyond 0.15."
