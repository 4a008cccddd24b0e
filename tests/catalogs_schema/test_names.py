"""Names of columns: unique where tables are joined, and no word that a reader's tools take for their own."""

import builtins
import keyword
from collections import Counter

import duckdb
import pandas as pd
import polars as pl
import pytest

from ojala.catalogs_schema.cutouts import CUTOUTS
from ojala.catalogs_schema.data_model import CONTRACTS
from ojala.catalogs_schema.ojala import OJALA
from ojala.catalogs_schema.photometry import KEY_COLUMNS, PHOTOMETRY
from ojala.catalogs_schema.spectra import KEY_NAMES, SPECTRA

INPUTS = (PHOTOMETRY, SPECTRA, CUTOUTS)
PRODUCTS = tuple(contract for contract in CONTRACTS if contract not in INPUTS)
KEYS = {*KEY_NAMES, *(column.name for column in KEY_COLUMNS)}

# The reserved words of SQL-92, which are those of ADQL 2.1, and the words that ADQL adds to them. DEC is one
# of them: it stays, since every catalogue of the sky has it and the services of the VO accept it.
_WORDS = """
    ABSOLUTE ACTION ADD ALL ALLOCATE ALTER AND ANY ARE AS ASC ASSERTION AT AUTHORIZATION AVG BEGIN BETWEEN BIT
    BIT_LENGTH BOTH BY CASCADE CASCADED CASE CAST CATALOG CHAR CHARACTER CHARACTER_LENGTH CHAR_LENGTH CHECK
    CLOSE COALESCE COLLATE COLLATION COLUMN COMMIT CONNECT CONNECTION CONSTRAINT CONSTRAINTS CONTINUE CONVERT
    CORRESPONDING COUNT CREATE CROSS CURRENT CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURSOR
    DATE DAY DEALLOCATE DECIMAL DECLARE DEFAULT DEFERRABLE DEFERRED DELETE DESC DESCRIBE DESCRIPTOR
    DIAGNOSTICS DISCONNECT DISTINCT DOMAIN DOUBLE DROP ELSE END END-EXEC ESCAPE EXCEPT EXCEPTION EXEC EXECUTE
    EXISTS EXTERNAL EXTRACT FALSE FETCH FIRST FLOAT FOR FOREIGN FOUND FROM FULL GET GLOBAL GO GOTO GRANT GROUP
    HAVING HOUR IDENTITY IMMEDIATE IN INDICATOR INITIALLY INNER INPUT INSENSITIVE INSERT INT INTEGER INTERSECT
    INTERVAL INTO IS ISOLATION JOIN KEY LANGUAGE LAST LEADING LEFT LEVEL LIKE LOCAL LOWER MATCH MAX MIN MINUTE
    MODULE MONTH NAMES NATIONAL NATURAL NCHAR NEXT NO NOT NULL NULLIF NUMERIC OCTET_LENGTH OF ON ONLY OPEN
    OPTION OR ORDER OUTER OUTPUT OVERLAPS PAD PARTIAL POSITION PRECISION PREPARE PRESERVE PRIMARY PRIOR
    PRIVILEGES PROCEDURE PUBLIC READ REAL REFERENCES RELATIVE RESTRICT REVOKE RIGHT ROLLBACK ROWS SCHEMA
    SCROLL SECOND SECTION SELECT SESSION SESSION_USER SET SIZE SMALLINT SOME SPACE SQL SQLCODE SQLERROR
    SQLSTATE SUBSTRING SUM SYSTEM_USER TABLE TEMPORARY THEN TIME TIMESTAMP TIMEZONE_HOUR TIMEZONE_MINUTE TO
    TRAILING TRANSACTION TRANSLATE TRANSLATION TRIM TRUE UNION UNIQUE UNKNOWN UPDATE UPPER USAGE USER USING
    VALUE VALUES VARCHAR VARYING VIEW WHEN WHENEVER WHERE WITH WORK WRITE YEAR ZONE
    ABS ACOS ASIN ATAN ATAN2 CEILING COS DEGREES EXP FLOOR LOG LOG10 MOD PI POWER RADIANS RAND ROUND SIN SQRT
    TAN TOP TRUNCATE AREA BOX CENTROID CIRCLE CONTAINS COORD1 COORD2 COORDSYS DISTANCE INTERSECTS POINT
    POLYGON REGION
"""
SQL_92 = frozenset(_WORDS.split())


def own(contract):
    """Names of a contract's columns besides the keys."""
    return [name for name in contract.names if name not in KEYS]


@pytest.mark.parametrize("contract", PRODUCTS, ids=lambda c: c.name)
def test_no_column_is_an_attribute_of_a_data_frame_or_a_word_of_a_language(contract):
    words = duckdb.sql(
        "SELECT upper(keyword_name) FROM duckdb_keywords() WHERE keyword_category = 'reserved'"
    )
    reserved = SQL_92 | {word for (word,) in words.fetchall()}
    taken = {*dir(pd.DataFrame), *dir(pl.DataFrame), *keyword.kwlist, *dir(builtins)}
    names = [name for name in contract.names if name != "dec"]
    assert [name for name in names if name in taken or name.upper() in reserved] == []


def test_no_column_of_a_product_has_the_name_of_one_in_another_product():
    names = [name for contract in PRODUCTS for name in own(contract)]
    assert [name for name, count in Counter(names).items() if count > 1] == []


@pytest.mark.parametrize("contract", PRODUCTS, ids=lambda c: c.name)
def test_no_column_of_a_product_has_the_name_of_one_in_its_input(contract):
    reads = PHOTOMETRY if contract.columns[: len(KEY_COLUMNS)] == KEY_COLUMNS else SPECTRA
    taken = {*own(reads), *own(CUTOUTS)}
    assert [name for name in own(contract) if name.lower() in taken] == []


@pytest.mark.parametrize("contract", PRODUCTS, ids=lambda c: c.name)
def test_a_name_of_contract_1_tells_the_present_one(contract):
    for old, present in contract.column_names.items():
        assert present in contract.names
        assert old not in contract.names
        with pytest.raises(KeyError, match=f"no column '{old}': its name was changed to '{present}'"):
            contract[old]


def test_fields_have_unit_description_and_the_bits_of_the_flags():
    schema = OJALA.schema()
    assert schema.field("f_halpha").metadata[b"unit"] == b"mW.m**-2"
    assert schema.field("z").metadata[b"description"].startswith(b"redshift of the most probable class")
    assert b'"1": "NO_BANDS: no usable band' in schema.field("ojala_flags").metadata[b"bits"]
