"""Networks, their training and their predictors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
"""Folder of the weights that come with the program."""


def lazy(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package whose modules are imported when one of their names is used.

    Parameters
    ----------
    package : str
        Name of the package.
    names : mapping of str to str
        ``module:attribute`` in the package for each public name.
    """

    def get(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = names[name].partition(":")
        return getattr(import_module(f"{package}.{module}"), attribute)

    return get
