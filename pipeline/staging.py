"""Catalogues are built beside their place and moved there when they are whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from upath import UPath

from pipeline.sources.faults import IngestError


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
    if out.is_dir() and any(out.iterdir()):
        raise IngestError(f"{out} is not empty; name a new folder, or remove it first")


@contextmanager
def staging(out: UPath) -> Iterator[tuple[UPath, UPath]]:
    """Where to build a catalogue, and a local folder for scratch files; moves the first to `out`.

    On an object store there is no folder to move: the catalogue is built in its place, where it cannot be
    opened before its properties, the last thing written, are there.
    """
    if out.protocol in ("", "file", "local"):
        out = out.absolute()
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent.path) as folder:
            root, scratch = UPath(folder) / "catalogue", UPath(folder) / "scratch"
            root.mkdir()
            scratch.mkdir()
            yield root, scratch
            root.rename(out)
        return
    with tempfile.TemporaryDirectory(prefix="ojala-") as folder:
        try:
            yield out, UPath(folder)
        except BaseException:
            if out.exists():
                out.fs.rm(out.path, recursive=True)
            raise
