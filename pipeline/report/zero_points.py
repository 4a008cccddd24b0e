"""Section of the report on zero points: measured against predicted bands, by band and by tile."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.pipeline.report.svg import BLUE, DIVERGING, INK, VERMILION, Drawing, draw
from ojala.pipeline.runs.zero_points import ZeroPoints

TILES_SHOWN = 50
"""Tiles that the table on the page lists."""

TILES_NAMED = 40
"""More tiles than this have no number on the map."""

_ORDER = np.argsort([band.pivot for band in MODEL_BANDS])


def zero_points_section(found: ZeroPoints) -> dict[str, Any]:
    """Context of the template."""
    order = np.argsort(-np.nanmax(np.nan_to_num(np.abs(found.sigma)), axis=1), kind="stable")
    return {
        "found": found,
        "bands": _band_drawing(found),
        "map": _map_drawing(found) if len(found.tiles) > 1 else None,
        "rows": [_row(found, int(tile)) for tile in order[:TILES_SHOWN]],
        "total": len(found.tiles),
    }


def zero_points_numbers(found: ZeroPoints) -> dict[str, Any]:
    """Numbers of the section: of each band, and of the bands of tiles that are off beyond chance."""
    columns = ("median", "median_err", "pull", "pull_err")
    return {
        "tiles": len(found.tiles),
        "limit_sigma": found.limit,
        "scatter_over_error": found.scatter,
        "bands": {
            band.name: {"n": int(found.n[:, k].sum())} | {c: float(getattr(found, c)[k]) for c in columns}
            for k, band in enumerate(MODEL_BANDS)
        },
        "beyond_chance": [_cell(found, int(t), int(k)) for t, k in np.argwhere(found.beyond_chance)],
    }


def zero_points_csv(found: ZeroPoints) -> bytes:
    """All bands of all tiles with at least one measurement that counts, tile by tile."""
    sink = io.StringIO()
    cells = [_cell(found, int(t), int(k)) for t, k in np.argwhere(found.n > 0)]
    writer = csv.DictWriter(sink, list(cells[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    return sink.getvalue().encode()


def _cell(found: ZeroPoints, tile: int, band: int) -> dict[str, Any]:
    """Numbers of one band of a tile; offsets are relative, measured over predicted."""
    numbers = ("offset", "offset_err", "deviation", "deviation_err", "sigma")
    return {
        "tile_id": found.tiles[tile],
        "band": MODEL_BANDS[band].name,
        "objects": int(found.n[tile, band]),
        **{name: round(float(getattr(found, name)[tile, band]), 6) for name in numbers},
        "beyond_chance": bool(found.beyond_chance[tile, band]),
    }


def _row(found: ZeroPoints, tile: int) -> dict[str, Any]:
    """A tile, with the band that is farthest off in standard errors."""
    sigma = np.nan_to_num(np.abs(found.sigma[tile]))
    others = [MODEL_BANDS[k].name for k in np.flatnonzero(found.beyond_chance[tile])]
    return _cell(found, tile, int(sigma.argmax())) | {"rows": int(found.rows[tile]), "others": others}


def _band_drawing(found: ZeroPoints) -> Drawing:
    names = [MODEL_BANDS[k].name for k in _ORDER]
    place = np.arange(len(names))

    def paint(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        panels = (
            (upper, 100.0 * found.median, 100.0 * found.median_err, "measured / predicted - 1 [%]"),
            (lower, found.pull, found.pull_err, "(measured - predicted) / error"),
        )
        for axes, value, error, label in panels:
            axes.axhline(0.0, color=INK, linewidth=0.9)
            axes.errorbar(
                place, value[_ORDER], error[_ORDER], fmt="o", color=BLUE, markersize=4, elinewidth=1
            )
            axes.set_ylabel(label, fontsize=9)
            axes.set_xlim(-0.7, len(names) - 0.3)
        tile, band = np.nonzero(found.beyond_chance[:, _ORDER])
        off = 100.0 * found.offset[:, _ORDER][tile, band]
        upper.plot(band, off, "D", markerfacecolor="none", markeredgecolor=VERMILION, markersize=6)
        lower.set_xticks(place, names, rotation=90, fontsize=7.5)
        lower.set_xlabel("band, by pivot wavelength (0.35 to 4.6 µm)")

    worst = int(np.nanargmax(np.abs(found.median)))
    alt = (
        f"Measured against predicted bands: the largest median residual is {found.median[worst]:+.1%} "
        f"({MODEL_BANDS[worst].name}); {found.beyond_chance.sum():,} bands of tiles are off beyond chance"
    )
    return draw(
        "band-residuals",
        paint,
        (10.6, 4.6),
        alt,
        "Median over the survey of measured against predicted flux, with its standard error: relative, "
        "weighted by the inverse error of each object (above), and in units of the error of both (below). "
        "The model is asked for a band without its measurement. A residual of all tiles is the model's as "
        "much as the survey's; diamonds are bands of single tiles that differ from it beyond chance.",
    )


def _map_drawing(found: ZeroPoints) -> Drawing:
    sigma = np.where(np.isfinite(found.sigma), found.sigma, 0.0)
    band = np.abs(sigma).argmax(axis=1)
    tiles = np.arange(len(found.tiles))
    off = 100.0 * np.nan_to_num(found.deviation[tiles, band])
    marked = np.asarray(found.beyond_chance.any(axis=1))
    ra, dec = found.position.T
    middle = ra[0] + np.median((ra - ra[0] + 180.0) % 360.0 - 180.0)
    x = middle + (ra - middle + 180.0) % 360.0 - 180.0

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        span = float(np.abs(off).max()) or 1.0
        edges = [VERMILION if one else INK for one in marked.tolist()]
        shown = axes.scatter(
            x,
            dec,
            s=140.0 if len(tiles) <= TILES_NAMED else 24.0,
            c=off,
            cmap=DIVERGING,
            norm=TwoSlopeNorm(0.0, -span, span),
            edgecolors=edges,
            linewidths=np.where(marked, 2.2, 0.4).tolist(),
        )
        for tile in tiles if len(tiles) <= TILES_NAMED else np.flatnonzero(marked):
            name = f"{found.tiles[tile]} {MODEL_BANDS[band[tile]].name}"
            axes.annotate(name, (x[tile], dec[tile]), textcoords="offset points", xytext=(8, 6), fontsize=7.5)
        axes.invert_xaxis()  # east to the left
        axes.set(xlabel="right ascension [deg]", ylabel="declination [deg]")
        axes.set_aspect(1.0 / max(float(np.cos(np.radians(np.median(dec)))), 0.05), adjustable="datalim")
        bar = figure.colorbar(shown, ax=axes)
        bar.set_label("deviation of the band [%]", fontsize=8.5)
        bar.outline.set_visible(False)

    alt = f"Map of {len(tiles):,} tiles by their band farthest off; {marked.sum():,} are off beyond chance"
    return draw(
        "zero-point-map",
        paint,
        (10.6, 4.4),
        alt,
        "Tiles of the survey at the mean position of their rows, coloured by the deviation of the band that "
        "is farthest off in standard errors from the median of that band over all tiles. Tiles with a band "
        "beyond chance are ringed in vermilion.",
    )
