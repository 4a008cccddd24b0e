"""Figures of the pages: drawings, and what the table of real objects shows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parents[2]
REAL_OBJECTS = ROOT / "models" / "weights" / "ojala-base-real-objects.csv"
COLOURS = {"GALAXY": "#c0504d", "STAR": "#e0a030", "QSO": "#3f6fb5"}
CLASSES = {"GALAXY": ("galaxies", "z_gal"), "QSO": ("quasars", "z_qso")}


def pictures() -> Iterator[tuple[str, bytes]]:
    """Names and contents of the figures."""
    objects = pd.read_csv(REAL_OBJECTS)
    yield "pictures/redshifts.png", _png(redshifts(objects))
    yield "pictures/deviations.png", _png(deviations(objects))
    yield "pictures/network.png", _png(network())
    yield "pictures/releases.png", _png(releases())


def redshifts(objects: pd.DataFrame) -> Figure:
    """Redshift under the true class against the true redshift, in ln(1 + z)."""
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, (plural, column) in CLASSES.items():
        rows = objects[objects.true_class == name]
        label = f"{len(rows)} {plural}"
        axes.scatter(1 + rows.true_z, 1 + rows[column], s=9, color=COLOURS[name], label=label, alpha=0.7)
    ticks = [0, 0.1, 0.3, 0.6, 1, 2, 3, 4]
    axes.plot([1, 5.5], [1, 5.5], color="gray", lw=0.7)
    axes.set(xscale="log", yscale="log", xlabel="true redshift", ylabel="redshift from photometry")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([1 + z for z in ticks], [f"{z:g}" for z in ticks])
        axis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set(xlim=(1, 5.5), ylim=(1, 5.5))
    axes.legend(frameon=False)
    return figure


def deviations(objects: pd.DataFrame) -> Figure:
    """Histogram of (z - true z) / z_err of objects of the right class, with the normal distribution."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    grid = np.linspace(-5, 5, 41)
    centre = (grid[1:] + grid[:-1]) / 2
    for axes, (name, (plural, _)) in zip(figure.subplots(1, 2, sharey=True), CLASSES.items(), strict=True):
        rows = objects[(objects.true_class == name) & (objects["class"] == name)]
        off = ((rows.z - rows.true_z) / rows.z_err).clip(-4.99, 4.99)
        axes.hist(off, grid, density=True, color=COLOURS[name], alpha=0.6)
        axes.plot(centre, np.exp(-(centre**2) / 2) / np.sqrt(2 * np.pi), color="black", lw=1)
        within = (off.abs() < 1).mean()
        axes.set(title=f"{len(rows)} {plural}: {within:.0%} within one error", xlabel="(z - true z) / z_err")
    return figure


def network() -> Figure:
    """Drawing of OJALÁ: bands, tokens, encoder, requests, predictions."""
    figure = Figure(figsize=(9, 3.4))
    axes = _canvas(figure, 100, 38)
    rng = np.random.default_rng(3)
    wavelength = np.arange(20)
    flux = 5 + 4 / (1 + np.exp(-(wavelength - 8))) + 3 * (wavelength == 14) + rng.normal(0, 0.3, 20)
    axes.errorbar(2 + wavelength * 0.8, 12 + flux, 0.5, fmt=".", color="#444444", ms=5, lw=0.8)
    axes.text(9.5, 8.5, "flux and error\nin up to 63 bands", ha="center", va="top", fontsize=9)
    for k in range(8):
        axes.add_patch(FancyBboxPatch((24, 9 + 2.6 * k), 4, 1.6, boxstyle="round,pad=0.2", color="#9fb7dd"))
    axes.text(26, 7.6, "a token for\neach band", ha="center", va="top", fontsize=9)
    _box(axes, 34, 12, 16, 15, "encoder\n\n4 blocks of attention:\neach band looks at\nall others", "#dfe8f6")
    _box(axes, 56, 25, 14, 8, "embedding\n128 numbers", "#f3ead3")
    _box(axes, 56, 8, 14, 11, "decoder\n\n2 blocks: each\nrequest reads\nthe bands", "#dfe8f6")
    for x, y, text in (
        (76, 27, "1  class: galaxy, star, quasar"),
        (76, 18, "2  redshift: p(z) of a galaxy\nand of a quasar"),
        (76, 9, "3  mass, rate, lines, stars,\nflux in any band; with errors"),
    ):
        _box(axes, x, y, 23, 6, text, "#e4f0e0", size=7.5)
    for start, end in (
        ((19, 18), (23, 18)),
        ((29, 18), (33.5, 18)),
        ((50.5, 22), (55.5, 28)),
        ((50.5, 17), (55.5, 14)),
        ((70.5, 15), (75.5, 29)),
        ((70.5, 14), (75.5, 21)),
        ((70.5, 12), (75.5, 12)),
        ((87, 26.5), (87, 24.5)),
        ((87, 17.5), (87, 15.5)),
    ):
        _arrow(axes, start, end)
    return figure


def releases() -> Figure:
    """Drawing of runs over the same partitions, and of the pointer of the release."""
    figure = Figure(figsize=(9, 3.4))
    axes = _canvas(figure, 100, 38)
    fresh, linked = "#9fb7dd", "#e3e3e3"
    rows = (
        ("photometry", 29, ["#f3ead3"] * 6),
        ("run 1", 19, [fresh] * 6),
        ("run 2: region reprocessed", 9, [linked, linked, fresh, fresh, linked, linked]),
    )
    for name, y, colours in rows:
        axes.text(0, y + 2.5, name, va="center", fontsize=9.5)
        for k, colour in enumerate(colours):
            axes.add_patch(FancyBboxPatch((27 + 7 * k, y), 5, 5, boxstyle="round,pad=0.2", color=colour))
    for k in range(6):
        _arrow(axes, (29.5 + 7 * k, 28.5), (29.5 + 7 * k, 24.8))
    for k in (0, 1, 4, 5):
        axes.plot([29.5 + 7 * k] * 2, [14.6, 18.6], color="gray", ls=":", lw=1.2)
    _box(axes, 74, 17.5, 11, 8, "gates", "#e4f0e0")
    _box(axes, 74, 7.5, 11, 8, "gates", "#e4f0e0")
    _arrow(axes, (68.5, 21.5), (73.5, 21.5))
    _arrow(axes, (68.5, 11.5), (73.5, 11.5))
    _box(axes, 88.6, 7.5, 10.6, 8, "release:\nwhat readers\nsee", "#f3ead3")
    _arrow(axes, (85.5, 11.5), (88.2, 11.5))
    axes.text(86, 21.5, "the release before;\nrollback returns to it", va="center", fontsize=8)
    for x, colour, text in ((27, fresh, "computed"), (42, linked, "linked from the run before")):
        axes.add_patch(FancyBboxPatch((x, 2), 2, 2, boxstyle="round,pad=0.2", color=colour))
        axes.text(x + 3.5, 3, text, va="center", fontsize=8.5)
    return figure


def _canvas(figure: Figure, width: float, height: float) -> Axes:
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return axes


def _box(axes: Axes, x: float, y: float, w: float, h: float, text: str, fill: str, size: float = 8.5) -> None:
    axes.add_patch(FancyBboxPatch((x, y), w, h, boxstyle="round,pad=0.4", fc=fill, ec="#777777"))
    axes.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=size)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "#555555"})


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
    return file.getvalue()
