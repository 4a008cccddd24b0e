"""Commands of the program: in this process, or in one of their own where the process is the subject."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from ojala.flows.cli.app import app

OJALA = str(Path(sys.executable).with_name("ojala"))
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def ojala(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command as a person gives it: it imports the package, which takes seconds."""
    return subprocess.run(
        [OJALA, *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )


def here(*arguments: object) -> Result:
    """A command in this process."""
    return CliRunner().invoke(app, [*map(str, arguments)])
