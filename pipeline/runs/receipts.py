"""Receipts of a run: read them, write them into one table, and compare them with their leaves.

`PartitionStatus.is_intact` states which leaves are trusted without reading them.
"""

from __future__ import annotations

import datetime
import io
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from upath import UPath

from ojala.catalogs_schema.receipt import Attempt, Fingerprint, Leaf, Receipt
from ojala.pipeline.storage.files import READERS, FileStat, is_local, list_files, sha256_of, write_whole
from ojala.pipeline.storage.healpix import Partition

RECEIPTS = "receipts"
"""Folder of a run's receipts."""

TABLE = "provenance/receipts.parquet"
"""All receipts of a run that has ended, with size and time of change of their leaves."""

_RECEIPT = re.compile(rf"{RECEIPTS}/Norder=(\d+)/Npix=(\d+)\.json")
"""Paths of receipts in a run's folder."""

_PRODUCT = re.compile(r"[a-z][a-z0-9_]*")
"""Names of products; such a name cannot lead out of the run's folder."""


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """State of one partition in a run, from its receipt.

    Attributes
    ----------
    run_id : str
        Run that processed the partition.
    status : str
        ``done`` or ``failed``; ``damaged`` where the receipt cannot be read or is another partition's.
    key : str
        Hash of the fingerprint.
    fingerprint : Fingerprint or None
        Everything that the numbers depend on; None where the receipt is damaged.
    leaves : tuple of Leaf
        The files written.
    flags : dict of str to float
        Share of the partition's rows per flag; ``any`` for rows with any.
    changed : dict of str to int
        Time of change of each leaf when the run ended [ns], by its path; empty while it goes on.
    written : int
        When the receipt was written [ns].
    """

    run_id: str
    status: str
    key: str
    fingerprint: Fingerprint | None
    leaves: tuple[Leaf, ...]
    flags: dict[str, float]
    changed: dict[str, int]
    written: int

    def is_intact(self, run: UPath, files: dict[str, FileStat], *, check: bool = False) -> bool:
        """Whether the leaves are the files that the receipt lists.

        A leaf of the receipt's size is trusted without reading it if its time of change is the one that
        was noted when the run ended, or, in a run that goes on, if it was not changed after its receipt was
        written. Any other leaf of that size is read and its SHA-256 compared.

        Parameters
        ----------
        run : UPath
            The run's folder.
        files : dict of str to FileStat
            Its files, from `list_files`.
        check : bool
            Read all leaves, trust none.
        """
        for leaf in self.leaves:
            stat = files.get(leaf.path)
            if stat is None or stat.bytes != leaf.bytes:
                return False
            if self.changed:
                trusted = stat.changed == self.changed.get(leaf.path)
            else:
                trusted = stat.changed <= self.written
            if (check or not trusted) and sha256_of(run / leaf.path) != leaf.sha256:
                return False
        return True


def load_partition_status(
    run: UPath, partitions: Collection[Partition], files: dict[str, FileStat], *, ended: bool
) -> dict[Partition, PartitionStatus]:
    """Load the state of those of the given partitions that have receipts in a run.

    Parameters
    ----------
    run : UPath
        The run's folder.
    partitions : collection of Partition
        Partitions of the input.
    files : dict of str to FileStat
        The run's files, from `list_files`.
    ended : bool
        Whether the run ended, so that its table of receipts is up to date.
    """
    if ended and TABLE in files:
        try:
            return {p: status for p, status in _from_table(run) if p in partitions}
        except (OSError, pa.ArrowException, ValidationError, KeyError):
            pass  # the receipts themselves are still there
    wanted = {_name(p): p for p in partitions}
    there = [name for name in wanted if name in files]
    return {
        wanted[name]: _status_of(content, wanted[name], files[name].changed)
        for name, content in _read_all(run, there)
        if content is not None
    }


def read_receipts(run: UPath, partitions: Collection[Partition]) -> list[Receipt]:
    """Read the receipts of partitions in a run, in their order, without those that cannot be read."""
    files = list_files(run / RECEIPTS)
    names = [_name(p) for p in partitions]
    there = [name for name in names if name.removeprefix(f"{RECEIPTS}/") in files]
    receipts = []
    for name, content in _read_all(run, there):
        try:
            receipt = Receipt.model_validate_json(content or b"")
        except ValidationError:
            continue
        if _name(Partition.parse(receipt.partition)) == name:
            receipts.append(receipt)
    return receipts


