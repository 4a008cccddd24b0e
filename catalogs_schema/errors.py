"""Errors that a user can act on; every other exception is a fault of the program."""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class ExitCode(enum.IntEnum):
    """Exit codes of the command line, by the kind of the outcome."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INPUT = 3
    INCOMPLETE = 4
    REFUSED = 5
    LOCKED = 6
    ACCESS = 7
    FAULT = 70
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """Meaning in one phrase, as in the documentation."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "everything that was asked for is done and whole",
    ExitCode.FAILED: "the request cannot be met as things stand, or `verify` found damage",
    ExitCode.USAGE: "wrong call: an option, a setting or a region",
    ExitCode.INPUT: "bad input: a file, a catalogue or a model that cannot be used",
    ExitCode.INCOMPLETE: "the run ended without some partitions; the same command retries them",
    ExitCode.REFUSED: "a quality gate keeps the run from being published",
    ExitCode.LOCKED: "another process is at work on the product",
    ExitCode.ACCESS: "a file, disk, object store, Prefect server or cluster cannot be reached or used",
    ExitCode.FAULT: "a fault of the program; its traceback is shown",
    ExitCode.INTERRUPTED: "Ctrl-C or SIGTERM",
}


class OjalaError(Exception):
    """An error whose message states what happened, why, and what to do.

    The command line shows it in one line. Every other exception is a fault of the program and is shown with
    its traceback.

    Attributes
    ----------
    exit_code : ExitCode
        Exit code of a command that ends with it.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class InputError(OjalaError, ValueError):
    """A file, a setting or an option that cannot be used."""

    exit_code = ExitCode.INPUT


class AccessError(OjalaError, OSError):
    """A file or a server that cannot be reached, or a disk that takes no more."""

    exit_code = ExitCode.ACCESS


_REFUSALS = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ConnectionError,
)
_STORE_LIBRARIES = {"aiobotocore", "aiohttp", "botocore"}
_REFUSAL_NUMBERS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE),
    *(errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG),
)


@contextmanager
def access_errors() -> Iterator[None]:
    """Convert refusals of the operating system, of a network and of an object store.

    Raises
    ------
    AccessError
        In place of an `OSError` that names a missing file, a missing permission, a full disk or a failed
        connection, of the exceptions of botocore and aiohttp (endpoint, credentials, bucket, timeouts, a
        store that is busy), also where s3fs made an `OSError` of them, and of a `MemoryError`. Other
        exceptions pass.
    """
    try:
        yield
    except OjalaError:
        raise
    except MemoryError as problem:
        raise AccessError(
            f"this process gets no more memory ({_text(problem)}): raise its limit, take fewer workers or a "
            "smaller batch, then give the same command again"
        ) from problem
    except Exception as problem:  # what is no fault of access is raised again
        refused = isinstance(problem, _REFUSALS) or getattr(problem, "errno", None) in _REFUSAL_NUMBERS
        answer = _of_store(problem)
        if refused or isinstance(problem, TimeoutError) or answer is problem:
            name, reason = getattr(problem, "filename", None), getattr(problem, "strerror", None)
            raise AccessError(f"{name}: {reason}" if name and reason else _text(problem)) from problem
        if answer is not None and isinstance(problem, OSError):
            raise AccessError(f"{_text(answer)}; give the same command again") from problem
        raise


def _of_store(problem: BaseException | None) -> BaseException | None:
    """The exception of an object store's library that another one was raised from."""
    while problem is not None:
        libraries = {kind.__module__.partition(".")[0] for kind in type(problem).__mro__}
        if libraries & _STORE_LIBRARIES:
            return problem
        problem = problem.__cause__
    return None


def _text(problem: BaseException) -> str:
    """Message of an exception; its kind where it has none, as timeouts often have not."""
    return str(problem) or f"no answer in time ({type(problem).__name__})"
