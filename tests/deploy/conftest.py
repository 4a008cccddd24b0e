"""A Dask cluster as deploy/compose.yaml starts it, on this machine."""

import pytest

from ojala.deploy.make_certificates import make_certificates
from tests.deploy.processes import BIN, ROOT, compose, free_port, running
from tests.helpers.pace import until

SECRETS = "/run/secrets/dask"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with the certificates of one cluster and Dask's settings with their paths."""
    folder = tmp_path_factory.mktemp("dask")
    make_certificates(folder / "secrets", days=1)
    settings = (ROOT / "deploy" / "dask.yaml").read_text()
    assert SECRETS in settings
    (folder / "dask.yaml").write_text(settings.replace(SECRETS, str(folder / "secrets")))
    return folder


@pytest.fixture(scope="module")
def scheduler(certificates):
    """Address of a scheduler with one worker, both started with the commands of the compose file."""
    ports = {"8786": str(free_port()), ":8787": f"127.0.0.1:{free_port()}"}
    settings = {"DASK_CONFIG": str(certificates / "dask.yaml"), "OMP_NUM_THREADS": "1"}
    address = f"tls://127.0.0.1:{ports['8786']}"
    services = compose()
    serve = [ports.get(word, word) for word in services["scheduler"]["command"]]
    work = [address if word.startswith("tls:") else word for word in services["worker"]["command"]]
    work = [str(certificates) if word == "/home/ojala" else word for word in work]
    work[work.index("127.0.0.1:8787")] = "127.0.0.1:0"
    log = certificates / "scheduler.log"
    with running([BIN / serve[0], *serve[1:], "--host", "127.0.0.1"], log, **settings) as process:
        until(lambda: "Scheduler at:" in log.read_text(), "scheduler", seconds=300, log=log)
        work = [BIN / work[0], *work[1:], "--nworkers", "1"]
        with running(work, certificates / "worker.log", **settings):
            yield address, ports[":8787"], process.pid
