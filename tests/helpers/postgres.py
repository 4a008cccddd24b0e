"""A PostgreSQL server of Debian's on this machine, for tests that need a real one."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "postgres"
"""User that the servers run as where the tests run as root, which PostgreSQL refuses."""


def programs() -> Path | None:
    """Folder of the newest PostgreSQL's programs; None where there is none."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    return Path(found[-1]).parent if found else None


def as_user(command: list[object], **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command as the user of the servers; fails with its output."""
    done = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **identity(),
        **options,
    )
    assert done.returncode == 0, done.stdout
    return done


def identity() -> dict[str, object]:
    """Options of `subprocess` that make a command one of the servers' user."""
    return {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}


@contextmanager
def postgres(folder: Path, port: int, password: str = "", *, listen: str = "") -> Iterator[Path]:
    """A server in a folder, with a superuser of the name `USER`; yields the folder of its socket.

    Parameters
    ----------
    folder : Path
        A new folder; where the tests run as root, its parent gets readable by everybody, as the parents of
        that have to be.
    port : int
        Port, also in the name of its socket.
    password : str
        Password of the user, over TCP; without one everybody who sees the socket is trusted.
    listen : str
        Address that it listens on; none if empty.
    """
    binaries = programs()
    assert binaries is not None
    folder.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        shutil.chown(folder, USER, USER)
        folder.parent.chmod(0o755)
    secret = folder / "password"
    secret.write_text(password or "none")
    secret.chmod(0o644)
    make = [binaries / "initdb", "--pgdata", folder / "data", "--username", USER, "--encoding", "UTF8"]
    make += ["--locale", "C.UTF-8", "--no-sync", "--auth-local", "trust", "--auth-host", "scram-sha-256"]
    as_user([*make, "--pwfile", secret])
    control = [binaries / "pg_ctl", "--pgdata", folder / "data", "--wait"]
    settings = f"-c listen_addresses='{listen}' -c unix_socket_directories={folder} -c fsync=off -p {port}"
    with (folder / "start.log").open("w") as log:
        subprocess.run(
            list(map(str, [*control, "--log", folder / "log", "-o", settings, "start"])),
            stdout=log,
            stderr=log,
            check=True,
            **identity(),
        )
    try:
        yield folder
    finally:
        as_user([*control, "--mode", "immediate", "stop"])
