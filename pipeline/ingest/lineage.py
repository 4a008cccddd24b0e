"""Lineage of the releases of a photometry catalogue, from their provenance files."""

from __future__ import annotations

import json
from typing import Any

from upath import UPath

from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.storage.hats import survey_of

PROVENANCE = "ingest.json"
"""Provenance file of a photometry catalogue: input files, options, versions, and the release before."""


def release_before(catalogue: UPath) -> UPath | None:
    """Root of the release that an update started from; None for a catalogue that was made at once."""
    reference = read_provenance(catalogue).get("release", {}).get("before")
    return None if reference is None else survey_of(catalogue) / reference


def withdrawn_rows(now: UPath, then: UPath) -> int:
    """Rows of tiles that were withdrawn on purpose since an earlier release of the same catalogue.

    Zero where the later catalogue does not descend from the earlier one.
    """
    rows, at = 0, now
    while at.absolute() != then.absolute():
        rows += sum(read_provenance(at).get("release", {}).get("withdrawn", {}).values())
        before = release_before(at)
        if before is None:
            return 0
        at = before
    return rows


def known_inputs(catalogue: UPath) -> set[str]:
    """SHA-256 of the input files of a release and of all that it descends from."""
    known: set[str] = set()
    at: UPath | None = catalogue
    while at is not None:
        known |= {one["sha256"] for one in read_provenance(at).get("inputs", ())}
        at = release_before(at)
    return known


def read_provenance(catalogue: UPath) -> dict[str, Any]:
    """Provenance of a photometry catalogue; empty where there is none, as in catalogues of others."""
    path = catalogue / PROVENANCE
    if not path.exists():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise IngestError(f"{path} is damaged: {error}") from error
    return found