def write_receipts_table(run: UPath, receipts: Sequence[Receipt]) -> None:
    """Write the receipts of a run into one file, with the time of change of each leaf."""
    files = list_files(run)
    columns: dict[str, list[Any]] = {"partition": [], "receipt": [], "changed": []}
    for receipt in receipts:
        columns["partition"].append(receipt.partition)
        columns["receipt"].append(receipt.model_dump_json())
        columns["changed"].append([files[leaf.path].changed for leaf in receipt.leaves])
    types = [pa.string(), pa.string(), pa.list_(pa.int64())]
    table = pa.table({name: pa.array(v, t) for (name, v), t in zip(columns.items(), types, strict=True)})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    write_whole(run / TABLE, sink.getvalue())


def all_receipts(run: UPath) -> list[Receipt]:
    """Read all receipts of a run, from its table where it has one, else one by one."""
    try:
        return [Receipt.model_validate_json(row["receipt"]) for row in _rows(run)]
    except (OSError, pa.ArrowException, ValidationError, KeyError):
        matches = [_RECEIPT.fullmatch(name) for name in list_files(run)]
        return read_receipts(run, [Partition(int(match[1]), int(match[2])) for match in matches if match])


def _rows(run: UPath) -> Iterator[dict[str, Any]]:
    table = pq.ParquetFile(pa.BufferReader((run / TABLE).read_bytes()))
    for batch in table.iter_batches(batch_size=1000):
        yield from batch.to_pylist()


def _from_table(run: UPath) -> Iterator[tuple[Partition, PartitionStatus]]:
    for row in _rows(run):
        partition = Partition.parse(row["partition"])
        status = _status_of(row["receipt"].encode(), partition, 0)
        changed = dict(zip((leaf.path for leaf in status.leaves), row["changed"], strict=True))
        yield partition, replace(status, changed=changed)


def _status_of(content: bytes, partition: Partition, written: int) -> PartitionStatus:
    """State of a partition from its receipt; a receipt with unexpected paths counts as damaged."""
    damaged = PartitionStatus("", "damaged", "", None, (), {}, {}, written)
    try:
        receipt = Receipt.model_validate_json(content)
    except ValidationError:
        return damaged
    expected = all(
        _PRODUCT.fullmatch(leaf.product) and leaf.path == f"{leaf.product}/{partition.leaf}"
        for leaf in receipt.leaves
    )
    if receipt.partition != partition.name or not expected or receipt.key != receipt.ingredients.key():
        return damaged
    flags = {}
    if receipt.summary is not None and receipt.rows_out:
        counts = {**receipt.summary.flags, "any": receipt.summary.flagged}
        flags = {name: count / receipt.rows_out for name, count in counts.items() if count}
    return PartitionStatus(
        receipt.run_id,
        receipt.status,
        receipt.key,
        receipt.ingredients,
        tuple(receipt.leaves),
        flags,
        {},
        written,
    )


def _name(partition: Partition) -> str:
    return f"{RECEIPTS}/Norder={partition.order}/Npix={partition.pixel}.json"


def _read_all(run: UPath, names: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
    """Contents of files in a run's folder, in their order; None where one is gone."""

    def read(name: str) -> bytes | None:
        try:
            return (run / name).read_bytes()
        except FileNotFoundError:
            return None

    if is_local(run):
        yield from ((name, read(name)) for name in names)
        return
    with ThreadPoolExecutor(READERS) as pool:
        yield from zip(names, pool.map(read, names), strict=True)


def worker_rate(receipts: Sequence[Receipt]) -> float:
    """Rows a second of one worker over all partitions that were done."""
    done = [receipt for receipt in receipts if receipt.status == "done"]
    seconds = sum(seconds_at_work([receipt.attempts[-1] for receipt in done]).values())
    return sum(receipt.rows_out for receipt in done) / seconds if seconds else 0.0


def seconds_at_work(attempts: Iterable[Attempt]) -> dict[tuple[str, int], float]:
    """Seconds in which each worker, by host and process, was busy with one partition or with several."""
    spans = defaultdict(list)
    for attempt in attempts:
        begin = datetime.datetime.fromisoformat(attempt.started).timestamp()
        spans[attempt.host, attempt.pid].append((begin, begin + attempt.seconds))
    busy = {}
    for worker, times in spans.items():
        covered, last = 0.0, 0.0
        for begin, end in sorted(times):
            covered += max(0.0, end - max(begin, last))
            last = max(last, end)
        busy[worker] = covered
    return busy
