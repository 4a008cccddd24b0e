"""Drafts: files and folders that are written beside their place, and moved there when they are complete."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

_OWNER = "owner"
"""File in the folder of a draft that its process keeps locked."""


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """Give a path for a file or a folder, which takes its final place, whole, at the end of the block.

    It has the same name, in a folder beside the place, which is removed at the end. Remains of killed
    processes that wrote the same file are removed, too.

    Parameters
    ----------
    path : Path
        Final path; its folder is made. What it names is replaced if it is a file or an empty folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    remove_abandoned(folder, f".{path.name}.")
    try:
        with locked_folder(folder):
            yield folder / path.name
            os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make a folder and keep it locked inside the block, so that no other process removes it.

    Raises
    ------
    BlockingIOError
        If another process has locked it.
    """
    with ExitStack() as stack:
        while True:
            folder.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # another process took the empty folder for an abandoned one
                stack.enter_context(_locked(folder, "ab"))
                break
        yield


def remove_abandoned(own: Path, prefix: str) -> None:
    """Remove the folders of killed processes beside one's own: a prefix, then hexadecimal digits."""
    for folder in own.parent.iterdir():
        if not re.fullmatch(re.escape(prefix) + "[0-9a-f]+", folder.name) or folder == own:
            continue
        with suppress(OSError):  # of a folder that was left empty
            folder.rmdir()
        with suppress(FileNotFoundError, NotADirectoryError, BlockingIOError), _locked(folder, "rb"):
            shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path, mode: Literal["ab", "rb"]) -> Iterator[None]:
    with (folder / _OWNER).open(mode) as owner:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
