"""A Dask cluster over TLS works for those who have its certificates, and for nobody else."""

import json
import os
import subprocess
import sys

import dask
import psutil
import pytest
from distributed import Client, Security
from upath import UPath

from ojala.deploy.make_certificates import make_certificates
from ojala.pipeline.execution.clusters import ClusterError, SameCode, running_scheduler
from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.quality.verify import verify
from tests.deploy.processes import BIN
from tests.helpers.pace import scaled

# Scheduler, workers and a run with Prefect's own server start one after another.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def security(authority, certificate):
    return Security(
        require_encryption=True, tls_ca_file=str(authority / "ca.pem"), tls_client_cert=str(certificate)
    )


@pytest.fixture(scope="module")
def whole(scheduler, certificates, photometry, tmp_path_factory):
    """An `ojala run` with the client's certificate, and its collection."""
    out = tmp_path_factory.mktemp("tls")
    command = [BIN / "ojala", "run", "--photometry", photometry, "--out", out, "--model", "empty"]
    done = subprocess.run(
        [str(word) for word in [*command, "--engine", "address", "--scheduler", scheduler[0], "--json"]],
        env=os.environ | {"DASK_CONFIG": str(certificates / "dask.yaml")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, UPath(out)


def test_a_run_with_the_certificates_is_whole(whole):
    done, out = whole
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows_out"] == 300
    assert list(verify(out)) == []


def test_partitions_were_worked_on_by_the_cluster(whole, scheduler):
    out = whole[1]
    receipts = [json.loads(path.read_text()) for path in out.glob("runs/*/receipts/**/*.json")]
    assert len(receipts) > 1
    workers = {receipt["attempts"][-1]["pid"] for receipt in receipts}
    assert all("worker" in " ".join(psutil.Process(pid).parent().cmdline()) for pid in workers)


def test_no_key_and_no_path_of_one_is_kept_with_the_results(whole, certificates):
    for path in whole[1].glob("**/*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"PRIVATE KEY" not in content
            assert str(certificates).encode() not in content


def test_who_names_no_certificates_is_told_so_at_once(scheduler):
    with (
        dask.config.set({"scheduler-address": scheduler[0]}),
        pytest.raises(ClusterError, match="no certificates are named; set DASK_CONFIG"),
        running_scheduler(),
    ):
        pass


def test_certificates_of_another_authority_are_refused(scheduler, tmp_path):
    make_certificates(tmp_path, days=1)
    settings = {
        "scheduler-address": scheduler[0],
        "distributed.comm.tls.ca-file": str(tmp_path / "ca.pem"),
        "distributed.comm.tls.client.cert": str(tmp_path / "client.pem"),
        "distributed.comm.timeouts.connect": "2s",
    }
    with (
        dask.config.set(settings),
        pytest.raises(ClusterError, match="no connection"),
        running_scheduler(),
    ):
        pass


def test_who_trusts_the_scheduler_but_has_no_certificate_of_it_is_refused(scheduler, certificates, tmp_path):
    make_certificates(tmp_path, days=1)
    mixed = security(certificates / "secrets", tmp_path / "client.pem")
    with pytest.raises(OSError):
        Client(scheduler[0], security=mixed, timeout=2, set_as_default=False)


def test_a_connection_without_encryption_is_refused(scheduler):
    with pytest.raises(OSError):
        Client(scheduler[0].replace("tls:", "tcp:"), timeout=2, set_as_default=False)


def test_everything_listens_on_the_loopback_interface_that_was_told_to(scheduler):
    family = [psutil.Process(scheduler[2]), *psutil.Process(scheduler[2]).children(recursive=True)]
    listening = [c.laddr.ip for one in family for c in one.net_connections("tcp") if c.status == "LISTEN"]
    assert len(listening) >= 2, "scheduler and dashboard"
    assert set(listening) == {"127.0.0.1"}


def test_the_health_check_of_the_compose_file_tells_an_answer_from_silence(scheduler):
    check = [sys.executable, "-m", "ojala.deploy.healthcheck"]
    assert subprocess.run([*check, f"http://{scheduler[1]}/health"], check=False).returncode == 0
    page = [*check, f"http://{scheduler[1]}/json/counts.json"]
    other = subprocess.run(page, check=False, capture_output=True, text=True)
    assert "404" in other.stderr, "no page that knows no password"
    closed = subprocess.run([*check, "http://127.0.0.1:9/health"], check=False, capture_output=True)
    assert closed.returncode == 1


def test_workers_with_other_code_are_refused(scheduler, certificates):
    ours = security(certificates / "secrets", certificates / "secrets" / "client.pem")
    with Client(scheduler[0], security=ours, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=scaled(60))
        with pytest.raises(RuntimeError, match="install the same on both"):
            client.register_plugin(SameCode("0.0.0+other", ADAPTERS["empty"].code_modules))


def test_an_engine_without_a_scheduler_says_how_to_name_one():
    with (
        dask.config.set({"scheduler-address": None}),
        pytest.raises(ClusterError, match="--scheduler tls://HOST"),
        running_scheduler(),
    ):
        pass
