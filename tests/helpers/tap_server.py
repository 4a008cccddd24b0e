"""A TAP service on the loopback interface, over SQLite, that fails as it is told to."""

from __future__ import annotations

import base64
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

UWS = (
    '<?xml version="1.0"?><uws:job xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" '
    'xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1"><uws:jobId>{id}</uws:jobId>'
    "<uws:phase>{phase}</uws:phase>{error}<uws:results>{results}</uws:results></uws:job>"
)
HEAD = '<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'


class TapServer:
    """The service.

    Attributes
    ----------
    limit : int
        Most rows that it sends, whatever is asked for.
    faults : deque of str
        What goes wrong with the next jobs of data, one each: ``submit`` (503), ``error`` (phase ERROR),
        ``gone`` (404 when asked for its state), ``slow`` (it never ends), ``cut`` (the connection ends in
        mid-table), ``torn`` (half of a table, well transported), ``lost`` (a row is missing), ``twice`` (a
        row too many), ``stall`` (silence in mid-table), ``restart`` (in mid-table; it forgets all jobs).
    queries, deleted : list of str
        Queries for data that were submitted, and jobs that were deleted.
    account : str
        ``user:password`` that it wants; none if empty.
    """

    def __init__(self) -> None:
        self.limit = 1_000_000
        self.faults: deque[str] = deque()
        self.queries: list[str] = []
        self.deleted: list[str] = []
        self.account = ""
        self.sessions: set[str] = set()
        self.stalled = threading.Event()
        self.closing = threading.Event()
        self.jobs: dict[str, dict[str, str]] = {}
        self.lock = threading.Lock()
        self.database = sqlite3.connect(":memory:", check_same_thread=False)
        self.database.execute("ATTACH ':memory:' AS TAP_SCHEMA")
        self.database.execute("ATTACH ':memory:' AS jpas")
        self.database.execute("CREATE TABLE TAP_SCHEMA.tables (table_name)")
        self.database.execute("CREATE TABLE TAP_SCHEMA.columns (table_name, column_name, datatype)")
        handler = type("Handler", (_Handler,), {"service": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # clients that are gone
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/catalogues/vo/tap/jpas-test"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()

    def add_table(self, name: str, columns: dict[str, str], rows: list[tuple[object, ...]]) -> None:
        """A table with the datatypes of its columns; arrays are texts of numbers, datatype ``array``."""
        with self.lock:
            self.database.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
            self.database.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})", rows)
            self.database.execute("INSERT INTO TAP_SCHEMA.tables VALUES (?)", (name,))
            self.database.executemany(
                "INSERT INTO TAP_SCHEMA.columns VALUES (?, ?, ?)", [(name, *one) for one in columns.items()]
            )

    def execute(self, statement: str) -> None:
        with self.lock:
            self.database.execute(statement)

    def votable(self, query: str, maxrec: int) -> tuple[str, int]:
        with self.lock:
            cursor = self.database.execute(query)
            rows = cursor.fetchall()
        kinds = []
        for place, (name, *_) in enumerate(cursor.description):
            values = [row[place] for row in rows]
            if all(isinstance(value, int) for value in values):
                kinds.append(f'<FIELD name="{name}" datatype="long"/>')
            elif name.startswith(("mag", "flux")):
                kinds.append(f'<FIELD name="{name}" datatype="double" arraysize="*"/>')
            elif all(isinstance(value, int | float) for value in values):
                kinds.append(f'<FIELD name="{name}" datatype="double"/>')
            else:
                kinds.append(f'<FIELD name="{name}" datatype="char" arraysize="*"/>')
        limit = min(maxrec, self.limit)
        body = "".join(
            f"<TR>{''.join(f'<TD>{escape(str(cell))}</TD>' for cell in row)}</TR>\n" for row in rows[:limit]
        )
        over = '<INFO name="QUERY_STATUS" value="OVERFLOW"/>' if len(rows) > limit else ""
        return (
            f'{HEAD}<RESOURCE type="results"><INFO name="QUERY_STATUS" value="OK"/><TABLE>{"".join(kinds)}'
            f"<DATA><TABLEDATA>\n{body}</TABLEDATA></DATA></TABLE>{over}</RESOURCE></VOTABLE>\n"
        ), len(rows)


@contextmanager
def tap_server() -> Iterator[TapServer]:
    service = TapServer()
    try:
        yield service
    finally:
        service.close()


