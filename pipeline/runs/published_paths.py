"""Paths by which readers that do not know HATS find published leaves: links, and a list of them."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from upath import UPath

from ojala.pipeline.storage.files import is_local, write_whole
from ojala.pipeline.storage.hats import read_leaves

PUBLISHED = "published"
"""Folder of a collection that holds a link to the published catalogue of each product, on a disk."""

MANIFEST = "published.json"
"""File of a collection that lists the leaves of each published product."""

NAMED = "releases"
"""Folder of a collection that holds a link to the run of each named release, on a disk."""


_WITHOUT_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Errors of a file system that has no links."""


def prepare_links(out: UPath, runs: Mapping[str, str]) -> Path | None:
    """Make the links of a release beside those of the present one, for `write_published`.

    Parameters
    ----------
    out : UPath
        Root of the collection.
    runs : mapping of str to str
        Run of each product.

    Returns
    -------
    Path or None
        Link that is to take the place of `PUBLISHED`; None on a store, or a file system without links.

    Raises
    ------
    OSError
        If they cannot be made for another reason, such as a full disk.
    """
    if not is_local(out):
        return None
    folder = Path(out.path, f".{PUBLISHED}-{secrets.token_hex(4)}")
    link = folder.with_name(f"{folder.name}.link")
    try:
        folder.mkdir()
        for product, catalogue in _catalogues(runs).items():
            (folder / product).symlink_to(Path("..") / catalogue)
        link.symlink_to(folder.name)
    except OSError as problem:
        shutil.rmtree(folder, ignore_errors=True)
        if problem.errno in _WITHOUT_LINKS:  # the manifest is there
            return None
        raise
    return link


def _catalogues(runs: Mapping[str, str]) -> dict[str, str]:
    """Catalogue of each product, relative to the collection."""
    return {product: f"runs/{run_id}/{product}" for product, run_id in sorted(runs.items())}


def write_published(
    out: UPath, runs: Mapping[str, str], names: Mapping[str, str], links: Path | None = None
) -> None:
    """Name the published leaves for readers that do not know HATS; nothing is done where they are named.

    `MANIFEST` holds, by product, the run and the paths of its leaves relative to the collection; it is
    replaced in one step. On a disk, `PUBLISHED` is a link to a folder with a link to each product's catalogue
    and is replaced in one step, too: ``published/ojala/dataset/**/*.parquet`` are the leaves of one release.

    Parameters
    ----------
    out : UPath
        Root of the collection.
    runs : mapping of str to str
        Published run of each product.
    names : mapping of str to str
        Names of releases by run.
    links : Path, optional
        From `prepare_links` of the same runs, which are made here otherwise.
    """
    catalogues = _catalogues(runs)
    if read_published(out) != catalogues or _named(out) != {p: names.get(run) for p, run in runs.items()}:
        links = links or prepare_links(out, runs)
        if links is not None:
            published = Path(out.path, PUBLISHED)
            if published.is_dir() and not published.is_symlink():  # a copy that followed links
                published.rename(links.with_suffix(".copy"))
            os.replace(links, published)
        manifest = {
            product: {
                "run": runs[product],
                "release": names.get(runs[product]),
                "catalogue": catalogue,
                "leaves": [f"{catalogue}/{leaf.path}" for leaf in read_leaves(out / catalogue).values()],
            }
            for product, catalogue in catalogues.items()
        }
        write_whole(out / MANIFEST, json.dumps(manifest, indent=1).encode())
    if is_local(out):
        _remove_unused_links(Path(out.path))


def read_published(out: UPath) -> dict[str, str]:
    """Catalogue of each product, relative to the collection, that `MANIFEST` and the links name; else empty.

    A manifest that cannot be read, or that differs from the links, names nothing.
    """
    try:
        manifest = json.loads((out / MANIFEST).read_text())
        named = {str(product): str(entry["catalogue"]) for product, entry in manifest.items()}
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    links = Path(out.path, PUBLISHED)
    if is_local(out) and links.is_symlink():
        root = Path(out.path).resolve()
        linked = {link.name: os.path.relpath(link.resolve(), root) for link in links.iterdir()}
        return named if linked == named else {}
    return named


def _named(out: UPath) -> dict[str, str | None]:
    """Names of the releases by product in `MANIFEST`, as read by `read_published`."""
    manifest = json.loads((out / MANIFEST).read_text()) if (out / MANIFEST).exists() else {}
    return {product: entry.get("release") for product, entry in manifest.items()}


def link_name(out: UPath, run_id: str, name: str | None) -> None:
    """Link the run of a named release; on a store without links the manifest alone has the name."""
    if name is None or not is_local(out):
        return
    link = Path(out.path, NAMED, name)
    if link.is_symlink() or link.exists():
        return
    draft = link.with_name(f".{name}-{secrets.token_hex(4)}")
    with suppress(OSError):  # a file system without links
        link.parent.mkdir(exist_ok=True)
        for abandoned in link.parent.glob(f".{name}-*"):
            abandoned.unlink()
        draft.symlink_to(Path("..", "runs", run_id))
        os.replace(draft, link)


def _remove_unused_links(out: Path) -> None:
    """Remove the links of former releases, and those of killed processes."""
    used = (out / PUBLISHED).resolve().name
    with suppress(OSError):
        for folder in out.glob(f".{PUBLISHED}-*"):
            if folder.is_symlink():
                folder.unlink()
            elif folder.name != used:
                shutil.rmtree(folder)
