"""What commands import: seconds that each start costs."""

import json
import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest
from typer.main import get_group

from ojala.flows import cli
from ojala.flows.cli.commands import COMMANDS
from ojala.pipeline.runs.config import RunConfig
from tests.helpers.commands import ENVIRONMENT
from tests.helpers.survey import ingest_table, photometry_table, run_and_publish, without_report

pytestmark = pytest.mark.integration

SLOW = {"astropy.coordinates", "dask", "distributed", "hats", "healpy", "matplotlib", "mocpy", "numba"}
SLOW |= {"pandas", "prefect", "scipy", "torch"}
"""Modules of half a second or more."""

TABLES = {"numpy", "pyarrow", "pydantic"}
"""Modules that all work on catalogues needs, and no help."""

HATS = {"astropy.coordinates", "hats", "healpy", "matplotlib", "mocpy", "numba", "pandas", "scipy"}
"""The library of catalogues, which validates them, and what it imports."""

CODE = """
import json, sys
from ojala.flows.cli.app import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(json.dumps([code or 0, sorted(sys.modules)]), file=sys.stderr)
"""


def test_the_table_of_commands_is_that_of_the_modules():
    found = {}
    for module in pkgutil.iter_modules(cli.__path__):
        group = getattr(import_module(f"ojala.flows.cli.{module.name}"), "app", None)
        if group is not None and module.name != "app":
            for name, one in get_group(group).commands.items():
                found[name] = (module.name, one.rich_help_panel, one.help.partition("\n")[0])
    assert {name: (one.module, one.panel.value, one.help) for name, one in COMMANDS.items()} == found


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A photometry catalogue, and a collection that publishes a run over it."""
    folder = tmp_path_factory.mktemp("loading")
    photometry = ingest_table(photometry_table(60), folder)
    config = RunConfig(photometry=str(photometry), out=str(folder / "out"), model="empty", engine="serial")
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        run_and_publish(config)
    return {"{photometry}": str(photometry), "{out}": str(folder / "out"), "{new}": str(folder / "new")}


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("--help", set()),
        ("plan --photometry {photometry} --out {new} --model ojala", TABLES),
        ("plan --photometry {photometry} --out {out} --model empty", TABLES),
        ("releases --out {out}", TABLES),
        ("verify {out}", TABLES | HATS),
        ("run --photometry {photometry} --out {out} --model empty", TABLES),
    ],
)
def test_a_command_imports_what_it_needs(command, needed, folders):
    for name, path in folders.items():
        command = command.replace(name, path)
    done = subprocess.run(
        [sys.executable, "-c", CODE, *command.split()],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    assert (SLOW | TABLES) & set(modules) <= needed
