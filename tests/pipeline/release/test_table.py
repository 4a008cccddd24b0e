"""A selection as one file: the rows of the condition, in every format, with units."""

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from upath import UPath

from ojala.pipeline.release.table import TableError, export_table
from ojala.pipeline.runs.config import RunConfig
from tests.helpers.commands import here
from tests.helpers.survey import run_and_publish, without_report

pytestmark = pytest.mark.integration

COLUMNS = "object_id, ra, dec, z, z_q50, ojala_class, n_bands, ojala_flags, flux_isdss"
WHERE = "flux_isdss > 20 AND dec > 43.9"


@pytest.fixture(scope="module")
def out(photometry, tmp_path_factory):
    """A collection with a run that wrote vectors."""
    config = RunConfig(
        photometry=str(photometry),
        out=str(tmp_path_factory.mktemp("table") / "out"),
        model="empty",
        engine="serial",
        vectors=True,
    )
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        return run_and_publish(config).out


@pytest.fixture(scope="module")
def expected(out, photometry):
    """The same selection by pandas."""
    product = pd.read_parquet((out / "published/ojala/dataset").path)
    given = pd.read_parquet((photometry / "dataset").path)
    both = product.merge(given[["object_id", "flux_isdss"]], on="object_id", validate="1:1")
    return both.query(WHERE.replace("AND", "and"))[COLUMNS.split(", ")].sort_values("object_id")


@pytest.mark.parametrize("form", ["fits", "csv", "parquet", "vot"])
def test_every_format_holds_the_rows_of_the_condition(out, expected, tmp_path, form):
    to = tmp_path / f"selection.{form}"
    made = export_table(out, UPath(to), where=WHERE, columns=COLUMNS)
    assert (made.rows, made.columns) == (len(expected), 9)
    assert 0 < made.rows < 300
    table = Table.read(to, format={"vot": "votable"}.get(form, form))
    table.sort("object_id")
    for name in ("object_id", "n_bands", "ojala_flags"):
        assert np.asarray(table[name]).tolist() == expected[name].tolist()
    for name in ("ra", "dec", "z", "z_q50", "flux_isdss"):
        np.testing.assert_allclose(np.asarray(table[name]), expected[name], rtol=1e-6)
    assert {str(word) for word in table["ojala_class"]} == {"GALAXY"}
    if form in ("fits", "vot"):
        assert (table["ra"].unit, table["flux_isdss"].unit) == (u.deg, u.uJy)
    assert list(tmp_path.iterdir()) == [to]


def test_nulls_are_nulls(out, tmp_path):
    for form in ("fits", "vot"):
        to = tmp_path / f"nulls.{form}"
        export_table(out, UPath(to), columns="object_id, teff, n_chi2_bands, worst_band")
        table = Table.read(to)
        assert np.ma.getmaskarray(np.ma.fix_invalid(table["teff"].filled(np.nan))).all(), form
        assert np.ma.getmaskarray(table["n_chi2_bands"]).all(), form


def test_vectors_of_a_fixed_size_are_written_as_fits(out, tmp_path):
    to = tmp_path / "embedding.fits"
    export_table(out, UPath(to), columns="object_id, embedding", product="ojala_vectors")
    table = Table.read(to)
    assert table["embedding"].shape == (300, 128)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"where": "class = 'QSO'"}, "its name was changed to ojala_class in contract 2"),
        ({"where": "z >"}, "syntax error"),
        ({"columns": "nothing"}, '"nothing" not found'),
        ({"columns": "* FROM read_csv('/etc/passwd') --"}, "disabled"),
        ({"columns": "z_gal_pdf", "product": "ojala_vectors"}, "has no form in .fits: write .parquet"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(out, tmp_path, arguments, message):
    with pytest.raises(TableError, match=message):
        export_table(out, UPath(tmp_path / "a.fits"), **arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_command_names_what_it_wrote(out, tmp_path):
    to = tmp_path / "a.csv"
    result = here("export", "table", out, "--to", to, "--columns", "object_id", "--where", "z > 0.1")
    assert f"{to}: 300 rows and 1 columns of ojala" in result.stdout
    assert here("export", "table", out, "--to", tmp_path / "a.txt").exit_code == 1
