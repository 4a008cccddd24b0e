"""How commands speak to people and to machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from flows import interrupt

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]


@contextmanager
def errors() -> Iterator[None]:
    """Turn what a person can act on into one line and exit code 1; Ctrl-C into exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        print(interrupt.MESSAGE, file=sys.stderr)
        raise typer.Exit(interrupt.EXIT_CODE) from None
    except (ValueError, OSError) as problem:
        complain(str(problem))
        raise typer.Exit(1) from None


def say(text: str, facts: dict[str, Any], as_json: bool) -> None:
    """Print for a person or for a machine."""
    print(json.dumps(facts, indent=1) if as_json else text)


def complain(text: str) -> None:
    """Print an error."""
    print(f"ojala: {text}", file=sys.stderr)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
