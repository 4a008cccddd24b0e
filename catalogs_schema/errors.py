"""Errors that a user can act on; every other exception is a fault of the program."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class OjalaError(Exception):
    """An error whose message says what happened, why, and what to do.

    The command line shows it in one line. Every other exception is a fault of the program and is shown with
    its traceback.
    """


class InputError(OjalaError, ValueError):
    """A file, a setting or an option that cannot be used."""


class AccessError(OjalaError, OSError):
    """A file or a server that cannot be reached, or a disk that takes no more."""


_REFUSALS = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ConnectionError,
)
_REFUSAL_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENAMETOOLONG)


@contextmanager
def access_errors() -> Iterator[None]:
    """Convert refusals of the operating system, of a network and of an object store.

    Raises
    ------
    AccessError
        In place of an `OSError` that names a missing file, a missing permission, a full disk or a failed
        connection, and of the exceptions of botocore (endpoint, credentials, bucket). Other exceptions pass.
    """
    try:
        yield
    except OjalaError:
        raise
    except Exception as problem:
        refused = isinstance(problem, _REFUSALS) or getattr(problem, "errno", None) in _REFUSAL_NUMBERS
        if refused or type(problem).__module__.startswith("botocore."):
            name, reason = getattr(problem, "filename", None), getattr(problem, "strerror", None)
            raise AccessError(f"{name}: {reason}" if name and reason else str(problem)) from problem
        raise
