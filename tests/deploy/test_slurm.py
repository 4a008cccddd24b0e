"""Slurm: what a job asks for, and a whole run with a queue that starts its jobs on this machine."""

import os
import re
from pathlib import Path

import dask
import dask_jobqueue  # noqa: F401 - makes its settings known to Dask
import psutil
import pytest
import yaml

from ojala.pipeline.execution.clusters import ClusterError, slurm_jobs
from ojala.pipeline.execution.engines import ENGINES
from ojala.pipeline.execution.retries import RetryPolicy
from ojala.pipeline.inference.model_spec import ModelSpec
from tests.deploy.processes import ROOT
from tests.helpers.pace import until
from tests.helpers.survey import orders

PROFILE = yaml.safe_load((ROOT / "deploy" / "slurm" / "jobqueue.yaml").read_text())["jobqueue"]["slurm"]

SBATCH = """#!/bin/sh
# Keeps the script, which is gone when this returns, and starts the job at once, in a process group whose
# number is the job's.
script=$(mktemp {log}.XXXXXX)
cp "$1" "$script"
setsid bash "$script" >>{log} 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
kill -TERM -- "-$1"
echo "$1" >>{cancelled}
"""


@pytest.fixture
def profile(tmp_path):
    """The settings of the profile, on the loopback interface and with the test's folder for certificates."""
    ours = {"interface": "lo", "shared-temp-directory": str(tmp_path), "local-directory": str(tmp_path)}
    with dask.config.set({"jobqueue.slurm": dask.config.get("jobqueue.slurm") | PROFILE | ours}):
        yield tmp_path


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A stand-in for Slurm's two commands."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {"sbatch": SBATCH, "scancel": SCANCEL}.items():
        script = text.format(log=tmp_path / "jobs.log", cancelled=tmp_path / "cancelled")
        (commands / name).write_text(script)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_a_job_asks_for_what_the_profile_says(profile):
    with slurm_jobs(0) as client:
        script = client.cluster.job_script()
        certificates = re.findall(r"--tls-\S+ (\S+)", script)
        assert [Path(file).parent.parent for file in certificates] == [profile] * 3
    print(script)
    assert not any(Path(file).exists() for file in certificates)
    for line in ("#SBATCH -J ojala", "#SBATCH --cpus-per-task=8", "#SBATCH --mem=8G", "#SBATCH -t 08:00:00"):
        assert line in script.splitlines()
    assert "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}" in script.splitlines()
    assert re.search(r"dask_worker tls://127\.0\.0\.1:\d+ .*--nthreads 1 ", script)
    assert "PRIVATE KEY" not in script


def test_a_run_in_jobs_of_a_queue_is_whole_and_leaves_no_job_behind(profile, queue, photometry):
    tasks = orders(photometry, queue / "run")
    receipts = list(ENGINES["slurm"](tasks, ModelSpec("empty", ""), 2, RetryPolicy()))
    assert sorted(receipt.partition for receipt in receipts) == sorted(task.partition.name for task in tasks)
    assert {receipt.status for receipt in receipts} == {"done"}
    pids = {receipt.attempts[-1].pid for receipt in receipts}
    assert os.getpid() not in pids
    until(
        lambda: not any(psutil.pid_exists(pid) for pid in pids),
        "end of jobs",
        seconds=300,
        log=queue / "jobs.log",
    )
    assert len((queue / "cancelled").read_text().split()) == 2
    assert not list(queue.glob(".ojala-*")), "certificates are gone"


def test_the_dashboard_of_a_run_listens_on_the_loopback_interface_alone(profile, queue):
    before = {c.laddr for c in psutil.Process().net_connections("tcp")}
    with slurm_jobs(1):
        listening = [c.laddr for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"]
    assert {address.ip for address in listening if address not in before} == {"127.0.0.1"}


def test_a_profile_without_sizes_is_refused_with_the_name_of_the_example(profile):
    with (
        dask.config.set({"jobqueue.slurm.cores": None, "jobqueue.slurm.memory": None}),
        pytest.raises(ClusterError, match=r"deploy/slurm/jobqueue\.yaml"),
        slurm_jobs(1),
    ):
        pass
