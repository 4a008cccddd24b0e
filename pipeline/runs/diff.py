"""Difference of two runs of one product: rows added and withdrawn, classes and redshifts that changed.

Only partitions whose leaves are not the same files are read. Each row of them is attributed to its tile and
to the cause: what differs in the fingerprints of its partition, such as ``input`` or ``weights``.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.photometry import KEY_SHIFT
from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.runs.receipts import all_receipts
from ojala.pipeline.runs.record import read_record
from ojala.pipeline.storage.files import write_whole
from ojala.pipeline.storage.healpix import INDEX_ORDER, Partition, sky_order

DIFF_FILE = "diff.json"
"""Difference to the release that was published when the run ended, in the run's folder."""

CAUSES = {
    "input_sha256": "input",
    "weights_sha256": "weights",
    "config_sha256": "configuration",
    "code_version": "code",
    "contract_version": "contract",
}
"""Field of a fingerprint -> cause of a difference."""

_REDSHIFT = ("src.redshift", "src.redshift.phot")


class Changes(BaseModel):
    """Changed rows of a tile, of a cause or in all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    added: int = Field(default=0, description="rows that the former run does not have")
    withdrawn: int = Field(default=0, description="rows that only the former run has")
    compared: int = Field(default=0, description="rows that both have, in partitions that were reprocessed")
    class_changed: int = Field(default=0, description="of these, rows of another class")
    redshift_changed: int = Field(
        default=0,
        description="of these, rows whose redshift moved by more than its former error, or has one "
        "in one run only",
    )
    either_changed: int = Field(default=0, description="of these, rows of either kind")


class Difference(BaseModel):
    """Difference of a run from a former one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    former: str = Field(description="run that it is compared with")
    run_id: str = Field(description="the run")
    product: str = Field(description="main product of both")
    rows_before: int = Field(description="rows of the former run")
    rows: int = Field(description="rows of the run")
    partitions_same: int = Field(description="partitions whose leaves are the same files in both")
    partitions_read: int = Field(description="partitions of the run that were compared row by row")
    total: Changes = Field(description="changes in all")
    by_tile: dict[int, Changes] = Field(description="changes by tile of the survey, of tiles with any")
    by_cause: dict[str, Changes] = Field(description="changes by what differs in the fingerprints")
    classes: dict[str, int] = Field(description="rows by their change of class, such as `GALAXY to QSO`")

    @property
    def share(self) -> float:
        """Rows of another class or redshift, as a share of the rows that both have in all partitions."""
        return self.total.either_changed / max(self.rows - self.total.added, 1)

    @property
    def text(self) -> str:
        """One sentence."""
        total = self.total
        return (
            f"{total.added:,} rows added and {total.withdrawn:,} withdrawn since release {self.former}; of "
            f"{total.compared:,} rows that were made anew {total.class_changed:,} changed their class and "
            f"{total.redshift_changed:,} their redshift by more than its error"
        )


