"""Lock files: one process at a time works on a product of a collection, or publishes a release.

A lock is a small file that names its holder. On the same machine, the holder is alive while its process is,
whatever the clocks say; on another machine, until its heartbeat is watched for a while and does not change.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from ojala.catalogs_schema.errors import ExitCode, OjalaError
from ojala.pipeline.storage.files import is_local, remedies, utc_now, write_whole
from ojala.pipeline.storage.threads import start

try:
    import fcntl
except ImportError:  # not on this system: two takeovers at the same moment are not distinguished
    fcntl = None  # type: ignore[assignment]  # then guarded by "if fcntl"

HEARTBEAT = 15.0
"""Seconds between two signs of life."""

LIMIT = 120.0
"""Seconds without one after which the owner on another machine is watched, and then taken for dead."""

GUARD_TIMEOUT = 90.0
"""Time that another process may take to judge a lock [s]; it watches the heartbeat of an owner meanwhile."""

LOCKS = "locks"
"""Folder of a collection's locks; where there is nothing else, there is nothing yet."""

POINTER = "collection"
"""Name of the lock under which the collection's pointer is turned."""

_log = logging.getLogger(__name__)


class LockedError(OjalaError, ValueError):
    """Another process holds the lock; the message names it, its start and its machine."""

    exit_code = ExitCode.LOCKED


class LockLost(LockedError):
    """Another process took this lock over, since this one gave no sign of life for long."""


class Holder(BaseModel):
    """Who holds a lock."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(description="locked object: a product, or the collection's pointer")
    run_id: str = Field(default="", description="the run that is worked on, once it is known")
    host: str = Field(description="machine")
    pid: int = Field(description="process")
    process: str = Field(description="start of the process; a later one with the same number has another")
    machine: str = Field(description="identifier of the machine or container, as names are not unique")
    since: str = Field(description="UTC time at which the lock was taken")
    token: str = Field(description="random; whoever reads back another one has lost the lock")
    beat: str = Field(default="", description="random; changes with every heartbeat on an object store")

    def __str__(self) -> str:
        what = f"run {self.run_id}" if self.run_id else "a command that is looking what there is to do"
        return f"{what} (process {self.pid} on {self.host}, since {self.since})"


class Lock:
    """A lock that is held."""

    def __init__(self, path: UPath, holder: Holder) -> None:
        self._path = path
        self._holder = holder
        self._writing = threading.RLock()  # who ends the process may interrupt its holder
        self._ended = False

    @property
    def run_id(self) -> str:
        """The run that is worked on under the lock; empty while it is not known."""
        return self._holder.run_id

    def tell(self, run_id: str) -> None:
        """Write into the lock which run is worked on."""
        with self._writing:
            self.check()
            self._holder = self._holder.model_copy(update={"run_id": run_id})
            _store(self._path, self._holder)

    def check(self) -> None:
        """Make sure that the lock is still ours.

        Raises
        ------
        LockLost
            If it is not.
        """
        present = read_holder(self._path)
        if present is None or present.token != self._holder.token:
            raise LockLost(
                f"the lock {self._path} is no longer ours, it is held by {present or 'nobody'}: this process "
                "was silent for too long and was taken for dead; it stops here"
            )

    def release(self) -> None:
        """Give the lock back."""
        self._ended = True
        with self._writing:
            present = read_holder(self._path)
            if present is not None and present.token == self._holder.token:
                with suppress(FileNotFoundError):
                    self._path.unlink()

    def beat(self) -> None:
        """Give a sign of life, unless the lock is lost."""
        with self._writing:
            present = read_holder(self._path)
            if self._ended or present is None or present.token != self._holder.token:
                return
            if is_local(self._path):
                os.utime(self._path.path)
            else:
                self._holder = self._holder.model_copy(update={"beat": secrets.token_hex(4)})
                _store(self._path, self._holder)


_held: list[Lock] = []
"""The locks of this process, for the one who ends it."""


def held() -> list[Lock]:
    """The locks that this process holds."""
    return list(_held)


class _Heartbeat:
    """The thread that gives signs of life for all locks of this process, from the first one on."""

    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start it where it is not running, as after a fork.

        Raises
        ------
        MemoryError
            If there is no memory for it.
        """
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name="locks", daemon=True)
            start(thread)
            self._thread = thread

    def _run(self) -> None:
        never = threading.Event()  # its wait survives a clock that jumps, `time.sleep` raises OSError then
        while not never.wait(HEARTBEAT):
            for lock in held():
                with suppress(Exception):  # one beat may be missed; `Lock.check` notices a lost lock
                    lock.beat()


_heartbeat = _Heartbeat()


@contextmanager
def hold(out: UPath, name: str, *, wait: float = 0.0) -> Iterator[Lock]:
    """Hold a lock of a collection inside the block.

    Parameters
    ----------
    out : UPath
        Root of the collection.
    name : str
        What to lock: the main product of a run, or `POINTER`.
    wait : float
        How long to wait for another one who holds it [s].

    Raises
    ------
    LockedError
        If another living process holds it; names the run, the machine and its start.
    """
    path = out / LOCKS / f"{name}.lock"
    _heartbeat.start()
    lock = Lock(path, _acquire(path, name, wait))
    _held.append(lock)
    try:
        yield lock
    finally:
        _held.remove(lock)
        lock.release()


