"""Search for the objects of a release that are most like one of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.pipeline.runs.published import read_release
from ojala.pipeline.similarity.index import FOLDER, Similar, open_index
from ojala.pipeline.storage.files import is_local

RADIUS = 5.0
"""Largest distance of an object from a position that names it [arcsec]."""


@dataclass(frozen=True, slots=True)
class Query:
    """An object and those like it.

    Attributes
    ----------
    object_id : int
        The object.
    product, column : str
        Product and column of the embeddings.
    similar : Similar
        The others.
    """

    object_id: int
    product: str
    column: str
    similar: Similar


def find_similar(
    root: UPath,
    like: str,
    k: int,
    *,
    product: str | None = None,
    column: str | None = None,
    folder: UPath | None = None,
) -> Query:
    """Find the objects of a release most like one of them.

    Parameters
    ----------
    root : UPath
        Root of the collection.
    like : str
        Key of an object, or ``RA,DEC`` [deg] of one within 5 arcsec.
    k : int
        Objects to find.
    product, column : str, optional
        Product with embeddings and the column; default: the first that has one.
    folder : UPath, optional
        Folder of the indexes, on a disk; default: ``similar`` in the collection.

    Raises
    ------
    InputError
        If there is no such object, or nothing to search in.
    """
    release = read_release(root)
    chosen = release.product(product) if product else release.embedded
    place = folder or root / FOLDER
    if not is_local(place):
        raise InputError(f"{root} is not on a disk: name a folder for the index with --index")
    index = open_index(chosen, Path(place.path), column)
    object_id = _key(like, index.position_match)
    return Query(object_id, chosen.name, index.column, index.nearest(object_id, k))


def _key(like: str, match: object) -> int:
    ra, comma, dec = like.partition(",")
    try:
        if not comma:
            return int(like)
        position = float(ra), float(dec)
    except ValueError:
        raise InputError(
            f"--like {like!r} is neither the key of an object nor RA,DEC in degrees, such as 245.5,43.9"
        ) from None
    assert callable(match)
    found = match(*position, RADIUS)
    if found is None:
        raise InputError(f"no object with an embedding lies within {RADIUS:g} arcsec of {like}")
    return int(found)
