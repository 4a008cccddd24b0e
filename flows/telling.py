"""What commands say of plans and of runs."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from upath import UPath

from flows.console import complain, duration, say

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.plan import Plan
    from pipeline.record import RunRecord

MAX_NAMED = 20
"""Failed partitions and damaged files that a command names."""


def show_plan(plan: Plan, config: RunConfig, as_json: bool, note: str = "") -> None:
    """Say what a plan would do and cost."""
    from pipeline.plan import rows_per_second

    rate = rows_per_second(plan, config) if plan.to_do else 0.0
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
        say("", facts, as_json)
        return
    table = Table("state", "what happens", "partitions", "rows")
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
    cost = f", about {duration(seconds)} at {rate:,.0f} rows/s" if rate else "; how fast is not known here"
    cost = cost if plan.to_do else ": nothing to do"
    print(f"{name}: {len(plan.to_do):,} partitions, {plan.rows_to_do:,} rows to do{cost}")
    if note:
        print(note)


_ACTIONS = {"keep": "stays", "link": "is linked", "work": "is done", "leave": "stays away"}


def tell_run(record: RunRecord, config: RunConfig, as_json: bool) -> None:
    """Say what became of a run; exits with 1 where it is not whole."""
    from pipeline.gates import read_gates
    from pipeline.record import run_folder
    from pipeline.release import pointers

    run = run_folder(UPath(config.out), record.run_id)
    published = pointers(UPath(config.out)).get(record.main) == record.run_id
    report = read_gates(run)
    facts = {
        **record.model_dump(),
        "folder": str(run),
        "report": f"{run}/report/index.html",
        "published": published,
        "gates": report.outcomes(),
    }
    text = (
        f"run {record.run_id} is {record.status}{' and published' if published else ', not published'}: "
        f"{record.rows_out:,} of {record.rows_in:,} rows in {record.partitions:,} partitions"
        f"{f', {record.linked:,} of them linked' if record.linked else ''}\n"
        f"catalogue: {run}/{record.main}\nreport:    {run}/report/index.html"
    )
    say(text, facts, as_json)
    for gate in report.gates:
        if gate.outcome == "warn" and not as_json:
            complain(f"quality gate {gate.name} warns: {gate.text}")
    if record.failed:
        for name, error in islice(record.failed.items(), MAX_NAMED):
            complain(f"partition {name}: {error}")
        complain(f"{len(record.failed)} partitions failed; give the command again to retry them")
        raise typer.Exit(1)
