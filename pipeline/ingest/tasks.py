"""Tasks of an ingest: functions of a picklable argument, done in any order, whose results are kept in files.

A task that was finished before the process was killed is not done again: its result is read from its file.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError
from upath import UPath

from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.storage.files import is_local, write_whole
from ojala.pipeline.storage.progress import counting

A = TypeVar("A")
R = TypeVar("R")


class Runner(Protocol):
    """Calls a function with many arguments, here or on the workers of an engine."""

    def __call__(self, function: Callable[[A], R], arguments: Sequence[A]) -> Iterator[tuple[int, R]]:
        """Yield the number of each argument with its result, in any order."""


def run_here(function: Callable[[A], R], arguments: Sequence[A]) -> Iterator[tuple[int, R]]:
    """The runner of this process: one call after another."""
    for number, argument in enumerate(arguments):
        yield number, function(argument)


@dataclass(frozen=True, slots=True)
class _Task(Generic[A]):
    """An argument, and the file of its result."""

    path: UPath
    argument: A

    def __str__(self) -> str:
        return str(self.argument)


@dataclass(frozen=True, slots=True)
class _Recorded(Generic[A, R]):
    """A task that writes its result into a file, when all that it made is there."""

    function: Callable[[A], R]
    kind: type[R]

    def __call__(self, task: _Task[A]) -> R:
        require_seen(task.path.parent)
        result = self.function(task.argument)
        write_whole(task.path, TypeAdapter(self.kind).dump_json(result), durable=False)
        return result


def require_seen(folder: UPath) -> None:
    """Refuse to work where a folder of the driver is not there.

    Raises
    ------
    IngestError
        If this process does not see it.
    """
    if is_local(folder) and not folder.is_dir():
        raise IngestError(
            f"the worker on {platform.node()} does not see {folder}: put the catalogue on a file system that "
            "all workers share, under the same path, and name a folder there with --scratch"
        )


def run_tasks(
    run: Runner,
    folder: UPath,
    function: Callable[[A], R],
    tasks: Mapping[str, A],
    kind: type[R],
    *,
    noun: str,
    weights: Mapping[str, float] | None = None,
    note: Callable[[R], str] | None = None,
) -> dict[str, R]:
    """Do all tasks that have not been done, and return the results of all.

    Parameters
    ----------
    run : Runner
        Where they are done.
    folder : UPath
        Folder of the files of results, which all workers see.
    function : callable
        What is done; a function of a module, whose exceptions end all.
    tasks : mapping of str to object
        Arguments by names of files; their texts say in messages what is done.
    kind : type
        Type of a result, a dataclass.
    noun : str
        What is counted while they are done, in the plural.
    weights : mapping of str to float, optional
        How much each of them counts; default: 1.
    note : callable, optional
        Words about a result, for the progress.

    Returns
    -------
    dict of str to object
        Results in the order of the tasks.
    """
    adapter = TypeAdapter[Any](kind)
    results: dict[str, R] = {}
    for name in tasks:
        with suppress(FileNotFoundError, ValidationError):
            results[name] = adapter.validate_json((folder / f"{name}.json").read_bytes())
    waiting = [name for name in tasks if name not in results]
    weight = weights or dict.fromkeys(tasks, 1.0)
    with counting(noun, sum(weight.values())) as meter:
        meter.resume(sum(weight[name] for name in results))
        arguments = [_Task(folder / f"{name}.json", tasks[name]) for name in waiting]
        for number, result in run(_Recorded(function, kind), arguments):
            name = waiting[number]
            results[name] = result
            meter.advance(weight[name], note(result) if note else None)
    return {name: results[name] for name in tasks}
