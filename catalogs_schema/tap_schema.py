"""Contracts as a TAP service publishes them: rows of TAP_SCHEMA, and a resource descriptor of DaCHS.

See the IVOA Recommendation "Table Access Protocol" 1.1, section 4, and the reference of GAVO DaCHS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET

import pyarrow as pa

from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.votable import text_length

KEY = "object_id"
"""Column by which the tables join."""

PRINCIPAL = ("object_id", "ra", "dec", "z", "z_err")
"""Columns that a client shows first, besides classes and flags."""

_SQL = {
    pa.bool_(): "boolean",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float16(): "real",
    pa.float32(): "real",
    pa.float64(): "double precision",
}
_VOTABLE = {"integer": "int", "bigint": "long", "real": "float", "double precision": "double"}
_VOTABLE |= {"smallint": "short", "boolean": "boolean"}

_COLUMNS = (
    "table_name",
    "column_name",
    "datatype",
    "arraysize",
    "description",
    "unit",
    "ucd",
    "indexed",
    "principal",
    "std",
    "column_index",
)


def adql_name(column: Column) -> str:
    """Name of a column in ADQL, which wants a letter first: without leading underscores."""
    return column.name.lstrip("_")


def tap_rows(schema: str, contracts: Sequence[Contract]) -> Iterator[tuple[str, dict[str, str | int | None]]]:
    """Rows of TAP_SCHEMA that describe tables of some contracts.

    Parameters
    ----------
    schema : str
        Name of the schema.
    contracts : sequence of Contract
        The tables; the first is the one that others refer to by `KEY`.

    Yields
    ------
    (str, dict)
        Table of TAP_SCHEMA, and values by column.
    """
    yield "schemas", {"schema_name": schema, "description": "Value-added catalogues of a sky survey"}
    for number, contract in enumerate(contracts):
        table = f"{schema}.{contract.name}"
        yield (
            "tables",
            {
                "schema_name": schema,
                "table_name": table,
                "table_type": "table",
                "description": f"{contract.title} {contract.version}. {contract.description}",
                "table_index": number,
            },
        )
        for index, column in enumerate(contract):
            datatype, arraysize = _votable_type(column)
            values = (
                table,
                adql_name(column),
                datatype,
                arraysize,
                column.description,
                column.unit or None,
                column.ucd,
                int(adql_name(column) in (KEY, "healpix_29")),
                int(_is_principal(column)),
                0,
                index,
            )
            yield "columns", dict(zip(_COLUMNS, values, strict=True))
        if number:
            key = f"{schema}-{contract.name}"
            target = f"{schema}.{contracts[0].name}"
            yield "keys", {"key_id": key, "from_table": table, "target_table": target}
            yield "key_columns", {"key_id": key, "from_column": KEY, "target_column": KEY}


def tap_sql(schema: str, contracts: Sequence[Contract]) -> str:
    """Statements that insert the rows of `tap_rows` into TAP_SCHEMA."""
    lines = []
    for table, row in tap_rows(schema, contracts):
        names, values = ", ".join(row), ", ".join(map(_literal, row.values()))
        lines.append(f"INSERT INTO tap_schema.{table} ({names}) VALUES ({values});")
    return "\n".join(lines) + "\n"


def dachs_descriptor(schema: str, contracts: Sequence[Contract], title: str) -> str:
    """Resource descriptor of DaCHS with a table for each contract, loaded from the leaves.

    Parameters
    ----------
    schema : str
        Name of the resource, its folder and its schema in the database.
    contracts : sequence of Contract
        The tables; leaves are expected in ``data/NAME`` below the resource's folder.
    title : str
        Title of the resource.

    Returns
    -------
    str
        XML.
    """
    resource = ET.Element("resource", schema=schema)
    for name, text in (("title", title), ("description", contracts[0].description)):
        ET.SubElement(resource, "meta", name=name).text = text
    for contract in contracts:
        table = ET.SubElement(resource, "table", id=contract.name, onDisk="True", adql="True", primary=KEY)
        for name, text in (("title", contract.title), ("description", contract.description)):
            ET.SubElement(table, "meta", name=name).text = text
        for column in contract:
            _dachs_column(table, column)
        _dachs_import(resource, contract)
    ET.indent(resource)
    return ET.tostring(resource, encoding="unicode", xml_declaration=True) + "\n"


def _dachs_column(table: ET.Element, column: Column) -> None:
    made = ET.SubElement(
        table,
        "column",
        name=adql_name(column),
        type=_sql_type(column),
        unit=column.unit,
        ucd=column.ucd,
        description=column.description,
        verbLevel="1" if _is_principal(column) else "20",
    )
    integer = pa.types.is_integer(column.type)
    if not column.nullable and not pa.types.is_list(column.type):  # DaCHS stores empty lists as NULL
        made.set("required", "True")
    if column.minimum is not None or column.maximum is not None or (integer and column.nullable):
        values = ET.SubElement(made, "values")
        if integer and column.nullable:
            values.set("nullLiteral", "-1" if (column.minimum or 0) >= 0 else "-32768")
        if column.minimum is not None:
            values.set("min", f"{column.minimum:g}")
        if column.maximum is not None:
            values.set("max", f"{column.maximum:g}")


def _dachs_import(resource: ET.Element, contract: Contract) -> None:
    data = ET.SubElement(resource, "data", id=f"import_{contract.name}")
    ET.SubElement(data, "sources", pattern=f"data/{contract.name}/dataset/*/*/*.parquet")
    grammar = ET.SubElement(data, "embeddedGrammar")
    iterator = ET.SubElement(grammar, "iterator")
    ET.SubElement(iterator, "code").text = (
        "import pyarrow.parquet\n"
        "def plain(value):\n"
        "    if isinstance(value, list):\n"
        "        return [plain(one) for one in value]\n"
        "    return value.item() if hasattr(value, 'item') else value  # half precision\n"
        "for batch in pyarrow.parquet.ParquetFile(self.sourceToken).iter_batches():\n"
        "    for row in batch.to_pylist():\n"
        "        yield {name.lstrip('_'): plain(value) for name, value in row.items()}\n"
    )
    make = ET.SubElement(data, "make", table=contract.name)
    ET.SubElement(make, "rowmaker", idmaps="*")


def _sql_type(column: Column) -> str:
    if pa.types.is_fixed_size_list(column.type):
        return f"{_SQL[column.type.value_type]}[{column.type.list_size}]"
    if pa.types.is_list(column.type):
        return f"{_SQL[column.type.value_type]}[]"
    return _SQL.get(column.type, "text")


def _votable_type(column: Column) -> tuple[str, str | None]:
    """Datatype and array size of VOTable."""
    if pa.types.is_string(column.type):
        return "char", f"{text_length(column)}*" if column.allowed else "*"
    if pa.types.is_nested(column.type):
        size = str(column.type.list_size) if pa.types.is_fixed_size_list(column.type) else "*"
        return _VOTABLE[_SQL[column.type.value_type]], size
    return _VOTABLE[_SQL[column.type]], None


def _is_principal(column: Column) -> bool:
    return column.name in PRINCIPAL or "src.class" in column.ucd or column.ucd == "meta.code.qual"


def _literal(value: str | int | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("'", "''") + "'"
