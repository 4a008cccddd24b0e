"""Rendering of pages from templates."""

from __future__ import annotations

import math
from typing import Any

import jinja2
from markupsafe import Markup

from ojala.catalogs_schema.contract import NONE
from ojala.pipeline.quality.validation.result import Measure
from ojala.pipeline.quality.validation.text import between


def render(template: str, context: dict[str, Any]) -> str:
    """A page.

    Parameters
    ----------
    template : str
        Name of a template in this package.
    context : dict
        Values that it shows; a missing name is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ojala.pipeline.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "count": _count,
        "fixed": _fixed,
        "signed": lambda value, digits: _fixed(value, digits, sign="+"),
        "percent": lambda value: "–" if _absent(value) else f"{100 * value:.1f} %",
        "measured": _measured,
        "stacked": _stacked,
        "between": lambda interval: between(interval).replace(">=", "≥").replace("-", " – "),
        "size": _size,
        "word": lambda word: "–" if word == NONE else word,
    }
    environment.globals["truncated"] = _truncated
    return environment.get_template(template).render(context)


def _absent(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def _count(value: float | None) -> str:
    return "–" if value is None or _absent(value) else f"{value:,.0f}"


def _fixed(value: float | None, digits: int, sign: str = "") -> str:
    if value is None or _absent(value):
        return "–"
    # What rounds to zero has no sign.
    return f"{value:{sign}z,.{digits}f}".replace("-", "−")


def _measured(measure: Measure, digits: int, factor: float = 1.0) -> str:
    """A measure and its error."""
    if measure.value is None:
        return "–"
    value = _fixed(factor * measure.value, digits)
    return value if measure.error is None else f"{value} ± {_fixed(factor * measure.error, digits)}"


def _stacked(measure: Measure, digits: int, factor: float = 1.0) -> Markup:
    """A measure with its error below it, for tables of many columns."""
    value, _, error = _measured(measure, digits, factor).partition(" ± ")
    return Markup('{}<small class="error">± {}</small>').format(value, error) if error else Markup(value)


def _size(value: float) -> str:
    return f"{value / 2**20:,.0f} MiB"


def _truncated(total: int, shown: int, what: str) -> str:
    return f"The first {shown:,} of {total:,} {what} are shown." if shown < total else ""
