"""Commands for releases: list, publish, roll back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from upath import UPath

from ojala.flows.cli.errors import Commands, Panel
from ojala.flows.cli.options import AsJson, Collection
from ojala.flows.cli.output import echo, plural

if TYPE_CHECKING:
    from ojala.pipeline.runs.gates import GateReport

app = Commands(Panel.RELEASES)

_COLUMNS = (
    "run",
    "name",
    "product",
    "status",
    "published",
    "date",
    "rows",
    "partitions",
    "weights",
    "MiB",
    "notes",
)

Product = Annotated[
    str | None, typer.Option(help="Main product of the release; default: the only one published.")
]


@app.command()
def releases(out: Collection, as_json: AsJson = False) -> None:
    """List the runs of a collection with their states."""
    from ojala.pipeline.runs.releases import releases as list_releases

    found = list_releases(UPath(out))
    if as_json:
        echo("", {"releases": [asdict(one) for one in found]}, as_json)
        return
    if not found:
        print(f"{out} has no runs: `ojala run` makes one")
        return
    table = Table(*_COLUMNS)
    for one in found:
        notes = [f"{plural(one.missing, 'partition')} missing"] if one.missing else []
        notes += [f"{one.region} of {one.base}"] if one.region else []
        table.add_row(
            one.run_id,
            one.name or "",
            one.product,
            one.status,
            one.published,
            one.date[:16],
            f"{one.rows:,}",
            f"{one.partitions:,}",
            one.weights[:8],
            f"{one.bytes / 2**20:,.1f}",
            ", ".join(notes),
        )
    Console(width=None if Console().is_terminal else 200).print(table)


@app.command()
def publish(
    run: Annotated[str, typer.Argument(help="Run to publish; `ojala releases` lists them.")],
    out: Collection,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the release, such as DR1; it belongs to the run for ever."),
    ] = None,
    force_gate: Annotated[list[str] | None, typer.Option(help="Quality gate that may fail.")] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Publish an incomplete run without its missing partitions."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a run if its quality gates allow it; readers that have the previous release open keep it."""
    from ojala.pipeline.run import publish_run

    report = publish_run(UPath(out), run, name=name, forced=force_gate or (), partial=partial, again=True)
    echo(
        f"run {run} is published{f' as {name}' if name else ''}\n" + gate_lines(report),
        {"published": run, "name": name, **report.model_dump(mode="json")},
        as_json,
    )


@app.command()
def rollback(out: Collection, product: Product = None, as_json: AsJson = False) -> None:
    """Publish the previous release again."""
    from ojala.pipeline.runs.releases import only_product, pointers
    from ojala.pipeline.runs.releases import rollback as roll_back

    product = product or only_product(UPath(out))
    before = pointers(UPath(out)).get(product)
    record = roll_back(UPath(out), product)
    facts = {"published": record.run_id, "before": before, "product": product}
    echo(f"{product}: run {record.run_id} is the published release again (it was {before})", facts, as_json)


def gate_lines(report: GateReport) -> str:
    """One line per gate."""
    return "\n".join(f"  {gate.outcome:4}  {gate.name}: {gate.text}" for gate in report.gates)
