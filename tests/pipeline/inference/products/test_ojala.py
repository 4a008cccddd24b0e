"""Whatever is wrong with a row, it comes out once, keeps the contract, and says what is wrong."""

import numpy as np
import pyarrow as pa
import pytest

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.ojala import OJALA, OJALA_VECTORS, Flag
from ojala.catalogs_schema.photometry import PHOTOMETRY
from ojala.models.quantities import FINE_TUNED, SCALARS
from ojala.pipeline.inference.adapters.dummy import DummyModel
from ojala.pipeline.inference.photometry import read_photometry
from ojala.pipeline.inference.products.ojala import value_added_table, vectors_table
from ojala.pipeline.inference.products.table import summarise
from ojala.pipeline.storage.healpix import spatial_index
from tests.helpers.survey import photometry_table

N = 12


def contract_table(flux=None, error=None, **columns):
    """Photometry of N objects in the contract's columns, with the model bands replaced where given."""
    table = photometry_table(N)
    values = {name: table[name].combine_chunks() for name in table.column_names}
    ra, dec = table["ra"].to_numpy(), table["dec"].to_numpy()
    values["_healpix_29"] = pa.array(spatial_index(ra, dec))
    values["object_id"] = pa.array((7 << 32) + np.arange(N))
    values["morph_type"] = pa.array(["NONE"] * N)
    for index, band in enumerate(MODEL_BANDS):
        if flux is not None:
            values[band.flux_column] = pa.array(flux[:, index], pa.float32())
        if error is not None:
            values[band.error_column] = pa.array(error[:, index], pa.float32())
    values |= {name: pa.array(column, PHOTOMETRY[name].type) for name, column in columns.items()}
    schema = PHOTOMETRY.schema()
    return pa.table([values.get(f.name, pa.nulls(N, f.type)) for f in schema], schema=schema)


def predictions(table, **changed):
    photometry = read_photometry(table)
    predicted = DummyModel().predict(photometry.flux, photometry.error, photometry.ebv)
    for name, value in changed.items():
        predicted[name] = np.broadcast_to(
            np.asarray(value, predicted[name].dtype), predicted[name].shape
        ).copy()
    return value_added_table(table, photometry, predicted)


def flagged(table, flag):
    return [bool(mask & flag) for mask in table["ojala_flags"].to_pylist()]


def good():
    return np.full((N, 63), 10.0, np.float32), np.full((N, 63), 0.5, np.float32)


def test_good_rows_have_no_flag_and_keep_key_and_place():
    table = contract_table(*good())
    result = predictions(table)
    assert OJALA.violations(result) == []
    assert result["ojala_flags"].to_pylist() == [0] * N
    assert result["n_bands"].to_pylist() == [63] * N
    for name in ("_healpix_29", "object_id", "tile_id", "number", "ra", "dec"):
        assert result[name].equals(table[name])


@pytest.mark.parametrize(
    ("flux", "error"),
    [
        (np.nan, 1.0),
        (np.inf, 1.0),
        (-np.inf, 1.0),
        (1e12, 1.0),
        (-1e12, 1.0),
        (10.0, 0.0),
        (10.0, -1.0),
        (10.0, np.nan),
        (10.0, np.inf),
    ],
)
def test_a_band_that_cannot_be_used_is_flagged_and_the_rest_is_read(flux, error):
    fluxes, errors = good()
    fluxes[3, 20], errors[3, 20] = flux, error
    result = predictions(contract_table(fluxes, errors))
    assert OJALA.violations(result) == []
    assert flagged(result, Flag.BAND_REJECTED) == [row == 3 for row in range(N)]
    assert result["n_bands"].to_pylist() == [62 if row == 3 else 63 for row in range(N)]


def test_a_row_without_any_band_is_written_with_nulls_and_its_flag():
    fluxes, errors = good()
    fluxes[5], errors[5] = np.nan, np.nan
    result = predictions(contract_table(fluxes, errors))
    assert OJALA.violations(result) == []
    assert flagged(result, Flag.NO_BANDS) == [row == 5 for row in range(N)]
    row = result.slice(5, 1).to_pylist()[0]
    predicted = set(OJALA.names) - {"_healpix_29", "object_id", "tile_id", "number", "ra", "dec"}
    texts = {"ojala_class", "bpt_class", "whan_class", "worst_band"}
    assert all(row[name] is None for name in predicted - texts - {"n_bands", "ojala_flags"})
    assert {row[name] for name in texts} == {"NONE"}
    assert row["n_bands"] == 0


def test_all_rows_hostile_at_once_still_keep_the_contract():
    rng = np.random.default_rng(0)
    hostile = np.array([np.nan, np.inf, -np.inf, 0.0, -5.0, 1e38, -1e38, 1e-40], np.float32)
    result = predictions(contract_table(rng.choice(hostile, (N, 63)), rng.choice(hostile, (N, 63))))
    assert OJALA.violations(result) == []
    assert result.num_rows == N


def test_missing_and_absurd_extinction_is_flagged():
    result = predictions(contract_table(*good(), ebv=[None, -0.1, 9.0, np.inf, 0.02] + [0.0] * 7))
    assert flagged(result, Flag.NO_EBV) == [True] * 4 + [False] * 8


def test_flagged_photometry_stays_flagged():
    result = predictions(
        contract_table(*good(), flags=[4, 3, None] + [0] * 9, mask_flags=[0, 0, 0, 1] + [0] * 8)
    )
    assert flagged(result, Flag.INPUT_FLAGGED) == [True, False, False, True] + [False] * 8


