"""A TCP proxy that cuts connections in the middle of uploads.

Run as ``python cutting_proxy.py TO-PORT MARK CUTS LOG``. It listens on a free port of the loopback
interface, which it writes as the first line of LOG. The first CUTS requests ``PUT`` whose target holds
MARK are cut after half of their body went through; each adds a line to LOG. All else passes.
"""

from __future__ import annotations

import re
import socket
import struct
import sys
import threading
from pathlib import Path

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_RESET = struct.pack("ii", 1, 0)
"""Close with a reset, as a cable that is pulled does at the end of all patience."""


class Proxy:
    """Passes bytes on, and counts what it cuts."""

    def __init__(self, to_port: int, mark: bytes, cuts: int, log: Path) -> None:
        self._to_port, self._mark, self._log = to_port, mark, log
        self._cuts = cuts
        self._counting = threading.Lock()

    def serve(self) -> None:
        """Accept connections for ever."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._log.write_text(f"{server.getsockname()[1]}\n")
            while True:
                client, _ = server.accept()
                threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def _connection(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._to_port))
        threading.Thread(target=_copy, args=(server, client), daemon=True).start()
        head, left = b"", None  # of a request that is to be cut: its head so far, and bytes that may pass
        try:
            while data := client.recv(65536):
                if left is None and (head or self._begins(data)):
                    head += data
                    if b"\r\n\r\n" in head:
                        beginning, _, body = head.partition(b"\r\n\r\n")
                        left = int(_LENGTH.search(beginning)[1]) // 2 - len(body)
                elif left is not None:
                    left -= len(data)
                if left is not None and left <= 0:
                    server.sendall(data[: len(data) + left])
                    self._cut(client, server)
                    return
                server.sendall(data)
        except OSError:
            pass
        finally:
            client.close()
            server.close()

    def _begins(self, data: bytes) -> bool:
        if not data.startswith(b"PUT ") or self._mark not in data.partition(b"\r\n")[0]:
            return False
        with self._counting:
            self._cuts -= 1
            return self._cuts >= 0

    def _cut(self, *ends: socket.socket) -> None:
        with self._counting, self._log.open("a") as log:
            log.write("cut\n")
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.shutdown(socket.SHUT_RD)


def _copy(source: socket.socket, to: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        pass


if __name__ == "__main__":
    to_port, mark, cuts, log = sys.argv[1:]
    Proxy(int(to_port), mark.encode(), int(cuts), Path(log)).serve()
