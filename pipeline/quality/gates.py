"""Quality gates: what a run has to show before it is published, with the numbers that decided."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field
from upath import UPath

from ojala.catalogs_schema.errors import OjalaError
from ojala.catalogs_schema.receipt import Receipt, Summary
from ojala.pipeline.runs.config import GateLimits
from ojala.pipeline.runs.record import RunRecord
from ojala.pipeline.storage.files import READERS, sha256_of, utc_now, write_whole

GATES = "gates.json"

SAMPLE = 64
"""Leaves that are read in full to check their contract again."""

NULL_SAMPLE = 256
"""Partitions whose null shares are compared with the published release's."""

NAMED = 5
"""Partitions or columns that a gate names."""

_KEY_OF_NONE = "none"

Outcome = Literal["pass", "warn", "fail"]


class GateError(OjalaError, ValueError):
    """A run that its quality gates keep from being published; says which, with numbers."""


class Gate(BaseModel):
    """One gate: what it found, and what it made of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="name, as `--force-gate` takes it")
    outcome: Outcome = Field(description="`fail` keeps the run from being published")
    text: str = Field(description="one sentence")
    numbers: Mapping[str, float] = Field(default={}, description="what was measured")
    limits: Mapping[str, float] = Field(default={}, description="what it was compared with")


class GateReport(BaseModel):
    """All gates of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str = Field(description="the run")
    against: str | None = Field(description="the release it was compared with; null if there was none")
    judged: str = Field(description="UTC time")
    gates: tuple[Gate, ...] = Field(description="the gates, in the order in which they were asked")

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of all."""
        found = {gate.outcome for gate in self.gates}
        return "fail" if "fail" in found else "warn" if "warn" in found else "pass"

    def failed(self) -> list[Gate]:
        """The gates that keep the run from being published."""
        return [gate for gate in self.gates if gate.outcome == "fail"]

    def outcomes(self) -> dict[str, str]:
        """Outcome by gate."""
        return {gate.name: gate.outcome for gate in self.gates}


def read_gates(run: UPath) -> GateReport:
    """The gates as they were when the run ended."""
    return GateReport.model_validate_json((run / GATES).read_bytes())


def write_gates(run: UPath, report: GateReport) -> None:
    """Keep the gates in the run's folder."""
    write_whole(run / GATES, report.model_dump_json(indent=1).encode())


def judge(
    run: UPath,
    record: RunRecord,
    receipts: Sequence[Receipt],
    rows: Mapping[str, int],
    limits: GateLimits,
    published: tuple[UPath, Sequence[Receipt]] | None,
    *,
    partial: bool = False,
) -> GateReport:
    """Ask all gates.

    Parameters
    ----------
    run : UPath
        Folder of the run.
    record : RunRecord
        Its record.
    receipts : sequence of Receipt
        Its receipts.
    rows : mapping of str to int
        Rows of the photometry by partition.
    limits : GateLimits
        When to warn and when to fail.
    published : tuple of UPath and sequence of Receipt, or None
        Folder and receipts of the release that readers have now.
    partial : bool
        Whether missing partitions are accepted.
    """
    done = [receipt for receipt in receipts if receipt.status == "done"]
    gates = [
        _partitions(record, done, rows, partial),
        _rows(done, rows, record.products),
        _checksums(run, done),
        _contract(run, record, done),
        _mixture(record),
    ]
    shares = _Shares(done, limits)
    gates += [shares.answers(), shares.flags()]
    if published is None:
        text = "there is no published release to compare with"
        gates += [Gate(name=n, outcome="pass", text=text) for n in _DRIFTS]
    else:
        gates += _drifts(run, done, *published, limits)
    against = published[0].name if published else None
    return GateReport(run_id=record.run_id, against=against, judged=utc_now(), gates=tuple(gates))


def refuse(report: GateReport, forced: Collection[str]) -> None:
    """Stop where a gate failed that is not overruled.

    Raises
    ------
    GateError
        Names each such gate with its sentence; also if a gate to overrule does not exist.
    """
    names = report.outcomes()
    unknown = sorted(set(forced) - names.keys())
    if unknown:
        raise GateError(f"there is no gate {', '.join(unknown)}: choose from {', '.join(names)}")
    shut = [gate for gate in report.failed() if gate.name not in forced]
    if shut:
        raise GateError(
            f"run {report.run_id} is not published, its quality does not allow it: "
            + "; ".join(f"{gate.name}: {gate.text}" for gate in shut)
            + f". To publish it all the same: ojala publish {report.run_id} "
            + " ".join(f"--force-gate {gate.name}" for gate in shut)
        )


