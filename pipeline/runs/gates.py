"""Quality gates of a run: their limits, their evaluation, and the results that are kept with the run.

The gates themselves are functions in `checks` and `comparison`; `gate` registers them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, create_model
from upath import UPath

from ojala.catalogs_schema.errors import ExitCode, OjalaError
from ojala.pipeline.runs import checks, comparison
from ojala.pipeline.runs.gate import GATES, Finding, Gate, Outcome, RunEvidence, gate
from ojala.pipeline.storage.files import utc_now, write_whole

__all__ = [
    "GATES",
    "GATES_FILE",
    "Finding",
    "Gate",
    "GateError",
    "GateLimits",
    "GateReport",
    "GateResult",
    "RunEvidence",
    "checks",
    "comparison",
    "evaluate_gates",
    "gate",
    "raise_for_failed",
    "read_gates",
    "write_gates",
]

GATES_FILE = "gates.json"


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
        if found.rows < limits.few_rows and outcome == "fail" and not gate.exact:
            outcome = "warn"
    return GateResult(
        name=gate.name, outcome=outcome, text=found.text, numbers=found.numbers or {}, limits=bounds
    )


def raise_for_failed(report: GateReport, forced: Collection[str], out: UPath) -> None:
    """Raise where a gate failed that is not overruled.

    Parameters
    ----------
    report : GateReport
        Results of the gates of a run.
    forced : collection of str
        Gates that may fail.
    out : UPath
        Collection of the run, for the command that overrules.

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
        force = " ".join(f"--force-gate {gate.name}" for gate in failed)
        remedy = f"To publish it nevertheless: ojala publish {report.run_id} --out {out} {force}"
        if any(gate.name in ("checksums", "inputs") for gate in failed):
            remedy = f"The command that made it makes these partitions anew, with --check. {remedy}"
        raise GateError(
            f"run {report.run_id} is not published, since it failed quality gates: "
            + "; ".join(f"{gate.name}: {gate.text}{_limit_of(gate)}" for gate in failed)
            + f". {remedy}"
        )


def _limit_of(gate: GateResult) -> str:
    return f" (it fails above {gate.limits['fail']:g})" if "fail" in gate.limits else ""
