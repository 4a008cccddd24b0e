"""Quality gates: checks that a run must pass before it is published.

A gate is one function with `gate` above it, which holds its limits. The settings `GateLimits`, the option
``--force-gate`` and the table in the report follow from `GATES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, create_model
from upath import UPath

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.errors import ExitCode, OjalaError
from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.runs.record import RunRecord, Status
from ojala.pipeline.runs.totals import RunTotals, totals_of
from ojala.pipeline.runs.zero_points import zero_points_of
from ojala.pipeline.storage.files import READERS, sha256_of, utc_now, write_whole

GATES_FILE = "gates.json"

CONTRACT_SAMPLE = 64
"""Leaves that are read in full to check their contract again."""

NULL_SAMPLE = 256
"""Partitions whose null shares are compared with the published release's."""

MAX_NAMED = 5
"""Partitions or columns that a gate names."""

KS_COEFFICIENT = 1.63
"""Coefficient of the 1 % point of the two-sample Kolmogorov-Smirnov statistic (Smirnov 1948)."""

SIGMAS = 3.0
"""Standard deviations of the change of a share that chance may cause."""

Outcome = Literal["pass", "warn", "fail"]

Item = TypeVar("Item")


class GateError(OjalaError, ValueError):
    """A run whose quality gates do not allow its publication."""

    exit_code = ExitCode.REFUSED


class GateResult(BaseModel):
    """Result of one gate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="name, as `--force-gate` takes it")
    outcome: Outcome = Field(description="`fail` keeps the run from being published")
    text: str = Field(description="one sentence")
    numbers: Mapping[str, float] = Field(default={}, description="measured numbers")
    limits: Mapping[str, float] = Field(default={}, description="limits that they were compared with")


class GateReport(BaseModel):
    """Results of all gates of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str = Field(description="the run")
    against: str | None = Field(description="the release it was compared with; null if there was none")
    judged: str = Field(description="UTC time")
    gates: tuple[GateResult, ...] = Field(description="the gates, in the order of their evaluation")

    @property
    def outcome(self) -> Outcome:
        """Worst outcome."""
        outcomes = {gate.outcome for gate in self.gates}
        return "fail" if "fail" in outcomes else "warn" if "warn" in outcomes else "pass"

    def failed(self) -> list[GateResult]:
        """Gates that keep the run from being published."""
        return [gate for gate in self.gates if gate.outcome == "fail"]

    def outcomes(self) -> dict[str, str]:
        """Outcome by gate."""
        return {gate.name: gate.outcome for gate in self.gates}


def read_gates(run: UPath) -> GateReport:
    """Results of the gates at the end of the run.

    Raises
    ------
    FileNotFoundError
        If the gates were not evaluated.
    """
    return GateReport.model_validate_json((run / GATES_FILE).read_bytes())


def write_gates(run: UPath, report: GateReport) -> None:
    """Write the results into the run's folder."""
    write_whole(run / GATES_FILE, report.model_dump_json(indent=1).encode())


@dataclass(frozen=True)
class RunEvidence:
    """Files and numbers that gates look at.

    Attributes
    ----------
    run : UPath
        Folder of the run.
    record : RunRecord
        Its record.
    receipts : sequence of Receipt
        Its receipts.
    rows : mapping of str to int
        Rows of the input by partition.
    inputs : mapping of str to str
        SHA-256 of the input by partition, as its catalogue lists it now.
    published : tuple of UPath and sequence of Receipt, or None
        Folder and receipts of the release that readers have now.
    """

    run: UPath
    record: RunRecord
    receipts: Sequence[Receipt]
    rows: Mapping[str, int]
    inputs: Mapping[str, str]
    published: tuple[UPath, Sequence[Receipt]] | None = None

    @cached_property
    def done(self) -> list[Receipt]:
        """Receipts of the partitions that are there."""
        return [receipt for receipt in self.receipts if receipt.status == "done"]

    @cached_property
    def totals(self) -> RunTotals:
        """Sums over these partitions."""
        return totals_of(self.done)

    @cached_property
    def reprocessed(self) -> list[tuple[Receipt, Receipt]]:
        """New and published receipts of partitions whose leaves are not the same files."""
        before = self.published[1] if self.published else ()
        old = {receipt.partition: receipt for receipt in before if receipt.status == "done"}
        pairs = [(new, old[new.partition]) for new in self.done if new.partition in old]
        return [pair for pair in pairs if _hashes(pair[0]) != _hashes(pair[1])]

    @cached_property
    def changed(self) -> tuple[RunTotals, RunTotals]:
        """Sums over the reprocessed partitions, in the run and in the published release."""
        new, old = zip(*self.reprocessed, strict=True)
        return totals_of(new), totals_of(old)


