"""Sky maps of a run: the whole sky, and its own patch."""

from __future__ import annotations

import healpy
import numpy as np
from healpy.projector import GnomonicProj, MollweideProj
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from ojala.pipeline.report.svg import FAINT, INK, MANY, SEQUENTIAL, VERMILION, Drawing, draw, plain_logs
from ojala.pipeline.runs.totals import RunTotals
from ojala.pipeline.storage.hats import SKYMAP_ORDER
from ojala.pipeline.storage.healpix import Partition

ALL_SKY_ORDER = 6
"""Order of the all-sky map (pixels of 55 arcmin, about two of its dots)."""

ZOOM_RADIUS = 25.0
"""A footprint within this radius [deg] is shown enlarged as well."""

_BORDER = "#8a8f98"
_NSIDE = healpy.order2nside(SKYMAP_ORDER)


def sky_drawing(totals: RunTotals, counts: np.ndarray) -> Drawing:
    """The map of a run.

    Parameters
    ----------
    totals : RunTotals
        Its partitions and what became of them.
    counts : ndarray of int64, shape (12 * 4**SKYMAP_ORDER,)
        Rows of the input per HEALPix pixel (nested).
    """
    counts = np.where(_covered(totals.partitions), counts, 0)
    centre, radius = _footprint(counts, totals.partitions)
    zoomed = radius <= ZOOM_RADIUS
    failed = int((~totals.done).sum())

    def paint(figure: Figure) -> None:
        if zoomed:
            left, right = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
            _whole_sky(left, totals, counts, centre, bar=False)
            _patch(right, totals, counts, centre, radius)
        else:
            _whole_sky(figure.subplots(), totals, counts, centre, bar=True)

    lon, lat = centre
    states = f"{len(totals.partitions):,} partitions" + (
        f", {failed:,} of them failed" if failed else ", all done"
    )
    caption = (
        f"Rows per HEALPix pixel, in equatorial coordinates, east to the left. {states.capitalize()}. "
        "The grey band is the Galactic equator"
    )
    if zoomed:
        caption += f"; the enlarged patch, with its partitions, lies around RA {lon:.1f}°, Dec {lat:+.1f}°"
    if failed:
        caption += "; failed partitions are filled in vermilion"
    area = np.count_nonzero(counts) * healpy.nside2pixarea(_NSIDE, degrees=True)
    alt = f"Sky map: {states}; rows on {area:,.1f} square degrees around RA {lon:.1f}, Dec {lat:+.1f} degrees"
    return draw("sky", paint, (10.6, 4.6) if zoomed else (10.6, 5.4), alt, caption + ".")


def _covered(partitions: tuple[Partition, ...]) -> np.ndarray:
    """Which pixels of the map hold (part of) a partition of the run."""
    covered = np.zeros(healpy.order2npix(SKYMAP_ORDER), dtype=bool)
    for partition in partitions:
        if partition.order <= SKYMAP_ORDER:
            width = 4 ** (SKYMAP_ORDER - partition.order)
            covered[partition.pixel * width : (partition.pixel + 1) * width] = True
        else:
            covered[partition.pixel >> 2 * (partition.order - SKYMAP_ORDER)] = True
    return covered


def _footprint(counts: np.ndarray, partitions: tuple[Partition, ...]) -> tuple[tuple[float, float], float]:
    """Centre (RA, Dec) and radius [deg] of the circle around the mean position that holds all rows.

    Partitions reach further than their rows; they decide only where there are no rows.
    """
    filled = np.flatnonzero(counts)
    if len(filled):
        places = np.stack(healpy.pix2vec(_NSIDE, filled, nest=True))
    else:
        places = np.concatenate([_outline(p, 1) for p in partitions], axis=1)
    centre = places.mean(axis=1)
    centre /= np.linalg.norm(centre)
    lon, lat = healpy.vec2ang(centre, lonlat=True)
    radius = np.degrees(np.arccos(np.clip(centre @ places, -1.0, 1.0).min()))
    return (float(lon[0]), float(lat[0])), float(radius) + np.degrees(healpy.max_pixrad(_NSIDE))


def _outline(partition: Partition, step: int) -> np.ndarray:
    """Unit vectors around a partition, shape (3, 4 * step)."""
    nside = healpy.order2nside(partition.order)
    return np.asarray(healpy.boundaries(nside, partition.pixel, step=step, nest=True))


