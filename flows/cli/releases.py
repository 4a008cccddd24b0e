"""Commands around releases: reprocess a region, list, publish, roll back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from upath import UPath

from ojala.flows.cli import signals
from ojala.flows.cli.output import RUN_INTERRUPTED, AsJson, echo, errors, show_plan, tell_run

if TYPE_CHECKING:
    from ojala.pipeline.runs.gates import GateReport

app = typer.Typer()

Out = Annotated[str, typer.Option(help="Collection with the runs.")]
RegionSpec = Annotated[
    str,
    typer.Option(
        help="cone:RA,DEC,RADIUS, box:RA1,RA2,DEC1,DEC2, polygon:RA,DEC;RA,DEC;.., moc:FILE, "
        "tiles:5/1234,.., flagged (what failed) or flagged:FLAG>0.1 (share of rows). Degrees."
    ),
]
Publish = Annotated[bool, typer.Option(help="Publish the run when it is complete and its quality allows it.")]
_COLUMNS = ("run", "product", "status", "published", "date", "rows", "partitions", "weights", "MiB", "notes")

Product = Annotated[
    str | None, typer.Option(help="Main product whose release is meant; default: the only one.")
]


@app.command()
def reprocess(
    out: Out,
    region: RegionSpec,
    photometry: Annotated[
        str | None, typer.Option(help="Photometry catalogue, made by `ojala ingest`.")
    ] = None,
    spectra: Annotated[
        str | None, typer.Option(help="Spectra catalogue, for models that read spectra.")
    ] = None,
    cutouts: Annotated[
        str | None, typer.Option(help="Cut-outs of these spectra, for models of both.")
    ] = None,
    execute: Annotated[bool, typer.Option("--yes", "--execute", help="Do it, do not only say it.")] = False,
    publish: Publish = True,
    model: Annotated[str | None, typer.Option(help="Model to run.")] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of the model.")] = None,
    heads: Annotated[
        list[str] | None, typer.Option("--head", help="Head made by `ojala finetune`; repeatable.")
    ] = None,
    atlas: Annotated[str | None, typer.Option(help="Atlas made by `ojala atlas`.")] = None,
    engine: Annotated[str | None, typer.Option(help="Where partitions are worked on.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Dask scheduler of the engine address.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.", min=1)] = None,
    vectors: Annotated[bool | None, typer.Option("--vectors", help="Also write PDFs and embeddings.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file; options override it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Do a region of the published release again; without `--yes` only say what that would be and cost.

    It becomes a new run. What the region does not touch is linked as it is, with its own provenance, also
    where it was made with other weights or another version of the program: that is said, and in the report.
    """
    from ojala.pipeline.runs.config import read_config
    from ojala.pipeline.runs.plan import make_plan
    from ojala.pipeline.runs.region import parse_region
    from ojala.pipeline.runs.resolved import resolve_run

    given = {
        "photometry": photometry,
        "spectra": spectra,
        "cutouts": cutouts,
        "out": out,
        "model": model,
        "weights": weights,
        "heads": heads or None,
        "atlas": atlas,
        "engine": engine,
        "scheduler": scheduler,
        "workers": workers,
        "vectors": vectors,
    }
    with errors(RUN_INTERRUPTED if execute else "nothing was written"):
        asked = read_config(config, given)
        # Faults of the request are told here: within the flow they would be a task's failure.
        plan = make_plan(resolve_run(asked), parse_region(region, asked.adapter.flags))
        if not execute:
            show_plan(plan, as_json, "this would be done; give --yes to do it")
            return
        from ojala.flows.survey import reprocess as flow

        with signals.interruptible(UPath(asked.out)):
            record = flow(asked, region, publish)
    tell_run(record, asked, as_json)


@app.command()
def releases(out: Out, as_json: AsJson = False) -> None:
    """List all runs of a collection: which is published, which was, and what they are."""
    from ojala.pipeline.runs.releases import releases as list_releases

    with errors():
        found = list_releases(UPath(out))
    if as_json:
        echo("", {"releases": [asdict(one) for one in found]}, as_json)
        return
    if not found:
        print(f"{out} has no runs: `ojala run` makes one")
        return
    table = Table(*_COLUMNS)
    for one in found:
        notes = [f"{one.missing:,} partitions missing"] if one.missing else []
        notes += [f"{one.region} of {one.base}"] if one.region else []
        table.add_row(
            one.run_id,
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
    out: Out,
    force_gate: Annotated[list[str] | None, typer.Option(help="Quality gate that may fail.")] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Publish an incomplete run without what is missing."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Point the collection at a run, if its quality gates allow it. Readers of the old one go on."""
    from ojala.pipeline.run import publish_run

    with errors():
        report = publish_run(UPath(out), run, forced=force_gate or (), partial=partial, again=True)
    echo(
        f"run {run} is published\n" + gate_lines(report),
        {"published": run, **report.model_dump(mode="json")},
        as_json,
    )


@app.command()
def rollback(out: Out, product: Product = None, as_json: AsJson = False) -> None:
    """Point the collection at the release that was published before."""
    from ojala.pipeline.runs.releases import only_product, pointers
    from ojala.pipeline.runs.releases import rollback as roll_back

    with errors():
        product = product or only_product(UPath(out))
        before = pointers(UPath(out)).get(product)
        record = roll_back(UPath(out), product)
    facts = {"published": record.run_id, "before": before, "product": product}
    echo(f"{product}: run {record.run_id} is published again, {before} is not any more", facts, as_json)


def gate_lines(report: GateReport) -> str:
    """One line per gate."""
    return "\n".join(f"  {gate.outcome:4}  {gate.name}: {gate.text}" for gate in report.gates)
