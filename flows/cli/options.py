"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
Check = Annotated[bool, typer.Option("--check", help="Read all existing leaves and compare their SHA-256.")]
Publish = Annotated[
    bool, typer.Option(help="Publish the run when it is complete and its quality gates allow it.")
]
Region = Annotated[
    str,
    typer.Option(
        help="cone:RA,DEC,RADIUS, box:RA1,RA2,DEC1,DEC2, polygon:RA,DEC;RA,DEC;.., moc:FILE, "
        "tiles:5/1234,.., flagged (failed partitions) or flagged:FLAG>0.1 (share of rows). Degrees."
    ),
]
Collection = Annotated[str, typer.Option("--out", help="Collection with the runs.")]
