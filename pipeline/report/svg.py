"""Style of figures, and their conversion to SVG within a page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

# The palette of Okabe & Ito (2008), distinguished by all readers. Each has a name in the page's style
# sheet, which makes it lighter on a dark ground.
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"

INK = "#1b1f23"
"""Text and axes: the colour of the page's text."""

FAINT = "#d4d7db"
"""Grids and frames."""

CLASS_COLOURS = {"GALAXY": BLUE, "STAR": ORANGE, "QSO": PURPLE}
CLASS_MARKERS = {"GALAXY": "o", "STAR": "s", "QSO": "D"}

SEQUENTIAL = matplotlib.colormaps["cividis"]
"""Colour map of densities: even in lightness, the same for all readers."""

DIVERGING = matplotlib.colormaps["RdBu_r"]
"""Colour map of deviations from zero."""

DPI = 160
"""Resolution of parts drawn as pixels: maps and scatters of many points."""

POINTS = 72
"""Units of an SVG in an inch."""

METADATA = ("Date", "Creator", "Format", "Type")
"""What a drawing does not say of itself, as it is part of a page."""

MANY = 600
"""More points than this are drawn as pixels, so that the page stays small."""

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10.0,
    "svg.fonttype": "none",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.titley": 1.0,  # not sought above ticks, of which no axes have any there
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "hatch.linewidth": 0.6,
}

_COLOUR_NAMES = {
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
    VERMILION: "var(--vermilion)",
    SKY: "var(--sky)",
    PURPLE: "var(--purple)",
    INK: "currentColor",
    FAINT: "var(--faint)",
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure on the page.

    Attributes
    ----------
    name : str
        Anchor on the page.
    svg : str
        The drawing, ready to stand in HTML.
    alt : str
        Description of the figure, for screen readers.
    caption : str
        What stands below it.
    """

    name: str
    svg: str
    alt: str
    caption: str


def draw(
    name: str, paint: Callable[[Figure], None], size: tuple[float, float], alt: str, caption: str
) -> Drawing:
    """Make a drawing.

    Parameters
    ----------
    name : str
        Anchor on the page.
    paint : callable
        Adds axes and marks to the figure that it is given.
    size : (float, float)
        Width and height [inch].
    alt, caption : str
        See `Drawing`.
    """
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        layout = ConstrainedLayoutEngine()
        figure = Figure(figsize=size, dpi=POINTS, layout=layout)
        figure.patch.set_alpha(0.0)
        FigureCanvasSVG(figure)
        paint(figure)
        # While it has a layout engine, savefig draws everything a first time and throws it away.
        layout.execute(figure)
        figure.set_layout_engine("none")
        sink = io.StringIO()
        figure.savefig(sink, format="svg", dpi=DPI, metadata=dict.fromkeys(METADATA))
    return Drawing(name, _inline(sink.getvalue(), name, alt), alt, caption)


def counts_on(axis: Axis) -> None:
    """Label an axis with whole numbers, thousands parted."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value == round(value) else ""))


def plain_logs(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers: 1, 2, 5, 10 ..."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < 1e5 else f"{value:.0e}"))


def scatter(axes: Axes, x: np.ndarray, y: np.ndarray, **style: Any) -> None:  # noqa: ANN401 - matplotlib's own
    """Points, as pixels where they are many."""
    axes.scatter(x, y, rasterized=len(x) > MANY, **style)


def _inline(svg: str, name: str, alt: str) -> str:
    """SVG as part of a page: no prologue, its own identifiers, the page's colours and letters."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, css in _COLOUR_NAMES.items():
        svg = svg.replace(colour, css)
    svg = re.sub(r"font: ((?:[a-z]+ )?(?:\d+ )?[\d.]+px) [^;\"]*", r"font: \1 var(--font)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    # The size in points goes, so that the drawing fills the width that the page gives it.
    head, body = svg.split(">", 1)
    head = re.sub(r' (?:width|height)="[\d.]+pt"', "", head)
    quoted = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'{head} role="img" aria-label="{quoted}">{body}'.strip()
