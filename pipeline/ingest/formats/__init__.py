"""Table formats: the registry of readers.

A format is a module of this package with two functions and one entry here: ``matches(head)`` recognises the
first bytes of a file, and ``open_table(path, scratch)`` is a context manager of its `TableSource`.
"""

FORMATS = {"Parquet": "parquet", "FITS": "fits", "VOTable": "votable", "CSV": "csv"}
"""Modules of this package by the name of their format, in the order in which they are tried."""

FORMAT_NAMES = f"{', '.join(list(FORMATS)[:-1])} or {list(FORMATS)[-1]}"
"""Names of the formats for messages and help texts."""