def _whole_sky(
    axes: Axes, totals: RunTotals, counts: np.ndarray, centre: tuple[float, float], *, bar: bool
) -> None:
    coarse = counts.reshape(-1, 4 ** (SKYMAP_ORDER - ALL_SKY_ORDER)).sum(axis=1)
    # The map turns so that the footprint is not cut by its edge.
    middle = 60.0 * round(centre[0] / 60.0) % 360.0
    projection = MollweideProj(rot=(middle, 0.0, 0.0), xsize=800)
    axes.add_patch(Ellipse((0.0, 0.0), 4.0, 2.0, facecolor="none", edgecolor=FAINT, linewidth=1.0))
    _show(
        axes,
        projection,
        coarse,
        ALL_SKY_ORDER,
        (-2.0, 2.0, -1.0, 1.0),
        "rows per pixel of 55′" if bar else "",
    )
    _graticule(axes, projection, middle)
    failed = [p for p, done in zip(totals.partitions, totals.done, strict=True) if not done]
    _fill(axes, projection, failed, widest=1.0)
    if not bar:
        # A small footprint is circled, or it would be overlooked.
        x, y = projection.ang2xy(*centre, lonlat=True)
        axes.plot(
            [x],
            [y],
            "o",
            markersize=22,
            markerfacecolor="none",
            markeredgecolor=VERMILION,
            markeredgewidth=1.4,
            clip_on=False,
        )
    axes.set(xlim=(-2.02, 2.02), ylim=(-1.02, 1.02), aspect="equal", title="Whole sky")
    axes.axis("off")


def _graticule(axes: Axes, projection: MollweideProj, middle: float) -> None:
    span = np.linspace(middle - 179.9, middle + 179.9, 181)
    lines = [
        np.column_stack(projection.ang2xy(span, np.full(span.shape, dec), lonlat=True))
        for dec in (-60.0, -30.0, 0.0, 30.0, 60.0)
    ]
    height = np.linspace(-90.0, 90.0, 91)
    for ra in middle + np.arange(-120, 121, 60):
        lines.append(np.column_stack(projection.ang2xy(np.full(height.shape, ra), height, lonlat=True)))
        x, y = projection.ang2xy(ra, 0.0, lonlat=True)
        axes.text(
            float(x) - 0.02,
            float(y) + 0.02,
            f"{ra % 360:.0f}°",
            fontsize=7.5,
            ha="right",
            va="bottom",
            alpha=0.75,
        )
    for dec in (-60, -30, 30, 60):
        x, y = projection.ang2xy(middle + 179.9, float(dec), lonlat=True)
        axes.text(float(x) - 0.03, float(y), f"{dec:+d}°", fontsize=7.5, ha="right", va="center", alpha=0.75)
    axes.add_collection(LineCollection(lines, colors=FAINT, linewidths=0.5, zorder=0.5))
    plane = healpy.Rotator(coord=["G", "C"])(
        healpy.dir2vec(np.linspace(0, 360, 721), np.zeros(721), lonlat=True)
    )
    x, y = projection.vec2xy(*plane)
    axes.plot(*_unbroken(x, y), color=_BORDER, linewidth=2.5, alpha=0.35, zorder=0.6)


