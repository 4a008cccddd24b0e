"""Section of a run's report: what changed since the release that was published when it ended."""

from __future__ import annotations

from typing import Any

from ojala.pipeline.runs.diff import Difference

MAX_TILES = 20
"""Tiles in the table."""


def difference_section(found: Difference) -> dict[str, Any]:
    """Context of ``difference.html.j2``; of many tiles those with the most changed rows."""
    tiles = sorted(
        found.by_tile.items(),
        key=lambda one: (-(one[1].added + one[1].withdrawn + one[1].either_changed), one[0]),
    )
    return {
        "found": found,
        "causes": list(found.by_cause.items()),
        "tiles": tiles[:MAX_TILES],
        "total": len(tiles),
    }
