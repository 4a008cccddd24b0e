"""A published release in a real TAP service: GAVO DaCHS loads what `ojala export tap-schema` writes."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ojala.catalogs_schema.ojala import OJALA, OJALA_VECTORS
from ojala.catalogs_schema.photometry import PHOTOMETRY
from ojala.catalogs_schema.tap_schema import adql_name
from tests.flows.fetch.dachs import PYTHON_PATH, is_installed, serve
from tests.helpers.commands import here
from tests.helpers.survey import Finished

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

SCHEMA = "survey"
CONTRACTS = (PHOTOMETRY, OJALA, OJALA_VECTORS)


def reads_parquet() -> bool:
    """Whether the Python of DaCHS has pyarrow."""
    environment = os.environ | {"PYTHONPATH": os.environ.get(PYTHON_PATH, "")}
    command = ["/usr/bin/python3", "-c", "import pyarrow.parquet"]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def service(request, finished: Finished):
    """A service with the tables of a published release, and the release."""
    if not request.config.getoption("--soak"):
        pytest.skip("a database and an archive are made; see make soak")
    if not is_installed():
        pytest.skip("apt-get install gavodachs2-server postgresql")
    if not reads_parquet():
        pytest.skip(f"pip install --target FOLDER pyarrow==17.0.0, and {PYTHON_PATH}=FOLDER")
    pyvo = pytest.importorskip("pyvo")

    def fill(inputs):
        folder = inputs.folder / SCHEMA
        done = here("export", "tap-schema", finished.out, "--to", folder, "--schema", SCHEMA)
        assert done.exit_code == 0, done.output
        for name, root in (("photometry", finished.photometry), *((n, finished.run / n) for n in products())):
            shutil.copytree((root / "dataset").path, folder / "data" / name / "dataset")
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        inputs.load(f"{SCHEMA}/q")

    with (
        tempfile.TemporaryDirectory(prefix="ojala-dachs-", dir="/tmp") as place,
        serve(Path(place) / "dachs", 10_000, fill) as (url, _),
    ):
        yield pyvo.dal.TAPService(url), finished


def products() -> tuple[str, ...]:
    return OJALA.name, OJALA_VECTORS.name


def test_described_columns_come_back(service):
    tap, _ = service
    asked = "SELECT table_name, column_name, unit, ucd, description FROM tap_schema.columns"
    rows = tap.search(f"{asked} WHERE table_name LIKE '{SCHEMA}.%'").to_table()
    found = {(row["table_name"], row["column_name"]): row for row in rows}
    for contract in CONTRACTS:
        for column in contract:
            row = found[f"{SCHEMA}.{contract.name}", adql_name(column)]
            assert str(row["description"]) == column.description
            assert str(row["ucd"]) == column.ucd
            assert (str(row["unit"]) if row["unit"] is not np.ma.masked else "") == column.unit


def test_a_join_of_the_release_gives_the_rows_of_the_leaves_with_units(service):
    tap, finished = service
    query = (
        f"SELECT p.object_id, p.flux_isdss, o.z, o.ojala_class FROM {SCHEMA}.photometry AS p "
        f"JOIN {SCHEMA}.ojala AS o ON p.object_id = o.object_id"
    )
    table = tap.search(query).to_table()
    table.sort("object_id")
    leaves = (finished.photometry / "dataset").path
    expected = pq.read_table(leaves, columns=["object_id", "flux_isdss"]).sort_by("object_id")
    assert table["object_id"].tolist() == expected["object_id"].to_pylist()
    flux = expected["flux_isdss"].to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(np.ma.filled(table["flux_isdss"].astype(float), np.nan), flux)
    assert table["flux_isdss"].unit is not None
    assert table["flux_isdss"].description == PHOTOMETRY["flux_isdss"].description
    (vectors,) = tap.search(f"SELECT COUNT(*) AS n FROM {SCHEMA}.{OJALA_VECTORS.name}")
    assert vectors["n"] == len(table)
