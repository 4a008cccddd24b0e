"""A Prefect server as deploy/README.md starts it, and the service that its messages go to."""

from __future__ import annotations

import base64
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.deploy.processes import BIN, ROOT, free_port, running
from tests.helpers.pace import scaled, until

SECRET = "survey:a-secret-of-this-test"
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def shipped_settings() -> dict[str, str]:
    """The settings of deploy/prefect.env."""
    lines = (ROOT / "deploy" / "prefect.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


class Server:
    """The API of a Prefect server."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log

    def ask(self, path, body=None, secret=SECRET):
        headers = {"Content-Type": "application/json"}
        if secret:
            headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers)

        def answer():
            try:
                with urllib.request.urlopen(request, timeout=scaled(60)) as reply:
                    return (json.loads(reply.read() or "null"),)
            except urllib.error.HTTPError as refusal:
                if refusal.code != 503:  # the database is busy
                    raise
                return None

        return until(answer, f"answer to {path}", seconds=180, every=0.5)[0]

    def trigger(self, deployment, state=None, **parameters):
        found = self.ask(f"/deployments/name/{deployment}")
        body = {"parameters": parameters} | ({"state": state} if state else {})
        return self.ask(f"/deployments/{found['id']}/create_flow_run", body)["id"]

    def set_state(self, run, kind, **state):
        answer = self.ask(f"/flow_runs/{run}/set_state", {"state": {"type": kind} | state})
        assert answer["status"] == "ACCEPT", answer

    def state(self, run):
        return self.ask(f"/flow_runs/{run}")["state"]

    def end_of(self, run, seconds):
        """The flow run when it has ended."""

        def ended():
            found = self.ask(f"/flow_runs/{run}")
            return found if found["state"]["type"] in ENDED else None

        return until(ended, f"flow run {run}", seconds=seconds, every=1.0, log=self.log)


@contextmanager
def prefect_server(home: Path, **environment: str) -> Iterator[Server]:
    """A server on a port of its own."""
    port = free_port()
    serve = [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui"]
    api = Server(f"http://127.0.0.1:{port}/api", home / "server.log")
    with running(serve, api.log, **environment, PREFECT_SERVER_API_AUTH_STRING=SECRET) as process:

        def ready():
            assert process.poll() is None, api.log.read_text()
            try:
                return api.ask("/ready", secret=None)
            except OSError:
                return None

        until(ready, "server", seconds=600, every=0.5, log=api.log)
        yield api


@contextmanager
def webhook() -> Iterator[tuple[str, list[str]]]:
    """Address of a service on the loopback interface, and the texts that are posted to it."""
    texts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            texts.append(json.loads(body)["text"])
            self.send_response(200)
            self.end_headers()

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/messages", texts
    finally:
        http.shutdown()
        http.server_close()