def _partitions(record: RunRecord, done: Sequence[Receipt], rows: Mapping[str, int], partial: bool) -> Gate:
    missing = sorted(rows.keys() - {receipt.partition for receipt in done})
    numbers = {"partitions": float(len(rows)), "missing": float(len(missing))}
    if not missing:
        text = f"all {len(rows):,} partitions of what was read are there"
        return Gate(name="partitions", outcome="pass", text=text, numbers=numbers)
    text = f"{len(missing):,} of {len(rows):,} partitions are missing: {_some(missing)}"
    return Gate(name="partitions", outcome="warn" if partial else "fail", text=text, numbers=numbers)


def _rows(done: Sequence[Receipt], rows: Mapping[str, int], products: Sequence[str]) -> Gate:
    wrong = [
        receipt.partition
        for receipt in done
        if not receipt.rows_in == receipt.rows_out == rows.get(receipt.partition)
        or [leaf.rows for leaf in receipt.leaves] != [receipt.rows_out] * len(products)
    ]
    count = sum(receipt.rows_out for receipt in done)
    expected = sum(rows.get(receipt.partition, 0) for receipt in done)
    text = f"{count:,} rows out of {expected:,}, partition by partition"
    if wrong:
        text = f"{len(wrong):,} partitions have another number of rows than what was read: {_some(wrong)}"
    return Gate(
        name="rows",
        outcome="fail" if wrong else "pass",
        text=text,
        numbers={"rows_out": count, "rows_in": expected, "partitions_wrong": len(wrong)},
    )


def _checksums(run: UPath, done: Sequence[Receipt]) -> Gate:
    leaves = [leaf for receipt in done for leaf in receipt.leaves]

    def right(path: str, sha256: str) -> bool:
        try:
            return sha256_of(run / path) == sha256
        except OSError:
            return False

    with ThreadPoolExecutor(READERS) as pool:
        same = pool.map(right, (leaf.path for leaf in leaves), (leaf.sha256 for leaf in leaves))
        wrong = [leaf.path for leaf, is_right in zip(leaves, same, strict=True) if not is_right]
    text = f"all {len(leaves):,} leaves were read and have the SHA-256 of their receipts"
    if wrong:
        text = f"{len(wrong):,} of {len(leaves):,} leaves differ from their receipts: {_some(wrong)}"
    return Gate(
        name="checksums",
        outcome="fail" if wrong else "pass",
        text=text,
        numbers={"leaves": len(leaves), "different": len(wrong)},
    )


def _contract(run: UPath, record: RunRecord, done: Sequence[Receipt]) -> Gate:
    leaves = [leaf for receipt in done for leaf in receipt.leaves]
    versions = {receipt.ingredients.contract_version for receipt in done}
    sample = (
        [leaves[i] for i in np.unique(np.linspace(0, len(leaves) - 1, SAMPLE).astype(int))] if leaves else []
    )
    faults = []
    for leaf in sample:
        try:
            table = pq.ParquetFile(pa.BufferReader((run / leaf.path).read_bytes())).read()
        except (OSError, pa.ArrowException) as problem:
            faults.append(f"{leaf.path}: {problem}")
            continue
        faults += [f"{leaf.path}: {fault}" for fault in record.contract(leaf.product).violations(table)]
    numbers = {"leaves_read": len(sample), "faults": len(faults), "versions": len(versions)}
    if faults:
        text = f"the contract is broken: {_some(faults)}"
    elif len(versions) > 1:
        text = f"leaves keep {len(versions)} versions of the contract: {_some(sorted(versions))}"
    else:
        text = f"checked when each leaf was written, and again in {len(sample)} leaves"
    outcome: Outcome = "fail" if faults else "warn" if len(versions) > 1 else "pass"
    return Gate(name="contract", outcome=outcome, text=text, numbers=numbers)


