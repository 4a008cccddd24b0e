"""What the columns of a file mean, told from their names, units and the query that made them."""

import numpy as np
import pytest

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.table import SourceColumn, TableSource, by_lower_case
from ojala.pipeline.ingest.jpas.column_mapping import map_columns

KEY = ["TILE_ID", "NUMBER", "ALPHA_J2000", "DELTA_J2000"]
FNU = {"FLUX_APER_COR_3_0": "1e-30 erg/s/cm2/Hz"}


def table(*names: str, units: dict[str, str] | None = None, **notes: str) -> TableSource:
    columns = by_lower_case(SourceColumn(name, (units or {}).get(name, "")) for name in [*KEY, *names])
    return TableSource(columns, lambda wanted: iter(()), notes)


ARRAYS = ("FLUX_APER_COR_3_0", "FLUX_RELERR_APER_COR_3_0")


def test_the_surveys_own_position_comes_before_that_of_a_counterpart():
    mapping = map_columns(table("ra", "dec", "flux_j0660", "flux_j0660_err"))
    assert mapping.position == ("alpha_j2000", "delta_j2000")
    assert mapping.ignored == ("ra", "dec")


def test_fluxes_come_before_magnitudes_of_the_same_aperture():
    mapping = map_columns(table("MAG_APER_COR_3_0", "MAG_ERR_APER_COR_3_0", *ARRAYS, units=FNU))
    assert [column.value for column in mapping.columns] == ["flux_aper_cor_3_0"]
    assert mapping.ignored == ("MAG_APER_COR_3_0", "MAG_ERR_APER_COR_3_0")
    assert len(mapping.bands) == 57


@pytest.mark.parametrize(
    ("units", "notes", "asked", "ujy"),
    [
        ("1e-30 erg/s/cm2/Hz", {}, None, 0.1),
        ("nJy", {}, None, 1e-3),
        ("", {"select": "SELECT * FROM jpas.FNuDualObj"}, None, 0.1),
        ("", {}, "fnu", 0.1),
        # A unit without its power of ten, from a table that is known to have one.
        ("erg/s/cm2/Hz", {"select": "SELECT * FROM jpas.FNuDualObj"}, None, 0.1),
        ("erg/s/cm2/Hz", {}, "fnu", 0.1),
    ],
)
def test_units_of_fluxes_are_told_by_the_file_the_query_or_the_user(units, notes, asked, ujy):
    mapping = map_columns(table(*ARRAYS, units={ARRAYS[0]: units}, **notes), units=asked)
    assert mapping.columns[0].scale == pytest.approx((ujy,) * 57)


@pytest.mark.parametrize(
    ("units", "notes", "problem"),
    [
        ("", {}, "does not say its units"),
        ("", {"select": "SELECT * FROM jpas.MagABDualObj"}, "does not say its units"),
        ("erg/s/cm2/Hz", {}, "does not say its units"),
        ("mag", {}, "expected a flux density"),
        ("furlong", {}, "not understood"),
        ("1e-30 erg/s/cm2/Hz", {"select": "SELECT * FROM jpas.FLambdaDualObj"}, "different units"),
        ("", {"select": "FROM jpas.FLambdaDualObj JOIN jpas.FNuDualObj"}, "different units"),
    ],
)
def test_fluxes_of_doubtful_units_are_refused(units, notes, problem):
    with pytest.raises(SourceError, match=f"column FLUX_APER_COR_3_0: .*{problem}"):
        map_columns(table(*ARRAYS, units={ARRAYS[0]: units}, **notes))


def test_scalar_fluxes_are_in_microjansky_unless_the_file_says_otherwise():
    plain = map_columns(table("flux_j0660", "flux_j0660_err"))
    scaled = map_columns(table("flux_j0660", "flux_j0660_err", units={"flux_j0660": "nJy"}))
    assert plain.columns[0].scale == (1.0,)
    assert scaled.columns[0].scale == pytest.approx((1e-3,))


def test_errors_in_another_unit_than_their_fluxes_are_refused():
    units = {"flux_j0660": "nJy", "flux_j0660_err": "uJy"}
    with pytest.raises(
        SourceError, match="column flux_j0660_err: has the unit 'uJy', but flux_j0660 has 'nJy'"
    ):
        map_columns(table("flux_j0660", "flux_j0660_err", units=units))


