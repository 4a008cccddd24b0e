"""A Prefect server that tracks runs, and what may become of it in mid-run."""

from __future__ import annotations

import signal
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import psutil

from tests.deploy.processes import BIN, free_port, running
from tests.helpers.pace import until

FAULTS = ("does not listen", "does not answer", "SIGKILL", "SIGSTOP")
"""Kinds of faults: from the start, and in mid-run."""

_QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


class PrefectServer:
    """A server on the loopback interface, started when it is needed and again after it was killed.

    Parameters
    ----------
    folder : Path
        Folder of its database and its log.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._log = folder / "log"
        self.environment = _QUIET | {"PREFECT_HOME": str(folder), "PREFECT_CLIENT_MAX_RETRIES": "1"}
        self._stack = ExitStack()
        self._family: list[psutil.Process] = []

    def url(self) -> str:
        """URL of its API; the server answers there."""
        if not self._family:
            port = free_port()
            self._url = f"http://127.0.0.1:{port}/api"
            serve = [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui"]
            server = self._stack.enter_context(running(serve, self._log, **self.environment))
            until(self._answers, "Prefect server", seconds=600, every=0.5, log=self._log)
            process = psutil.Process(server.pid)
            self._family = [*process.children(recursive=True), process]
        return self._url

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self._url}/health", timeout=5) as answer:
            return answer.status == 200
        return False

    @contextmanager
    def disturbed(self, fault: str) -> Iterator[None]:
        """Kill the server, or let it stand still inside the block."""
        for process in self._family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL if fault == "SIGKILL" else signal.SIGSTOP)
        yield
        if fault == "SIGKILL":
            self.close()
        for process in self._family:
            process.resume()

    def close(self) -> None:
        """End it."""
        self._family = []
        self._stack.close()


@contextmanager
def deaf_url(fault: str) -> Iterator[str]:
    """URL at which nobody listens, or where connections are taken and never answered."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        if fault == "does not answer":
            listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"