def _mixture(record: RunRecord) -> Gate:
    if not record.mixture:
        text = "one set of weights, one configuration, one code"
        return Gate(name="mixture", outcome="pass", text=text)
    said = [f"{len(values)} of {name.removesuffix('_sha256')}" for name, values in record.mixture.items()]
    text = f"partitions were made from different things: {', '.join(said)}"
    numbers = {name: float(len(values)) for name, values in record.mixture.items()}
    return Gate(name="mixture", outcome="warn", text=text, numbers=numbers)


class _Shares:
    """Shares of rows over all of a run."""

    def __init__(self, done: Sequence[Receipt], limits: GateLimits) -> None:
        self._total = _Total([receipt.summary for receipt in done if receipt.summary])
        self._limits = limits

    def answers(self) -> Gate:
        share = self._total.share(self._total.classes.get(_KEY_OF_NONE, 0))
        return self._gate("answers", share, "unanswered", "rows have no class")

    def flags(self) -> Gate:
        return self._gate("flags", self._total.share(self._total.flagged), "flagged", "rows carry a flag")

    def _gate(self, name: str, share: float, setting: str, what: str) -> Gate:
        warn, fail = (getattr(self._limits, f"{setting}_{limit}") for limit in ("warn", "fail"))
        outcome: Outcome = "fail" if share > fail else "warn" if share > warn else "pass"
        if self._total.rows < self._limits.few_rows and outcome == "fail":
            outcome = "warn"
        return Gate(
            name=name,
            outcome=outcome,
            text=f"{share:.1%} of {self._total.rows:,} {what}",
            numbers={"share": share, "rows": self._total.rows},
            limits={"warn": warn, "fail": fail},
        )


class _Total:
    """Summaries of partitions, added up."""

    def __init__(self, summaries: Sequence[Summary]) -> None:
        self.classes = _added([summary.classes for summary in summaries])
        self.flags = _added([summary.flags for summary in summaries])
        self.flagged = sum(summary.flagged for summary in summaries)
        self.rows = sum(self.classes.values())
        names = sorted({name for summary in summaries for name in summary.redshifts})
        self.redshifts = {
            name: np.sum(
                [s.redshifts[name] for s in summaries if name in s.redshifts], axis=0, dtype=np.int64
            )
            for name in names
        }

    def share(self, count: int) -> float:
        return count / self.rows if self.rows else 0.0


