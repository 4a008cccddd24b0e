"""Properties files of HATS, read without the library hats, whose import takes more than a second."""

from __future__ import annotations

from jproperties import ParseError, Properties
from upath import UPath

from ojala.catalogs_schema.errors import InputError

COLLECTION = "collection.properties"
"""The one pointer of a collection: its photometry, and the file of each published product."""

PROPERTIES = ("hats.properties", "properties")
"""Names of the file that makes a catalogue, the second of older writers."""

NAME = "obs_collection"
"""Name of a catalogue or collection."""

PRIMARY = "hats_primary_table_url"
"""Reference of a collection or of an extension to the primary catalogue."""

JOINED = "hats_assn_join_table_url"
"""Reference of an extension to its own catalogue."""

MARGINS = "all_margins"
"""Margin caches of a collection, as a list of paths."""

INDEXES = "all_indexes"
"""Indexes of a collection, as a list of columns with a path each."""


class PropertiesError(InputError):
    """A properties file that lacks what it must have."""


def read_properties(path: UPath, *required: str) -> dict[str, str]:
    """Read a Java-style properties file.

    Parameters
    ----------
    path : UPath
        The file.
    *required : str
        Properties that it must have.

    Raises
    ------
    PropertiesError
        If it cannot be parsed, or lacks a required property; names both.
    """
    properties = Properties()
    try:
        with path.open("rb") as file:
            properties.load(file, "utf-8")
    except (ValueError, ParseError) as problem:
        raise PropertiesError(
            f"{path} is no properties file ({problem}): publish a run again, or get the file again"
        ) from problem
    found: dict[str, str] = properties.properties
    if missing := [name for name in required if name not in found]:
        raise PropertiesError(f"{path} has no {missing[0]}: publish a run again, or get the file again")
    return found


def read_extensions(path: UPath) -> dict[str, str]:
    """File of each extension of a collection, by the extension's name.

    Raises
    ------
    PropertiesError
        If the list has a name without a file.
    """
    words = read_properties(path).get("all_extensions", "").split()
    if len(words) % 2:
        raise PropertiesError(f"{path}: all_extensions has a name without a file: {words[-1]}")
    return dict(zip(words[::2], words[1::2], strict=True))