def _hashes(receipt: Receipt) -> list[str]:
    return [leaf.sha256 for leaf in receipt.leaves]


@dataclass(frozen=True, slots=True)
class Finding:
    """Finding of one gate.

    Attributes
    ----------
    text : str
        One sentence.
    outcome : str
        Outcome of a gate without limits.
    value : float
        Number that a gate with limits compares with them.
    rows : int
        Rows on which ``value`` rests.
    numbers : dict of str to float
        Measured numbers.
    """

    text: str
    outcome: Outcome = "pass"
    value: float = 0.0
    rows: int = 0
    numbers: Mapping[str, float] | None = None


Check = Callable[[RunEvidence], Finding]


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate and its default limits.

    Attributes
    ----------
    check : callable
        Function from the evidence to a finding; its name is the gate's, its first line the description.
    measure : str
        Meaning of the value that is compared with the limits; empty for a gate without.
    warn, fail : float
        Default limits: values above them warn and fail.
    compares : bool
        Whether it compares with the published release.
    former : str
        Name of the limits in the configuration of earlier versions.
    """

    check: Check
    measure: str = ""
    warn: float = 0.0
    fail: float = 0.0
    compares: bool = False
    former: str = ""

    @property
    def name(self) -> str:
        """Name of the gate."""
        return self.check.__name__


GATES: dict[str, Gate] = {}
"""All gates by name, in the order of their evaluation."""


def gate(
    measure: str = "", warn: float = 0.0, fail: float = 0.0, *, compares: bool = False, former: str = ""
) -> Callable[[Check], Check]:
    """Register a function as a gate; the arguments are those of `Gate`."""

    def register(check: Check) -> Check:
        GATES[check.__name__] = Gate(check, measure, warn, fail, compares, former)
        return check

    return register


@gate()
def partitions(run: RunEvidence) -> Finding:
    """All partitions of the input are there."""
    missing = sorted(run.rows.keys() - {receipt.partition for receipt in run.done})
    numbers = {"partitions": float(len(run.rows)), "missing": float(len(missing))}
    if not missing:
        return Finding(f"all {len(run.rows):,} partitions of the input are there", numbers=numbers)
    text = f"{len(missing):,} of {len(run.rows):,} partitions are missing: {_some(missing)}"
    accepted = run.record.status == Status.PARTIAL
    return Finding(text, "warn" if accepted else "fail", numbers=numbers)


@gate()
def rows(run: RunEvidence) -> Finding:
    """Each partition has as many rows as the input, in every product."""
    wrong = [
        receipt.partition
        for receipt in run.done
        if not receipt.rows_in == receipt.rows_out == run.rows.get(receipt.partition)
        or [leaf.rows for leaf in receipt.leaves] != [receipt.rows_out] * len(run.record.products)
    ]
    count = sum(receipt.rows_out for receipt in run.done)
    expected = sum(run.rows.get(receipt.partition, 0) for receipt in run.done)
    text = f"{count:,} rows out of {expected:,}, partition by partition"
    if wrong:
        text = f"{len(wrong):,} partitions have another number of rows than the input: {_some(wrong)}"
    numbers = {"rows_out": count, "rows_in": expected, "partitions_wrong": len(wrong)}
    return Finding(text, "fail" if wrong else "pass", numbers=numbers)


@gate()
def inputs(run: RunEvidence) -> Finding:
    """Each partition was made from the input that the catalogue holds now."""
    own, linked = list[str](), list[str]()
    for receipt in run.done:
        if receipt.ingredients.input_sha256 != run.inputs.get(receipt.partition):
            outside = run.record.region is not None and receipt.run_id != run.record.run_id
            (linked if outside else own).append(receipt.partition)
    numbers = {"partitions": len(run.done), "changed": len(own), "changed_outside_region": len(linked)}
    if own:
        text = f"the input of {len(own):,} partitions is not what they were made from: {_some(own)}"
        return Finding(text, "fail", numbers=numbers)
    if linked:
        text = f"{len(linked):,} partitions outside of the region were made from an earlier input"
        return Finding(f"{text}: {_some(linked)}", "warn", numbers=numbers)
    text = f"the input of all {len(run.done):,} partitions is what they were made from"
    return Finding(text, numbers=numbers)


@gate()
def checksums(run: RunEvidence) -> Finding:
    """Each leaf has the SHA-256 of its receipt."""
    leaves = [leaf for receipt in run.done for leaf in receipt.leaves]

    def is_right(path: str, sha256: str) -> bool:
        try:
            return sha256_of(run.run / path) == sha256
        except OSError:
            return False

    with ThreadPoolExecutor(READERS) as pool:
        right = pool.map(is_right, (leaf.path for leaf in leaves), (leaf.sha256 for leaf in leaves))
        wrong = [leaf.path for leaf, is_same in zip(leaves, right, strict=True) if not is_same]
    text = f"all {len(leaves):,} leaves were read and have the SHA-256 of their receipts"
    if wrong:
        text = f"{len(wrong):,} of {len(leaves):,} leaves differ from their receipts: {_some(wrong)}"
    numbers = {"leaves": len(leaves), "different": len(wrong)}
    return Finding(text, "fail" if wrong else "pass", numbers=numbers)


@gate()
def contract(run: RunEvidence) -> Finding:
    """A sample of leaves keeps the contract of its product, all of them the same version."""
    leaves = [leaf for receipt in run.done for leaf in receipt.leaves]
    versions = {receipt.ingredients.contract_version for receipt in run.done}
    sample, violations = _sample(leaves, CONTRACT_SAMPLE), list[str]()
    for leaf in sample:
        try:
            table = pq.ParquetFile(pa.BufferReader((run.run / leaf.path).read_bytes())).read()
        except (OSError, pa.ArrowException) as problem:
            violations.append(f"{leaf.path}: {problem}")
            continue
        violations += [f"{leaf.path}: {one}" for one in run.record.contract(leaf.product).violations(table)]
    numbers = {"leaves_read": len(sample), "faults": len(violations), "versions": len(versions)}
    if violations:
        return Finding(f"the contract is broken: {_some(violations)}", "fail", numbers=numbers)
    if len(versions) > 1:
        text = f"leaves keep {len(versions)} versions of the contract: {_some(sorted(versions))}"
        return Finding(text, "warn", numbers=numbers)
    text = f"checked when each leaf was written, and again in {len(sample)} leaves"
    return Finding(text, numbers=numbers)


@gate()
def mixed_versions(run: RunEvidence) -> Finding:
    """All partitions were made with the same weights, configuration, code and contract."""
    mixed = run.record.mixed_versions
    if not mixed:
        return Finding("one set of weights, one configuration, one code")
    counts = [f"{len(values)} of {name.removesuffix('_sha256')}" for name, values in mixed.items()]
    numbers = {name: float(len(values)) for name, values in mixed.items()}
    text = f"partitions were made with different versions: {', '.join(counts)}"
    return Finding(text, "warn", numbers=numbers)


@gate("share of rows without a class", warn=0.05, fail=0.5, former="unanswered")
def unclassified(run: RunEvidence) -> Finding:
    """Rows have a class."""
    return _share(run.totals, run.totals.classes[NONE], "have no class")


@gate("share of rows with any flag", warn=0.7, fail=0.98, former="flagged")
def flags(run: RunEvidence) -> Finding:
    """Rows have no flag."""
    return _share(run.totals, run.totals.flagged, "carry a flag")


def _share(totals: RunTotals, count: int, text: str) -> Finding:
    rows = totals.rows_summarised
    share = count / max(rows, 1)
    text = f"{share:.1%} of {rows:,} rows {text}"
    return Finding(text, "pass", share, rows, {"share": share, "rows": rows})


@gate("offset of a tile's band from the median of its band, beyond chance", warn=0.002, fail=0.5)
def zero_points(run: RunEvidence) -> Finding:
    """Each band has the same zero point in all tiles of the survey, by its prediction from other bands."""
    found = zero_points_of(run.done)
    if found is None or len(found.tiles) < 2:
        return Finding("bands were not asked for, or not of enough objects in two tiles of the survey")
    tile, band = found.farthest
    off, sigma, count = (array[tile, band] for array in (found.deviation, found.sigma, found.n))
    text = (
        f"{MODEL_BANDS[band].name} of tile {found.tiles[tile]}: {off:+.1%} from the median of the band "
        f"({sigma:+.1f} sigma); {found.beyond_chance.sum():,} bands of tiles are off beyond chance"
    )
    numbers = {
        "offset": float(off),
        "sigma": float(sigma),
        "beyond_chance": float(found.beyond_chance.sum()),
        "bands_of_tiles": float(np.isfinite(found.sigma).sum()),
    }
    return Finding(text, "pass", float(np.nanmax(found.excess)), int(count), numbers)


@gate("change of a column's share of nulls", warn=0.05, fail=0.3, compares=True)
def null_drift(run: RunEvidence) -> Finding:
    """Columns are null as often as before."""
    pairs = _sample(run.reprocessed, NULL_SAMPLE)
    release, _ = run.published or (run.run, ())
    try:
        new, rows_now = _null_counts(run.run, [receipt for receipt, _ in pairs])
        old, rows_before = _null_counts(release, [receipt for _, receipt in pairs])
    except (OSError, pa.ArrowException) as problem:
        return Finding(f"could not be compared: {problem}", "warn")
    changes = {
        column: (abs(now - before), now, before)
        for column in new.keys() & old.keys()
        for now, before in [(new[column] / max(rows_now, 1), old[column] / max(rows_before, 1))]
    }
    worst = max(changes, key=lambda column: changes[column][0], default="")
    drift, now, before = changes.get(worst, (0.0, 0.0, 0.0))
    text = (
        f"column {worst} is null in {now:.1%} of the reprocessed rows, {before:.1%} before "
        f"({len(pairs):,} partitions)"
    )
    return _drift(drift, text, rows_now, partitions=float(len(pairs)))


def _null_counts(run: UPath, receipts: Sequence[Receipt]) -> tuple[dict[str, int], int]:
    """Nulls per column of the main product, and rows, from the footers of leaves."""
    counts: dict[str, int] = {}
    total = 0
    for receipt in receipts:
        with (run / receipt.leaves[0].path).open("rb") as file:
            footer = pq.read_metadata(file)
        total += footer.num_rows
        for group in range(footer.num_row_groups):
            for index in range(footer.num_columns):
                column = footer.row_group(group).column(index)
                if column.statistics is not None and column.statistics.has_null_count:
                    name = column.path_in_schema
                    counts[name] = counts.get(name, 0) + column.statistics.null_count
    return counts, total


@gate("change of the share of any one flag", warn=0.05, fail=0.3, compares=True)
def flag_drift(run: RunEvidence) -> Finding:
    """Flags are as frequent as before."""
    new, old = run.changed
    return _share_drift("flag", new.flags, new.rows_summarised, old.flags, old.rows_summarised)


@gate("change of the share of a class", warn=0.03, fail=0.15, compares=True)
def class_drift(run: RunEvidence) -> Finding:
    """Classes are as frequent as before."""
    new, old = run.changed
    return _share_drift("class", new.classes, new.rows_summarised, old.classes, old.rows_summarised)


def _share_drift(noun: str, new: Mapping[str, int], n: int, old: Mapping[str, int], m: int) -> Finding:
    """Largest change of a share of n rows against one of m, beyond `SIGMAS` standard deviations of chance."""
    changes = {}
    for key in sorted(new.keys() | old.keys()):
        share, before = new.get(key, 0) / max(n, 1), old.get(key, 0) / max(m, 1)
        pooled = min((share + before) / 2, 1.0)
        chance = SIGMAS * math.sqrt(pooled * (1 - pooled) * (1 / max(n, 1) + 1 / max(m, 1)))
        changes[key] = (max(abs(share - before) - chance, 0.0), share, before)
    worst = max(changes, key=lambda key: changes[key][0], default="")
    drift, share, before = changes.get(worst, (0.0, 0.0, 0.0))
    text = f"{noun} {worst}: {share:.1%} of the reprocessed rows, {before:.1%} before"
    return _drift(drift, text, n, share=share, share_before=before)


@gate("largest distance of the cumulative N(z) of a class", warn=0.05, fail=0.2, compares=True)
def redshift_drift(run: RunEvidence) -> Finding:
    """The redshift distribution of each class is as before, beyond the 1 % point of Kolmogorov-Smirnov."""
    new, old = run.changed
    now, before = new.redshifts, old.redshifts
    worst, drift = "", 0.0
    for name in now.keys() & before.keys():
        n, m = now[name].sum(), before[name].sum()
        if not n or not m:
            continue
        distance = float(np.abs(np.cumsum(now[name]) / n - np.cumsum(before[name]) / m).max())
        distance -= KS_COEFFICIENT * math.sqrt(1 / n + 1 / m)
        if distance > drift:
            worst, drift = name, distance
    return _drift(drift, f"N(z) of {worst} moved by {drift:.3f} in its cumulative form", new.rows_summarised)


def _drift(drift: float, text: str, count: int, **numbers: float) -> Finding:
    numbers = {"drift": drift, "rows": float(count), **numbers}
    return Finding(text if drift else "no drift", "pass", drift, count, numbers)


class _GateLimits(BaseModel):
    """Limits above which quality gates warn and fail.

    Shares are of rows. A drift is the change against the published release over the reprocessed partitions,
    beyond the change that chance makes likely for these numbers of rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    few_rows: int = Field(default=1000, ge=0, description="below so many rows, shares and drifts only warn")

    @classmethod
    def known(cls, settings: Mapping[str, object]) -> dict[str, object]:
        """Those of some settings that this version has, under today's or their former names."""
        names = set(cls.model_fields) | {
            f"{gate.former}_{level}" for gate in GATES.values() for level in ("warn", "fail")
        }
        return {name: value for name, value in settings.items() if name in names}

    def of(self, name: str) -> tuple[float, float]:
        """Limits of a gate above which it warns and fails."""
        return getattr(self, f"{name}_warn"), getattr(self, f"{name}_fail")


