"""Commands whose errors become one line or a traceback, their exit codes, their progress, and logging."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from ojala.catalogs_schema.errors import ExitCode, InputError, OjalaError, access_errors
from ojala.catalogs_schema.urls import redact
from ojala.flows.terminal import progress_bars
from ojala.pipeline.storage.progress import heartbeat, listening

INTERRUPTED = ExitCode.INTERRUPTED
FAULT = ExitCode.FAULT

NOTHING_WRITTEN = "nothing was written"
RESUMABLE = "finished work is kept, and the same command resumes it"


class Panel(StrEnum):
    """Groups of commands in the help, in its order."""

    DATA = "Data: make catalogues of the survey's files"
    RUN = "Run: predict, check, recompute"
    RELEASES = "Releases: what readers see"
    MODELS = "Models: train, adapt, calibrate"
    TOOLS = "Tools"


class _Flags:
    """Help that shows no type behind options without a value."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - a context of typer's own copy of click
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # of the class beside this one
        for param in params:
            if getattr(param, "is_flag", False) or getattr(param, "count", False):
                param.metavar = ""
        return params


class Command(_Flags, TyperCommand):
    """A command."""


class Group(_Flags, TyperGroup):
    """A group of commands, which its help lists by panel."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - as typer and click declare it
        """Names of the commands, by panel."""
        order = {panel.value: k for k, panel in enumerate(Panel)}
        place = {
            name: order.get(str(getattr(one, "rich_help_panel", "")), 0)
            for name, one in self.commands.items()
        }
        return sorted(super().list_commands(ctx), key=lambda name: place[name])


class Commands(typer.Typer):
    """A group of commands that run inside `errors` and show their progress on stderr.

    Parameters
    ----------
    panel : Panel
        Group in the help of commands that name none.
    **options
        Those of `typer.Typer`.
    """

    def __init__(self, panel: Panel = Panel.TOOLS, **options: Any) -> None:  # noqa: ANN401 - as typer and click declare it
        super().__init__(**{"cls": Group, **options})
        self._panel = panel

    def add_typer(self, typer_instance: typer.Typer, **options: Any) -> None:  # noqa: ANN401 - as typer and click declare it
        """Add the commands of a group; a group with a name of its own stands in its panel."""
        if isinstance(typer_instance, Commands) and "name" in options:
            options.setdefault("rich_help_panel", typer_instance._panel.value)
        super().add_typer(typer_instance, **options)

    def command(  # type: ignore[override]  # fewer options than typer has
        self,
        name: str | None = None,
        *,
        resumable: bool = False,
        hidden: bool = False,
        panel: Panel | None = None,
    ) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Register a command; a resumable one keeps finished work when it is interrupted."""
        shown = (panel or self._panel).value
        register = super().command(name, cls=Command, hidden=hidden, rich_help_panel=shown)

        def decorate(function: Callable[..., None]) -> Callable[..., None]:
            @functools.wraps(function)
            def handled(*arguments: object, **options: object) -> None:
                kept = RESUMABLE if resumable else NOTHING_WRITTEN
                first = f"{function.__name__.replace('_', '-')} is at work"
                with (
                    errors(kept, as_json=bool(options.get("as_json"))),
                    listening(warn),
                    heartbeat(first),
                    progress_bars(),
                ):
                    function(*arguments, **options)

            return register(handled)

        return decorate


def warn(text: str) -> None:
    """Print one line for the user to stderr, without credentials."""
    print(f"ojala: {redact(text)}", file=sys.stderr, flush=True)


