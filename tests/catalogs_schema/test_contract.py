import astropy.units as u
import numpy as np
import pyarrow as pa
import pytest
from astropy.io.votable.ucd import check_ucd

from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.data_model import CONTRACTS
from ojala.catalogs_schema.ojala import LINES, OJALA
from ojala.catalogs_schema.ojala_published import DISTINCT
from ojala.catalogs_schema.photometry import PHOTOMETRY

COLUMNS = [pytest.param(column, id=f"{c.name}-{column.name}") for c in CONTRACTS for column in c]


@pytest.mark.parametrize("column", COLUMNS)
def test_units_and_ucds_are_the_virtual_observatorys(column):
    u.Unit(column.unit, format="vounit", parse_strict="raise")
    assert check_ucd(column.ucd, check_controlled_vocabulary=True)


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_says_what_it_is(column):
    assert len(column.description) > 5
    assert column.name == column.name.lower() or column.name in DISTINCT
    if pa.types.is_string(column.type):
        free = column.name in ("source_id", "target_id", "subclass", "brick")
        assert bool(column.allowed) != free, "text columns hold words of a list, but for names"
        assert not column.nullable, "astropy cannot read null text"


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.name)
def test_column_names_are_unique(contract):
    assert len(set(contract.names)) == len(contract.names)


def test_photometry_has_a_flux_and_an_error_for_each_of_65_bands_and_kron_in_isdss():
    fluxes = [name for name in PHOTOMETRY.names if name.startswith("flux_") and not name.endswith("_err")]
    assert len(fluxes) == 66
    assert "flux_isdss_auto" in fluxes
    assert all(f"{name}_err" in PHOTOMETRY.names for name in fluxes)


def test_every_measured_quantity_has_its_error():
    quantities = ["z", "z_gal", "z_qso", "log_mass", "log_sfr", "log_l_halpha_corr", "teff", "logg", "fe_h"]
    quantities += [f"{kind}_{line}" for line, _, _ in LINES for kind in ("ew", "f")]
    assert all(f"{name}_err" in OJALA.names for name in quantities)


SMALL = Contract(
    "small",
    "1.0.0",
    "Small",
    "For these tests.",
    (
        Column("key", pa.int64(), "", "meta.id", "key", nullable=False, minimum=0),
        Column("p", pa.float32(), "", "stat.probability", "probability", minimum=0.0, maximum=1.0),
        Column("free", pa.float32(), "", "phot.flux", "anything but NaN"),
        Column("word", pa.string(), "", "src.class", "word", nullable=False, allowed=("A", "B")),
    ),
)


def small(**changes):
    columns = {
        "key": pa.array([2**60, 2, 3], pa.int64()),
        "p": pa.array([0.0, None, 1.0], pa.float32()),
        "free": pa.array([-1e30, None, np.inf], pa.float32()),
        "word": pa.array(["A", "B", "A"]),
    }
    return pa.table(columns | changes)


def test_a_table_that_keeps_the_contract_has_no_violations():
    assert SMALL.violations(small()) == []


def test_an_empty_table_keeps_the_contract():
    assert SMALL.violations(small().slice(0, 0)) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"key": pa.array([1, None, 3], pa.int64())}, "column key, row 1: is null"),
        ({"key": pa.array([1, 2, -3], pa.int64())}, "column key, row 2: value -3 outside [0, ]"),
        ({"p": pa.array([0.0, 0.5, 1.5], pa.float32())}, "column p, row 2: value 1.5 outside [0, 1]"),
        ({"p": pa.array([0.0, np.nan, 1.0], pa.float32())}, "column p, row 1: value nan outside [0, 1]"),
        ({"free": pa.array([np.nan, 0, 0], pa.float32())}, "column free, row 0: value nan outside [, ]"),
        ({"p": pa.array([0.0, 0.5, 1.0], pa.float64())}, "column p: has type double, expected float"),
        ({"word": pa.array(["A", "C", "B"])}, "column word, row 1: 'C' is none of A, B"),
        ({"more": pa.array([1, 2, 3])}, "column more: not in the contract"),
    ],
)
def test_a_violation_names_column_row_and_problem(changes, text):
    assert [str(violation) for violation in SMALL.violations(small(**changes))] == [text]


def test_a_missing_column_is_a_violation():
    assert [str(v) for v in SMALL.violations(small().drop_columns(["p"]))] == ["column p: missing"]
