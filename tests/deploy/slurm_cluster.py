"""Slurm of Debian's packages on this machine: munge, a controller, two nodes of one core on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.deploy.processes import free_port, running
from tests.helpers.pace import until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")

SETTINGS = """ClusterName=ojala
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
SlurmctldTimeout=300
SlurmdTimeout=300
NodeName=ojala1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=1 RealMemory=4000
NodeName=ojala2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=1 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def is_installed() -> bool:
    """Whether Slurm and munge are there, and this is root, who may start them."""
    path = os.environ["PATH"] + ":/usr/sbin"
    return os.geteuid() == 0 and all(shutil.which(name, path=path) for name in PROGRAMS)


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """A cluster with two nodes; yields the environment of its commands."""
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    folder.chmod(0o755)
    host = socket.gethostname()
    ports = {name: free_port() for name in ("port", "first", "second")}
    conf = folder / "slurm.conf"
    conf.write_text(SETTINGS.format(host=host, folder=folder, **ports))
    environment = {"SLURM_CONF": str(conf), "PATH": os.environ["PATH"] + ":/usr/sbin"}
    munged = ["munged", "--foreground", "--force", "--key-file", key, "--socket", folder / "munge.socket"]
    munged += ["--pid-file", folder / "munge.pid", "--log-file", folder / "munge.log"]
    munged += ["--seed-file", folder / "munge.seed"]
    commands = {
        "munged": munged,
        "slurmctld": ["slurmctld", "-D"],
        "slurmd1": ["slurmd", "-D", "-N", "ojala1"],
        "slurmd2": ["slurmd", "-D", "-N", "ojala2"],
    }
    with ExitStack() as stack:
        for name, (program, *words) in commands.items():
            path = shutil.which(program, path=environment["PATH"])
            stack.enter_context(running([path, *words], folder / f"{name}.out", **environment))
            if name == "munged":
                until((folder / "munge.socket").exists, "munge", seconds=60, log=folder / "munged.out")
        until(lambda: _idle(environment) == 2, "nodes", seconds=120, every=0.5, log=folder / "slurmctld.log")
        yield environment


def _idle(environment: dict[str, str]) -> int:
    command = ["sinfo", "--noheader", "--states", "idle", "--format", "%D"]
    told = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    return sum(map(int, told.stdout.split()))
