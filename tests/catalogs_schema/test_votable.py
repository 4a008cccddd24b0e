import io

from astropy.io import votable as astropy_votable
from astropy.table import Table

from ojala.catalogs_schema import votable
from ojala.catalogs_schema.data_model import CONTRACTS
from ojala.catalogs_schema.ojala import OJALA


def test_the_header_is_a_votable_with_every_column_its_unit_ucd_and_description():
    for contract in CONTRACTS:
        text = votable.header(contract)[votable.CONTENT_KEY]
        parsed = astropy_votable.parse(io.BytesIO(text.encode())).get_first_table()
        assert [field.name for field in parsed.fields] == contract.names
        for field, column in zip(parsed.fields, contract, strict=True):
            assert field.ucd == column.ucd
            assert " ".join(field.description.split()) == column.description
            assert (field.unit is not None) == bool(column.unit)


def test_the_header_tells_the_contracts_version():
    text = votable.header(OJALA)[votable.CONTENT_KEY]
    infos = astropy_votable.parse(io.BytesIO(text.encode())).get_first_table().infos
    assert {info.name: info.value for info in infos} == {"contract_version": OJALA.version}


def test_astropy_reads_the_types_from_the_header():
    table = Table.read(astropy_votable.parse(io.BytesIO(votable.header(OJALA)[votable.CONTENT_KEY].encode())))
    assert table["ra"].dtype == "float64"
    assert table["z"].dtype == "float32"
    assert table["object_id"].dtype == "int64"