class _Handler(BaseHTTPRequestHandler):
    service: TapServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, code: int, body: str = "", **headers: str) -> None:
        content = body.encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _is_allowed(self) -> bool:
        wanted = self.service.account
        basic = "Basic " + base64.b64encode(wanted.encode()).decode()
        if not wanted or self.headers.get("Cookie") in self.service.sessions:
            return True
        if self.headers.get("Authorization") == basic and "/catalogues/" not in self.path:
            return True
        self._answer(401, "login wanted")
        return False

    def _form(self) -> dict[str, str]:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        return {name: values[0] for name, values in parse_qs(text).items()}

    def do_POST(self) -> None:
        form = self._form()
        if self.path == "/catalogues/login":
            cookie = f"session={len(self.service.sessions)}"
            if self.service.account == f"{form.get('login')}:{form.get('password')}":
                self.service.sessions.add(cookie)
            self._answer(200, Set_Cookie=cookie)
            return
        if not self._is_allowed():
            return
        if self.path.endswith("/sync"):
            self._answer(200, self.service.votable(form["QUERY"], int(form["MAXREC"]))[0])
            return
        words = urlsplit(self.path).path.split("/async")[1].strip("/").split("/")
        if words == [""]:
            self._submit(form)
        elif words[0] not in self.service.jobs:
            self._answer(404)
        else:
            job = self.service.jobs[words[0]]
            if form.get("PHASE") == "RUN":
                job["phase"] = {"error": "ERROR", "slow": "EXECUTING"}.get(job["fault"], "COMPLETED")
            elif form.get("PHASE") == "ABORT":
                job["phase"] = "ABORTED"
            self._answer(303, Location=f"{self.service.url}/async/{words[0]}")

    def _submit(self, form: dict[str, str]) -> None:
        query, fault = form["QUERY"], ""
        if "COUNT(" not in query and "TAP_SCHEMA" not in query and ".Filter" not in query:
            self.service.queries.append(query)
            fault = self.service.faults.popleft() if self.service.faults else ""
        if fault == "submit":
            self._answer(503, "busy")
            return
        name = str(len(self.service.jobs) + 1)
        self.service.jobs[name] = {"query": query, "fault": fault, "phase": "PENDING"}
        self.service.jobs[name]["maxrec"] = form.get("MAXREC", "1000000")
        self._answer(303, Location=f"{self.service.url}/async/{name}")

    def do_GET(self) -> None:
        if not self._is_allowed():
            return
        words = urlsplit(self.path).path.split("/async")[1].strip("/").split("/")
        job = self.service.jobs.get(words[0])
        if job is None or (job["fault"] == "gone" and job["phase"] != "PENDING"):
            self._answer(404, "no such job")
        elif words[1:]:
            self._result(job)
        else:
            link = (
                f'<uws:result id="result" xlink:href="{self.service.url}/async/{words[0]}/results/result"/>'
            )
            error = (
                "<uws:errorSummary type='transient'><uws:message>out of luck</uws:message></uws:errorSummary>"
            )
            self._answer(
                200,
                UWS.format(
                    id=words[0],
                    phase=job["phase"],
                    error=error if job["phase"] == "ERROR" else "",
                    results=link if job["phase"] == "COMPLETED" else "",
                ),
            )

    def _result(self, job: dict[str, str]) -> None:
        table, _ = self.service.votable(job["query"], int(job["maxrec"]))
        fault, job["fault"] = job["fault"], ""
        row = table[table.find("<TR>") : table.find("</TR>") + 5]
        if fault == "torn":
            job["fault"] = fault  # of this job for ever
            table = table[: len(table) // 2]
        elif fault == "lost":
            table = table.replace(row, "", 1)
        elif fault == "twice":
            table = table.replace(row, row + row, 1)
        if fault not in ("cut", "stall", "restart"):
            self._answer(200, table)
            return
        content = table.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        if fault == "stall":
            self.service.stalled.set()
            deadline = time.monotonic() + 60
            while not self.service.closing.is_set() and time.monotonic() < deadline:
                time.sleep(0.05)
        elif fault == "restart":
            self.service.jobs.clear()
        self.close_connection = True

    def do_DELETE(self) -> None:
        name = self.path.rpartition("/")[2]
        self.service.deleted.append(name)
        self.service.jobs.pop(name, None)
        self._answer(200)
