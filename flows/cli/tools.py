"""Commands for a first look at the program and the machine: demo, bench."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ojala.flows.cli.errors import Commands, Panel, warn
from ojala.flows.cli.options import AsJson
from ojala.flows.cli.output import echo

app = Commands(Panel.TOOLS)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all output; must not exist.")],
    as_json: AsJson = False,
) -> None:
    """Ingest, run and verify the bundled patch of sky."""
    from ojala.flows.demo.run import run_demo

    facts = run_demo(out)
    echo(facts.pop("text"), facts, as_json)


@app.command()
def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Forty seconds, without the memory of workers.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Markdown page (.md) that gets a column for this machine.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the throughput of this machine, of the network and of a run; takes three minutes."""
    from ojala.flows.bench import FULL, QUICK
    from ojala.flows.bench import bench as measure
    from ojala.flows.bench.report import read_page, write_page

    before = [] if out is None else read_page(out)
    result = measure(QUICK if quick else FULL, report=warn)
    if out is not None:
        write_page(out, before, result)
    echo(result.table(), asdict(result), as_json)
