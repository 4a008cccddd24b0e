"""GAVO DaCHS, a TAP service that archives run, from Debian's packages, with tables like those of J-PAS."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.deploy.processes import free_port
from tests.helpers.pace import scaled, until
from tests.helpers.postgres import as_user, identity, postgres, programs

BANDS = 57

DESCRIPTION = """<resource schema="jpas" resdir="jpas">
  <meta name="title">Objects of a test</meta>
  <meta name="creationDate">2026-01-01T00:00:00Z</meta>
  <meta name="description">Objects of a test.</meta>
  <meta name="creator">Nobody</meta>
  <meta name="subject">surveys</meta>
  <table id="MagABDualObj" onDisk="True" adql="True">
    <index columns="tile_id,number"/>
    <column name="tile_id" type="integer" required="True"/>
    <column name="number" type="integer" required="True"/>
    <column name="alpha_j2000" type="double precision" unit="deg"/>
    <column name="delta_j2000" type="double precision" unit="deg"/>
    <column name="class_star" type="real"/>
    <column name="flags" type="integer" required="True"/>
    <column name="mask_flags" type="integer" required="True"/>
    <column name="mag_auto" type="real[{bands}]" unit="mag"/>
    <column name="mag_err_auto" type="real[{bands}]" unit="mag"/>
    <column name="mag_aper_cor_3_0" type="real[{bands}]" unit="mag"/>
    <column name="mag_err_aper_cor_3_0" type="real[{bands}]" unit="mag"/>
  </table>
  <data id="import"><make table="MagABDualObj"/></data>
</resource>
"""

SETTINGS = """[general]
rootDir={root}
group={group}
maintainerAddress=nobody@localhost
[async]
defaultMAXREC={maxrec}
hardMAXREC={maxrec}
[web]
bindAddress=127.0.0.1
serverPort={port}
serverURL=http://127.0.0.1:{port}
sitename=test
"""

ROWS = """INSERT INTO jpas.magabdualobj SELECT {tile}, n, 240 + n * 1e-6, 43 + n * 1e-6, 0.5, 0, 0, m, e, m, e
FROM generate_series(1, {rows}) AS n,
     (SELECT array_fill(20.5::real, ARRAY[{bands}]) AS m, array_fill(0.05::real, ARRAY[{bands}]) AS e) AS a"""


def is_installed() -> bool:
    """Whether DaCHS and PostgreSQL are there."""
    return shutil.which("dachs") is not None and programs() is not None


PYTHON_PATH = "OJALA_TEST_DACHS_PYTHONPATH"
"""Variable with a folder of packages for the Python of DaCHS, such as a pyarrow for Debian's numpy."""


class Inputs:
    """Folder of the resources of a service, and the programs that fill it."""

    def __init__(self, folder: Path, connect: list[object], environment: Mapping[str, str]) -> None:
        self.folder, self._connect, self._environment = folder, connect, environment

    def load(self, resource: str) -> None:
        """Load a resource, such as ``jpas/q``."""
        as_user(["dachs", "imp", resource], env=self._environment, cwd=self.folder)

    def execute(self, statement: str) -> None:
        """Execute a statement in the database."""
        as_user([programs() / "psql", *self._connect, "--quiet", "--command", statement, "gavo"])


@contextmanager
def dachs(folder: Path, tiles: Mapping[int, int], maxrec: int) -> Iterator[tuple[str, psutil.Process]]:
    """A service with so many rows in each tile and a limit of rows; yields its address and its process."""

    def fill(inputs: Inputs) -> None:
        (inputs.folder / "jpas").mkdir()
        (inputs.folder / "jpas" / "q.rd").write_text(DESCRIPTION.format(bands=BANDS))
        inputs.load("jpas/q")
        for tile, rows in tiles.items():
            inputs.execute(ROWS.format(tile=tile, rows=rows, bands=BANDS))

    with serve(folder, maxrec, fill) as url_and_process:
        yield url_and_process


@contextmanager
def serve(folder: Path, maxrec: int, fill: Callable[[Inputs], None]) -> Iterator[tuple[str, psutil.Process]]:
    """A service with a limit of rows that has been filled; yields its address and its process."""
    database_port, port = free_port(), free_port()
    root, binaries = folder / "gavo", programs()
    with postgres(folder, database_port) as socket:
        connect = ["--host", socket, "--port", str(database_port)]
        as_user([binaries / "createdb", *connect, "--template", "template0", "gavo"])
        rc = folder / "gavo.rc"
        group = identity().get("group", os.environ.get("USER", "root"))
        rc.write_text(SETTINGS.format(root=root, group=group, port=port, maxrec=maxrec))
        environment = {
            "PATH": f"{binaries}:/usr/bin:/bin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "GAVOSETTINGS": str(rc),
            "GAVOCUSTOM": "/nonexistent",
            "PYTHONPATH": os.environ.get(PYTHON_PATH, ""),
        } | {name: value for name, value in os.environ.items() if name.startswith("OJALA_TEST")}
        dsn = f"host={socket} port={database_port} dbname=gavo"
        as_user(["dachs", "init", "--dsn", dsn], env=environment, cwd=folder)
        fill(Inputs(root / "inputs", connect, environment))
        url = f"http://127.0.0.1:{port}/__system__/tap/run"
        log = folder / "dachs.log"
        with log.open("w") as file:
            server = subprocess.Popen(
                ["dachs", "serve", "debug"],
                stdout=file,
                stderr=file,
                env=environment,
                cwd=folder,
                **identity(),
            )
        try:
            until(lambda: _answers(f"{url}/availability", server), "DaCHS", seconds=300, every=1.0, log=log)
            yield url, psutil.Process(server.pid)
        finally:
            family = [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]
            for one in family:
                one.kill()
            server.wait(timeout=scaled(20))


def _answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, "DaCHS has ended"
    try:
        with urllib.request.urlopen(url, timeout=scaled(10)) as answer:
            return answer.status == 200
    except OSError:
        return False
