"""Progress bars on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ojala.pipeline.storage.progress import Meter, counted, displaying

if TYPE_CHECKING:
    from ojala.catalogs_schema.receipt import Receipt

_shown: list[Progress] = []
"""The bars of this process, which are one set however often they are asked for."""


@contextmanager
def progress_bars() -> Iterator[None]:
    """Show all that is counted inside the block (`ojala.pipeline.storage.progress.counting`) on a terminal.

    Bars are on stderr, and vanish when their work has ended. Lines that are printed meanwhile stand above
    them. Without a terminal nothing is shown.
    """
    console = Console(file=sys.stderr)
    if _shown or not console.is_terminal:
        yield
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    # A pipe gets what is printed, not the terminal.
    bars = Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty())
    tasks: dict[int, TaskID] = {}

    def show(meter: Meter) -> None:
        count = f"{meter.done:,.0f}/{meter.total:,.0f}" + (f" ({meter.note})" if meter.note else "")
        if id(meter) not in tasks:
            tasks[id(meter)] = bars.add_task(meter.noun, total=meter.total, count=count)
            bars.start()
        bars.update(tasks[id(meter)], completed=meter.done, count=count)
        if meter.ended:
            bars.remove_task(tasks.pop(id(meter)))
            if not tasks:
                bars.stop()

    _shown.append(bars)
    try:
        with displaying(show):
            yield
    finally:
        _shown.remove(bars)
        bars.stop()


def progress_bar(receipts: Iterator[Receipt], total: int) -> Iterator[Receipt]:
    """Yield the receipts of a run, with a progress bar on a terminal."""
    with progress_bars():
        yield from counted(receipts, "partitions", total)
