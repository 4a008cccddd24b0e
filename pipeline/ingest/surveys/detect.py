"""Registry of the surveys' file kinds, and detection of a file's kind by its content."""

from __future__ import annotations

from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.fits import open_hdus
from ojala.pipeline.ingest.formats.table import opened
from ojala.pipeline.ingest.surveys import desi, label_tables, lamost, parquet_spectra, sdss, templates
from ojala.pipeline.ingest.surveys.hdus import hdu_names
from ojala.pipeline.ingest.surveys.kind import FileKind

KINDS: tuple[FileKind, ...] = tuple(
    kind for survey in (desi, sdss, lamost, label_tables, templates, parquet_spectra) for kind in survey.KINDS
)
"""Kinds of files, in the order in which they are tried: a survey is a module with ``KINDS`` and one entry."""

_HEAD_BYTES = 4096


def detect_kind(path: UPath) -> FileKind:
    """Detect the kind of a file.

    Raises
    ------
    SourceError
        If it has none of the kinds, with its content and the expected kinds; or if it is damaged.
    """
    if not path.exists():
        raise SourceError("does not exist")
    expected = "; ".join(dict.fromkeys(kind.expected for kind in KINDS))
    with opened(path) as raw:
        head = raw.read(_HEAD_BYTES)
    if not head.startswith(b"SIMPLE"):
        for kind in KINDS:
            if kind.matches_head is not None and kind.matches_head(head):
                return kind
        raise SourceError(f"holds no spectra that are known here: expected {expected}")
    with open_hdus(path, verify=False) as hdus:
        for kind in KINDS:
            if kind.matches_fits is not None and kind.matches_fits(hdus):
                return kind
        raise SourceError(
            f"is a FITS file with {hdu_names(hdus)}, in which there are no spectra known here: "
            f"expected {expected}"
        )
