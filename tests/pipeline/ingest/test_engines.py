"""An ingest on worker processes: the bytes and the errors of one process; workers may die."""

import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.catalogs_schema.photometry import PHOTOMETRY
from ojala.pipeline.execution.clusters import Cluster, ClusterError
from ojala.pipeline.execution.functions import call_on_workers, open_runner
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.lineage import PROVENANCE
from ojala.pipeline.ingest.photometry import CODE, ingest_photometry
from ojala.pipeline.ingest.tasks import run_tasks
from ojala.pipeline.ingest.update import update_photometry
from ojala.pipeline.storage.hats import current_release
from tests.helpers.commands import ENVIRONMENT, OJALA, here
from tests.helpers.pace import scaled, until
from tests.helpers.survey import photometry_table

pytestmark = pytest.mark.integration

ROWS = 150


@pytest.fixture(scope="module")
def run():
    """A runner on two worker processes."""
    with open_runner(None, 2, CODE) as runner:
        yield runner


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[UPath]:
    """A survey in four files, its rows in any order on the sky."""
    folder = UPath(tmp_path_factory.mktemp("files"))
    table = photometry_table(ROWS, seed=4)
    for number in range(3):
        pq.write_table(table.slice(50 * number, 50), (folder / f"{number}.parquet").path)
    pacsv.write_csv(photometry_table(50, seed=5, tile_id=77), (folder / "night.csv").path)
    return sorted(folder.iterdir())


@pytest.fixture(autouse=True)
def _many_tasks(monkeypatch):
    """A task for each file and each partition, and merges of two."""
    monkeypatch.setattr("ojala.pipeline.ingest.reader.PIECE_BYTES", 1)
    monkeypatch.setattr("ojala.pipeline.ingest.leaves.TASK_ROWS", 1)
    monkeypatch.setattr("ojala.pipeline.ingest.external_sort.FAN_IN", 2)


def content(catalogue: UPath) -> dict[str, bytes]:
    leaves = (catalogue / "dataset").rglob("*.parquet")
    found = {str(leaf.relative_to(catalogue)): leaf.read_bytes() for leaf in leaves}
    return found | {PROVENANCE: (catalogue / PROVENANCE).read_bytes()}


def test_workers_make_the_catalogue_of_one_process_and_update_it(run, files, tmp_path):
    *survey, night = files
    here, there = UPath(tmp_path / "here" / "p"), UPath(tmp_path / "there" / "p")
    made = ingest_photometry(survey, here, tile_rows=20)
    assert made.rows == ROWS
    assert len(made.partitions) > 8
    assert ingest_photometry(survey[::-1], there, tile_rows=20, run=run) == made
    assert content(there) == content(here)
    for root, how in ((here, {}), (there, {"run": run})):
        update_photometry(root, [night], add=True, **how)
        update_photometry(root, [night], replace=True, **how)
    now = [content(current_release(root)) for root in (here, there)]
    for found in now:
        del found[PROVENANCE]  # names the release before
    assert now[0] == now[1]
    assert sorted(path.name for path in there.parent.iterdir()) == ["p"]


def test_errors_on_workers_are_those_of_one_process(run, files, tmp_path):
    wrong = UPath(tmp_path / "wrong.csv")
    names = [column.name for column in PHOTOMETRY if column.name in ("tile_id", "number", "ra", "dec")]
    lines = [",".join([*names, "flux_iSDSS"]), "1,1,10,10,1", "1,2,ten,10,1"]
    wrong.write_text("\n".join(lines))
    problems, copy = [], _copy(files[0], tmp_path)
    for how in ({}, {"run": run}):
        for given in ([*files, wrong], [files[0], UPath(tmp_path / "none.csv")], [files[0], copy]):
            with pytest.raises(IngestError) as problem:
                ingest_photometry(given, UPath(tmp_path / "out"), **how)
            problems.append(str(problem.value))
    assert problems[:3] == problems[3:]
    assert "wrong.csv, row 2, column ra" in problems[0]
    assert "copy.parquet, row 1, columns tile_id and number: the key" in problems[2]
    assert not list(tmp_path.glob("*out*"))


def _copy(file: UPath, folder: Path) -> UPath:
    pq.write_table(pq.read_table(file.path), folder / "copy.parquet")
    return UPath(folder / "copy.parquet")


def _die_at_first(mark: Path) -> str:
    if mark.name != "sound" and not mark.exists():
        mark.touch()
        os._exit(1)
    return mark.name


def _die(_: str) -> None:
    os._exit(1)


def test_the_task_of_a_worker_that_dies_is_done_by_another(run, tmp_path):
    marks = [tmp_path / "sound", tmp_path / "deadly", tmp_path / "also sound"]
    marks[2].touch()
    assert sorted(run(_die_at_first, marks)) == list(enumerate(mark.name for mark in marks))


def test_a_task_that_kills_every_worker_is_named(run):
    with pytest.raises(ClusterError, match="3 workers in a row died while they were reading huge"):
        list(run(_die, ["reading huge.csv"]))


def test_a_worker_that_does_not_see_the_folders_says_so(run, tmp_path):
    with pytest.raises(IngestError, match="put the catalogue on a file system that all workers share"):
        run_tasks(run, UPath(tmp_path / "elsewhere"), len, {"one": "a"}, int, noun="tasks")


def test_a_cluster_without_workers_is_given_up_in_time():
    client = SimpleNamespace(scheduler_info=lambda: {"workers": {}})
    with pytest.raises(ClusterError, match="no worker has come for -1 s"):
        list(call_on_workers(Cluster(client, first_worker_timeout=-1.0), _die, [""]))


def test_engines_without_processors_are_no_choice_and_scratch_can_lie_elsewhere(files, tmp_path):
    out = tmp_path / "out"
    refused = here("ingest", *files, "--out", out, "--engine", "cuda")
    assert refused.exit_code == 2
    missing = here("ingest", *files, "--out", out, "--engine", "address")
    assert missing.exit_code == 7
    assert "name the scheduler" in missing.output
    assert list(tmp_path.iterdir()) == []
    done = here("ingest", *files, "--out", out, "--scratch", tmp_path / "scratch")
    assert done.exit_code == 0, done.output
    assert list((tmp_path / "scratch").iterdir()) == []


def test_ctrl_c_ends_workers_without_a_word_and_the_same_command_goes_on(tmp_path, tmp_path_factory):
    file = tmp_path_factory.mktemp("large") / "survey.parquet"
    pq.write_table(photometry_table(200, seed=4), file)  # some seconds of writing in which to be interrupted
    command = ("ingest", file, "--out", tmp_path / "out", "--tile-rows", 2, "--engine", "local")
    process = subprocess.Popen(
        [OJALA, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
        # Jobs in the background of a shell ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until(lambda: list(tmp_path.glob(".out.*/scratch/read-*.json")) or process.poll() is not None)
    # A terminal sends Ctrl-C to the whole group.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=scaled(60))
    assert process.returncode == 130, errors
    assert "the same command resumes it" in errors
    assert "Traceback" not in errors
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith(".out.")
    done = here(*command[:-2])
    assert done.exit_code == 0, done.output
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