def test_w1_is_in_nanomaggies_beside_an_inverse_variance_only():
    ours = map_columns(table("flux_w1", "flux_w1_err"))
    theirs = map_columns(table("FLUX_W1", "FLUX_IVAR_W1"))
    assert ours.bands == theirs.bands == ("W1",)
    assert ours.columns[0].error == "flux_w1_err"
    assert theirs.columns[0].error == "flux_ivar_w1"
    assert ours.columns[0].convert is not theirs.columns[0].convert


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (("flux_w1", "flux_w1_err", "flux_ivar_w1"), "column flux_w1: has both"),
        (("flux_w1",), "column flux_w1: has neither"),
        (("flux_g",), "column flux_ivar_g: is missing"),
        (("flux_ivar_g",), "column flux_g: is missing"),
        (("flux_g", "flux_ivar_g", "flux_ls_g", "flux_ls_g_err"), "column flux_g: gives ls_g a second time"),
        (("flux_j0660_err",), "column flux_j0660_err: is the error of flux_j0660, which is missing"),
        (("flux_gsdss", "flux_gsdss_err"), "column flux_gsdss: names no known filter"),
        (("FLUX_HALPHA",), "column FLUX_HALPHA: names no known filter"),
        (("MAG_AUTO", "MAG_ERR_AUTO"), "has no aperture APER_COR_3_0; .* are: AUTO"),
        (("MAG_APER_COR_3_0",), "column MAG_ERR_APER_COR_3_0: is missing"),
        (("MAG_APER_COR_3_0", "MAG_ERR_APER_COR_3_0", "flux_j0660"), "a second time"),
    ],
)
def test_photometry_that_is_not_whole_or_not_clear_is_refused(columns, problem):
    with pytest.raises(SourceError, match=problem):
        map_columns(table(*columns))


def test_what_only_begins_like_a_flux_is_left_out():
    mapping = map_columns(table("flux_j0660", "FLUX_RADIUS", "fracflux_g", "magnification"))
    assert mapping.bands == ("J0660",)
    assert mapping.ignored == ("FLUX_RADIUS", "fracflux_g", "magnification")


def test_positions_in_any_unit_of_angle_come_to_degrees():
    units = {"ALPHA_J2000": "h", "DELTA_J2000": "Degrees"}
    assert map_columns(table("flux_j0660", units=units)).to_degrees == (15.0, 1.0)
    units = {"ALPHA_J2000": "rad", "DELTA_J2000": "arcsec"}
    to_degrees = map_columns(table("flux_j0660", units=units)).to_degrees
    assert to_degrees == pytest.approx((180 / np.pi, 1 / 3600))


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("ALPHA_J2000", "K"),
        ("ALPHA_J2000", "h:m:s"),
        ("DELTA_J2000", "h"),
        ("EBV", "K"),
        ("MAG_APER_COR_3_0", "Jy"),
        ("MAG_ERR_APER_COR_3_0", "%"),
        ("FLUX_G", "mJy"),
        ("FLUX_IVAR_G", "nanomaggy"),
    ],
)
def test_a_unit_that_cannot_be_converted_is_refused_by_name(name, unit):
    photometry = ("MAG_APER_COR_3_0", "MAG_ERR_APER_COR_3_0", "EBV", "FLUX_G", "FLUX_IVAR_G")
    with pytest.raises(SourceError, match=f"column {name}: has the unit '{unit}', expected"):
        map_columns(table(*photometry, units={name: unit}))


def test_units_of_magnitudes_and_nanomaggies_are_read_as_tables_spell_them():
    photometry = ("MAG_APER_COR_3_0", "MAG_ERR_APER_COR_3_0", "FLUX_G", "FLUX_IVAR_G")
    units = {"MAG_APER_COR_3_0": "ABmag", "MAG_ERR_APER_COR_3_0": "mag", "FLUX_G": "nanomaggies"}
    assert map_columns(table(*photometry, units=units)).bands[-1] == "ls_g"
