"""Which code and which packages made the numbers."""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path

PACKAGES = ("astropy", "dask", "hats", "healpy", "numpy", "pandas", "prefect", "pyarrow", "torch")
"""Packages whose versions are kept with a run."""

_FLOORS = ("catalogs_schema", "models", "pipeline")


@functools.cache
def code_version() -> str:
    """Version of the package and a hash over its sources, ``0.1.0+1a2b3c4d5e6f``.

    The hash covers the Python files of the floors on which numbers depend, so that a working copy with
    changes is told apart from the release it began as.
    """
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for floor in _FLOORS:
        for file in sorted((root / floor).rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(file.read_bytes())
    return f"{metadata.version('ojala')}+{digest.hexdigest()[:12]}"


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that matter."""
    return {name: metadata.version(name) for name in PACKAGES}