@contextmanager
def errors(interrupted: str = NOTHING_WRITTEN, *, as_json: bool = False) -> Iterator[None]:
    """Convert exceptions to output and exit codes.

    An `OjalaError` is one line and its exit code, as is an import that needs an extra of the package; Ctrl-C
    and SIGTERM are one line and 130; anything else is a fault of the program: its traceback, one line on
    where to report it, and 70. See `ExitCode`.

    Parameters
    ----------
    interrupted : str
        State of the output after an interruption.
    as_json : bool
        Print the error as a JSON object to stdout, too.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)

    def end(code: ExitCode, kind: str, message: str) -> NoReturn:
        if as_json:
            print(error_as_json(code, kind, message))
        raise typer.Exit(code) from None

    try:
        with access_errors():
            yield
    except KeyboardInterrupt:
        warn(f"interrupted; {interrupted}")
        end(INTERRUPTED, "KeyboardInterrupt", interrupted)
    except OjalaError as problem:
        logging.getLogger(__name__).debug("error", exc_info=True)
        warn(str(problem))
        end(problem.exit_code, type(problem).__name__, str(problem))
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as problem:  # a fault of the program: printed, with where to report it
        logging.getLogger(__name__).debug("fault", exc_info=True)
        if hint := _missing_extra(problem):
            warn(hint)
            end(ExitCode.INPUT, "MissingExtra", hint)
        print(redact("".join(traceback.format_exception(problem))), file=sys.stderr, end="")
        warn(f"this is a fault of the program: please report it with the traceback above{_where()}")
        end(FAULT, type(problem).__name__, str(problem))
    finally:
        signal.signal(signal.SIGTERM, before)


def _missing_extra(problem: BaseException | None) -> str:
    """Command that installs a missing import of an extra of the package; empty for other imports."""
    from importlib.metadata import requires

    while problem is not None:
        module = problem.name if isinstance(problem, ModuleNotFoundError) and problem.name else ""
        wanted = module.partition(".")[0].replace("_", "-")
        for requirement in requires("ojala") or [] if wanted else []:
            found = _OF_AN_EXTRA.match(requirement)
            if found and found["name"] == wanted:
                return f"{module} is not installed: pip install '.[{found['extra']}]' in a checkout of ojala"
        problem = problem.__cause__
    return ""


_OF_AN_EXTRA = re.compile(r"""(?P<name>[\w.-]+).*;\s*extra == ["'](?!test|docs)(?P<extra>\w+)["']""")


def error_as_json(code: ExitCode, kind: str, message: str) -> str:
    """An error as the JSON object that commands print with ``--json``."""
    error = {"exit_code": int(code), "meaning": code.meaning, "kind": kind, "message": redact(message)}
    return json.dumps({"error": error}, indent=1)


def _where() -> str:
    """Address for reports of faults, from the metadata of the package."""
    from importlib.metadata import metadata

    urls = dict(url.split(", ", 1) for url in metadata("ojala").get_all("Project-URL") or [])
    address = urls.get("Issues") or urls.get("Repository")
    return f" to {address}" if address else ""


class _Redacting(logging.Formatter):
    """Formatter of log records without credentials, also in their tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def configure_logging(verbose: int = 0, file: Path | None = None) -> None:
    """Log to stderr and to a file; without either a command prints only its output, progress and errors.

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
    for handler in handlers:
        handler.setFormatter(_Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    if handlers:
        logging.basicConfig(level=level, handlers=handlers, force=True)


def require_inputs(settings: Mapping[str, object]) -> None:
    """Refuse inputs that are not there, before anything heavy is imported.

    Parameters
    ----------
    settings : mapping of str to object
        Settings of a run, not yet checked.

    Raises
    ------
    InputError
        If a catalogue has no ``hats.properties``, or another file is missing.
    """
    from upath import UPath

    for name in ("photometry", "spectra", "cutouts", "truth"):
        path = settings.get(name)
        if not path or not isinstance(path, str):
            continue
        if name == "truth" and not UPath(path).exists():
            raise InputError(f"{path}: there is no such file")
        if name != "truth" and not (UPath(path) / "hats.properties").exists():
            raise InputError(
                f"{path} is no HATS catalogue: it has no hats.properties (`ojala ingest` makes one)"
            )
