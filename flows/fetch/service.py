"""A TAP service: login, asynchronous jobs, and downloads that neither wait without end nor end too early.

The protocols are the IVOA Recommendations TAP 1.1 and UWS 1.1; pyvo (extra `archive`) speaks them.
"""

from __future__ import annotations

import html
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import IO, TYPE_CHECKING, Any
from xml.parsers.expat import ExpatError

from upath import UPath

from ojala.catalogs_schema.errors import AccessError
from ojala.catalogs_schema.urls import redact, without_credentials
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.detect import open_table

try:
    import pyvo
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry
except ImportError as problem:
    raise AccessError(
        f"pyvo cannot be imported ({problem}): install the extra, pip install '.[archive]'"
    ) from problem

if TYPE_CHECKING:
    from pyvo.dal import AsyncTAPJob

USER, PASSWORD = "OJALA_TAP_USER", "OJALA_TAP_PASSWORD"
"""Variables of the environment with the credentials; without them ~/.netrc is read."""

ARCHIVE_PATH = "/catalogues/vo/tap/"
"""Part of the TAP addresses of the archive of J-PAS, whose login is a form at ``/catalogues/login``."""

_BLOCK = 1 << 20
_SMALL = 1_000_000  # rows of a result that is held in memory
_BUSY = (429, 502, 503, 504)
_ENDED = ("COMPLETED", "ERROR", "ABORTED", "ARCHIVED")


class ServiceError(AccessError):
    """A request that failed and can be repeated."""


class Refused(AccessError):
    """A request that the service does not allow; repeating it does not help."""


class Stopped(Exception):
    """The command is ending."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of time, size and number.

    Attributes
    ----------
    maxrec : int
        Most rows of a job; the archive of J-PAS sends no more than a million.
    parallel : int
        Jobs at a time.
    attempts : int
        Attempts at a job.
    backoff : float
        Time before the second attempt [s]; it doubles with each further one, up to five minutes.
    silence : float
        Longest time without an answer or without a byte [s].
    job_seconds : float
        Longest time that a job may wait and run at the service [s].
    poll : float
        Time between the first two questions for the state of a job [s]; it grows to `max_poll`.
    """

    maxrec: int = 1_000_000
    parallel: int = 2
    attempts: int = 5
    backoff: float = 2.0
    silence: float = 60.0
    job_seconds: float = 3600.0
    poll: float = 0.5
    max_poll: float = 10.0

    def pause(self, attempt: int) -> float:
        """Time before the next attempt, after so many [s]."""
        return min(300.0, self.backoff * 2.0 ** (attempt - 1))