def _limit(gate: Gate, level: Literal["warn", "fail"]) -> tuple[type[float], object]:
    name, former = f"{gate.name}_{level}", f"{gate.former or gate.name}_{level}"
    return (
        float,
        Field(
            default=getattr(gate, level),
            ge=0,
            description=gate.measure,
            validation_alias=AliasChoices(name, former) if former != name else None,
        ),
    )


if TYPE_CHECKING:
    GateLimits = _GateLimits
else:
    GateLimits = create_model(
        "GateLimits",
        __base__=_GateLimits,
        __module__=__name__,
        __doc__=_GateLimits.__doc__,
        **{
            f"{gate.name}_{level}": _limit(gate, level)
            for gate in GATES.values()
            if gate.measure
            for level in ("warn", "fail")
        },
    )


def evaluate_gates(run: RunEvidence, limits: GateLimits) -> GateReport:
    """Evaluate all gates.

    Parameters
    ----------
    run : RunEvidence
        Folder, record and receipts of the run, and of the published release.
    limits : GateLimits
        Limits above which gates warn and fail.
    """
    against = run.published[0].name if run.published else None
    results = tuple(_evaluate(gate, run, limits) for gate in GATES.values())
    return GateReport(run_id=run.record.run_id, against=against, judged=utc_now(), gates=results)


