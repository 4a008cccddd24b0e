"""Progress on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ojala.catalogs_schema.receipt import Receipt


def progress_bar(receipts: Iterator[Receipt], total: int) -> Iterator[Receipt]:
    """Yield the receipts, with a progress bar on a terminal."""
    console = Console(file=sys.stderr)
    columns = (TextColumn("partitions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("partitions", total=total)
        for receipt in receipts:
            bar.advance(shown)
            yield receipt