def _added(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = dict.fromkeys(name for one in counts for name in one)
    return {name: sum(one.get(name, 0) for one in counts) for name in names}


_DRIFTS = ("nulls", "flag_drift", "class_drift", "redshift_drift")


def _drifts(
    run: UPath, done: Sequence[Receipt], release: UPath, before: Sequence[Receipt], limits: GateLimits
) -> list[Gate]:
    """Compare with the published release where leaves are not the same files."""
    old = {receipt.partition: receipt for receipt in before if receipt.status == "done"}
    pairs = [
        (receipt, old[receipt.partition])
        for receipt in done
        if receipt.partition in old
        and [leaf.sha256 for leaf in receipt.leaves]
        != [leaf.sha256 for leaf in old[receipt.partition].leaves]
    ]
    if not pairs:
        text = f"no partition of release {release.name} was made anew"
        return [Gate(name=name, outcome="pass", text=text) for name in _DRIFTS]
    new_total = _Total([receipt.summary for receipt, _ in pairs if receipt.summary])
    old_total = _Total([receipt.summary for _, receipt in pairs if receipt.summary])
    return [
        _null_drift(run, release, pairs, limits),
        _share_drift("flag_drift", "flag", new_total, old_total, new_total.flags, old_total.flags, limits),
        _share_drift(
            "class_drift", "class", new_total, old_total, new_total.classes, old_total.classes, limits
        ),
        _redshift_drift(new_total, old_total, limits),
    ]


def _share_drift(
    name: str,
    what: str,
    new: _Total,
    old: _Total,
    counts: Mapping[str, int],
    counts_before: Mapping[str, int],
    limits: GateLimits,
) -> Gate:
    """Largest change of a share, less what chance makes likely (three standard deviations)."""
    changes = {}
    for key in sorted(counts.keys() | counts_before.keys()):
        share, before = new.share(counts.get(key, 0)), old.share(counts_before.get(key, 0))
        pooled = min((share + before) / 2, 1.0)
        chance = 3 * math.sqrt(pooled * (1 - pooled) * (1 / max(new.rows, 1) + 1 / max(old.rows, 1)))
        changes[key] = (max(abs(share - before) - chance, 0.0), share, before)
    worst = max(changes, key=lambda key: changes[key][0], default="")
    drift, share, before = changes.get(worst, (0.0, 0.0, 0.0))
    text = f"{what} {worst}: {share:.1%} of the rows made anew, {before:.1%} before" if drift else "no drift"
    numbers = {"drift": drift, "share": share, "share_before": before, "rows": float(new.rows)}
    return _drift_gate(name, drift, text, numbers, new.rows, limits)


def _redshift_drift(new: _Total, old: _Total, limits: GateLimits) -> Gate:
    """Largest distance of the cumulative N(z) of a class, less the 1 % point of Kolmogorov and Smirnov."""
    worst, drift = "", 0.0
    for name in new.redshifts.keys() & old.redshifts.keys():
        counts, before = new.redshifts[name], old.redshifts[name]
        if not counts.sum() or not before.sum():
            continue
        distance = float(np.abs(np.cumsum(counts) / counts.sum() - np.cumsum(before) / before.sum()).max())
        distance -= 1.63 * math.sqrt(1 / counts.sum() + 1 / before.sum())
        if distance > drift:
            worst, drift = name, distance
    text = f"N(z) of {worst} moved by {drift:.3f} in its cumulative form" if drift else "no drift"
    numbers = {"drift": drift, "rows": float(new.rows)}
    return _drift_gate("redshift_drift", drift, text, numbers, new.rows, limits)


def _null_drift(
    run: UPath, release: UPath, pairs: Sequence[tuple[Receipt, Receipt]], limits: GateLimits
) -> Gate:
    chosen = [pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, NULL_SAMPLE).astype(int))]
    try:
        new, rows = _null_counts(run, [receipt for receipt, _ in chosen])
        old, rows_before = _null_counts(release, [receipt for _, receipt in chosen])
    except (OSError, pa.ArrowException) as problem:
        return Gate(name="nulls", outcome="warn", text=f"could not be compared: {problem}")
    changes = {
        column: abs(new[column] / max(rows, 1) - old[column] / max(rows_before, 1))
        for column in new.keys() & old.keys()
    }
    worst = max(changes, key=lambda column: changes[column], default="")
    drift = changes.get(worst, 0.0)
    text = "no drift"
    if drift:
        text = (
            f"column {worst} is null in {new[worst] / max(rows, 1):.1%} of the rows made anew, "
            f"{old[worst] / max(rows_before, 1):.1%} before ({len(chosen):,} partitions)"
        )
    numbers = {"drift": drift, "rows": float(rows), "partitions": float(len(chosen))}
    return _drift_gate("nulls", drift, text, numbers, rows, limits, "null_drift")


def _null_counts(run: UPath, receipts: Sequence[Receipt]) -> tuple[dict[str, int], int]:
    """Nulls per column of the main product, and rows, from the footers of leaves."""
    counts: dict[str, int] = {}
    rows = 0
    for receipt in receipts:
        with (run / receipt.leaves[0].path).open("rb") as file:
            footer = pq.read_metadata(file)
        rows += footer.num_rows
        for group in range(footer.num_row_groups):
            for index in range(footer.num_columns):
                column = footer.row_group(group).column(index)
                if column.statistics is not None and column.statistics.has_null_count:
                    name = column.path_in_schema
                    counts[name] = counts.get(name, 0) + column.statistics.null_count
    return counts, rows


def _drift_gate(
    name: str,
    drift: float,
    text: str,
    numbers: dict[str, float],
    rows: int,
    limits: GateLimits,
    setting: str = "",
) -> Gate:
    warn, fail = (getattr(limits, f"{setting or name}_{limit}") for limit in ("warn", "fail"))
    outcome: Outcome = "fail" if drift > fail else "warn" if drift > warn else "pass"
    if rows < limits.few_rows and outcome == "fail":
        outcome = "warn"
    return Gate(name=name, outcome=outcome, text=text, numbers=numbers, limits={"warn": warn, "fail": fail})


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
