"""The command line: ``ojala --help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ojala.catalogs_schema.errors import ExitCode
from ojala.flows.cli.commands import COMMANDS
from ojala.flows.cli.errors import (
    Command,
    Commands,
    Group,
    Panel,
    configure_logging,
    error_as_json,
    errors,
    warn,
)


class _Root(Group):
    """The commands of `COMMANDS`: each is imported when it is called, and the help imports none."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - typer's own options
        super().__init__(**options)
        for name, entry in COMMANDS.items():
            self.add_command(Command(name, help=entry.help, rich_help_panel=entry.panel.value))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - of typer's own copy of click
        """The command that the first word names."""
        if args[0] in COMMANDS:
            self.add_command(load(args[0]))
        return super().resolve_command(ctx, args)


def load(name: str) -> Any:  # noqa: ANN401 - a command of any signature
    """Import the module of a command, and return the command or group of commands."""
    module = import_module(f"{__package__}.{COMMANDS[name].module}")
    return typer.main.get_group(module.app).commands[name]


app = Commands(
    Panel.RUN,
    cls=_Root,
    help="Turn a photometric sky survey into value-added catalogues with foundation models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def run_app(words: Sequence[str]) -> None:
    """Run a command to its exit code; with ``--json`` errors of the call are JSON, too."""
    if "--json" not in words:
        app()
    usage_error = cast(type[Exception], typer.BadParameter.__mro__[1])
    try:
        code = typer.main.get_command(app).main(standalone_mode=False)
    except usage_error as problem:
        message = problem.format_message()  # type: ignore[attr-defined]  # its class is not public
        warn(message)
        print(error_as_json(ExitCode.USAGE, "UsageError", message))
        sys.exit(ExitCode.USAGE)
    sys.exit(code)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(version("ojala"))
        raise typer.Exit


@app.callback()
def configure(
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Log progress to stderr; twice: everything.")
    ] = 0,
    log_file: Annotated[Path | None, typer.Option(help="File that the log is appended to.")] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set up logging for all commands."""
    with errors():
        configure_logging(verbose, log_file)
