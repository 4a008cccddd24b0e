"""Atomic writes on local file systems."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"
"""Ending of the names under which files are written before they are renamed."""


def remove_unfinished(folder: Path, name: str = "", *, below: bool = False) -> None:
    """Remove what killed processes left of their writing of files in a folder; nobody may be writing them.

    Parameters
    ----------
    folder : Path
        Folder.
    name : str
        Name of the files, as a pattern; all by default.
    below : bool
        Look in the folders below it, too.
    """
    pattern = f".{name}.*{TEMPORARY}" if name else f".*{TEMPORARY}"
    for stray in (folder.rglob if below else folder.glob)(pattern):
        stray.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name, whole, at the end of the block.

    It is written under a temporary name in the same folder, flushed to the disk and renamed; after an error
    nothing is left of it and an older file stays.

    Parameters
    ----------
    path : Path
        Path of the file; folders are made, an existing file is replaced.
    durable : bool
        Whether it must survive a power failure right after; reproducible files need not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # nothing half-written stays; raised again
        temporary.unlink(missing_ok=True)
        raise
