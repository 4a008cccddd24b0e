"""Commands for the disk usage of runs: du, prune."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from upath import UPath

from ojala.flows.cli.errors import Commands, Panel
from ojala.flows.cli.options import AsJson, Collection
from ojala.flows.cli.output import echo, size_text

app = Commands(Panel.RELEASES)


@app.command()
def du(
    folder: Annotated[str, typer.Argument(help="Collection, or photometry catalogue with releases.")],
    as_json: AsJson = False,
) -> None:
    """Show the disk usage of each run or release: bytes of its own, and bytes that it shares by links."""
    from ojala.pipeline.runs.retention import disk_usage

    usages, total = disk_usage(UPath(folder))
    lines = [f"{'own':>12} {'shared':>12}"]
    lines += [f"{size_text(one.own):>12} {size_text(one.shared):>12}  {one.name}" for one in usages]
    lines.append(f"{size_text(total)} in all, shared files counted once")
    echo("\n".join(lines), {"folder": folder, "bytes": total, "runs": [asdict(o) for o in usages]}, as_json)


@app.command()
def prune(
    out: Collection,
    keep: Annotated[int, typer.Option(help="Ended runs of each product to keep.", min=1)],
    execute: Annotated[
        bool, typer.Option("--yes", "--execute", help="Remove them; otherwise only say which.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove runs that are neither published, nor among the newest, nor needed by others.

    Without `--yes` nothing is removed. Leaves that kept runs share with removed ones stay.
    """
    from ojala.pipeline.runs.retention import freed_bytes, plan_pruning, prune_runs

    root = UPath(out)
    planned = plan_pruning(root, keep)
    freed = freed_bytes(root, planned)
    decisions = prune_runs(root, keep) if execute else planned
    gone = [one for one in decisions if not one.kept]
    lines = [f"{one.run_id}: {one.kept or ('removed' if execute else 'to be removed')}" for one in decisions]
    lines.append(
        f"{len(gone):,} of {len(decisions):,} runs {'removed' if execute else 'would be removed'}, "
        f"{size_text(freed)} {'freed' if execute else 'would be freed; give --yes to do it'}"
    )
    facts = {"out": out, "removed": execute, "bytes": freed, "runs": [asdict(one) for one in decisions]}
    echo("\n".join(lines), facts, as_json)
