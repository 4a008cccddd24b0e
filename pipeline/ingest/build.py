"""Catalogues are built beside their place and moved there when they are whole."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from upath import UPath

from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.storage.files import is_local, write_whole
from ojala.pipeline.storage.lock import LOCKS, hold

_OWNER = "owner"
"""File in a folder where a catalogue is built that its process keeps locked."""

_UNFINISHED = "ingest.unfinished"
"""Object that lies in a catalogue as long as it is built in its place."""


def check_request(files: Sequence[UPath], out: UPath, tile_rows: int) -> None:
    """Refuse what cannot become a catalogue, before anything is read.

    Raises
    ------
    IngestError
        If no file is named or one twice, a leaf should have no rows, or `out` is not new or empty.
    """
    if not files:
        raise IngestError("no files were named")
    if tile_rows < 1:
        raise IngestError(f"a leaf cannot have {tile_rows} rows at most: ask for 1 or more")
    paths = [str(file.absolute()) for file in files]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise IngestError(f"{twice} is named twice")
    if out.is_file():
        raise IngestError(f"{out} is a file; name a folder for the catalogue")
    if out.is_dir() and any(entry.name != LOCKS for entry in out.iterdir()) and not _unfinished(out):
        raise IngestError(f"{out} is not empty; name a new folder, or remove it first")


@contextmanager
def staging(out: UPath) -> Iterator[tuple[UPath, UPath]]:
    """Where to build a catalogue, and a local folder for scratch files; moves the first to `out`.

    On an object store there is no folder to move: the catalogue is built in its place, where it cannot be
    opened before its properties, the last thing written, are there. What a process that was killed left
    there, or beside a local `out`, is removed.

    Raises
    ------
    LockedError
        If another process is building a catalogue in the same place of an object store.
    """
    yield from _beside(out.absolute()) if is_local(out) else _in_place(out)


def _beside(out: UPath) -> Iterator[tuple[UPath, UPath]]:
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(out)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent.path) as folder:
        draft = Path(folder) / f"{_OWNER}.new"
        with draft.open("wb") as owner:
            # Held as long as this process lives. Whoever finds the file under its name finds it held.
            fcntl.flock(owner, fcntl.LOCK_EX)
            draft.rename(draft.with_name(_OWNER))
            root, scratch = UPath(folder) / "catalogue", UPath(folder) / "scratch"
            root.mkdir()
            scratch.mkdir()
            yield root, scratch
            root.rename(out)


def _remove_abandoned(out: UPath) -> None:
    """Remove the folders of processes that were killed while they built a catalogue for `out`."""
    for folder in Path(out.parent.path).iterdir():
        if not folder.name.startswith(f".{out.name}."):
            continue
        with suppress(FileNotFoundError, BlockingIOError), (folder / _OWNER).open("rb") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)


def _in_place(out: UPath) -> Iterator[tuple[UPath, UPath]]:
    with hold(out, "ingest"), tempfile.TemporaryDirectory(prefix="ojala-") as folder:
        _empty(out)
        write_whole(out / _UNFINISHED, b"A catalogue is being built here; this file is removed at its end.\n")
        try:
            yield out, UPath(folder)
        except BaseException:
            _empty(out)
            raise
        (out / _UNFINISHED).unlink()


def _unfinished(out: UPath) -> bool:
    """Whether a process was killed while it built a catalogue in its place."""
    return (out / _UNFINISHED).exists() and not (out / "hats.properties").exists()


def _empty(out: UPath) -> None:
    """Remove all objects of an unfinished catalogue but locks, its mark last."""
    out.fs.invalidate_cache()
    locks, mark = (out / LOCKS).path + "/", (out / _UNFINISHED).path
    files = [file for file in out.fs.find(out.path) if not file.startswith(locks) and file != mark]
    if files:
        out.fs.rm(files)
    (out / _UNFINISHED).unlink(missing_ok=True)