def _unbroken(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A line with gaps where it leaves the map on one side and comes back on the other."""
    jumps = np.flatnonzero(np.abs(np.diff(x)) > 1.0) + 1
    return np.insert(np.asarray(x), jumps, np.nan), np.insert(np.asarray(y), jumps, np.nan)


def _patch(
    axes: Axes, totals: RunTotals, counts: np.ndarray, centre: tuple[float, float], radius: float
) -> None:
    half = np.tan(np.radians(radius * 1.08))
    projection = GnomonicProj(rot=(*centre, 0.0), xsize=600, reso=np.degrees(2 * half) * 60.0 / 600)
    _show(axes, projection, counts, SKYMAP_ORDER, (-half, half, -half, half), "rows per pixel of 14′")
    outlines = [_project(projection, p) for p in totals.partitions]
    outlines = [outline for outline in outlines if np.isfinite(outline).all()]
    borders = PolyCollection(outlines, facecolors="none", edgecolors=_BORDER, linewidths=0.8)
    borders.set_rasterized(len(outlines) > MANY)
    axes.add_collection(borders)
    _fill(
        axes,
        projection,
        [p for p, d in zip(totals.partitions, totals.done, strict=True) if not d],
        widest=np.inf,
    )
    _sky_ticks(axes, projection, centre, half)
    axes.set(
        xlim=(-half, half), ylim=(-half, half), aspect="equal", title="The run's patch and its partitions"
    )
    axes.set(xlabel="right ascension [deg]", ylabel="declination [deg]")


def _sky_ticks(axes: Axes, projection: GnomonicProj, centre: tuple[float, float], half: float) -> None:
    """Ticks where whole right ascensions and declinations meet the lower and the left edge."""
    edge = np.linspace(-half, half, 400)
    ra, _ = projection.xy2ang(edge, np.full(edge.shape, -half), lonlat=True)
    ra = centre[0] + (np.asarray(ra) - centre[0] + 180.0) % 360.0 - 180.0
    _, dec = projection.xy2ang(np.full(edge.shape, -half), edge, lonlat=True)
    meridians = _round_numbers(float(ra.min()), float(ra.max()))
    parallels = _round_numbers(float(dec.min()), float(dec.max()))
    # East is to the left: right ascension falls along x.
    axes.set_xticks(np.interp(-meridians, -ra, edge), [f"{mark % 360:g}" for mark in meridians])
    axes.set_yticks(np.interp(parallels, dec, edge), [f"{mark:g}" for mark in parallels])
    # They are curves, which the axes' own grid is not.
    axes.grid(visible=False)
    height, around = np.linspace(-89.9, 89.9, 1200), np.linspace(ra.min() - 30.0, ra.max() + 30.0, 600)
    curves = [projection.ang2xy(np.full(height.shape, mark), height, lonlat=True) for mark in meridians]
    curves += [projection.ang2xy(around, np.full(around.shape, mark), lonlat=True) for mark in parallels]
    lines = LineCollection([np.column_stack(c) for c in curves], colors=FAINT, linewidths=0.6, zorder=0.5)
    axes.add_collection(lines)


def _round_numbers(low: float, high: float) -> np.ndarray:
    """Four to eight round numbers within a range."""
    step = next(s for s in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if (high - low) / s <= 8)
    return np.round(np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step, 3)


def _show(
    axes: Axes,
    projection: MollweideProj | GnomonicProj,
    counts: np.ndarray,
    order: int,
    extent: tuple[float, float, float, float],
    label: str,
) -> None:
    image = projection.projmap(
        counts.astype(np.float64), lambda x, y, z: healpy.vec2pix(2**order, x, y, z, nest=True)
    )
    image = np.ma.masked_less_equal(np.ma.masked_invalid(image), 0.0)
    filled = counts[counts > 0]
    low, high = (filled.min(), filled.max()) if len(filled) else (0, 1)
    norm = LogNorm(low, high) if high > 50 * low > 0 else Normalize(0, high)
    shown = axes.imshow(
        image, origin="lower", extent=extent, cmap=SEQUENTIAL, norm=norm, interpolation="nearest"
    )
    shown.set_zorder(0.8)
    if not label:
        return
    bar = axes.figure.colorbar(shown, ax=axes, orientation="horizontal", shrink=0.55, aspect=32, pad=0.04)
    bar.set_label(label, fontsize=8.5)
    bar.ax.tick_params(labelsize=8, color=INK)
    if isinstance(norm, LogNorm):
        plain_logs(bar.ax.xaxis)
    bar.outline.set_visible(False)
    if bar.solids is not None:
        bar.solids.set_rasterized(True)


def _project(projection: MollweideProj | GnomonicProj, partition: Partition) -> np.ndarray:
    """The outline of a partition on the map, shape (32, 2)."""
    return np.column_stack(projection.vec2xy(*_outline(partition, 8)))


def _fill(
    axes: Axes, projection: MollweideProj | GnomonicProj, partitions: list[Partition], *, widest: float
) -> None:
    """Mark failed partitions; those that the map's edge cuts are left out of the whole sky."""
    outlines = [_project(projection, p) for p in partitions]
    outlines = [o for o in outlines if np.isfinite(o).all() and np.ptp(o[:, 0]) <= widest]
    marks = PolyCollection(outlines, facecolors=VERMILION, edgecolors=VERMILION, linewidths=1.2, alpha=0.85)
    marks.set_rasterized(len(outlines) > MANY)
    axes.add_collection(marks)
