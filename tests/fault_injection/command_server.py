"""Commands of the program in processes that are forked from one that has imported it.

A command can be given a fault, which is done to it from within, just before the n-th time that it opens a
file of a folder for writing, or makes, renames, links or removes one. Signals, limits of the kernel and a
stop at such a step are the same at each repetition, as no clock and no other process takes part. Workers of
the engine ``local`` count steps of their own, see `watch_worker`.

Run as a script this module is the process that forks: it reads orders, one JSON object a line, and answers
each with one.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

WORKER_FAULT = "OJALA_TEST_WORKER_FAULT"
"""Variable with the fault of a worker as JSON: kind, step, watched folder, and a file that is made by it."""

_CHANGES = ("os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.symlink")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

PRELOADED = (
    "hats.io.skymap",
    "hats.io.validation",
    "ojala.flows.cli.app",
    "ojala.flows.cli.ingest",
    "ojala.flows.cli.run",
    "ojala.flows.cli.validate",
    "ojala.flows.release",
    "ojala.pipeline.execution.dispatcher",
    "ojala.pipeline.ingest.photometry",
    "ojala.pipeline.quality.verify",
    "ojala.pipeline.runs.qp_export",
    "ojala.pipeline.runs.region",
    "ojala.models.ojala.predictor",
    "prov.serializers.provjsonld",
    "prov.serializers.provn",
    "prov.serializers.provxml",
)


def _limit(what: int, value: int) -> None:
    resource.setrlimit(what, (value, value))


def _withhold_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _limit(resource.RLIMIT_AS, size)


def _withhold_descriptors() -> None:
    _limit(resource.RLIMIT_NOFILE, len(os.listdir("/proc/self/fd")) - 1)


def _kill_driver() -> None:
    """From a worker: its parent forks the workers, and that one's parent is the driver."""
    forks = Path(f"/proc/{os.getppid()}/stat").read_text()
    os.kill(int(forks.rpartition(")")[2].split()[1]), signal.SIGKILL)


FAULTS: Mapping[str, Callable[[], object]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGINT": lambda: os.kill(os.getpid(), signal.SIGINT),
    "SIGSTOP": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "limit of memory": _withhold_memory,
    "limit of open files": _withhold_descriptors,
    "limit of file size": lambda: _limit(resource.RLIMIT_FSIZE, 1024),
    "SIGKILL of the forkserver": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "SIGKILL of the driver": _kill_driver,
    "SIGKILL of the process group": lambda: os.killpg(0, signal.SIGKILL),
}
"""What a process can do to itself and to those around it."""


def watch(folders: Sequence[str], count: Callable[[], int], step: int, fault: Callable[[], object]) -> None:
    """Do something at the n-th step at files of some folders."""
    prefixes = tuple(folders)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & _WRITING:
                return
        elif event not in _CHANGES:
            return
        paths = [path for path in map(_text, arguments[:2]) if isinstance(path, str)]
        if any(path.startswith(prefixes) for path in paths) and count() == step:
            fault()

    sys.addaudithook(hook)


def _text(path: object) -> object:
    return os.fsdecode(path) if isinstance(path, bytes | os.PathLike) else path


def watch_worker() -> None:
    """Let a worker do its fault; Dask imports this module in each, see `CommandServer.give`."""
    fault = json.loads(os.environ[WORKER_FAULT])
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return steps

    def once() -> None:
        with suppress(FileExistsError):
            os.close(os.open(fault["done"], os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            FAULTS[fault["kind"]]()

    watch([fault["folder"]], count, fault["step"], once)


class CommandServer:
    """The process that forks, from the outside.

    Parameters
    ----------
    clock : Path, optional
        File with an offset for libfaketime, such as ``+3d``, which moves the clock of all commands as soon as
        it is written; None for the true clock.
    library : str
        The library of libfaketime.
    modules : sequence of str
        Further modules to import before.
    """

    def __init__(self, clock: Path | None = None, library: str = "", modules: Sequence[str] = ()) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        if clock is not None:
            clock.write_text("+0\n")
            environment |= {
                "LD_PRELOAD": library,
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        self._process = subprocess.Popen(
            [sys.executable, __file__, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def close(self) -> None:
        """End the process; commands that still run are not touched."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def give(
        self,
        words: Sequence[object],
        log: Path,
        folders: Sequence[Path],
        step: int,
        fault: str,
        **environment: str,
    ) -> int:
        """Start a command with a fault at a step, its output in a log; returns the process' number."""
        return int(
            self._ask(
                words=[str(word) for word in words],
                log=str(log),
                folders=[str(folder) for folder in folders],
                step=step,
                fault=fault,
                environment=environment,
            )["pid"]
        )

    def state(self, pid: int) -> int | str | None:
        """Exit code of a command, negative where a signal ended it; ``stopped``; None while it runs."""
        return self._ask(state=pid)["state"]

    def _ask(self, **order: object) -> dict:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def steps_of(log: Path) -> int:
    """Steps at files that a command has made so far."""
    return int.from_bytes(log.with_suffix(".steps").read_bytes()[:8], "little")


def _serve() -> None:
    import importlib

    import numpy as np

    for name in (*PRELOADED, *sys.argv[1:]):
        importlib.import_module(name)
    from ojala.pipeline.inference.adapters.registry import ADAPTERS
    from ojala.pipeline.inference.products.emission_lines import luminosity_distance
    from ojala.pipeline.ingest.photometry import CODE
    from ojala.pipeline.storage.code_version import code_version

    # What each command would work out anew.
    _ = ADAPTERS["ojala"].code_version, code_version(*CODE), luminosity_distance(np.ones(1))
    for line in sys.stdin:
        order = json.loads(line)
        if "state" in order:
            pid, status = os.waitpid(order["state"], os.WNOHANG | os.WUNTRACED)
            state = (
                None if not pid else "stopped" if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)
            )
            answer = {"state": state}
        else:
            pid = os.fork()
            if pid == 0:
                _carry_out(**order)
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)


def _carry_out(
    words: list[str], log: str, folders: list[str], step: int, fault: str, environment: dict[str, str]
) -> None:
    """Carry a command out in this process, and end it."""
    code: object = 70
    try:
        os.setsid()
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        with Path(log).with_suffix(".steps").open("w+b") as file:
            file.write(bytes(mmap.PAGESIZE))
            file.flush()
            steps = ctypes.c_int64.from_buffer(mmap.mmap(file.fileno(), mmap.PAGESIZE))

        def count() -> int:
            steps.value += 1
            return steps.value

        watch(folders, count, step, FAULTS.get(fault, int))
        sys.argv = sys.orig_argv = ["ojala", *words]
        from ojala.flows.cli import main
        from ojala.pipeline import run

        if "OJALA_TEST_REPORT" not in os.environ:
            run.write_report = lambda *of_the_run: None  # it takes most of the time of a small run
        main()
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - the process ends here
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _serve()
elif WORKER_FAULT in os.environ:
    watch_worker()
