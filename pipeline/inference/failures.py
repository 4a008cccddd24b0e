"""Why an attempt at a partition failed, and whether another can end otherwise."""

from __future__ import annotations

import enum
import errno

import pyarrow as pa

from ojala.pipeline.storage.files import OutputError
from ojala.pipeline.storage.parquet import ContractError, DamagedInput


class WorkerLost(RuntimeError):
    """A worker that was gone before its partition was done."""


class Cause(enum.StrEnum):
    """Why an attempt failed."""

    WORKER = "worker lost"
    MEMORY = "out of memory"
    TIMEOUT = "timeout"
    STORAGE = "storage"
    OUTPUT = "output"
    DATA = "data"
    PROGRAM = "program"

    @property
    def transient(self) -> bool:
        """Whether another attempt can end otherwise."""
        return self in (Cause.WORKER, Cause.MEMORY, Cause.TIMEOUT, Cause.STORAGE)


_WORDS_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")
"""Messages of torch where it raises a bare RuntimeError."""

_NETWORK_LIBRARIES = {"aiohttp", "aiobotocore", "botocore"}
"""Packages whose exceptions are faults of the way to an object store."""


def cause_of(problem: BaseException) -> Cause:
    """Cause of a failed attempt, from its exception."""
    kinds = [(kind.__module__.partition(".")[0], kind.__name__) for kind in type(problem).__mro__]
    network = any(package in _NETWORK_LIBRARIES for package, _ in kinds)
    match problem:
        case OutputError():
            return Cause.OUTPUT
        case MemoryError():
            return Cause.MEMORY
        case RuntimeError() if ("torch", "OutOfMemoryError") in kinds:
            return Cause.MEMORY
        case RuntimeError() if any(words in str(problem).lower() for words in _WORDS_OF_MEMORY):
            return Cause.MEMORY
        case OSError(errno=errno.ENOMEM):
            return Cause.MEMORY
        case WorkerLost():
            return Cause.WORKER
        case RuntimeError() if ("torch", "AcceleratorError") in kinds:
            return Cause.WORKER  # after such an error a process can do nothing more with its GPU
        case TimeoutError():
            return Cause.TIMEOUT
        case FileNotFoundError() | PermissionError() | IsADirectoryError() | NotADirectoryError():
            return Cause.DATA
        case DamagedInput() | ContractError() | pa.ArrowInvalid():
            return Cause.DATA
        case ConnectionError():
            return Cause.STORAGE
        case OSError(errno=None) if not network:
            return Cause.DATA  # so says pyarrow that a file is no Parquet
        case OSError():
            return Cause.STORAGE
        case _:
            return Cause.STORAGE if network else Cause.PROGRAM
