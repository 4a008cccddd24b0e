"""Detection of a file's table format by its first bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module

from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats import FORMAT_NAMES, FORMATS
from ojala.pipeline.ingest.formats.table import TableSource, opened

_HEAD_BYTES = 512


@contextmanager
def open_table(path: UPath, scratch: UPath) -> Iterator[TableSource]:
    """Open a table in any of the formats `FORMATS` for reading.

    Parameters
    ----------
    path : UPath
        The file; all but Parquet may be compressed (gzip, bzip2, xz). Its name does not matter.
    scratch : UPath
        Local folder for unpacked files.

    Yields
    ------
    TableSource

    Raises
    ------
    SourceError
        If there is no such file, or it has none of these formats.
    """
    if path.is_dir():
        raise SourceError("is a folder; name the files in it")
    if not path.exists():
        raise SourceError("does not exist")
    with opened(path) as raw:
        head = raw.read(_HEAD_BYTES)
    if not head.strip():
        raise SourceError("is empty")
    for form, name in FORMATS.items():
        module = import_module(f"ojala.pipeline.ingest.formats.{name}")
        if module.matches(head):
            with module.open_table(path, scratch) as source:
                yield replace(source, form=form)
            return
    raise SourceError(f"is none of {FORMAT_NAMES}")
