"""Units that files state for their columns, found in every form in which they are stated."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Mapping
from xml.etree import ElementTree

import astropy.units as u
import pyarrow as pa
from astropy.table.meta import get_header_from_yaml

from ojala.catalogs_schema import votable

_FIELD_KEYS = ("unit", "units")
_ASTROPY_KEY = b"table_meta_yaml"
_SPELLINGS = {
    **dict.fromkeys(("none", "unknown", "unitless", "dimensionless", "-", "--", "[-]", "n/a"), ""),
    **dict.fromkeys(("degrees", "degs", "deg."), "deg"),
    **dict.fromkeys(("radians", "radian"), "rad"),
    **dict.fromkeys(("hours", "hrs"), "h"),
    **dict.fromkeys(("angstroms", "ang", "ang."), "Angstrom"),
    **dict.fromkeys(("microjy", "microjansky"), "uJy"),
    **dict.fromkeys(("millijy", "millijansky"), "mJy"),
    **dict.fromkeys(("nanojy", "nanojansky"), "nJy"),
    **dict.fromkeys(("nanomaggies", "nanomaggys"), "nanomaggy"),
    **dict.fromkeys(("abmag", "mag_ab", "ab mag", "mag (ab)", "magab"), "mag(AB)"),
}
"""Spellings that astropy does not parse, in lower case."""


def parse_unit(text: str) -> u.UnitBase | u.function.FunctionUnitBase | None:
    """Parse a unit as files spell it; None for no unit.

    Raises
    ------
    ValueError
        If it cannot be read as a unit.
    """
    plain = _SPELLINGS.get(text.strip().lower(), text.strip())
    # The archive's A is the Angstrom: no column of a catalogue is an electric current.
    plain = re.sub(r"(?<![A-Za-z])(A|Ang|Angstroms|angstroms)(?![A-Za-z])", "Angstrom", plain)
    if not plain:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", u.UnitsWarning)
        return u.Unit(plain)


def scale_between(stated: str, wanted: str, *, hour_angle: bool = False) -> float:
    """Number of units `wanted` in one unit as a file states it; 1 where it states none.

    Parameters
    ----------
    stated : str
        Unit in the file's spelling.
    wanted : str
        Unit that is needed; empty for a pure number.
    hour_angle : bool
        Whether hours are those of right ascension, 15 degrees each.

    Raises
    ------
    ValueError
        If the stated unit is not understood, or cannot be converted (`UnitConversionError`).
    """
    unit, target = parse_unit(stated), parse_unit(wanted) or u.dimensionless_unscaled
    if unit is None or unit == target:
        return 1.0
    if hour_angle and unit.is_equivalent(u.hour):
        unit = unit.to(u.hour) * u.hourangle
    if not isinstance(unit, u.UnitBase | u.Quantity) or not isinstance(target, u.UnitBase):
        raise u.UnitConversionError(f"{stated!r} is no multiple of {wanted!r}")
    # Rounded: 15 degrees in an hour, not 14.999999999999998.
    return float(f"{(1.0 * unit).to_value(target):.15g}")


def schema_units(schema: pa.Schema) -> dict[str, str]:
    """Units of the columns of a Parquet file, by the names of the columns that have one.

    They are found in the metadata of a field (key ``unit`` or ``units``, as this program and others
    write them), in the header that astropy writes (``table_meta_yaml``), and in the VOTable header
    of VOParquet (IVOA Note "Parquet in the VO" 1.0); the first of them that names a column counts.
    """
    metadata: Mapping[bytes, bytes] = schema.metadata or {}
    found: dict[str, str] = {}
    header = metadata.get(votable.CONTENT_KEY.encode())
    if header is not None:
        found |= _votable_units(header)
    if _ASTROPY_KEY in metadata:
        found |= yaml_units(metadata[_ASTROPY_KEY].decode(errors="replace").split("\n"))
    for column in schema:
        stated = {
            key.decode(errors="replace").lower(): value.decode(errors="replace").strip()
            for key, value in (column.metadata or {}).items()
        }
        unit = next((stated[key] for key in _FIELD_KEYS if stated.get(key)), "")
        if unit:
            found[column.name] = unit
    return {name: unit for name, unit in found.items() if unit}


def yaml_units(lines: Iterable[str]) -> dict[str, str]:
    """Units of the columns in a header of astropy, that of ECSV and of its Parquet files.

    Raises
    ------
    ValueError
        If the header cannot be read.
    """
    try:
        columns = get_header_from_yaml(lines)["datatype"]
        return {str(column["name"]): str(column.get("unit") or "") for column in columns}
    except Exception as error:  # of YAML, or of what its tags construct
        raise ValueError(f"its header of column types cannot be read: {error}") from error


def _votable_units(content: bytes) -> dict[str, str]:
    try:
        elements = ElementTree.iterparse(io.BytesIO(content), events=("start",))
        return {
            element.get("name") or element.get("ID") or "": element.get("unit") or ""
            for _, element in elements
            if element.tag.rpartition("}")[2] == "FIELD"
        }
    except ElementTree.ParseError as error:
        raise ValueError(f"its VOTable header cannot be read: {error}") from error
