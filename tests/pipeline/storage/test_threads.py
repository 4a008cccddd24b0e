"""A thread that gets no memory is an error, and nobody waits for it without end."""

import subprocess
import sys
import threading

import pytest

from ojala.pipeline.storage import threads
from ojala.pipeline.storage.threads import start

_SWEEP = """
import os, resource, signal, threading
from collections import Counter
from ojala.pipeline.storage import threads

threads.PATIENCE = threads._SLICE = 0.2
stack = 1 << 20
threading.stack_size(stack)
ends = Counter()
for slack in range(stack, stack + (1 << 18), 4096):
    if child := os.fork():
        ends[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])] += 1
        continue
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.alarm(60)
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + slack, size + slack))
    try:
        threads.start(threading.Thread(target=int))
        os._exit(0)
    except MemoryError as problem:
        os._exit(4 if "died" in str(problem) else 3)
print(ends[-signal.SIGALRM], ends[3], ends[4], ends[0])
"""


class Dying(threading.Thread):
    """A thread without memory for its first frame."""

    def _bootstrap(self):
        raise MemoryError


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(threads, "PATIENCE", 0.1)
    monkeypatch.setattr(threads, "_SLICE", 0.05)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_start_of_a_thread_that_dies_at_once_is_an_error(impatient):
    thread = Dying()
    with pytest.raises(MemoryError, match="died before it ran"):
        start(thread)
    assert thread not in threading.enumerate()


def test_a_system_that_gives_no_thread_is_short_of_memory(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_start", refuse)
    with pytest.raises(MemoryError, match="can't start new thread: the limit"):
        start(threading.Thread())


def test_a_thread_starts_once():
    ran = threading.Event()
    thread = threading.Thread(target=ran.set)
    start(thread)
    thread.join()
    assert ran.is_set()
    with pytest.raises(RuntimeError, match="only be started once"):
        start(thread)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_threads_of_libraries_start_in_the_same_way(impatient, monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", threading.Thread.start)
    threads.bound_all_starts()
    with pytest.raises(MemoryError):
        Dying().start()


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS limits the addresses of a process on Linux")
def test_a_start_ends_whatever_memory_is_left():
    done = subprocess.run([sys.executable, "-c", _SWEEP], capture_output=True, text=True, check=True)
    without_end, refused, died, started = map(int, done.stdout.split())
    assert without_end == 0
    assert min(refused + died, started) > 0