def read_holder(path: UPath) -> Holder | None:
    """Owner of a lock; None if it is free or its file cannot be read."""
    try:
        return Holder.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def living_holder(out: UPath, name: str) -> Holder | None:
    """Owner of the lock as far as known without waiting; for lists of runs."""
    path = out / LOCKS / f"{name}.lock"
    holder = read_holder(path)
    if holder is None or (holder.machine == _machine() and not _process_lives(holder)):
        return None
    return holder


def _acquire(path: UPath, name: str, wait: float) -> Holder:
    mine = Holder(
        name=name,
        host=platform.node(),
        pid=os.getpid(),
        process=_process_mark(os.getpid()),
        machine=_machine(),
        since=utc_now(),
        token=secrets.token_hex(8),
    )
    deadline = time.monotonic() + wait
    while True:
        with remedies(path), _guarded(path):
            if _create(path, mine):
                _remove_drafts(path)
                return mine
            other = read_holder(path)
            if other is None and path.exists():
                _log.warning("lock %s does not name its owner; taken over", path)
                _store(path, mine)
                return mine
            if other is not None and not _lives(path, other):
                _log.warning("lock %s was held by %s, which is dead; taken over", path, other)
                _remove_drafts(path)
                _store(path, mine)
                return mine
        if read_holder(path) is not None and time.monotonic() >= deadline:
            raise LockedError(
                f"{name} is locked by {other}: wait for it, or end it there; if that machine is gone for "
                f"good, remove {path}"
            )
        time.sleep(0.05)


def _create(path: UPath, mine: Holder) -> bool:
    """Write the lock if there is none; return whether it was written."""
    content = mine.model_dump_json(indent=1).encode()
    if not is_local(path):
        return _create_object(path, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(f"{path.path}.{mine.token}")
    try:
        draft.write_bytes(content)
        try:
            os.link(draft, path.path)  # with its content, or not at all
        except FileExistsError:
            return False
        except OSError as problem:
            if problem.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            try:
                with open(path.path, "xb") as file:
                    file.write(content)
            except FileExistsError:
                return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def _remove_drafts(path: UPath) -> None:
    """Remove what killed processes left of their writing of a lock; under its guard nobody else writes it."""
    if is_local(path) and fcntl is not None:
        lock = Path(path.path)
        for stray in (*lock.parent.glob(f".{lock.name}.*"), *lock.parent.glob(f"{lock.name}.*")):
            if stray.suffix != ".guard":
                stray.unlink(missing_ok=True)


def _create_object(path: UPath, content: bytes) -> bool:
    """Conditional put where the store knows it; else look, write, and read back who was the last."""
    path.fs.invalidate_cache()
    if path.exists():
        return False
    try:
        path.fs.pipe_file(path.path, content, mode="create")
    except FileExistsError:
        return False
    except NotImplementedError:
        path.fs.pipe_file(path.path, content)
    return path.read_bytes() == content


def _store(path: UPath, holder: Holder) -> None:
    write_whole(path, holder.model_dump_json(indent=1).encode(), durable=False)


def _lives(path: UPath, other: Holder) -> bool:
    if other.machine == _machine():
        return _process_lives(other)
    age = _age(path)
    if age is None or age <= LIMIT:
        return True
    # Clocks may jump: the heartbeat is watched before its owner is called dead.
    before = _pulse(path)
    time.sleep(2 * HEARTBEAT)
    return _pulse(path) != before


def _process_lives(other: Holder) -> bool:
    try:
        return psutil.pid_exists(other.pid) and _process_mark(other.pid) == other.process
    except psutil.NoSuchProcess:
        return False


def _process_mark(pid: int) -> str:
    """Start of a process in ticks of the kernel, where there are any: no change of the clock moves them."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            raise psutil.NoSuchProcess(pid) from None
        return repr(psutil.Process(pid).create_time())
    state, *rest = stat.rpartition(")")[2].split()
    if state in "ZX":
        raise psutil.NoSuchProcess(pid)
    return rest[18]


def _machine() -> str:
    """Host, boot and process namespace: where a process number means the same process."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _pulse(path: UPath) -> object:
    """Something that changes with every heartbeat; None if the lock is gone."""
    try:
        return (os.stat(path.path).st_mtime_ns if is_local(path) else path.read_bytes(), read_holder(path))
    except FileNotFoundError:
        return None


def _age(path: UPath) -> float | None:
    """Seconds since the last heartbeat by the clock of the file system itself; None if the lock is gone."""
    probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if is_local(path):
            Path(probe.path).touch()
            return os.stat(probe.path).st_mtime - os.stat(path.path).st_mtime
        probe.write_bytes(b"")
        path.fs.invalidate_cache()
        return float((path.fs.modified(probe.path) - path.fs.modified(path.path)).total_seconds())
    except FileNotFoundError:
        return None
    finally:
        probe.unlink(missing_ok=True)


@contextmanager
def _guarded(path: UPath) -> Iterator[None]:
    """Let one process at a time judge a lock, as far as the file system has locks of its own."""
    if fcntl is None or not is_local(path):
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    guard: IO[bytes]
    with open(f"{path.path}.guard", "wb") as guard:
        _lock_guard(guard)
        yield


def _lock_guard(guard: IO[bytes]) -> None:
    deadline = time.monotonic() + GUARD_TIMEOUT
    while True:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockedError(
                    f"{guard.name} has been held by another process for {GUARD_TIMEOUT:g} s, which stands "
                    "still while it takes the lock: let it go on or end it, then give the same command again"
                ) from None
            time.sleep(0.05)
        except OSError:  # a file system without such locks
            return
        else:
            return
