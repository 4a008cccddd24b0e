"""A contract as a data-less VOTable, the header that VOParquet files carry.

See the IVOA Note "Parquet in the VO" (VOParquet 1.0): the header stands in the key-value metadata of
the Parquet file, so that units, UCDs and descriptions travel with each leaf.
"""

from __future__ import annotations

import functools
import io
import warnings
from typing import TYPE_CHECKING

import pyarrow as pa

from ojala.catalogs_schema.contract import Column, Contract

if TYPE_CHECKING:
    from astropy.io.votable.tree import Field, VOTableFile

VERSION_KEY = "IVOA.VOTable-Parquet.version"
CONTENT_KEY = "IVOA.VOTable-Parquet.content"

_DATATYPE = {
    pa.bool_(): "boolean",
    pa.int16(): "short",
    pa.int32(): "int",
    pa.int64(): "long",
    # VOTable has no half-precision type: readers see the values as float.
    pa.float16(): "float",
    pa.float32(): "float",
    pa.float64(): "double",
}


@functools.cache
def header(contract: Contract) -> dict[str, str]:
    """Key-value metadata that makes a Parquet file of this contract a VOParquet file.

    The lengths of text columns are there too, in the keys that astropy looks for.

    Parameters
    ----------
    contract : Contract
        Contract of the table in the file.

    Returns
    -------
    dict of str to str
        Keys and values of the file's footer.
    """
    from astropy.units import UnitsWarning  # with what follows half a second, which only writers need

    with warnings.catch_warnings():
        # VOUnits deprecates the Angstrom in favour of 0.1nm; the field writes it, and so do we.
        warnings.filterwarnings("ignore", "The unit 'Angstrom'", UnitsWarning)
        text = _xml(contract)
    lengths = {f"table::len::{c.name}": str(text_length(c)) for c in contract if c.allowed}
    return {VERSION_KEY: "1.0", CONTENT_KEY: text, **lengths}


def _xml(contract: Contract) -> str:
    from astropy.io.votable.tree import Info, Resource, TableElement, VOTableFile

    votable = VOTableFile(version="1.4")
    resource = Resource()
    votable.resources.append(resource)
    table = TableElement(votable, name=contract.name)
    table.description = contract.description
    table.infos.append(Info(name="contract_version", value=contract.version))
    table.fields.extend(_field(votable, column) for column in contract)
    resource.tables.append(table)
    xml = io.BytesIO()
    votable.to_xml(xml)
    return xml.getvalue().decode()


def text_length(column: Column) -> int:
    """Characters of the longest word that a text column may hold."""
    return max(len(word) for word in column.allowed)


def _field(votable: VOTableFile, column: Column) -> Field:
    from astropy.io.votable.tree import Field, Values

    shape: dict[str, str] = {}
    if pa.types.is_string(column.type):
        # A fixed length where there is one: astropy cannot join its own "*" columns with a file's text.
        datatype, shape["arraysize"] = "char", str(text_length(column)) if column.allowed else "*"
    elif pa.types.is_list(column.type):
        datatype, shape["arraysize"] = _DATATYPE[column.type.value_type], "*"
    elif pa.types.is_fixed_size_list(column.type):
        datatype, shape["arraysize"] = _DATATYPE[column.type.value_type], str(column.type.list_size)
    else:
        datatype = _DATATYPE[column.type]
    field = Field(
        votable,
        name=column.name,
        ID=column.name,
        datatype=datatype,
        ucd=column.ucd,
        unit=column.unit or None,
        **shape,
    )
    field.description = column.description
    if column.minimum is not None or column.maximum is not None:
        values = Values(votable, field)
        values.min, values.max = column.minimum, column.maximum
        field.values = values
    return field
