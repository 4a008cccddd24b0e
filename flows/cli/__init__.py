"""Command line: a module for each group of commands, joined by `ojala.flows.cli.app`."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command line; print its first line before anything heavy is imported.

    Credentials in URLs of the call are moved to the environment, which others cannot read as they can the
    list of processes: the program starts again with the cleaned call.
    """
    from ojala.catalogs_schema.urls import without_credentials

    words = sys.argv[1:]
    clean = ["=".join(map(without_credentials, word.split("=", 1))) for word in words]
    if clean != words:
        call = sys.orig_argv[: len(sys.orig_argv) - len(words)]
        os.execv(sys.executable, [*call, *clean])
    command = next((word for word in words if not word.startswith("-")), "")
    if command and "--help" not in words:
        print(f"ojala {command}: starting", file=sys.stderr, flush=True)
    if command == "run" and not any(word.startswith(_OTHER_WORKERS) for word in words):
        from ojala.pipeline.execution.forkserver import start_forkserver

        start_forkserver(network=True)
    gc.set_threshold(_GARBAGE)
    from ojala.flows.cli.app import run_app
    from ojala.pipeline.storage.threads import bound_all_starts

    bound_all_starts()
    run_app(words)


_OTHER_WORKERS = ("--help", "--config", "--engine", "--model")
"""Options of a run whose workers may be other processes than those of the defaults."""

_GARBAGE = 50_000
"""New objects after which Python collects garbage: with its own 700 a tenth of the start goes there."""
