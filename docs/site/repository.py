"""Links from pages to files of the repository: the files become pages below ``repository/``."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FOLDER = "repository/"

PAGES = {"README.md": "index.md", "catalogs_schema/DATA_MODEL.md": "reference/data-model.md"}
"""Pages that stand for files of the repository."""

LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[#)])")


def linked_files(pages: Mapping[str, str]) -> dict[str, Path]:
    """Files of the repository that pages link to, and that those link to in turn.

    Parameters
    ----------
    pages : mapping of str to str
        Text by the name of the page in the site.

    Returns
    -------
    dict of str to Path
        File by its name in the site.
    """
    found: dict[str, Path] = {}
    waiting = dict(pages)
    # Files that the navigation names, whether a page links to them or not.
    deploy = [f"deploy/{name}.md" for name in ("README", "RUNBOOK", "SECURITY")]
    for name in (*deploy, "CHANGELOG.md", "CONTRIBUTING.md"):
        found[FOLDER + name] = ROOT / name
        waiting[FOLDER + name] = (ROOT / name).read_text()
    while waiting:
        uri, text = waiting.popitem()
        for _, path in _targets(text, uri):
            place = _place(path)
            if place.startswith(FOLDER) and place not in found:
                found[place] = path
                if path.suffix == ".md":
                    waiting[place] = path.read_text()
    return found


def rewrite_links(text: str, uri: str) -> str:
    """The text of a page with links that hold in the site.

    A link to a folder without README becomes its name.
    """
    for target, path in set(_targets(text, uri)):
        place = posixpath.relpath(_place(path), posixpath.dirname(uri) or ".")
        text = re.sub(rf"(?<=\]\(){re.escape(target)}(?=[#)])", place, text)
    return re.sub(r"\[([^\]]+)\]\(([^)\s#:]+)\)", lambda m: _unlink(m, uri), text)


def _unlink(link: re.Match[str], uri: str) -> str:
    path = _resolve(link[2], uri)
    return link[1] if path is not None and path.is_dir() else link[0]


def _targets(text: str, uri: str) -> Iterator[tuple[str, Path]]:
    """Links of a page to files outside of the documentation's folder, as written and resolved."""
    for target in LINK.findall(text):
        path = _resolve(target, uri)
        if path is not None and path.is_dir() and (path / "README.md").is_file():
            path /= "README.md"
        if path is not None and path.is_file():
            own = path.is_relative_to(ROOT / "docs")
            if not own or uri.startswith(FOLDER):
                yield target, path


def _resolve(target: str, uri: str) -> Path | None:
    """File or folder of the repository that a link of a page names; None where it is something else."""
    source = ROOT / uri.removeprefix(FOLDER) if uri.startswith(FOLDER) else ROOT / "docs" / uri
    if ":" in target:
        return None
    path = (source.parent / target).resolve()
    return path if path.exists() and path.is_relative_to(ROOT) and path != ROOT else None


def _place(path: Path) -> str:
    """Name in the site of a file of the repository."""
    name = path.relative_to(ROOT).as_posix()
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return PAGES.get(name, FOLDER + name)