class _Session(requests.Session):
    """Session whose requests end, and which repeats questions of a busy service."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._timeout = (min(10.0, limits.silence), limits.silence)
        repeat = Retry(
            total=3, backoff_factor=limits.backoff / 2, status_forcelist=_BUSY, allowed_methods=("GET",)
        )
        for scheme in ("http://", "https://"):
            self.mount(scheme, HTTPAdapter(max_retries=repeat))

    def request(self, *arguments: Any, **options: Any) -> requests.Response:  # noqa: ANN401 - as its base
        options["timeout"] = options.get("timeout") or self._timeout
        return super().request(*arguments, **options)


@dataclass
class Service:
    """A TAP service.

    Attributes
    ----------
    url : str
        Its address.
    limits : Limits
        Limits of time.
    stopped : Event
        Set when the command ends; what waits then raises `Stopped`.
    """

    url: str
    limits: Limits
    stopped: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.url = without_credentials(self.url).rstrip("/")
        self._session = _Session(self.limits)
        user, password = os.environ.get(USER), os.environ.get(PASSWORD)
        if not user or not password:
            return
        root, archive, _ = self.url.partition(ARCHIVE_PATH)
        if not archive:
            self._session.auth = (user, password)
            return
        with self._errors():
            form = {"login": user, "password": password, "submit": "Sign In"}
            answer = self._session.post(f"{root}/catalogues/login", data=form)
            answer.raise_for_status()

    def download(
        self,
        query: str,
        to: IO[bytes],
        *,
        job_url: str = "",
        submitted: Callable[[str], None] = lambda url: None,
        received: Callable[[int], None] = lambda count: None,
        filters: str = "",
        maxrec: int | None = None,
    ) -> None:
        """Run a query as an asynchronous job and write its VOTable; the job is deleted then.

        Parameters
        ----------
        query : str
            ADQL.
        to : binary file
            Where the VOTable goes.
        job_url : str
            A job of this query that was submitted earlier: it is continued if it is still there and well.
        submitted, received : callable
            Called with the address of a new job, and with the number of bytes of each block.
        filters : str
            Names of the filters of array columns, which are written into the header.
        maxrec : int, optional
            Most rows of the result; default: that of `limits`.

        Raises
        ------
        ServiceError
            If it failed or took too long; it can be repeated, with `job_url`.
        Refused
            If the service wants a login.
        """
        with self._errors():
            job = self._earlier(job_url) or self._submit(query, maxrec or self.limits.maxrec)
            if job.url != job_url:
                submitted(job.url)
            self._wait(job)
            job.raise_if_error()
            if job.result_uri is None:
                raise ServiceError(f"the job {job.url} has ended without a result")
            with self._session.get(job.result_uri, stream=True) as answer:
                answer.raise_for_status()
                for block in _with_filters(answer.iter_content(_BLOCK), filters):
                    self._check_stopped()
                    to.write(block)
                    received(len(block))

    def delete(self, job_url: str) -> None:
        """Delete a job, whose result is not needed any more; a service that does not is left alone."""
        with suppress(ServiceError, Refused), self._errors():
            self._session.delete(job_url, allow_redirects=False)

    def rows(self, query: str, *, at_once: bool = False) -> list[tuple[str, ...]]:
        """All rows of a small result, as texts; repeated when it fails.

        Parameters
        ----------
        query : str
            ADQL.
        at_once : bool
            Ask for an answer without a job, which takes less time; services give it a short limit of time.
        """
        for attempt in range(1, self.limits.attempts + 1):
            jobs: list[str] = []
            try:
                with tempfile.TemporaryDirectory(prefix="ojala-tap-") as folder:
                    path = Path(folder, "rows.vot")
                    with path.open("wb") as file:
                        if at_once:
                            self._download_at_once(query, file)
                        else:
                            self.download(query, file, submitted=jobs.append, maxrec=_SMALL)
                    return _rows(path)
            except (ServiceError, SourceError) as problem:
                if attempt == self.limits.attempts:
                    raise ServiceError(f"{query}: {problem}") from problem
            finally:
                for job in jobs:
                    self.delete(job)
            self.wait(self.limits.pause(attempt))
        raise AssertionError("there is at least one attempt")

    def _download_at_once(self, query: str, to: IO[bytes]) -> None:
        with self._errors():
            asked = {"REQUEST": "doQuery", "LANG": "ADQL", "QUERY": query, "MAXREC": str(_SMALL)}
            with self._session.post(f"{self.url}/sync", data=asked, stream=True) as answer:
                if answer.status_code != requests.codes.bad_request:  # whose document has the reason
                    answer.raise_for_status()
                for block in answer.iter_content(_BLOCK):
                    to.write(block)

    def wait(self, seconds: float) -> None:
        """Wait, unless the command ends."""
        if self.stopped.wait(seconds):
            raise Stopped

    def _check_stopped(self) -> None:
        if self.stopped.is_set():
            raise Stopped

    def _submit(self, query: str, maxrec: int) -> AsyncTAPJob:
        return pyvo.dal.AsyncTAPJob.create(self.url, query, maxrec=maxrec, session=self._session).run()

    def _earlier(self, job_url: str) -> AsyncTAPJob | None:
        """A job that was submitted earlier; None if it is gone or has failed."""
        if not job_url:
            return None
        try:
            job = pyvo.dal.AsyncTAPJob(job_url, session=self._session, delete=False)
            failed = job.phase in ("ERROR", "ABORTED")
        except (pyvo.dal.DALServiceError, ValueError, ExpatError):
            return None
        return None if failed else job

    def _wait(self, job: AsyncTAPJob) -> None:
        begin, pause = time.monotonic(), self.limits.poll
        while (phase := job.phase) not in _ENDED:
            waited = time.monotonic() - begin
            if waited > self.limits.job_seconds:
                with suppress(pyvo.dal.DALServiceError):
                    job.abort()
                raise ServiceError(f"the job {job.url} is {phase} after {waited:.0f} s")
            if phase in ("PENDING", "HELD"):
                job.run()
            self.wait(pause)
            pause = min(self.limits.max_poll, 1.5 * pause)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert errors of the protocol."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # oddities of a service's documents
                yield
        except (ServiceError, Refused, SourceError):
            raise
        except (pyvo.dal.DALAccessError, requests.RequestException, ExpatError, ValueError) as problem:
            cause: Any = problem
            answer = getattr(cause, "response", None)
            code = getattr(cause, "code", None) or getattr(answer, "status_code", 0)
            text = redact(str(problem).strip() or type(problem).__name__)
            if str(code) in ("401", "403"):
                raise Refused(
                    f"{self.url} refuses this call ({code}): set {USER} and {PASSWORD} in the environment to "
                    "an account that may read these tables"
                ) from problem
            raise ServiceError(text) from problem


def _rows(path: Path) -> list[tuple[str, ...]]:
    with open_table(UPath(path), UPath(path.parent)) as source:
        names = list(source.columns)
        batches = [batch.to_pydict() for batch in source.batches(names)]
    return [row for batch in batches for row in zip(*(map(_text, batch[n]) for n in names), strict=True)]


def _text(cell: object) -> str:
    if isinstance(cell, bytes):
        cell = cell.decode()
    return "" if cell is None else str(cell).strip()


_TABLE = re.compile(rb"<(\w+:)?TABLE\b")


def _with_filters(blocks: Iterator[bytes], filters: str) -> Iterator[bytes]:
    """The blocks of a VOTable with an INFO that names the filters of array columns."""
    head = b""
    for block in blocks:
        if not filters:
            yield block
            continue
        head += block
        if match := _TABLE.search(head):
            info = f'INFO name="FILTERS" value="{html.escape(filters)}"/>'.encode()
            yield head[: match.start()] + b"<" + (match[1] or b"") + info + head[match.start() :]
            head, filters = b"", ""
    yield head
