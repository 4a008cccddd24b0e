"""Command line: a module for each group of commands, joined by `ojala.flows.cli.app`."""
