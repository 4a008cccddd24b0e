"""Commands to look at a release: explore writes a site, similar finds objects like one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from upath import UPath

from ojala.flows.cli.errors import Commands, Panel
from ojala.flows.cli.options import AsJson
from ojala.flows.cli.output import echo, size_text

app = Commands(Panel.RELEASES)

Release = Annotated[str, typer.Argument(help="Collection with the release: the OUT of `ojala run`.")]


@app.command(panel=Panel.RELEASES)
def explore(
    release: Release,
    out: Annotated[str, typer.Option(help="Folder of the site; must not exist.")],
    column: Annotated[
        list[str] | None, typer.Option(help="Further column of the table, as PRODUCT.COLUMN.")
    ] = None,
    cutouts: Annotated[
        str | None, typer.Option(help="Catalogue of cut-outs; default: the one that the run read.")
    ] = None,
    neighbours: Annotated[
        int,
        typer.Option("--similar", help="Similar objects on each object's page; needs embeddings.", min=0),
    ] = 0,
    title: Annotated[str, typer.Option(help="Heading; default: that of the main product.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write a site that shows a release: sky, table with conditions, plot, and a page for each object.

    It is of static files and copies what it shows: any web server serves it, `python -m http.server` too.
    """
    from ojala.pipeline.explore import write_site

    made = write_site(
        UPath(release),
        UPath(out),
        columns=column or (),
        cutouts=UPath(cutouts) if cutouts else None,
        similar=neighbours,
        title=title,
    )
    text = (
        f"{made.objects:,} objects of {', '.join(made.products)}: {made.files:,} files, "
        f"{size_text(made.bytes)}\nlook at it: python -m http.server --directory {out}"
    )
    echo(text, asdict(made), as_json)


@app.command(panel=Panel.RELEASES)
def similar(
    release: Release,
    like: Annotated[str, typer.Option(help="Key of an object, or RA,DEC in degrees of one within 5 arcsec.")],
    k: Annotated[int, typer.Option("-k", help="Objects to find.", min=1, max=10_000)] = 50,
    product: Annotated[
        str | None, typer.Option(help="Product with the embeddings; default: the first that has some.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column of embeddings; default: the first.")] = None,
    index: Annotated[
        str | None, typer.Option(help="Folder of the indexes; default: `similar` in the collection.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the objects of a release whose embeddings are nearest to that of one object.

    The first call makes an index, which belongs to these leaves; another release gets its own. Needs the
    extra `similar`.
    """
    from ojala.pipeline.similarity import find_similar

    found = find_similar(
        UPath(release), like, k, product=product, column=column, folder=UPath(index) if index else None
    )
    values = found.similar
    table = Table("object_id", "similarity", "ra", "dec")
    objects = []
    for key, cosine, ra, dec in zip(values.object_id, values.similarity, values.ra, values.dec, strict=True):
        table.add_row(str(key), f"{cosine:.4f}", f"{ra:.6f}", f"{dec:.6f}")
        objects.append(
            {"object_id": int(key), "similarity": float(cosine), "ra": float(ra), "dec": float(dec)}
        )
    facts = {"like": found.object_id, "product": found.product, "column": found.column, "objects": objects}
    if as_json:
        echo("", facts, as_json)
        return
    Console(width=None if Console().is_terminal else 100).print(table)
    print(f"{len(objects):,} objects like {found.object_id}, by {found.column} of {found.product}")
