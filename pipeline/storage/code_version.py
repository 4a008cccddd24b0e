"""Which code and which packages made the numbers."""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path

PACKAGES = ("astropy", "dask", "hats", "healpy", "numpy", "pandas", "prefect", "pyarrow", "torch")
"""Packages whose versions are kept with a run."""

_FLOORS = ("catalogs_schema", "models", "pipeline")

APART = frozenset(
    {
        "catalogs_schema/data_model.py",
        "models/avis/atlas_fit.py",
        "models/avis/augmentation.py",
        "models/avis/evaluation.py",
        "models/avis/losses.py",
        "models/avis/training.py",
        "models/evaluation/bootstrap.py",
        "models/evaluation/card.py",
        "models/ojala/training.py",
        "models/simulation",
        "pipeline/execution",
        "pipeline/ingest",
        "pipeline/quality",
        "pipeline/report",
        "pipeline/run.py",
        "pipeline/runs/config.py",
        "pipeline/runs/plan.py",
        "pipeline/runs/provenance.py",
        "pipeline/runs/receipts.py",
        "pipeline/runs/record.py",
        "pipeline/runs/region.py",
        "pipeline/runs/releases.py",
        "pipeline/runs/workspace.py",
        "pipeline/storage/code_version.py",
        "pipeline/storage/hats.py",
        "pipeline/storage/lock.py",
    }
)
"""What never runs on a partition's way from photometry to leaf: to change it makes no partition stale.

A module that is not named here counts, so a forgotten one costs time and never mixes numbers.
"""


@functools.cache
def code_version() -> str:
    """Version of the package and a hash over its sources, ``0.1.0+1a2b3c4d5e6f``.

    The hash covers the Python files on which numbers depend, so that a working copy with changes is told
    apart from the release it began as.
    """
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for floor in _FLOORS:
        for file in sorted((root / floor).rglob("*.py")):
            name = file.relative_to(root)
            if APART.isdisjoint([name.as_posix(), *(parent.as_posix() for parent in name.parents)]):
                digest.update(name.as_posix().encode())
                digest.update(file.read_bytes())
    return f"{metadata.version('ojala')}+{digest.hexdigest()[:12]}"


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that matter."""
    return {name: metadata.version(name) for name in PACKAGES}
