"""List of jobs on disk, by which a later command continues an interrupted one.

Each change is one line of JSON that is appended; the last line of a job counts. A line that a crash has cut
off is ignored.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

JOBS = "jobs.jsonl"
"""The list's name in the folder of the tables."""

State = Literal["waiting", "sent", "done", "split"]


@dataclass(frozen=True, slots=True)
class Job:
    """The rows of one tile of a table, or a range of their numbers.

    Attributes
    ----------
    table, tile : str
        Name of the table, and the tile; empty where the table is not divided.
    first, last : int or None
        Range of numbers; None for the whole tile.
    rows : int
        Rows that the archive counts.
    state : str
        ``waiting``; ``sent`` to the service; ``done``, its file is there; ``split`` into two.
    url : str
        Address of the job at the service.
    bytes : int
        Size of the file.
    """

    table: str
    tile: str
    first: int | None
    last: int | None
    rows: int
    state: State = "waiting"
    url: str = ""
    bytes: int = 0

    @property
    def path(self) -> str:
        """Path of the file below the folder of the tables."""
        part = "" if self.first is None else f"_{self.first}-{self.last}"
        return f"{self.table}/{quote(self.tile, safe='') or 'all'}{part}.vot"

    def __str__(self) -> str:
        part = "" if self.first is None else f", numbers {self.first} to {self.last}"
        return f"{self.table}, tile {self.tile}{part}" if self.tile else self.table


@dataclass(frozen=True, slots=True)
class TileCount:
    """Rows and range of numbers of a tile in the archive; None where it has none."""

    rows: int
    first: int | None
    last: int | None


class JobList:
    """The jobs of a folder.

    Parameters
    ----------
    folder : Path
        Folder of the tables; the list is made if there is none.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOBS
        self._writing = threading.Lock()
        self._counts: dict[tuple[str, str], tuple[str, TileCount]] = {}
        self._jobs: dict[tuple[str, str], dict[str, Job]] = {}
        text = self._path.read_bytes() if self._path.exists() else b""
        for line in text.splitlines():
            try:
                self._take(json.loads(line))
            except ValueError:
                continue  # cut off by a crash; what it said is done again
        if text and not text.endswith(b"\n"):
            self._append("")

    def tiles(self, table: str) -> set[str]:
        """Tiles of a table in the list."""
        return {tile for name, tile in self._counts if name == table}

    def is_known(self, table: str, tile: str, query: str, count: TileCount) -> bool:
        """Whether the tile is in the list, with this query and these counts."""
        return self._counts.get((table, tile)) == (query, count)

    def begin(self, table: str, tile: str, query: str, count: TileCount) -> None:
        """Put a tile into the list as one job, in place of its earlier jobs."""
        self._note({"table": table, "tile": tile, "query": query, **asdict(count)})

    def update(self, job: Job, **changes: Any) -> Job:  # noqa: ANN401 - fields of `Job`
        """Change a job and note it."""
        changed = replace(job, **changes)
        self._note(asdict(changed))
        return changed

    def split(self, job: Job, parts: list[Job]) -> None:
        """Replace a job by others."""
        self._note({"split": asdict(job), "parts": [asdict(part) for part in parts]})

    def jobs(self, table: str, tile: str) -> list[Job]:
        """Jobs of a tile, without those that were split."""
        return list(self._jobs.get((table, tile), {}).values())

    def _note(self, entry: dict[str, Any]) -> None:
        with self._writing:
            self._take(entry)
            self._append(json.dumps(entry))

    def _take(self, entry: dict[str, Any]) -> None:
        if "split" in entry:
            old = Job(**entry["split"])
            jobs = self._jobs[old.table, old.tile]
            del jobs[old.path]
            jobs |= {part.path: part for part in (Job(**one) for one in entry["parts"])}
        elif "query" in entry:
            key = entry["table"], entry["tile"]
            count = TileCount(entry["rows"], entry["first"], entry["last"])
            self._counts[key] = entry["query"], count
            whole = Job(*key, None, None, count.rows)
            self._jobs[key] = {whole.path: whole}
        else:
            job = Job(**entry)
            self._jobs[job.table, job.tile][job.path] = job

    def _append(self, line: str) -> None:
        with self._path.open("a") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
