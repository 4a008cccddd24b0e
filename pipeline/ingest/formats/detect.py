"""The form of a file, told by its first bytes, and the reader for it."""

from __future__ import annotations

from contextlib import AbstractContextManager

from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.csv import open_csv
from ojala.pipeline.ingest.formats.fits import open_fits
from ojala.pipeline.ingest.formats.parquet import open_parquet
from ojala.pipeline.ingest.formats.table import TableSource, opened
from ojala.pipeline.ingest.formats.votable import open_votable


def open_table(path: UPath, scratch: UPath) -> AbstractContextManager[TableSource]:
    """Open a table of any form for reading.

    Parameters
    ----------
    path : UPath
        Parquet, CSV, FITS or VOTable; all but Parquet may be gzipped. The name does not matter.
    scratch : UPath
        Local folder for what has to be unpacked.

    Returns
    -------
    context manager of TableSource

    Raises
    ------
    SourceError
        If there is no such file, or it has none of these forms.
    """
    if path.is_dir():
        raise SourceError("is a folder; name the files in it")
    if not path.exists():
        raise SourceError("does not exist")
    with opened(path) as raw:
        head = raw.read(512)
    if not head.strip():
        raise SourceError("is empty")
    if head.startswith(b"PAR1"):
        return open_parquet(path)
    if head.startswith(b"SIMPLE"):
        return open_fits(path, scratch)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return open_votable(path)
    return open_csv(path)
