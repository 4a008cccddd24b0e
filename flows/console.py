"""How commands speak to people and to machines."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

RUN_INTERRUPTED = "what is done is kept, and the same command goes on from here"

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]


@contextmanager
def errors(interrupted: str = "nothing was written") -> Iterator[None]:
    """Turn what a person can act on into one line and exit code 1; Ctrl-C and SIGTERM into 130.

    Parameters
    ----------
    interrupted : str
        What to tell a person who stops the command.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        complain(f"interrupted; {interrupted}")
        raise typer.Exit(INTERRUPTED) from None
    except (ValueError, OSError) as problem:
        complain(str(problem))
        raise typer.Exit(1) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def say(text: str, facts: dict[str, Any], as_json: bool) -> None:
    """Print for a person or for a machine."""
    print(json.dumps(facts, indent=1) if as_json else text)


def complain(text: str) -> None:
    """Print an error."""
    print(f"ojala: {text}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
