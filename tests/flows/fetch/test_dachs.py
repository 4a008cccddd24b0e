"""Tables from a real TAP service, GAVO DaCHS over PostgreSQL, which sends no more than a limit of rows."""

import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from ojala.flows.fetch import Limits, fetch_tables
from ojala.pipeline.ingest.formats.detect import open_table
from tests.flows.fetch.dachs import dachs, is_installed
from tests.helpers.commands import OJALA
from tests.helpers.pace import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

TILES = {2241: 15_000, 2243: 6_000, 2300: 100}
MAXREC = 10_000


@pytest.fixture(scope="module")
def service(request):
    """Address of the service, and its process."""
    if not request.config.getoption("--soak"):
        pytest.skip("a database and an archive are made; see make soak")
    if not is_installed():
        pytest.skip("apt-get install gavodachs2-server postgresql")
    with (
        tempfile.TemporaryDirectory(prefix="ojala-dachs-", dir="/tmp") as folder,
        dachs(Path(folder) / "dachs", TILES, MAXREC) as url_and_process,
    ):
        yield url_and_process


class Cost:
    """Time that passed, and processor time of this process and of the service."""

    def __init__(self, process):
        self.process = process
        self.begin = self.now()

    def now(self):
        return np.array([time.monotonic(), time.process_time(), sum(self.process.cpu_times()[:4])])

    def __str__(self):
        wall, own, service = self.now() - self.begin
        return f"{wall:.1f} s; processor time {own:.1f} s here, {service:.1f} s of the service"


def test_tables_of_a_real_archive_come_whole(service, tmp_path):
    url, process = service
    cost = Cost(process)
    summary = fetch_tables(url, ["MagABDualObj"], tmp_path, limits=Limits())
    print(f"\n{summary.rows:,} rows, {summary.bytes / 1e6:.1f} MB in {summary.jobs} jobs: {cost}")
    assert summary.tables == {"MagABDualObj": {str(tile): rows for tile, rows in TILES.items()}}
    assert summary.jobs == len(TILES) + 1, "the largest tile was cut off and split"
    for tile, rows in TILES.items():
        numbers = []
        for path in (tmp_path / "MagABDualObj").glob(f"{tile}*.vot"):
            with open_table(UPath(path), UPath(tmp_path)) as source:
                numbers += [batch.column(0).to_numpy() for batch in source.batches(["number"])]
        assert np.array_equal(np.sort(np.concatenate(numbers).astype(int)), np.arange(1, rows + 1))
    cost = Cost(process)
    again = fetch_tables(url, ["MagABDualObj"], tmp_path / "small", tiles=["2300"], limits=Limits())
    print(f"one job of {again.rows} rows, and the questions before it: {cost}")


def test_a_killed_command_is_continued(service, tmp_path):
    url, _ = service
    words = [OJALA, "fetch", "tap", url, "--tables", "MagABDualObj", "--out", str(tmp_path)]
    with subprocess.Popen(words) as command:
        until(lambda: list(tmp_path.glob("MagABDualObj/*.vot")) or command.poll() is not None, every=0.05)
        command.kill()
    summary = fetch_tables(url, ["MagABDualObj"], tmp_path)
    assert summary.kept >= 1
    assert summary.tables == {"MagABDualObj": {str(tile): rows for tile, rows in TILES.items()}}
