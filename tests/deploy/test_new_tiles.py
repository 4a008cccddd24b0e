"""Three weeks under a Prefect server and a worker: two are published, one that loses rows is not."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from upath import UPath

from ojala.deploy import register
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.diff import read_difference
from ojala.pipeline.runs.gates import read_gates
from ojala.pipeline.runs.record import read_record
from ojala.pipeline.runs.releases import pointers
from tests.deploy.prefect_server import SECRET, prefect_server, shipped_settings
from tests.deploy.processes import BIN, running
from tests.helpers.survey import photometry_table

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

WORK = [BIN / "prefect", "worker", "start", "--pool", "ojala", "--type", "process"]


def fetch(folder, number, rows):
    """Put the files of a tile where `ojala fetch tap` puts them, in a partition of its own."""
    table = photometry_table(rows, seed=number, tile_id=number)
    ra = pa.array(table["ra"].to_numpy() / 4 + 90.0 * number)
    table = table.set_column(table.schema.get_field_index("ra"), "ra", ra)
    for name, part in (
        ("MagABDualObj", table.drop_columns(["ebv"])),
        ("MWExtinction", table.select(["tile_id", "number", "ebv"])),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(part, folder / name / f"{number}.parquet")


@pytest.fixture(scope="module")
def weeks(request, tmp_path_factory):
    """The catalogue, and the ends of the flow runs of three weeks with what was published then."""
    if not request.config.getoption("--soak"):
        pytest.skip("a server, a worker and three runs, each in processes of its own; see make soak")
    home = tmp_path_factory.mktemp("weeks")
    catalogue, fetched = UPath(home / "catalogue"), home / "catalogue-fetched"
    settings = shipped_settings() | {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_AUTH_STRING": SECRET,
        "OMP_NUM_THREADS": "1",
        "OJALA_PHOTOMETRY": str(home / "photometry"),
        "OJALA_CATALOGUE": str(catalogue),
        "OJALA_ENGINE": "serial",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    ends = []
    with prefect_server(home, **settings) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in (settings | {"PREFECT_API_URL": server.url}).items():
            patch.setenv(name, value)
        with temporary_settings({PREFECT_API_URL: server.url, PREFECT_API_AUTH_STRING: SECRET}):
            assert register.main() == 0
        deployed = server.ask("/deployments/name/new-tiles/new-tiles")["parameters"]
        config = deployed["config"] | {"model": "empty"}
        with running(WORK, home / "worker.log", **settings, PREFECT_API_URL=server.url):
            server.log = home / "worker.log"
            for tiles in ({1: 60, 2: 60}, {3: 60}, {3: 5}):
                for number, rows in tiles.items():
                    fetch(fetched, number, rows)
                run = server.trigger("new-tiles/new-tiles", config=config)
                ends.append((server.end_of(run, seconds=600)["state"], pointers(catalogue)))
    return catalogue, ends


def test_new_tiles_are_added_computed_judged_and_published(weeks):
    catalogue, ends = weeks
    assert [state["type"] for state, _ in ends[:2]] == ["COMPLETED", "COMPLETED"], [s for s, _ in ends]
    first, second = (read_record(catalogue / "runs" / published["ojala"]) for _, published in ends[:2])
    assert (first.rows_out, second.rows_out) == (120, 180)
    assert (second.partitions, second.linked) == (3, 2), "partitions without new rows are linked"
    assert read_difference(catalogue / "runs" / second.run_id).total.added == 60
    assert [str(damage) for damage in verify(catalogue)] == []


def test_a_week_that_loses_rows_is_refused_and_readers_keep_the_release(weeks):
    catalogue, ends = weeks
    state, published = ends[2]
    assert (state["type"], state["name"]) == ("FAILED", "Refused"), state["message"]
    assert re.search(r"coverage: 5\d of 180 rows", state["message"]), state["message"]
    assert published == ends[1][1]
    refused = next(run for run in (catalogue / "runs").iterdir() if run.name not in state_runs(ends))
    assert [gate.name for gate in read_gates(refused).failed()] == ["coverage"]
    assert read_difference(refused).total.withdrawn == 55


def state_runs(ends):
    return {run for _, published in ends for run in published.values()}
