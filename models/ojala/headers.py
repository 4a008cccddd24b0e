"""Facts in the headers of OJALA's weights and heads, read without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ojala.models.header import read_header
from ojala.models.quantities import FINE_TUNED

NO_BAND_REQUESTS = (
    "these weights cannot be asked for bands: they were trained without band requests; take weights of "
    'version 0.4 or later, or train some (setting preset = "base")'
)
"""Message to a user who asks weights without band requests for bands."""


def has_band_requests(path: Path) -> bool:
    """Whether weights can be asked for bands.

    Raises
    ------
    ojala.models.header.WeightsError
        The file is missing or no file of weights.
    """
    return bool(json.loads(read_header(path).get("config", "{}")).get("band_requests"))


def heads_beside(weights: Path, base_sha256: Callable[[], str]) -> dict[str, Path]:
    """Heads of `FINE_TUNED` beside weights, named ``<weights>-<name>.safetensors``, that belong to them.

    ``base_sha256`` gives the hash of the weights; it is called only if there is such a file.
    """
    paths = {q.name: weights.with_name(f"{weights.stem}-{q.name}.safetensors") for q in FINE_TUNED}
    return {
        name: path
        for name, path in paths.items()
        if path.exists() and read_header(path).get("base_sha256") == base_sha256()
    }
