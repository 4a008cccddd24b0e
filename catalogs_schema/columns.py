"""Builders of columns that several contracts have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa

from ojala.catalogs_schema.contract import NONE, Column


def number(
    name: str, unit: str, ucd: str, what: str, low: float | None = None, high: float | None = None
) -> Column:
    """Nullable single-precision number within a range."""
    return Column(name, pa.float32(), unit, ucd, what, minimum=low, maximum=high)


def measured(
    name: str,
    unit: str,
    ucd: str,
    what: str,
    low: float | None = None,
    high: float | None = None,
    *,
    error: str = "half-width of the central 68.3 % interval",
) -> tuple[Column, Column]:
    """Quantity and its error, named ``<name>_err``, with the definition of the error."""
    error_ucd = ";".join(filter(None, ("stat.error", ucd)))
    return (
        number(name, unit, ucd, what, low, high),
        number(f"{name}_err", unit, error_ucd, f"{error} of {name}", 0.0),
    )


def probability(name: str, what: str, ucd: str = "src.class") -> Column:
    """Probability, or part of a PDF, of the quantity with this UCD."""
    return number(name, "", f"stat.probability;{ucd}", what, 0.0, 1.0)


def words(name: str, what: str, allowed: tuple[str, ...]) -> Column:
    """Class as one of some words; ``what`` ends with the meaning of NONE."""
    return Column(name, pa.string(), "", "src.class", what, nullable=False, allowed=allowed)


def class_columns(classes: tuple[str, ...], name: str = "class", prefix: str = "") -> tuple[Column, ...]:
    """Most probable class, under a name, and the probabilities of galaxy, star and quasar."""
    return (
        words(name, f"most probable class; {NONE} where not predicted", (NONE, *classes)),
        probability(f"{prefix}p_galaxy", "probability of being a galaxy"),
        probability(f"{prefix}p_star", "probability of being a star"),
        probability(f"{prefix}p_qso", "probability of being a quasar"),
    )


def count(name: str, kind: pa.DataType, what: str, most: int | None = None) -> Column:
    """Count that every row has."""
    return Column(name, kind, "", "meta.number", what, nullable=False, minimum=0, maximum=most)


def vector(name: str, element: pa.DataType, size: int, unit: str, ucd: str, what: str) -> Column:
    """List of a fixed size that every row has."""
    return Column(name, pa.list_(element, size), unit, ucd, what, nullable=False)


FLAGS = Column(
    "flags",
    pa.int32(),
    "",
    "meta.code.qual",
    "bit mask, see the flags' table",
    nullable=False,
    minimum=0,
)
"""Flags of a row; `Contract.flag_meanings` has the meaning of each bit."""


def flags(product: str) -> Column:
    """Flags of the rows of a product, ``PRODUCT_flags``."""
    return replace(FLAGS, name=f"{product}_flags")


def without_prefix(prefix: str, columns: Iterable[Column]) -> dict[str, str]:
    """Names of the columns that begin with a prefix, by the rest of the name, for `Contract.column_names`."""
    return {c.name.removeprefix(prefix): c.name for c in columns if c.name.startswith(prefix)}
