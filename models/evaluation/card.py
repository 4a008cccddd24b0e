"""Model cards: a template per model, filled with measured numbers, and hand-written limitations.

``<name>.json`` next to the weights holds the numbers, ``<name>.limitations.md`` the limitations; the card
``<name>.md`` is generated from both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2

from ojala.catalogs_schema.files import atomic_file
from ojala.models.checkpoint import load
from ojala.models.quantities import SCALARS

_TEMPLATES = Path(__file__).parents[1]


def _percent(value: float | None, places: int = 1) -> str:
    return "" if value is None else f"{100.0 * value:.{places}f} %"


def _number(value: float | None, places: int, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.{places}f}"


def _stages(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List the stages of a training in order; each starts from the weights of the previous one."""
    before = training.get("before")
    return [*(_stages(before) if before else []), training]


def render(template: str, **values: object) -> str:
    """Fill a template, named by its path in `ojala.models`, such as ``ojala/card.md.j2``.

    Filters: ``percent(places=1)`` of a fraction and ``number(places, sign='')``, both empty for None;
    ``stages`` of a training.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown
    )
    environment.filters |= {"percent": _percent, "number": _number, "stages": _stages}
    return environment.get_template(template).render(**values)


def card(record: Mapping[str, Any], limitations: str = "") -> str:
    """Render a model card as Markdown.

    Parameters
    ----------
    record : mapping
        As from `card_record`.
    limitations : str
        Hand-written Markdown for the end of the card.
    """
    shape = json.dumps(record["architecture"], sort_keys=True)
    scalars = [quantity.name for quantity in SCALARS]
    filled = render(f"{record['model']}/card.md.j2", **record, shape=shape, scalars=scalars)
    return filled + (f"\n{limitations}" if limitations else "")


def card_record(weights: Path, evaluation: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Collect the numbers of a model card: header of the weights, name of the learning curve, measures.

    Parameters
    ----------
    weights : Path
        File of weights of any model.
    evaluation : mapping, optional
        ``command`` of the evaluation, and its ``measures`` by sample.

    Raises
    ------
    WeightsError
        The file does not hold whole weights.
    """
    model, _, info = load(weights)
    curve = weights.with_suffix(".svg")
    return {
        "model": model,
        "name": info.name,
        "version": info.version,
        "sha256": info.sha256,
        "architecture": asdict(info.config),
        "training": info.training,
        "curve": curve.name if curve.exists() else None,
        "evaluation": None if evaluation is None else dict(evaluation),
    }


def write_card(
    weights: Path, evaluation: Mapping[str, Any] | None = None, folder: Path | None = None
) -> Path:
    """Write ``<name>.json`` and the model card ``<name>.md`` of weights.

    Parameters
    ----------
    weights : Path
        File of weights; limitations are read from ``<name>.limitations.md`` in its folder, if there are any.
    evaluation : mapping, optional
        See `card_record`; by default that of the JSON file, if it belongs to the same weights.
    folder : Path, optional
        Folder to write into; by default that of the weights.

    Returns
    -------
    Path
        The card.
    """
    record = card_record(weights, evaluation)
    numbers = (folder or weights.parent) / f"{weights.stem}.json"
    if evaluation is None and numbers.exists():
        stored = json.loads(numbers.read_text())
        if stored["sha256"] == record["sha256"]:
            record["evaluation"] = stored["evaluation"]
    limitations = weights.with_name(f"{weights.stem}.limitations.md")
    text = limitations.read_text() if limitations.exists() else ""
    with atomic_file(numbers) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())
    with atomic_file(numbers.with_suffix(".md")) as file:
        file.write(card(record, text).encode())
    return numbers.with_suffix(".md")