def test_few_and_faint_bands_are_flagged():
    fluxes, errors = good()
    fluxes[0, 9:] = np.nan
    errors[1] = 50.0
    result = predictions(contract_table(fluxes, errors))
    assert flagged(result, Flag.FEW_BANDS) == [row == 0 for row in range(N)]
    assert flagged(result, Flag.FAINT) == [row == 1 for row in range(N)]


@pytest.mark.parametrize("bad", [np.nan, -3.0])
def test_without_a_positive_reference_band_there_are_no_line_fluxes(bad):
    fluxes, errors = good()
    fluxes[2, 56] = bad
    result = predictions(contract_table(fluxes, errors))
    assert MODEL_BANDS[56].name == "iSDSS"
    assert flagged(result, Flag.NO_REFERENCE_BAND) == [row == 2 for row in range(N)]
    assert [value is None for value in result["f_halpha"].to_pylist()] == [row == 2 for row in range(N)]
    assert None not in result["ew_halpha"].to_pylist()


def test_quantities_of_a_class_are_given_where_the_class_is_possible():
    galaxy = predictions(contract_table(*good()))
    assert None not in galaxy["log_mass"].to_pylist()
    assert set(galaxy["teff"].to_pylist()) == {None}
    star = predictions(contract_table(*good()), class_code=1, p_star=0.995, p_galaxy=0.005)
    assert set(star["ojala_class"].to_pylist()) == {"STAR"}
    for name in ("z", "z_q50", "z_odds", "log_mass", "f_halpha", "log_l_halpha_corr"):
        assert set(star[name].to_pylist()) == {None}, name
    assert set(star["whan_class"].to_pylist()) == {"NONE"}
    assert None not in star["teff"].to_pylist()


def test_uncertain_classes_and_second_redshifts_are_flagged():
    result = predictions(contract_table(*good()), p_galaxy=0.6, p_star=0.4, z_mode2=2.0, z_mode2_p=0.3)
    assert flagged(result, Flag.CLASS_UNCERTAIN) == [True] * N
    assert flagged(result, Flag.Z_MULTIMODAL) == [True] * N
    assert flagged(predictions(contract_table(*good())), Flag.Z_MULTIMODAL) == [False] * N


@pytest.mark.parametrize("value", [1e30, -50.0, np.inf])
def test_a_prediction_out_of_range_is_null_and_flagged(value):
    result = predictions(contract_table(*good()), log_mass=value)
    assert OJALA.violations(result) == []
    assert set(result["log_mass"].to_pylist()) == {None}
    assert flagged(result, Flag.OUT_OF_RANGE) == [True] * N


def test_a_model_that_answers_nonsense_leaves_a_flag_and_no_numbers():
    result = predictions(contract_table(*good()), p_galaxy=np.nan)
    assert OJALA.violations(result) == []
    assert flagged(result, Flag.NOT_PREDICTED) == [True] * N
    assert set(result["ojala_class"].to_pylist()) == {"NONE"}
    assert set(result["z_gal"].to_pylist()) == {None}


def test_vectors_keep_their_contract_and_are_empty_where_nothing_is_predicted():
    fluxes, errors = good()
    fluxes[4] = np.nan
    table = contract_table(fluxes, errors)
    photometry = read_photometry(table)
    predicted = DummyModel().predict(photometry.flux, photometry.error, photometry.ebv)
    count = np.arange(N) % 5
    bins = np.arange(count.sum(), dtype=np.int16)
    predicted |= {"z_qso_pdf": (bins / 64).astype(np.float16), "z_qso_pdf_bin": bins, "z_qso_pdf_n": count}
    vectors = vectors_table(table, photometry, predicted)
    assert OJALA_VECTORS.violations(vectors) == []
    parts = np.split(bins, np.cumsum(count)[:-1])
    expected = [[] if row == 4 else part.tolist() for row, part in enumerate(parts)]
    assert vectors["z_qso_pdf_bin"].to_pylist() == expected
    assert vectors["z_qso_pdf"].to_pylist() == [[b / 64 for b in row] for row in expected]
    assert vectors["z_gal_pdf"].to_pylist() == [[]] * N
    embedding = np.stack(vectors["embedding"].to_numpy(zero_copy_only=False))
    assert [bool(np.isnan(row).all()) for row in embedding] == [row == 4 for row in range(N)]


def test_the_summary_counts_every_row_once():
    table = contract_table(*good())
    photometry = read_photometry(table)
    predicted = DummyModel().predict(photometry.flux, photometry.error, photometry.ebv)
    summary = summarise(
        OJALA, value_added_table(table, photometry, predicted), photometry.usable.sum(axis=0).tolist()
    )
    assert sum(summary.classes.values()) == N
    assert summary.classes["GALAXY"] == N
    assert sum(summary.redshifts["GALAXY"]) == N
    assert summary.redshifts["GALAXY"][10] == N, "z = 0.5 is in the bin from 0.50 to 0.55"
    assert summary.bands == [N] * 63


def test_every_scalar_of_the_model_has_its_columns():
    names = {q.name for q in SCALARS + FINE_TUNED}
    assert names | {f"{name}_err" for name in names} <= set(OJALA.names)


def test_what_is_unlike_the_training_is_flagged_and_a_model_that_cannot_tell_leaves_null():
    table = predictions(contract_table(*good()), novelty=[0.4, 1.0, 1.01, np.nan, *[0.0] * 8])
    assert flagged(table, Flag.NOVEL) == [row == 2 for row in range(N)]
    assert [value is None for value in table["novelty"].to_pylist()] == [row == 3 for row in range(N)]


def test_black_hole_masses_are_given_where_a_quasar_is_possible():
    quasar = predictions(contract_table(*good()), p_qso=0.011, p_galaxy=0.989)
    assert quasar["log_mbh"].to_pylist() == [8.5] * N
    assert set(predictions(contract_table(*good()))["log_mbh"].to_pylist()) == {None}
