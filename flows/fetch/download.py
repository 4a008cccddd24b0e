"""Download of tables: every row that the archive counts is in one file, once, or the command fails."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from upath import UPath

from ojala.catalogs_schema.errors import ExitCode, OjalaError
from ojala.catalogs_schema.files import atomic_file
from ojala.flows.fetch.jobs import Job, JobList, TileCount
from ojala.flows.fetch.service import Limits, Service, ServiceError
from ojala.flows.fetch.tables import ArchiveTable, TableError, find_tables, read_names
from ojala.pipeline.ingest.errors import QueryOverflow, SourceError
from ojala.pipeline.ingest.formats.detect import open_table
from ojala.pipeline.storage.files import remedies, remove_unfinished, utc_now, write_whole
from ojala.pipeline.storage.lock import hold
from ojala.pipeline.storage.progress import report, state

MANIFEST = "fetch.json"
"""Index of the folder: service, queries, rows and files by tile."""


class FetchError(OjalaError):
    """Rows that could not be fetched."""

    exit_code = ExitCode.INCOMPLETE


@dataclass
class FetchSummary:
    """Outcome of a command.

    Attributes
    ----------
    rows, bytes, jobs : int
        Fetched by this command.
    seconds : float
        Time that it took.
    kept : int
        Files of earlier commands that are still valid.
    tables : dict of str to dict of str to int
        Rows of each tile of each table in the folder.
    changed : dict of str to list of str
        Tiles that were there with other counts, and were fetched again, by table.
    withdrawn : dict of str to list of str
        Tiles in the folder that the archive does not have any more, by table; their files stay.
    failed : dict of str to str
        Reasons by job.
    """

    rows: int = 0
    bytes: int = 0
    jobs: int = 0
    seconds: float = 0.0
    kept: int = 0
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    changed: dict[str, list[str]] = field(default_factory=dict)
    withdrawn: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def fetch_tables(
    url: str,
    tables: Sequence[str],
    out: Path,
    *,
    tiles: Sequence[str] = (),
    mapping: Path | None = None,
    limits: Limits | None = None,
) -> FetchSummary:
    """Fetch tables from a TAP service, a file for each tile, ``OUT/TABLE/TILE.vot``.

    The archive is asked for the rows of each tile first, and what comes is compared with it. The same call
    continues after an interruption, and later fetches what is new or has other counts.

    Parameters
    ----------
    url : str
        Address of the service; credentials are in the environment (`ojala.flows.fetch.service`).
    tables : sequence of str
        Names of presets, of the mapping, or of the archive.
    out : Path
        Folder of the tables.
    tiles : sequence of str
        Tiles to fetch; all if empty.
    mapping : Path, optional
        TOML file in the form of ``presets.toml``.
    limits : Limits, optional
        Limits of time, size and number.

    Raises
    ------
    TableError
        If the archive lacks a table, a column or a tile.
    FetchError
        If jobs failed; all others are done.
    AccessError
        If the service cannot be used, or nothing can be written.
    """
    begin = time.monotonic()
    limits = limits or Limits()
    with remedies(UPath(out)), hold(UPath(out), "fetch"):
        remove_unfinished(UPath(out))
        service = Service(url, limits)
        names = read_names(mapping)
        found = find_tables(service, tables, names)
        download = _Download(service, found, out, limits)
        download.plan(tiles)
        download.run()
        download.summary.seconds = time.monotonic() - begin
        download.finish()
    if failed := download.summary.failed:
        name, reason = next(iter(failed.items()))
        raise FetchError(
            f"{len(failed):,} of {len(failed) + download.summary.jobs:,} jobs failed, {name}: {reason}; all "
            "others are done, and the same command tries these again"
        )
    return download.summary


class _CutOff(Exception):
    """The result has fewer rows than the archive counts."""


class _Download:
    """The work of one command."""

    def __init__(self, service: Service, tables: list[ArchiveTable], out: Path, limits: Limits) -> None:
        self._service = service
        self._tables = {table.name: table for table in tables}
        self._out = out
        self._limits = limits
        self._list = JobList(out)
        self._filters: dict[str, str] = {}
        self._to_do: list[Job] = []
        self.summary = FetchSummary()
        self._received = 0

    def plan(self, tiles: Sequence[str]) -> None:
        """Count the rows of all tiles, and find what there is to do."""
        missing = set(tiles)
        for table in self._tables.values():
            report(f"counting the rows of {table.table}")
            counts = self._count_tiles(table, tiles)
            self._filter_names(table)
            missing -= set(counts)
            gone = self._list.tiles(table.name) - set(counts)
            if gone and not tiles:
                self.summary.withdrawn[table.name] = sorted(gone)
            for tile, count in counts.items():
                self._plan_tile(table, tile, count)
        if missing and any(table.tile for table in self._tables.values()):
            raise TableError(
                f"the archive has no rows of the tiles {', '.join(sorted(missing))} in "
                f"{', '.join(table.table for table in self._tables.values())}; leave them out of --tiles"
            )

    def _plan_tile(self, table: ArchiveTable, tile: str, count: TileCount) -> None:
        if not self._list.is_known(table.name, tile, table.select(), count):
            if tile in self._list.tiles(table.name):
                self.summary.changed.setdefault(table.name, []).append(tile)
            self._list.begin(table.name, tile, table.select(), count)
        for job in self._list.jobs(table.name, tile):
            file = self._out / job.path
            if job.state == "done" and file.exists() and file.stat().st_size == job.bytes:
                self.summary.kept += 1
            else:
                self._to_do.append(job)

    def _count_tiles(self, table: ArchiveTable, tiles: Sequence[str]) -> dict[str, TileCount]:
        rows = self._service.rows(table.counts(tiles))
        if not table.tile:
            return {"": TileCount(int(rows[0][0]), None, None)}
        return {
            tile: TileCount(int(n), *(int(number) for number in keys) if keys else (None, None))
            for tile, n, *keys in rows
        }

    def _filter_names(self, table: ArchiveTable) -> str:
        """Names of the filters in the order of array columns: the table Filter of the same schema."""
        schema = table.table.rpartition(".")[0]
        if schema in self._filters:
            return self._filters[schema]
        self._filters[schema] = ""
        with suppress(ServiceError, TableError):
            own = find_tables(self._service, [f"{schema}.Filter"], read_names(None))[0]
            rows = self._service.rows(f"SELECT filter_id, name FROM {own.table}", at_once=True)
            self._filters[schema] = " ".join(name for _, name in sorted(rows, key=lambda row: int(row[0])))
        return self._filters[schema]

    def run(self) -> None:
        """Do all jobs; a job that fails for good does not keep the others from being done."""
        total = sum(job.rows for job in self._to_do)
        report(
            f"{len(self._to_do):,} jobs with {total:,} rows to fetch, {self.summary.kept:,} files are there"
        )
        waiting = list(reversed(self._to_do))
        running: dict[Future[list[Job]], Job] = {}
        with self._bar(total) as advance, ThreadPoolExecutor(self._limits.parallel) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < self._limits.parallel:
                        job = waiting.pop()
                        running[pool.submit(self._do, job)] = job
                    done, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                    for future in done:
                        waiting += self._outcome(running.pop(future), future)
                    advance(len(waiting) + len(running))
            except BaseException:  # other threads stop, also at Ctrl-C; raised again
                self._service.stopped.set()
                raise

    def _outcome(self, job: Job, future: Future[list[Job]]) -> list[Job]:
        try:
            parts = future.result()
        except (ServiceError, SourceError) as problem:
            self.summary.failed[str(job)] = str(problem)
            return []
        if not parts:
            self.summary.jobs += 1
        return parts

    @contextmanager
    def _bar(self, total: int) -> Iterator[Any]:
        """Show rows and bytes: a bar on a terminal, else in the state of the command."""
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.fields[rows]} rows"), BarColumn(), TextColumn("{task.fields[size]}"),
            TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("rows", total=total, rows="0", size="")

            def advance(left: int) -> None:
                rows, size = f"{self.summary.rows:,} of {total:,}", f"{self._received / 1e6:,.1f} MB"
                bar.update(task, completed=self.summary.rows, rows=rows, size=size)
                state(f"{rows} rows, {size} fetched, {left:,} jobs to do")

            yield advance

    def _do(self, job: Job) -> list[Job]:
        """Fetch the rows of a job; returns the jobs that it has to be split into."""
        if job.rows > self._limits.maxrec:
            return self._split(job)
        for attempt in range(1, self._limits.attempts + 1):
            try:
                self._fetch(job)
            except _CutOff:
                return self._split(job)
            except SourceError as problem:  # the result itself is damaged
                self._service.delete(self._present(job).url)
                job = self._list.update(job, state="waiting", url="")
                if attempt == self._limits.attempts:
                    raise ServiceError(f"the result {problem}") from problem
            except ServiceError:
                if attempt == self._limits.attempts:
                    raise
            else:
                return []
            self._service.wait(self._limits.pause(attempt))
        raise AssertionError("there is at least one attempt")

    def _present(self, job: Job) -> Job:
        """The job as it is in the list."""
        return next(one for one in self._list.jobs(job.table, job.tile) if one.path == job.path)

    def _fetch(self, job: Job) -> None:
        table = self._tables[job.table]
        path = self._out / job.path
        job = self._present(job)
        sent = [job.url]

        def submitted(url: str) -> None:
            sent.append(url)
            self._list.update(job, state="sent", url=url)

        def received(count: int) -> None:
            self._received += count

        rows = 0
        if job.rows:
            query = table.select() + table.where(job.tile, job.first, job.last)
            with remedies(UPath(path)), atomic_file(path) as file:
                self._service.download(
                    query, file, job_url=job.url, submitted=submitted, received=received,
                    filters=self._filter_names(table),
                )  # fmt: skip
                file.flush()
                rows = _check(Path(file.name), table, job)
                if rows != job.rows:
                    self._compare(job, rows)
        size = path.stat().st_size if job.rows else 0
        self._list.update(job, state="done", url="", bytes=size, rows=rows)
        self.summary.rows += rows
        self.summary.bytes += size
        if sent[-1]:
            self._service.delete(sent[-1])

    def _compare(self, job: Job, rows: int) -> None:
        """Compare the rows that came with a new count; the table may have changed.

        Raises
        ------
        _CutOff
            If there are fewer than the archive counts.
        ServiceError
            If there are more.
        """
        counted = self._count(job)
        if rows < counted:
            raise _CutOff
        if rows > counted:
            raise ServiceError(f"{job}: {rows:,} rows came, the archive counts {counted:,}")

    def _count(self, job: Job) -> int:
        table = self._tables[job.table]
        where = table.where(job.tile, job.first, job.last)
        return int(self._service.rows(f"SELECT COUNT(*) AS n_rows FROM {table.table}{where}")[0][0])

    def _split(self, job: Job) -> list[Job]:
        """Split a job into two halves of its range of numbers, each with its own count."""
        job = self._present(job)
        table = self._tables[job.table]
        (first, last) = (job.first, job.last) if job.first is not None else self._range(job)
        if not table.number or first is None or last is None or first >= last:
            raise ServiceError(
                f"{job} has {job.rows:,} rows, more than the service sends at once, and cannot be split: "
                "name its `number` column in a file for --mapping"
            )
        middle = (first + last) // 2
        parts = [Job(job.table, job.tile, *ends, 0) for ends in ((first, middle), (middle + 1, last))]
        parts = [Job(one.table, one.tile, one.first, one.last, self._count(one)) for one in parts]
        if job.url:
            self._service.delete(job.url)
        self._list.split(job, parts)
        return parts

    def _range(self, job: Job) -> tuple[int | None, int | None]:
        count = self._count_tiles(self._tables[job.table], [job.tile] if job.tile else []).get(job.tile)
        return (count.first, count.last) if count else (None, None)

    def finish(self) -> None:
        """Remove files of earlier divisions of a tile, and write the manifest."""
        path = UPath(self._out / MANIFEST)
        earlier = json.loads(path.read_text())["tables"] if path.exists() else {}
        manifest = {"service": self._service.url, "date": utc_now(), "tables": earlier}
        for table in self._tables.values():
            gone = set(self.summary.withdrawn.get(table.name, ()))
            held: dict[str, Any] = {}
            for tile in sorted(self._list.tiles(table.name) - gone):
                jobs = self._list.jobs(table.name, tile)
                if all(job.state == "done" for job in jobs):
                    held[tile] = {
                        "rows": sum(job.rows for job in jobs),
                        "files": [j.path for j in jobs if j.rows],
                    }
                    self._remove_others(jobs)
            self.summary.tables[table.name] = {tile: one["rows"] for tile, one in held.items()}
            earlier[table.name] = {"table": table.table, "query": table.select(), "tiles": held}
        write_whole(path, json.dumps(manifest, indent=1).encode())

    def _remove_others(self, jobs: list[Job]) -> None:
        whole = self._out / Job(jobs[0].table, jobs[0].tile, None, None, 0).path
        mine = {(self._out / job.path).name for job in jobs if job.rows}
        for path in [whole, *whole.parent.glob(f"{whole.stem}_*.vot")]:
            if path.name not in mine:
                path.unlink(missing_ok=True)


def _check(path: Path, table: ArchiveTable, job: Job) -> int:
    """Number of rows of a file, which must be whole and of this job alone.

    Raises
    ------
    _CutOff
        If the service says that it has cut the result off.
    SourceError
        If the file is damaged, or has rows of another job.
    """
    keys = [name.lower() for name in (table.tile, table.number) if name]
    try:
        with open_table(UPath(path), UPath(path.parent)) as source:
            absent = [name for name in keys if name not in source.columns]
            if absent:
                raise SourceError(f"has no column {absent[0]}: it has {', '.join(source.columns)}")
            rows = 0
            for batch in source.batches(keys or list(source.columns)[:1]):
                _check_keys(batch, table, job)
                rows += batch.num_rows
            return rows
    except QueryOverflow as problem:
        raise _CutOff from problem


def _check_keys(batch: pa.RecordBatch, table: ArchiveTable, job: Job) -> None:
    if table.tile:
        tiles = {_plain(one) for one in batch.column(0).unique().to_pylist()}
        if tiles - {job.tile}:
            raise SourceError(f"has rows of other tiles: {', '.join(sorted(tiles - {job.tile})[:5])}")
    if job.first is not None and job.last is not None:
        numbers = np.array([int(_plain(one)) for one in batch.column(1).to_pylist()])
        if numbers.size and (numbers.min() < job.first or numbers.max() > job.last):
            raise SourceError(f"has numbers outside of {job.first} to {job.last}")


def _plain(cell: object) -> str:
    return cell.decode().strip() if isinstance(cell, bytes) else str(cell).strip()
