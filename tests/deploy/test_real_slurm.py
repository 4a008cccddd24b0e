"""Runs in jobs of a real Slurm on this machine, two nodes of one core; one job is cancelled under way."""

import os
import subprocess
import time

import psutil
import pytest
import yaml
from upath import UPath

from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.record import read_record
from ojala.pipeline.runs.releases import pointers
from tests.deploy.processes import BIN, ROOT, running
from tests.deploy.slurm_cluster import is_installed, slurm
from tests.helpers.pace import scaled, until
from tests.helpers.survey import ingest_table, photometry_table

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def cluster(request, tmp_path_factory):
    """Environment of the commands, with the profile of a job that fits the nodes."""
    if not request.config.getoption("--soak"):
        pytest.skip("a cluster is started; see make soak")
    if not is_installed():
        pytest.skip("as root: apt-get install slurm-wlm munge")
    folder = tmp_path_factory.mktemp("slurm")
    profile = yaml.safe_load((ROOT / "deploy" / "slurm" / "jobqueue.yaml").read_text())
    profile["jobqueue"]["slurm"] |= {
        "job-cpu": 1, "memory": "1500MiB", "shared-temp-directory": str(folder), "log-directory": str(folder),
    }  # fmt: skip
    (folder / "jobs.yaml").write_text(yaml.safe_dump(profile))
    with slurm(folder) as environment:
        yield environment | {"DASK_CONFIG": str(folder / "jobs.yaml"), "OMP_NUM_THREADS": "1"}


def jobs(environment):
    """Numbers of the jobs that run."""
    command = ["squeue", "--noheader", "--states", "RUNNING", "--format", "%i"]
    told = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return told.stdout.split()


def worker_listeners():
    """Addresses of the loopback interface's and of other sockets that workers of jobs listen on."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        if "distributed.cli.dask_worker" in (process.info["cmdline"] or ()):
            for one in [process, *process.children(recursive=True)]:
                found |= {c.laddr for c in one.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return found


def speaks_plain_http(port):
    """Whether a port of this machine answers HTTP without TLS."""
    told = subprocess.run(
        ["curl", "--silent", "--max-time", "5", f"http://127.0.0.1:{port}/"], capture_output=True, check=False
    )
    return told.returncode == 0


def test_a_run_with_a_cancelled_job_is_complete_and_published(cluster, tmp_path):
    photometry = ingest_table(photometry_table(800), tmp_path, tile_rows=40)
    out = UPath(tmp_path / "catalogue")
    words = ["run", "--photometry", photometry, "--out", out, "--model", "empty", "--engine", "slurm"]
    log, begin = tmp_path / "run.log", time.monotonic()
    with running([BIN / "ojala", *words, "--workers", "2"], log, **cluster) as run:
        until(lambda: len(jobs(cluster)) == 2, "two jobs", seconds=300, every=0.5, log=log)
        until(
            lambda: list(out.glob("runs/*/receipts/**/*.json")), "a receipt", seconds=600, every=0.5, log=log
        )
        open_to_all = {address for address in worker_listeners() if address.ip != "127.0.0.1"}
        assert open_to_all, "workers listen for the scheduler and for each other, with TLS"
        assert not [address for address in open_to_all if speaks_plain_http(address.port)]
        subprocess.run(["scancel", jobs(cluster)[0]], env=os.environ | cluster, check=True)
        assert run.wait(timeout=scaled(1200)) == 0, log.read_text()
    print(f"800 rows, two jobs, one cancelled: {time.monotonic() - begin:.0f} s")
    record = read_record(out / "runs" / pointers(out)["ojala"])
    assert (record.rows_out, record.status) == (800, "complete")
    assert list(verify(out)) == []
    until(lambda: not jobs(cluster), "end of the jobs", seconds=60, every=0.5)