def read_difference(run: UPath) -> Difference | None:
    """Difference that is kept with a run; None where there is none or it cannot be read."""
    try:
        return Difference.model_validate_json((run / DIFF_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_difference(run: UPath, difference: Difference) -> None:
    """Write a difference into the folder of its run."""
    write_whole(run / DIFF_FILE, difference.model_dump_json(indent=1).encode())


def find_difference(
    former: UPath,
    run: UPath,
    former_receipts: Sequence[Receipt] | None = None,
    receipts: Sequence[Receipt] | None = None,
) -> Difference:
    """Compare the main product of a run with that of a former one.

    Parameters
    ----------
    former, run : UPath
        Folders of the runs.
    former_receipts, receipts : sequence of Receipt, optional
        Their receipts, where they have been read.

    Raises
    ------
    RecordError
        If one of them is no run.
    InputError
        If they are runs of different products, or a leaf cannot be read.
    """
    before, now = read_record(former), read_record(run)
    if before.main != now.main:
        raise InputError(
            f"run {before.run_id} is one of {before.main}, run {now.run_id} of {now.main}: compare runs of "
            "one product"
        )
    old = _done(all_receipts(former) if former_receipts is None else former_receipts)
    new = _done(all_receipts(run) if receipts is None else receipts)
    same = {p for p in old.keys() & new.keys() if _sha256(old[p]) == _sha256(new[p])}
    compare = _Comparison(former, run, before.contract(before.main), now.contract(now.main))
    for ours, theirs in _blocks(old.keys() - same, new.keys() - same):
        cause = _cause([old[p] for p in ours], [new[p] for p in theirs])
        compare.add(cause, [old[p] for p in ours], [new[p] for p in theirs])
    compare.match_moved()
    return Difference(
        former=before.run_id,
        run_id=now.run_id,
        product=now.main,
        rows_before=sum(receipt.rows_out for receipt in old.values()),
        rows=sum(receipt.rows_out for receipt in new.values()),
        partitions_same=len(same),
        partitions_read=len(new) - len(same),
        total=compare.changes(compare.total),
        by_tile={tile: compare.changes(found) for tile, found in sorted(compare.by_tile.items())},
        by_cause={cause: compare.changes(found) for cause, found in sorted(compare.by_cause.items())},
        classes=dict(compare.classes.most_common()),
    )


def _done(receipts: Sequence[Receipt]) -> dict[Partition, Receipt]:
    return {Partition.parse(r.partition): r for r in receipts if r.status == "done" and r.leaves}


def _sha256(receipt: Receipt) -> str:
    return receipt.leaves[0].sha256


def _blocks(
    old: Collection[Partition], new: Collection[Partition]
) -> Iterator[tuple[list[Partition], list[Partition]]]:
    """Smallest parts of the sky that hold whole partitions of both runs: the partitions of each in them."""
    ours: list[Partition] = []
    theirs: list[Partition] = []
    end = -1
    for partition in sky_order({*old, *new}):
        shift = 2 * (INDEX_ORDER - partition.order)
        if partition.pixel << shift >= end:
            if ours or theirs:
                yield ours, theirs
            ours, theirs, end = [], [], (partition.pixel + 1) << shift
        if partition in old:
            ours.append(partition)
        if partition in new:
            theirs.append(partition)
    if ours or theirs:
        yield ours, theirs


def _cause(old: Sequence[Receipt], new: Sequence[Receipt]) -> str:
    """What differs in the fingerprints; the input where there are other partitions."""
    differs = {"input_sha256"} if [r.partition for r in old] != [r.partition for r in new] else set()
    for name in CAUSES:
        if (
            old
            and new
            and {getattr(r.ingredients, name) for r in old} != {getattr(r.ingredients, name) for r in new}
        ):
            differs.add(name)
    return ", ".join(text for name, text in CAUSES.items() if name in differs) or "none of the known"


class _Comparison:
    """Row-by-row comparison, block by block."""

    def __init__(self, former: UPath, run: UPath, before: Contract, now: Contract) -> None:
        self._sides = ((former, _columns(before)), (run, _columns(now)))
        self._renamed = False
        self.total: Counter[str] = Counter()
        self.by_tile: dict[int, Counter[str]] = defaultdict(Counter)
        self.by_cause: dict[str, Counter[str]] = defaultdict(Counter)
        self.classes: Counter[str] = Counter()
        self._alone: tuple[list[pa.Table], list[pa.Table]] = ([], [])

    @staticmethod
    def changes(counts: Counter[str]) -> Changes:
        """Counts as they are kept."""
        return Changes(**counts)

    def add(self, cause: str, old: Sequence[Receipt], new: Sequence[Receipt]) -> None:
        """Compare all rows of a block."""
        before, now = (
            _read(run, receipts, names)
            for (run, names), receipts in zip(self._sides, (old, new), strict=True)
        )
        # A leaf of an older contract may have other names; then there is nothing to compare with.
        contracts = {receipt.ingredients.contract_version for receipt in (*old, *new)}
        self._renamed = len(contracts) > 1
        ids = before["object_id"].to_numpy(), now["object_id"].to_numpy()
        _, here, there = np.intersect1d(*ids, assume_unique=True, return_indices=True)
        self._compare(cause, before.take(pa.array(here)), now.take(pa.array(there)))
        for side, table, place in ((0, before, here), (1, now, there)):
            alone = np.ones(table.num_rows, dtype=bool)
            alone[place] = False
            rows = table.filter(pa.array(alone))
            self._alone[side].append(
                rows.append_column("cause", pa.array([cause] * rows.num_rows, pa.string()))
            )

    def match_moved(self) -> None:
        """Compare rows that moved to another partition; count all others as added or withdrawn."""
        if not any(self._alone):
            return
        before, now = (pa.concat_tables(side) for side in self._alone)
        ids = before["object_id"].to_numpy(), now["object_id"].to_numpy()
        _, here, there = np.intersect1d(*ids, assume_unique=True, return_indices=True)
        moved = now.take(pa.array(there))
        for cause in sorted(set(moved["cause"].to_pylist())):
            mine = pa.array(np.array(moved["cause"].to_pylist()) == cause)
            self._compare(cause, before.take(pa.array(here)).filter(mine), moved.filter(mine))
        for kind, table, place in (("withdrawn", before, here), ("added", now, there)):
            alone = np.ones(table.num_rows, dtype=bool)
            alone[place] = False
            rows = table.filter(pa.array(alone))
            causes = np.array(rows["cause"].to_pylist(), dtype=object)
            for cause in set(causes):
                self._count(cause, rows["object_id"].to_numpy()[causes == cause], kind)

    def _compare(self, cause: str, before: pa.Table, now: pa.Table) -> None:
        """Compare rows of the same objects, in the same order."""
        ids = now["object_id"].to_numpy()
        self._count(cause, ids, "compared")
        was, is_ = (np.array(table["class"].to_pylist(), dtype=object) for table in (before, now))
        known = np.array(before["class"].is_valid()) & np.array(now["class"].is_valid())
        changed = (was != is_) & known
        self.classes.update(f"{a} to {b}" for a, b in zip(was[changed], is_[changed], strict=True))
        z, error, new = (
            table[name].to_numpy() for table, name in ((before, "z"), (before, "z_err"), (now, "z"))
        )
        with np.errstate(invalid="ignore"):
            moved = np.abs(new - z) > np.nan_to_num(error)
        if not self._renamed:
            moved |= np.isnan(new) != np.isnan(z)
        self._count(cause, ids[changed], "class_changed")
        self._count(cause, ids[moved], "redshift_changed")
        self._count(cause, ids[changed | moved], "either_changed")

    def _count(self, cause: str, ids: np.ndarray, kind: str) -> None:
        if not len(ids):
            return
        self.total[kind] += len(ids)
        self.by_cause[cause][kind] += len(ids)
        tiles, counts = np.unique(ids >> KEY_SHIFT, return_counts=True)
        for tile, count in zip(tiles.tolist(), counts.tolist(), strict=True):
            self.by_tile[tile][kind] += count


def _columns(contract: Contract) -> dict[str, str | None]:
    """Names of class, redshift and its error in a product, found by their UCDs; None where it has none."""
    named = {column.ucd: column.name for column in reversed(contract.columns)}
    redshift = next((ucd for ucd in _REDSHIFT if ucd in named), "")
    return {
        "class": named.get("src.class"),
        "z": named.get(redshift),
        "z_err": named.get(f"stat.error;{redshift}"),
    }


def _read(run: UPath, receipts: Sequence[Receipt], names: dict[str, str | None]) -> pa.Table:
    """Key, class, redshift and its error of the rows of some partitions; null where there is none."""
    types = {"class": pa.string(), "z": pa.float64(), "z_err": pa.float64()}
    parts = [pa.schema([("object_id", pa.int64()), *types.items()]).empty_table()]
    for receipt in receipts:
        path = run / receipt.leaves[0].path
        try:
            leaf = pq.ParquetFile(io.BytesIO(path.read_bytes()))
            there = {ours: name for ours, name in names.items() if name in leaf.schema_arrow.names}
            table = leaf.read(columns=["object_id", *there.values()])
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{path} cannot be read: {error}; `ojala verify` finds what is damaged"
            ) from error
        columns = {"object_id": table["object_id"]}
        for ours, kind in types.items():
            found = table[there[ours]].cast(kind) if ours in there else pa.nulls(table.num_rows, kind)
            columns[ours] = found
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)
