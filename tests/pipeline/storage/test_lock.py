"""One at a time: who holds a lock, what a dead owner leaves, and what a clock may not do."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from upath import UPath

from ojala.pipeline.storage import lock as locks
from ojala.pipeline.storage.lock import LockedError, LockLost, held, hold, living_holder, read_holder
from tests.helpers.pace import scaled, until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]

_HOLD = """
import sys, time
from upath import UPath
from ojala.pipeline.storage.lock import hold
with hold(UPath(sys.argv[1]), "ojala") as lock:
    lock.tell("r1")
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def out(tmp_path):
    return UPath(tmp_path)


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def file_of(out):
    return out / "locks" / "ojala.lock"


def rewrite(out, **changes):
    facts = json.loads(file_of(out).read_text())
    file_of(out).write_text(json.dumps(facts | changes))


def test_a_lock_says_who_holds_it_and_is_gone_afterwards(out):
    with hold(out, "ojala") as lock:
        lock.tell("r7")
        holder = read_holder(file_of(out))
        assert (holder.run_id, holder.pid) == ("r7", os.getpid())
        assert living_holder(out, "ojala") == holder
        assert held() == [lock]
    assert not file_of(out).exists()
    assert held() == []


def test_the_second_is_told_which_run_holds_the_lock_where_and_since_when(out, other):
    since = re.escape(read_holder(file_of(out)).since)
    with pytest.raises(LockedError, match=rf"run r1 \(process {other.pid} on .*, since {since}\)"):
        hold(out, "ojala").__enter__()


def test_products_are_locked_apart(out, other):
    with hold(out, "spectra"):
        pass


def test_the_lock_of_a_killed_process_is_taken_over_and_that_is_said(out, other, caplog):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert living_holder(out, "ojala") is None
    with hold(out, "ojala") as lock:
        lock.check()
    assert "run r1" in caplog.text
    assert "dead; taken over" in caplog.text


def test_a_process_of_the_same_number_is_not_the_owner(out):
    with hold(out, "ojala"):
        rewrite(out, process="1")  # this process lives, but started at another time
        with hold(out, "ojala") as second:
            second.check()


@pytest.mark.parametrize("when", [0, 4e9])
def test_a_clock_that_jumps_does_not_take_a_living_lock(out, other, when):
    os.utime(file_of(out).path, (when, when))
    rewrite(out, since="1970-01-01T00:00:00+00:00")
    os.utime(file_of(out).path, (when, when))
    with pytest.raises(LockedError):
        hold(out, "ojala").__enter__()


@pytest.fixture
def elsewhere(out):
    """A lock whose owner is on another machine."""
    with hold(out, "ojala"):
        content = file_of(out).read_text()
    file_of(out).write_text(content)
    rewrite(out, machine="another", host="another", token="theirs", run_id="r2")
    return file_of(out)


def test_on_another_machine_a_beating_heart_is_life(out, elsewhere):
    with pytest.raises(LockedError, match=r"run r2 .* on another"):
        hold(out, "ojala").__enter__()


def test_on_another_machine_a_silent_owner_is_watched_and_then_taken_for_dead(out, elsewhere, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.05)
    os.utime(elsewhere.path, (0, 0))
    with hold(out, "ojala") as lock:
        lock.check()


def test_on_another_machine_an_owner_who_beats_while_watched_lives(out, elsewhere, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT", 2.0)
    os.utime(elsewhere.path, (0, 0))
    stopped = threading.Event()

    def beat():
        beats = 1
        while not stopped.wait(0.05):
            os.utime(elsewhere.path, (beats, beats))  # a clock of the year 1970
            beats += 1

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(LockedError):
            hold(out, "ojala").__enter__()
    finally:
        stopped.set()
        heart.join()


def test_the_heart_beats(out, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.02)
    monkeypatch.setattr(locks, "_heartbeat", locks._Heartbeat())
    with hold(out, "ojala"):
        os.utime(file_of(out).path, (0, 0))
        until(lambda: os.stat(file_of(out).path).st_mtime > 0, seconds=30)


def test_whoever_lost_the_lock_notices_and_leaves_the_new_owner_alone(out):
    with hold(out, "ojala") as lock:
        rewrite(out, token="theirs")
        with pytest.raises(LockLost, match="no longer ours"):
            lock.check()
    assert file_of(out).exists()


def test_what_killed_processes_left_of_their_locks_is_removed(out):
    folder = Path(out.path, "locks")
    folder.mkdir()
    for name in (".ojala.lock.0123.tmp", ".ojala.lock.0a1b2c3d", "ojala.lock.0011223344556677"):
        (folder / name).touch()
    (folder / ".avis.lock.0123.tmp").touch()
    with hold(out, "ojala"):
        pass
    assert {path.name for path in folder.iterdir()} == {"ojala.lock.guard", ".avis.lock.0123.tmp"}


def test_a_torn_lock_is_taken_over(out):
    file_of(out).parent.mkdir()
    file_of(out).write_bytes(b'{"name": "oj')
    with hold(out, "ojala") as lock:
        lock.check()


def test_of_many_who_want_a_dead_lock_one_gets_it(out, other):
    other.kill()
    other.wait()
    got, refused = [], []
    done = threading.Barrier(8)

    def want():
        try:
            with hold(out, "ojala") as lock:
                got.append(lock)
                done.wait(timeout=scaled(60))
        except LockedError:
            refused.append(1)
            done.wait(timeout=scaled(60))

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)


def test_an_object_store_has_locks_too():
    out = UPath("memory://locks-of-a-collection")
    with hold(out, "ojala") as lock:
        lock.tell("r1")
        lock.check()
        with pytest.raises(LockedError, match="run r1"):
            hold(out, "ojala").__enter__()
    assert not file_of(out).exists()
    with hold(out, "ojala"):
        pass
