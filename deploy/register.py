"""Tell a Prefect server what it can start: ``python -m ojala.deploy.register``.

Makes the work pool ``ojala`` with its queues, the automations, then the deployments of ``prefect.yaml``. It
may be run again after every change. ``PREFECT_API_URL`` names the server.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from ojala.deploy.automations import make_automations

DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")
POOL = "ojala"
QUEUES = {"catalogue": 1, "training": 1}
"""Queue -> flow runs at a time. One queue per product: whatever writes a product waits for its turn."""

SETTINGS = {
    "OJALA_PHOTOMETRY": "photometry catalogue",
    "OJALA_CATALOGUE": "collection that the releases go into",
    "OJALA_ENGINE": "engine of the runs: local, address, slurm, ...",
}
"""Variables that the surveys in `prefect.yaml` read, with their meaning."""

TRAINING = {
    "OJALA_TRAINING_SETTINGS": "TOML file with the settings of a training",
    "OJALA_LIBRARY": "library of spectra",
    "OJALA_TRAINING": "folder of the training",
}
"""Variables of the deployments with the tag ``training``, which are registered where they are set."""

WEBHOOK, RELEASE_DAYS = "OJALA_WEBHOOK", "OJALA_RELEASE_DAYS"
"""Variables of the notifications: an address, and the days without a release that are reported (10)."""


def make_queues(client: SyncPrefectClient) -> None:
    """Make the work pool and its queues, or set the limits of those that are there."""
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
    for name, limit in QUEUES.items():
        try:
            queue = client.read_work_queue_by_name(name, work_pool_name=POOL)
            client.update_work_queue(queue.id, concurrency_limit=limit)
        except ObjectNotFound:
            client.create_work_queue(name, concurrency_limit=limit, work_pool_name=POOL)


def main() -> int:
    """Make queues, automations and deployments; return an exit code."""
    with_training = any(os.environ.get(name) for name in TRAINING)
    settings = SETTINGS | (TRAINING if with_training else {})
    missing = [f"{name} ({meaning})" for name, meaning in settings.items() if not os.environ.get(name)]
    if missing or not os.environ.get("PREFECT_API_URL"):
        wanted = ", ".join([*missing, *([] if "PREFECT_API_URL" in os.environ else ["PREFECT_API_URL"])])
        print(f"set in the environment first: {wanted}", file=sys.stderr)
        return 1
    with get_client(sync_client=True) as client:
        make_queues(client)
        make_automations(client, os.environ.get(WEBHOOK, ""), float(os.environ.get(RELEASE_DAYS) or 10))
    deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(DEPLOYMENTS)]
    for deployment in yaml.safe_load(DEPLOYMENTS.read_text())["deployments"]:
        if with_training or "training" not in deployment["tags"]:
            deploy += ["--name", deployment["name"]]
    return subprocess.run(deploy, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
