"""Detection of a file's kind by its content."""

from __future__ import annotations

from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.columnar import column_names_of, is_columnar
from ojala.pipeline.ingest.formats.fits import open_hdus
from ojala.pipeline.ingest.formats.table import opened
from ojala.pipeline.ingest.surveys.hdus import hdu_names
from ojala.pipeline.ingest.surveys.reader import FileKind, file_kinds

_HEAD_BYTES = 4096
_MOST_NAMES = 12


def detect_kind(path: UPath) -> FileKind:
    """Detect the kind of a file.

    Raises
    ------
    SourceError
        If it has none of the kinds, with its content and the expected kinds; or if it is damaged.
    """
    if not path.exists():
        raise SourceError("does not exist")
    kinds = file_kinds()
    expected = "; ".join(dict.fromkeys(kind.expected for kind in kinds))
    with opened(path) as raw:
        head = raw.read(_HEAD_BYTES)
    if is_columnar(head):
        names = column_names_of(path)
        for kind in kinds:
            if kind.matches_columns is not None and kind.matches_columns(names):
                return kind
        some = ", ".join(sorted(names)[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
        raise SourceError(f"has the columns {some}, which are not of spectra known here: expected {expected}")
    if not head.startswith(b"SIMPLE"):
        for kind in kinds:
            if kind.matches_head is not None and kind.matches_head(head):
                return kind
        raise SourceError(f"holds no spectra that are known here: expected {expected}")
    with open_hdus(path, verify=False) as hdus:
        for kind in kinds:
            if kind.matches_fits is not None and kind.matches_fits(hdus):
                return kind
        raise SourceError(
            f"is a FITS file with {hdu_names(hdus)}, in which there are no spectra known here: "
            f"expected {expected}"
        )
