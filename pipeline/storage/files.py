"""Atomic writes, listing and hashing of files on disks and object stores."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import fsspec.config
from upath import UPath

from ojala.catalogs_schema import files
from ojala.catalogs_schema.errors import AccessError
from ojala.catalogs_schema.files import atomic_file

_S3_LIMITS = {"connect_timeout": 10, "read_timeout": 20}
"""Times that an object store has to answer [s]."""

_S3_ATTEMPTS = 2
"""Attempts at one request; s3fs makes five of such requests."""

_s3 = fsspec.config.conf.setdefault("s3", {}).setdefault("config_kwargs", {})
_s3 |= {name: seconds for name, seconds in _S3_LIMITS.items() if name not in _s3}
if "AWS_MAX_ATTEMPTS" not in os.environ:
    _s3.setdefault("retries", {"total_max_attempts": _S3_ATTEMPTS})


class OutputError(AccessError):
    """The output cannot be written; the message gives the reason and the remedy."""


_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room or raise the quota",
    errno.EROFS: "make it writable or name another folder",
    errno.EACCES: "allow writing there or name another folder",
    errno.EPERM: "allow writing there or name another folder",
}
"""Remedies by error number."""


def write_whole(path: UPath, content: bytes | memoryview, *, durable: bool = True) -> None:
    """Write a file atomically: a reader sees all of it or none.

    On a local file system the content goes to a temporary name beside the file, is flushed to the disk
    and renamed. On an object store it is one request, or a multipart upload that is completed when all its
    parts are there: an object becomes visible only when it is complete.

    Parameters
    ----------
    path : UPath
        Path of the file; folders are made, an existing file is replaced.
    content : bytes or memoryview
        Content of the file.
    durable : bool
        Whether it must survive a power failure right after; reproducible files need not.

    Raises
    ------
    OutputError
        If nothing can be written there: no room, read-only, no permission. Says what to do.
    OSError
        If it cannot be written for another reason; the temporary file is removed in either case.
    """
    with remedies(path):
        if is_local(path):
            with atomic_file(Path(path.path), durable=durable) as file:
                file.write(content)
        else:
            path.fs.pipe_file(path.path, bytes(content))


@contextmanager
def remedies(path: UPath) -> Iterator[None]:
    """Add the remedy to errors of writing in the block.

    Raises
    ------
    OutputError
        In the place of an `OSError` that has a remedy.
    """
    try:
        yield
    except OSError as problem:
        # Object stores' refusals come without a number.
        code = errno.EACCES if isinstance(problem, PermissionError) else problem.errno
        if code in _REMEDIES:
            what = f"{os.strerror(code)}: {_REMEDIES[code]}, then give the same command again"
            raise OutputError(code, what, str(path)) from problem
        raise


def is_local(path: UPath) -> bool:
    """Whether a path lies on a file system of this machine, not on an object store."""
    return path.protocol in ("", "file", "local")


def remove_unfinished(folder: UPath, *, below: bool = True) -> None:
    """Remove temporary files of killed processes in a folder and below it; nobody may be writing there.

    Raises
    ------
    OutputError
        If a file cannot be removed.
    """
    if not is_local(folder):
        return  # an object store shows no object before it is complete
    with remedies(folder):
        files.remove_unfinished(Path(folder.path), below=below)


def sha256_of(path: UPath) -> str:
    """SHA-256 of a file's content, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()


READERS = 16
"""Files that are read at a time from an object store."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """Size and time of change of a file in a listing.

    Attributes
    ----------
    bytes : int
        Size.
    changed : int
        Time of its last change by its file system [ns].
    """

    bytes: int
    changed: int


def list_files(folder: UPath) -> dict[str, FileStat]:
    """All files under a folder by their path in it; empty if there is no such folder.

    One listing, not a question per file.
    """
    if is_local(folder):
        return dict(_local_files(folder.path, ""))
    folder.fs.invalidate_cache()
    root = folder.path.rstrip("/") + "/"
    found: dict[str, dict[str, Any]] = folder.fs.find(folder.path, detail=True)
    return {
        name.removeprefix(root): FileStat(int(info["size"]), _changed(info))
        for name, info in found.items()
        if name.startswith(root) and _is_file_name(name.removeprefix(root))
    }


def file_stat(path: UPath) -> FileStat:
    """Size and time of change of a file; both -1 where there is none."""
    try:
        if is_local(path):
            stat = os.stat(path.path)
            return FileStat(stat.st_size, stat.st_mtime_ns)
        info: dict[str, Any] = path.fs.info(path.path)
        return FileStat(int(info["size"] or 0), _changed(info))
    except FileNotFoundError:
        return FileStat(-1, -1)


def _is_file_name(name: str) -> bool:
    """Whether a key of an object store is a path of files, as a program that knows folders writes it."""
    return all(part not in ("", ".", "..") for part in name.split("/"))


def _local_files(folder: str, prefix: str) -> Iterator[tuple[str, FileStat]]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _local_files(entry.path, f"{prefix}{entry.name}/")
        else:
            stat = entry.stat()
            yield prefix + entry.name, FileStat(stat.st_size, stat.st_mtime_ns)


def _changed(info: dict[str, Any]) -> int:
    """Time of change in an object store's listing, whatever the store calls it [ns]."""
    when = next((info[name] for name in ("LastModified", "mtime", "created") if info.get(name)), None)
    return int(when.timestamp() * 1e9) if isinstance(when, datetime) else int(float(when or 0) * 1e9)


def hash_files(run: UPath, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """SHA-256 of files in a run's folder, in their order; several at a time on an object store."""
    if is_local(run):
        yield from ((name, sha256_of(run / name)) for name in names)
        return
    with ThreadPoolExecutor(READERS) as pool:
        yield from zip(names, pool.map(lambda name: sha256_of(run / name), names), strict=True)


_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)
"""Errors of file systems that cannot link these two names."""


def link_files(source: UPath, target: UPath, groups: Iterable[Sequence[str]]) -> None:
    """Link files of a folder into another one, under the same paths.

    On a local file system they are hard links: the same file under a second name, which costs nothing and
    stays when the other one is removed. Where that is impossible, and on an object store, they are copied.

    Parameters
    ----------
    source, target : UPath
        The folders, on the same store.
    groups : iterable of sequences of str
        Paths in the folder; those of a group in their order, groups side by side.
    """
    if is_local(target):
        for name in itertools.chain.from_iterable(groups):
            _link_file(Path(source.path, name), Path(target.path, name))
        return

    def copy(names: Sequence[str]) -> None:
        for name in names:
            target.fs.cp_file((source / name).path, (target / name).path)

    with ThreadPoolExecutor(READERS) as pool:
        for _ in pool.map(copy, groups):
            pass


def _link_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as problem:
        if problem.errno not in _NO_LINKS:
            raise
        write_whole(UPath(target), source.read_bytes())
        shutil.copystat(source, target)


def utc_now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
