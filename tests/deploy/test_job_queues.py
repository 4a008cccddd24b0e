"""Queues of jobs: the script of a job, and whole runs with stand-ins that start jobs on this machine."""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import dask
import psutil
import pytest
import yaml

from ojala.pipeline.execution import run_tasks
from ojala.pipeline.execution.clusters import ClusterError, import_jobqueue, queue_jobs, slurm_jobs
from ojala.pipeline.inference.model_spec import ModelSpec
from tests.deploy.processes import ROOT
from tests.helpers.pace import scaled, until
from tests.helpers.survey import orders

pytestmark = pytest.mark.integration

import_jobqueue()  # makes its settings known to Dask

PROFILE = yaml.safe_load((ROOT / "deploy" / "slurm" / "jobqueue.yaml").read_text())["jobqueue"]["slurm"]
PBS = {"name": "ojala", "cores": 1, "processes": 1, "memory": "8GiB", "walltime": "08:00:00"}

SUBMIT = """#!/bin/sh
# Keeps the script, which is gone when this returns, and starts the job at once, in a process group whose
# number is the job's.
script=$(mktemp {log}.XXXXXX)
cp "$1" "$script"
setsid bash "$script" >>{log} 2>&1 &
echo "{reply}"
"""
CANCEL = """#!/bin/sh
id=${{1%%.*}}
kill -TERM -- "-$id"
echo "$id" >>{cancelled}
"""
COMMANDS = {"sbatch": "Submitted batch job $!", "scancel": None, "qsub": "$!.server", "qdel": None}
"""Commands of Slurm and PBS; replies of those that submit."""


@pytest.fixture
def profile(tmp_path):
    """Settings of the profile, on the loopback interface and with the test's folder for certificates."""
    with dask.config.set({"jobqueue.slurm": settings("slurm", PROFILE, tmp_path)}):
        yield tmp_path


@pytest.fixture
def pbs(tmp_path):
    """Settings of PBS alone."""
    with dask.config.set({"jobqueue.pbs": settings("pbs", PBS, tmp_path)}):
        yield tmp_path


def settings(system, profile, folder):
    ours = {"interface": "lo", "shared-temp-directory": str(folder), "local-directory": str(folder)}
    return dask.config.get(f"jobqueue.{system}") | profile | ours


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Stand-ins for the commands of Slurm and PBS."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, reply in COMMANDS.items():
        text = CANCEL if reply is None else SUBMIT
        script = text.format(log=tmp_path / "jobs.log", reply=reply, cancelled=tmp_path / "cancelled")
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def http_address(dask_worker):
    """Address of a worker's HTTP server."""
    return dask_worker.http_server.address, dask_worker.http_server.port


def test_ctrl_c_is_left_to_the_program_and_a_thread_may_be_first():
    code = (
        "import signal, sys, threading\n"
        "from ojala.pipeline.execution.clusters import import_jobqueue\n"
        "before = signal.getsignal(signal.SIGINT)\n"
        "thread = threading.Thread(target=import_jobqueue); thread.start(); thread.join()\n"
        "assert hasattr(sys.modules['dask_jobqueue'], 'SLURMCluster')\n"
        "assert signal.getsignal(signal.SIGINT) is before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_job_asks_for_what_the_profile_says(profile):
    with slurm_jobs(0) as cluster:
        script = cluster.client.cluster.job_script()
        certificates = re.findall(r"--tls-\S+ (\S+)", script)
        assert [Path(file).parent.parent for file in certificates] == [profile] * 3
    assert not any(Path(file).exists() for file in certificates)
    for line in ("#SBATCH -J ojala", "#SBATCH --cpus-per-task=8", "#SBATCH --mem=8G", "#SBATCH -t 08:00:00"):
        assert line in script.splitlines()
    assert "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}" in script.splitlines()
    assert re.search(r"dask_worker tls://127\.0\.0\.1:\d+ .*--nthreads 1 ", script)
    assert "PRIVATE KEY" not in script


def test_the_queue_is_the_one_whose_settings_have_cores(pbs):
    with queue_jobs(0) as cluster:
        script = cluster.client.cluster.job_script()
    for line in ("#PBS -N ojala", "#PBS -l select=1:ncpus=1:mem=8192MB", "#PBS -l walltime=08:00:00"):
        assert line in script.splitlines()
    assert re.search(r"dask_worker tls://127\.0\.0\.1:\d+ ", script)


def test_settings_of_no_queue_or_of_two_are_refused(profile, pbs):
    with pytest.raises(
        ClusterError, match=r"describe jobs of pbs and slurm: .*for one NAME of htcondor, lsf"
    ):
        queue_jobs(1).__enter__()
    none = {"jobqueue.slurm.cores": None, "jobqueue.pbs.cores": None}
    with (
        dask.config.set(none),
        pytest.raises(ClusterError, match=r"of no queue: .*deploy/slurm/jobqueue\.yaml"),
    ):
        queue_jobs(1).__enter__()


@pytest.mark.parametrize(("engine", "system", "jobs"), [("slurm", "profile", 2), ("jobqueue", "pbs", 1)])
def test_a_run_in_jobs_of_a_queue_is_whole_and_leaves_no_job_behind(
    engine, system, jobs, commands, photometry, request
):
    request.getfixturevalue(system)
    tasks = orders(photometry, commands / "run")
    receipts = list(run_tasks(tasks, ModelSpec("empty", ""), engine=engine, workers=jobs))
    assert sorted(receipt.partition for receipt in receipts) == sorted(task.partition.name for task in tasks)
    assert {receipt.status for receipt in receipts} == {"done"}
    pids = {receipt.attempts[-1].pid for receipt in receipts}
    assert os.getpid() not in pids
    until(
        lambda: not any(psutil.pid_exists(pid) for pid in pids),
        "end of jobs",
        seconds=300,
        log=commands / "jobs.log",
    )
    assert len((commands / "cancelled").read_text().split()) == jobs
    assert not list(commands.glob(".ojala-*")), "certificates are gone"


def test_the_dashboard_of_a_run_listens_on_the_loopback_interface_alone(profile, commands):
    before = {c.laddr for c in psutil.Process().net_connections("tcp")}
    with slurm_jobs(1) as cluster:
        listening = [c.laddr for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"]
        assert "--dashboard-address 127.0.0.1:0" in cluster.client.cluster.job_script()
        cluster.client.wait_for_workers(1, timeout=scaled(300))
        ((address, port),) = cluster.client.run(http_address).values()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=scaled(10))
        assert address == "127.0.0.1"
    assert {address.ip for address in listening if address not in before} == {"127.0.0.1"}


def test_a_profile_without_sizes_is_refused_with_the_name_of_the_example(profile):
    with (
        dask.config.set({"jobqueue.slurm.cores": None, "jobqueue.slurm.memory": None}),
        pytest.raises(ClusterError, match=r"deploy/slurm/jobqueue\.yaml"),
        slurm_jobs(1),
    ):
        pass
