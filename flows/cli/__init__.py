"""The command line, a module for each group of commands; `ojala.flows.cli.app` joins them."""