def _evaluate(gate: Gate, run: RunEvidence, limits: GateLimits) -> GateResult:
    if gate.compares and run.published is None:
        text = "there is no published release to compare with"
        return GateResult(name=gate.name, outcome="pass", text=text)
    if gate.compares and run.published is not None and not run.reprocessed:
        text = f"no partition of release {run.published[0].name} was reprocessed"
        return GateResult(name=gate.name, outcome="pass", text=text)
    found = gate.check(run)
    outcome, bounds = found.outcome, {}
    if gate.measure and outcome == "pass":
        warn, fail = limits.of(gate.name)
        bounds = {"warn": warn, "fail": fail}
        outcome = "fail" if found.value > fail else "warn" if found.value > warn else "pass"
        if found.rows < limits.few_rows and outcome == "fail":
            outcome = "warn"
    return GateResult(
        name=gate.name, outcome=outcome, text=found.text, numbers=found.numbers or {}, limits=bounds
    )


def raise_for_failed(report: GateReport, forced: Collection[str]) -> None:
    """Raise where a gate failed that is not overruled.

    Raises
    ------
    GateError
        Names each such gate with its sentence; also if a gate to overrule does not exist.
    """
    names = report.outcomes()
    unknown = sorted(set(forced) - names.keys())
    if unknown:
        raise GateError(f"there is no gate {', '.join(unknown)}: choose from {', '.join(names)}")
    failed = [gate for gate in report.failed() if gate.name not in forced]
    if failed:
        remedy = f"To publish it all the same: ojala publish {report.run_id} " + " ".join(
            f"--force-gate {gate.name}" for gate in failed
        )
        if any(gate.name in ("checksums", "inputs") for gate in failed):
            remedy = f"The command that made it makes these partitions anew, with --check. {remedy}"
        raise GateError(
            f"run {report.run_id} is not published, its quality does not allow it: "
            + "; ".join(f"{gate.name}: {gate.text}" for gate in failed)
            + f". {remedy}"
        )


def _sample(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many items, evenly spaced."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, most).astype(int))] if items else []


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
