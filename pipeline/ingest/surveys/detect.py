"""What kind of spectra or labels a file holds, told by its content."""

from __future__ import annotations

import enum
from collections.abc import Iterator

from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.table import opened
from ojala.pipeline.ingest.surveys import collection, desi, label_tables, lamost, sdss, templates
from ojala.pipeline.ingest.surveys.hdus import open_hdus
from ojala.pipeline.ingest.surveys.label_tables import KnownObjects, KnownTable
from ojala.pipeline.ingest.surveys.spectrum import Spectrum

_HEAD = 4096


class Kind(enum.StrEnum):
    """Kinds of files."""

    SDSS = "SDSS spectrum"
    LAMOST = "LAMOST spectrum"
    DESI = "DESI coadd"
    COLLECTION = "collection of spectra"
    ATMOSPHERE = "ck04 atmosphere"
    TEMPLATE = "template"
    DESI_TABLE = "table of DESI objects"
    LAMOST_TABLE = "table of LAMOST stars"


TABLES = (Kind.DESI_TABLE, Kind.LAMOST_TABLE)
"""Kinds that hold no spectra but say what objects are."""

_EXPECTED = "; ".join(part.EXPECTED for part in (desi, sdss, lamost, label_tables, templates, collection))


def kind_of(path: UPath) -> Kind:
    """The kind of a file.

    Raises
    ------
    SourceError
        If it has none of the kinds: says what was found and what was expected; or if it is damaged.
    """
    if not path.exists():
        raise SourceError("does not exist")
    with opened(path) as raw:
        head = raw.read(_HEAD)
    if head.startswith(b"PAR1"):
        return Kind.COLLECTION
    if head.startswith(b"SIMPLE"):
        return _kind_of_fits(path)
    text = head.decode(errors="replace")
    if text.strip() and label_tables.is_lamost_table(text):
        return Kind.LAMOST_TABLE
    if templates.is_template_text(text):
        return Kind.TEMPLATE
    raise SourceError(f"holds no spectra that are known here: expected {_EXPECTED}")


def _kind_of_fits(path: UPath) -> Kind:
    tests = {
        Kind.DESI: desi.is_desi,
        Kind.SDSS: sdss.is_sdss,
        Kind.LAMOST: lamost.is_lamost,
        Kind.DESI_TABLE: label_tables.is_desi_table,
        Kind.ATMOSPHERE: templates.is_atmosphere,
    }
    with open_hdus(path) as hdus:
        for kind, fits_kind in tests.items():
            if fits_kind(hdus):
                return kind
        found = ", ".join(hdu.name or f"HDU {i}" for i, hdu in enumerate(hdus))
    raise SourceError(
        f"is a FITS file with {found}, in which there are no spectra known here: expected {_EXPECTED}"
    )


def read_tables(path: UPath, kind: Kind) -> list[KnownTable]:
    """What a file of one of the kinds in `TABLES` says of objects."""
    return (
        label_tables.read_desi_tables(path)
        if kind is Kind.DESI_TABLE
        else [label_tables.read_lamost_table(path)]
    )


def read_spectra(path: UPath, kind: Kind, objects: KnownObjects) -> Iterator[Spectrum]:
    """The spectra of a file of any other kind, one after the other.

    Raises
    ------
    SourceError
        If the file is damaged.
    """
    if kind is Kind.DESI:
        yield from desi.read_desi(path, objects)
    elif kind is Kind.SDSS:
        yield sdss.read_sdss(path)
    elif kind is Kind.LAMOST:
        yield lamost.read_lamost(path, objects)
    elif kind is Kind.ATMOSPHERE:
        yield from templates.read_atmosphere(path)
    elif kind is Kind.TEMPLATE:
        yield templates.read_template_text(path)
    else:
        yield from collection.read_collection(path)
