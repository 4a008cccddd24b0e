"""Commands whose errors become one line or a traceback, their exit codes, and logging."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import metadata
from pathlib import Path

import typer

from ojala.catalogs_schema.errors import OjalaError, access_errors

INTERRUPTED = 130
"""Exit code after Ctrl-C, as of shells."""

FAULT = 70
"""Exit code after a fault of the program (``EX_SOFTWARE`` of ``sysexits.h``)."""

NOTHING_WRITTEN = "nothing was written"
RESUMABLE = "finished work is kept, and the same command resumes it"


class Commands(typer.Typer):
    """A group of commands that run inside `errors`."""

    def command(  # type: ignore[override]
        self, name: str | None = None, *, resumable: bool = False, hidden: bool = False
    ) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Register a command; a resumable one keeps finished work when it is interrupted."""
        register = super().command(name, hidden=hidden)
        handled = errors(RESUMABLE if resumable else NOTHING_WRITTEN)
        return lambda function: register(handled(function))


def warn(text: str) -> None:
    """Print one line for the user to stderr."""
    print(f"ojala: {text}", file=sys.stderr, flush=True)


@contextmanager
def errors(interrupted: str = NOTHING_WRITTEN) -> Iterator[None]:
    """Convert exceptions to output and exit codes.

    An `OjalaError` is one line and exit code 1; Ctrl-C and SIGTERM are one line and 130; anything else is a
    fault of the program: its traceback, one line on where to report it, and 70.

    Parameters
    ----------
    interrupted : str
        State of the output after an interruption.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with access_errors():
            yield
    except KeyboardInterrupt:
        warn(f"interrupted; {interrupted}")
        raise typer.Exit(INTERRUPTED) from None
    except OjalaError as problem:
        logging.getLogger(__name__).debug("error", exc_info=True)
        warn(str(problem))
        raise typer.Exit(1) from None
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as problem:
        logging.getLogger(__name__).debug("fault", exc_info=True)
        traceback.print_exception(problem)
        warn(f"this is a fault of the program: please report it with the traceback above{_where()}")
        raise typer.Exit(FAULT) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _where() -> str:
    """Address for reports of faults, from the metadata of the package."""
    urls = dict(url.split(", ", 1) for url in metadata("ojala").get_all("Project-URL") or [])
    address = urls.get("Issues") or urls.get("Repository")
    return f" to {address}" if address else ""


def configure_logging(verbose: int = 0, file: Path | None = None) -> None:
    """Log to stderr and to a file; without either a command prints only its output and its errors.

    Parameters
    ----------
    verbose : int
        0: warnings, 1: progress, 2 and more: everything.
    file : Path, optional
        File that log records are appended to, progress at least.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    # Prefect reads its settings on import and leaves handlers of the root logger in place.
    chosen = "CRITICAL" if not verbose and file is None else logging.getLevelName(min(level, logging.INFO))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", chosen)
    handlers: list[logging.Handler] = []
    if verbose:
        handlers.append(logging.StreamHandler())
    if file is not None:
        handlers.append(logging.FileHandler(file, delay=False))
        level = min(level, logging.INFO)
    if handlers:
        logging.basicConfig(
            level=level,
            handlers=handlers,
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            force=True,
        )
