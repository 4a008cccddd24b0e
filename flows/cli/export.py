"""Commands that write a release in formats of other tools: export release, table, pdf, csv, tap-schema."""

from __future__ import annotations

import re
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.flows.cli.errors import Commands, Panel
from ojala.flows.cli.options import AsJson
from ojala.flows.cli.output import echo, size_text

app = Commands(Panel.RELEASES)
export = Commands(Panel.RELEASES, help="Write a release in formats of other tools.", no_args_is_help=True)
app.add_typer(export, name="export")


class Format(StrEnum):
    """Formats of redshift PDFs."""

    QP = "qp"


class PdfClass(StrEnum):
    """Classes whose redshift PDFs are exported."""

    GALAXY = "galaxy"
    QUASAR = "quasar"
    BEST = "best"


@export.command("release")
def export_collection(
    out: Annotated[str, typer.Argument(help="Collection with the published runs.")],
    to: Annotated[str, typer.Option(help="Folder or s3:// address to write; it must be empty.")],
    source_url: Annotated[
        str | None,
        typer.Option(help="Public address of the input catalogue, to refer to it instead of copying it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write what is published as a folder that can be copied, uploaded and cited by itself.

    It is a HATS collection with the input catalogue, margin caches, an index of object_id, statistics,
    checksums, provenance, citation and licence (the table [publication] of the configuration).
    """
    from ojala.pipeline.release.export import export_release

    made = export_release(UPath(out), UPath(to), source_url=source_url)
    echo(
        f"{to}: release {made.name} with {', '.join(made.products)}, {made.rows:,} objects, "
        f"{made.files:,} files, {size_text(made.bytes)}; `ojala verify {to}` checks a copy",
        {"folder": to, **asdict(made)},
        as_json,
    )


@export.command("table")
def export_selection(
    out: Annotated[str, typer.Argument(help="Collection with the published runs.")],
    to: Annotated[str, typer.Option(help="File to write: .fits, .csv, .parquet or .vot.")],
    where: Annotated[
        str | None, typer.Option(help="Condition, as \"ojala_class = 'QSO' AND z > 2\"; default: all rows.")
    ] = None,
    columns: Annotated[
        str,
        typer.Option(help="Columns or expressions, of the product and its input; default: the product's."),
    ] = "*",
    product: Annotated[str | None, typer.Option(help="Product; default: the main one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the rows of a published product that fulfil a condition as one file, with units and descriptions.

    Condition and columns are SQL of DuckDB (`pip install '.[table]'` in a checkout of ojala).
    """
    from ojala.pipeline.release.table import export_table

    made = export_table(UPath(out), UPath(to), where=where, columns=columns, product=product)
    echo(
        f"{to}: {made.rows:,} rows and {made.columns} columns of {made.product}, run {made.run_id}, "
        f"{size_text(made.bytes)}",
        {"file": to, **asdict(made)},
        as_json,
    )


@export.command("pdf")
def export_pdf(
    out: Annotated[str, typer.Argument(help="Collection with the runs.")],
    to: Annotated[str, typer.Option(help="File to write; its name ends in .hdf5.")],
    form: Annotated[Format, typer.Option("--as", help="Format of the PDFs.")] = Format.QP,
    run: Annotated[str | None, typer.Option(help="Run; default: the published one.")] = None,
    which: Annotated[
        PdfClass,
        typer.Option("--class", help="Assumed class; best: the most probable one."),
    ] = PdfClass.BEST,
    limit: Annotated[
        int, typer.Option(help="Most PDFs to write; qp takes 14.6 kB for each.", min=1)
    ] = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Write the redshift PDFs of a run as a file that `qp.read` opens, with the keys of the objects.

    The run must have been made with `--vectors`. Rows without such a PDF (stars, and objects whose
    probability of the class is below 0.01) are not written, but counted.
    """
    from ojala.pipeline.runs.qp_export import export_qp

    made = export_qp(UPath(out), UPath(to), run, which.value, limit)
    text = (
        f"{to}: {made.rows:,} PDFs ({which}) of run {made.run_id}, {size_text(made.bytes)}; "
        f"{made.without:,} rows have none"
    )
    echo(text, {"file": to, "form": form.value, **asdict(made)}, as_json)


@export.command("csv")
def export_csv(
    out: Annotated[str, typer.Argument(help="Collection with the runs.")],
    to: Annotated[str, typer.Option(help="File to write; gzipped where its name ends in .gz.")],
    published: Annotated[
        bool, typer.Option("--published", help="Write the columns of the published OJALA catalogue.")
    ] = False,
    table: Annotated[
        str | None,
        typer.Option("--input", help="The authors' input table (CSV), whose columns are passed on."),
    ] = None,
    run: Annotated[str | None, typer.Option(help="Run; default: the published one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a run of the model ojala-published as the file that the authors write.

    With `--input` all columns of their table are passed on, in its order; without it key, position, ratios
    and magnitudes follow from the photometry of the run. 53 columns are added, nine of them a second time.
    """
    from ojala.pipeline.runs.published_csv import PublishedCsvError, export_published

    if not published:
        raise PublishedCsvError(
            "only the published columns are written as CSV: give --published; the leaves of every product "
            "are Parquet files that other tools read"
        )
    made = export_published(UPath(out), UPath(to), run, UPath(table) if table else None)
    echo(
        f"{to}: {made.rows:,} rows and {made.columns} columns of run {made.run_id}, {size_text(made.bytes)}",
        {"file": to, **asdict(made)},
        as_json,
    )


@export.command("tap-schema")
def export_tap_schema(
    out: Annotated[str, typer.Argument(help="Collection with a published release.")],
    to: Annotated[str, typer.Option(help="Folder to write `tap_schema.sql` and `q.rd` into.")],
    schema: Annotated[str, typer.Option(help="Name of the schema: letters, digits and _.")] = "ojala",
    as_json: AsJson = False,
) -> None:
    """Describe a release for a TAP service: rows of TAP_SCHEMA as SQL, and a resource descriptor of DaCHS.

    The tables are the input catalogue and the published products, with the units, UCDs and descriptions of
    their contracts. In ADQL `_healpix_29` is `healpix_29`.
    """
    from ojala.catalogs_schema.tap_schema import dachs_descriptor, tap_sql
    from ojala.pipeline.runs.published import read_release
    from ojala.pipeline.storage.files import write_whole

    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", schema):
        raise InputError(
            f"--schema {schema!r} is no name of a schema: use a lower-case letter, then letters, digits and _"
        )
    release = read_release(UPath(out))
    contracts = [release.source.contract, *(one.contract for one in release.products)]
    title = f"{release.main.contract.title}, {release.main.record.run_id if release.main.record else out}"
    write_whole(UPath(to) / "tap_schema.sql", tap_sql(schema, contracts).encode())
    write_whole(UPath(to) / "q.rd", dachs_descriptor(schema, contracts, title).encode())
    columns = sum(len(contract.columns) for contract in contracts)
    echo(
        f"{to}: {len(contracts)} tables and {columns} columns as tap_schema.sql and q.rd (DaCHS)",
        {"folder": to, "schema": schema, "tables": [one.name for one in contracts], "columns": columns},
        as_json,
    )
