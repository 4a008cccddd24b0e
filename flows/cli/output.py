"""Output of the commands, for people and for machines."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from upath import UPath

from ojala.catalogs_schema.errors import ExitCode
from ojala.flows.cli.errors import warn

if TYPE_CHECKING:
    from ojala.pipeline.runs.config import RunConfig
    from ojala.pipeline.runs.plan import Plan
    from ojala.pipeline.runs.record import RunRecord


def echo(text: str, facts: dict[str, Any], as_json: bool) -> None:
    """Print text for people, or facts as JSON for machines."""
    print(json.dumps(facts, indent=1) if as_json else text)


def duration(seconds: float) -> str:
    """Seconds in a unit that people read easily."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def plural(count: int, noun: str) -> str:
    """A count with its noun, in the plural where it is not one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


MAX_NAMED = 20
"""Most failed partitions and damaged files that a command names."""


def show_plan(plan: Plan, as_json: bool, note: str = "") -> None:
    """Print the actions of a plan and their cost."""
    from ojala.pipeline.runs.plan import rows_per_second

    rate = rows_per_second(plan) if plan.to_do else 0.0
    seconds = plan.rows_to_do / rate if rate else 0.0
    facts: dict[str, Any] = {
        "run": plan.run_id if plan.resumes else None,
        "resumes": plan.resumes,
        "base": plan.base,
        "region": plan.region,
        "partitions": len(plan.entries),
        "partitions_to_do": len(plan.to_do),
        "partitions_to_link": len(plan.to_link),
        "rows": plan.rows,
        "rows_to_do": plan.rows_to_do,
        "rows_per_second": round(rate, 1),
        "seconds": round(seconds, 1),
        "states": plan.states(),
        "remarks": list(plan.remarks),
        "to_do": [{"partition": e.partition.name, "rows": e.rows, "why": e.state} for e in plan.to_do],
    }
    if as_json:
        echo("", facts, as_json)
        return
    table = Table("state", "action", "partitions", "rows")
    rows: dict[tuple[str, str], list[int]] = {}
    for entry in plan.entries:
        rows.setdefault((entry.state, _ACTIONS[entry.action]), []).append(entry.rows)
    for (state, action), counts in sorted(rows.items()):
        table.add_row(state, action, f"{len(counts):,}", f"{sum(counts):,}")
    stdout = Console()
    stdout.print(table)
    for remark in plan.remarks:
        print(remark)
    name = f"run {plan.run_id}" if plan.resumes else "a new run"
    cost = f", about {duration(seconds)} at {rate:,.0f} rows/s" if rate else "; the rate is not known here"
    cost = cost if plan.to_do else ": nothing to do"
    print(f"{name}: {plural(len(plan.to_do), 'partition')}, {plural(plan.rows_to_do, 'row')} to do{cost}")
    if note:
        print(note)


_ACTIONS = {"keep": "kept", "link": "linked", "work": "processed", "skip": "skipped"}


def show_run(record: RunRecord, config: RunConfig, as_json: bool) -> None:
    """Print the outcome of a run; exits with `ExitCode.INCOMPLETE` if partitions failed."""
    from ojala.pipeline.runs.gates import read_gates
    from ojala.pipeline.runs.record import GATES, run_folder
    from ojala.pipeline.runs.releases import pointers

    run = run_folder(UPath(config.out), record.run_id)
    published = pointers(UPath(config.out)).get(record.main) == record.run_id
    report = None if GATES in record.problems else read_gates(run)
    facts = {
        **record.model_dump(),
        "folder": str(run),
        "report": f"{run}/report/index.html",
        "published": published,
        "gates": report.outcomes() if report else {},
    }
    text = (
        f"run {record.run_id} is {record.status}{' and published' if published else ', not published'}: "
        f"{record.rows_out:,} of {record.rows_in:,} rows in {plural(record.partitions, 'partition')}"
        f"{f', {record.linked:,} of them linked' if record.linked else ''}\n"
        f"catalogue: {run}/{record.main}\nreport:    {run}/report/index.html"
    )
    echo(text, facts, as_json)
    for step, problem in record.problems.items():
        warn(f"{step} failed, but the catalogue is complete: {problem}; the same command repeats it")
    for gate in report.gates if report else ():
        if gate.outcome == "warn" and not as_json:
            warn(f"quality gate {gate.name} warns: {gate.text}")
    if record.failed:
        for name, error in islice(record.failed.items(), MAX_NAMED):
            warn(f"partition {name}: {error}")
        warn(f"{plural(len(record.failed), 'partition')} failed; the same command retries them")
        raise typer.Exit(ExitCode.INCOMPLETE)


def size_text(count: float) -> str:
    """Bytes in the unit in which the number is below 1024."""
    units = iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while count >= 1024 and unit != "TiB":
        count, unit = count / 1024, next(units)
    return f"{count:,.1f} {unit}" if unit != "B" else f"{count:,.0f} B"
