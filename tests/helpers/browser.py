"""Chromium without a window, driven by its DevTools protocol, and a web server that counts what it sends."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from tests.helpers.pace import until

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
WHY = f"no browser is installed ({', '.join(NAMES)}): apt-get install chromium-headless-shell"

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)


class Page:
    """A page of a browser."""

    def __init__(self, address: str) -> None:
        self._socket = connect(address, max_size=None)
        self._number = 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """A method of the protocol, with its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=120))
            if message.get("id") == self._number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.events.append(message)

    def run(self, script: str) -> Any:
        """Value of an expression; a promise is awaited."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def open(self, url: str) -> None:
        """Load an address anew."""
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        self.call("Page.navigate", url=url)

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        until(
            lambda: bool(
                self.run(f"(() => {{ try {{ return Boolean({condition}) }} catch {{ return false }} }})()")
            ),
            seconds=seconds,
        )

    def resize(self, width: int, height: int = 900, *, mobile: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )

    def picture(self, path: Path) -> None:
        """Screenshot of the whole page."""
        done = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(done["data"]))

    def requests(self) -> list[str]:
        """Addresses that were asked for since the page was opened, data and blobs left out."""
        self.run("1")  # takes up what has arrived
        sent = [
            e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in sent if not url.startswith(("data:", "blob:", "about:"))]

    def faults(self) -> list[str]:
        """Exceptions and errors of the console since the page was opened."""
        self.run("1")
        found = []
        for event in self.events:
            parameters = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(parameters["exceptionDetails"])[:600])
            if event["method"] == "Log.entryAdded" and parameters["entry"]["level"] == "error":
                found.append(parameters["entry"]["text"])
            if event["method"] == "Runtime.consoleAPICalled" and parameters["type"] == "error":
                found.append(json.dumps(parameters["args"])[:300])
        return found


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a new browser, which ends with the block."""
    assert CHROMIUM, WHY
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stderr
            line = next(line for line in process.stderr if "DevTools listening on" in line)
            threading.Thread(target=process.stderr.read, daemon=True).start()
            port = re.search(r":(\d+)/", line)[1]

            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=60) as answer:
                target = next(one for one in json.load(answer) if one["type"] == "page")
            page = Page(target["webSocketDebuggerUrl"])
            page.resize(1280)
            yield page
        finally:
            # The program is a script that starts the browser.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


class _Handler(SimpleHTTPRequestHandler):
    """Files with ranges; counts the bytes of each path."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.server.ranges:
            start, end = int(asked[1]), min(int(asked[2] or size - 1), size - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        else:
            start, end = 0, size - 1
            self.send_response(200)
        with path.open("rb") as file:
            file.seek(start)
            part = file.read(end - start + 1)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.server.sent.append((self.path, len(part)))
        self.wfile.write(part)


class Served(ThreadingHTTPServer):
    """Server of a folder on the loopback interface.

    Attributes
    ----------
    sent : list of (str, int)
        Path and bytes of each answer.
    ranges : bool
        Whether it serves ranges, as `python -m http.server` does not.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        def handler(*arguments: Any) -> _Handler:
            return _Handler(*arguments, directory=str(folder))

        super().__init__(("127.0.0.1", 0), handler)
        self.sent: list[tuple[str, int]] = []
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def bytes_of(self, prefix: str) -> int:
        """Bytes that were sent of paths that begin so."""
        return sum(size for path, size in self.sent if path.startswith(prefix))


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    server = Served(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
