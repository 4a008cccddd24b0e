"""A proxy in front of an object store that does to a request what real ones do to some."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = (
    "503 slow down",
    "500 internal error",
    "stalls for ten seconds",
    "upload reset",
    "answer lost after it was done",
    "download ends early",
    "size too small",
)
"""Kinds of faults, each of a request in the order of their coming."""

IN_A_ROW = 3
"""Requests in a row that are told to slow down, or meet an internal error."""

_SECONDS = 10.0
_RESET = struct.pack("ii", 1, 0)
_OWN = ("connection", "keep-alive", "transfer-encoding", "expect")
"""Headers of one connection, which a proxy does not pass on."""


@dataclass
class _Plan:
    """A fault that comes at the n-th of the requests that it can happen to."""

    kind: str = ""
    step: int = 0
    seen: int = 0
    done: int = 0

    def meets(self, method: str) -> bool:
        """Count a request; whether the fault happens to it."""
        needs = {"upload reset": "PUT", "download ends early": "GET", "size too small": "GET"}
        if needs.get(self.kind, method) != method:
            return False
        self.seen += 1
        last = self.step + (IN_A_ROW if self.kind[0:1] == "5" else 1)
        happens = bool(self.kind) and self.step <= self.seen < last
        self.done += happens
        return happens


class UnreliableStore(ThreadingHTTPServer):
    """A proxy on the loopback interface.

    Parameters
    ----------
    port : int
        Port of the object store.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store, self.plan, self.counting = port, _Plan(), threading.Lock()

    def arm(self, kind: str, step: int) -> _Plan:
        """Plan a fault, or none; gives what counts requests and faults from now on."""
        with self.counting:
            self.plan = _Plan(kind, step)
        return self.plan

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: UnreliableStore

    def _pass_on(self) -> None:
        plan = self.server.plan
        with self.server.counting:
            kind = plan.kind if plan.meets(self.command) else ""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if kind.startswith("5"):
            self._refuse(int(kind[:3]), "SlowDown" if "slow" in kind else "InternalError")
            return
        if kind == "upload reset":
            self._reset()
            return
        if kind == "stalls for ten seconds":
            time.sleep(_SECONDS)
        status, headers, content = self._ask(body)
        if kind == "answer lost after it was done":
            self._reset()
            return
        if kind == "size too small":
            content = content[: len(content) // 2]
        half = len(content) // 2 if kind == "download ends early" else len(content)
        self._answer(status, headers, content, shown=half)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.store, timeout=120)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        found = answer.status, answer.getheaders(), answer.read()
        connection.close()
        return found

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, shown: int | None = None
    ) -> None:
        """Send an answer, or the first bytes of it alone."""
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _OWN and (self.command == "HEAD" or name.lower() != "content-length"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:shown])
        self.close_connection |= shown is not None and shown < len(content)

    def _refuse(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self._answer(status, [("Content-Type", "application/xml")], b"" if self.command == "HEAD" else text)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RD)
        self.close_connection = True

    def log_message(self, *of_it: object) -> None:
        """No log."""


@contextmanager
def unreliable_store(port: int) -> Iterator[UnreliableStore]:
    """Serve a proxy in front of the object store at a port, in threads of this process."""
    with UnreliableStore(port) as store:
        thread = threading.Thread(target=store.serve_forever, daemon=True)
        thread.start()
        try:
            yield store
        finally:
            store.shutdown()
            thread.join()
