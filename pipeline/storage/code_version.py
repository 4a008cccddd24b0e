"""Versions of the code and of the packages that made the numbers."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from importlib import metadata
from importlib.util import find_spec, resolve_name
from pathlib import Path

PACKAGES = ("astropy", "dask", "hats", "healpy", "numpy", "pandas", "prefect", "pyarrow", "torch")
"""Packages whose versions are kept with a run."""


@functools.cache
def code_version(*modules: str) -> str:
    """Version of the program and a hash over modules and all that they import, ``0.1.0+1a2b3c4d5e6f``.

    The hash covers syntax trees without docstrings, comments and layout, so that only a change of the code
    that these modules can run changes it.

    Parameters
    ----------
    *modules : str
        Full names of modules. Imports are followed within their top packages, those inside functions too;
        imports for type checkers alone are not.
    """
    digest = hashlib.sha256()
    for name, tree in sorted(import_closure(*modules).items()):
        digest.update(f"{name}\n{tree}\n".encode())
    return f"{metadata.version('ojala')}+{digest.hexdigest()[:12]}"


def import_closure(*modules: str) -> dict[str, str]:
    """Syntax trees, as text, of modules and all that they import; nothing is imported for it.

    A package on the way to an imported module runs too, but makes no numbers: it is part of the closure only
    where something is imported from it by name.
    """
    packages = {name.partition(".")[0] for name in modules}
    closure: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in closure or name.partition(".")[0] not in packages:
            continue
        if (source := _source(name)) is not None:
            closure[name], imported = _parse(name, *source)
            waiting += imported
    return closure


@functools.cache
def _source(name: str) -> tuple[Path, bool] | None:
    """Source file of a module and whether it is a package; None if there is no such module.

    A parent package is found by its path, since `find_spec` would import it.
    """
    parent, _, last = name.rpartition(".")
    if not parent:
        spec = find_spec(name)
        found = None if spec is None or spec.origin is None else Path(spec.origin)
        return None if found is None else (found, found.name == "__init__.py")
    package = _source(parent)
    if package is None or not package[1]:
        return None
    folder = package[0].parent
    for path in (folder / last / "__init__.py", folder / f"{last}.py"):
        if path.is_file():
            return path, path.name == "__init__.py"
    return None


@functools.cache
def _parse(name: str, path: Path, is_package: bool) -> tuple[str, tuple[str, ...]]:
    """Syntax tree of a module as text, and the modules that it imports."""
    tree = ast.parse(path.read_bytes())
    imported = _imports(_reduce(tree), name if is_package else name.rpartition(".")[0])
    text = ast.dump(tree).replace(", type_params=[]", "")  # a field that Python 3.12 added
    return text, tuple(imported)


def _reduce(tree: ast.AST) -> list[ast.stmt]:
    """Drop docstrings, attribute docstrings, and blocks for type checkers; return the statements that stay.

    Only statements are visited, as expressions hold none: that is a tenth of the tree.
    """
    kept: list[ast.stmt] = []
    for name in _BLOCKS:
        block = getattr(tree, name, [])
        block[:] = [node for node in block if not _makes_nothing(node)]
        for node in block:
            kept += [node] if isinstance(node, ast.stmt) else []
            kept += _reduce(node)
    return kept


_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")
"""Fields of syntax trees with statements, or with handlers and cases, which have some."""


def _makes_nothing(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imports(statements: Iterable[ast.stmt], package: str) -> Iterator[str]:
    """Full names that a module imports; of ``from a import b`` the module ``a.b``, or else ``a``."""
    for node in statements:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            modules = [name for alias in node.names if _source(name := f"{base}.{alias.name}")]
            yield from modules
            if len(modules) < len(node.names):
                yield base


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that matter."""
    return {name: metadata.version(name) for name in PACKAGES}
