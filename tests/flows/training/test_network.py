"""The trained network over whole catalogues: hostile rows, and answers independent of the partition."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ojala.catalogs_schema.bands import BANDS
from ojala.catalogs_schema.ojala import Flag
from ojala.catalogs_schema.redshift_pdfs import RedshiftPdfs, bin_position
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.config import RunConfig
from tests.helpers.survey import ingest_table, photometry_table, replace, run_and_publish

pytestmark = [pytest.mark.integration, pytest.mark.processor]

N = 90
HOSTILE = {
    "flux_j0660": [float("nan"), float("inf"), -float("inf"), -1e30, 1e30, 3.0e38],
    "flux_j0660_err": [0.0, -1.0, float("nan"), float("inf"), 1e-45, 3.0e38],
    "ebv": [-1.0, 99.0, float("nan")],
}


def hostile_table():
    """Objects of which the first fifteen have one absurd value each, and the sixteenth has no band."""
    table = photometry_table(N)
    row = 0
    for column, values in HOSTILE.items():
        for value in values:
            table = replace(table, column, row, value)
            row += 1
    for band in BANDS:
        table = replace(replace(table, band.flux_column, row, None), band.error_column, row, None)
    return table, row


def run_over(table, folder, tile_rows, **changes):
    config = RunConfig(
        photometry=str(ingest_table(table, folder, tile_rows)),
        out=str(folder / "out"),
        engine="serial",
        batch_size=16,  # a batch that is not full costs as much as one that is
        **changes,
    )
    result = run_and_publish(config)
    frame = pd.read_parquet(result.run / "ojala" / "dataset").sort_values("object_id", ignore_index=True)
    return result, frame.drop(columns=["Norder", "Dir"], errors="ignore")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    table, empty_row = hostile_table()
    return *run_over(table, tmp_path_factory.mktemp("hostile"), 1000), empty_row


def test_every_hostile_row_comes_out_once_in_a_valid_catalogue(hostile):
    result, frame, _ = hostile
    assert result.record.status == "complete"
    assert list(verify(result.out)) == []
    assert frame["number"].tolist() == list(range(1, N + 1))


def test_hostile_rows_are_answered_and_say_what_is_wrong(hostile):
    _, frame, empty_row = hostile
    flags = frame["ojala_flags"].to_numpy()
    # NaN becomes null on the way in: half a measurement, which is rejected like the others. So do 3e38 and an
    # error without size; a flux of 3e38 stands for no measurement and takes its error with it.
    assert [row for row in range(12) if not flags[row] & Flag.BAND_REJECTED] == [5]
    assert all(flags[row] & Flag.NO_EBV for row in range(12, 15))
    answered = frame.drop(index=empty_row)
    assert answered["ojala_class"].isin(["GALAXY", "STAR", "QSO"]).all()
    assert answered[["p_galaxy", "p_star", "p_qso"]].notna().all(axis=None)


def test_the_row_without_any_band_has_nulls_and_its_flag(hostile):
    _, frame, empty_row = hostile
    row = frame.loc[empty_row]
    assert row["ojala_flags"] & Flag.NO_BANDS
    assert (row["ojala_class"], row["n_bands"]) == ("NONE", 0)
    assert row[["z", "z_gal", "log_mass", "teff", "p_galaxy"]].isna().all()


def test_good_neighbours_of_hostile_rows_are_answered_as_if_alone(hostile, tmp_path):
    _, frame, _ = hostile
    _, alone = run_over(photometry_table(N).slice(40, 30), tmp_path, 1000)
    pd.testing.assert_frame_equal(
        alone, frame.iloc[40:70].reset_index(drop=True), check_exact=False, rtol=1e-5, atol=1e-6
    )


def test_an_answer_does_not_depend_on_the_partition(hostile, tmp_path):
    _, coarse, _ = hostile
    table, _ = hostile_table()
    result, fine = run_over(table, tmp_path, 12)
    assert len(result.plan.entries) > 5
    numbers = coarse.select_dtypes("number").columns
    pd.testing.assert_frame_equal(fine[numbers], coarse[numbers], check_exact=False, rtol=1e-5, atol=1e-6)
    assert (fine["ojala_class"] == coarse["ojala_class"]).all()


def test_vectors_of_the_network_agree_with_its_catalogue(tmp_path):
    result, frame = run_over(photometry_table(N), tmp_path, 1000, vectors=True)
    vectors = pd.read_parquet(result.run / "ojala_vectors" / "dataset").sort_values(
        "object_id", ignore_index=True
    )
    table = pa.Table.from_pandas(vectors)
    pdfs = {name: RedshiftPdfs.from_table(table, name) for name in ("z_gal_pdf", "z_qso_pdf")}
    np.testing.assert_array_equal(pdfs["z_gal_pdf"].count > 0, frame["z_gal"].notna())
    np.testing.assert_array_equal(pdfs["z_qso_pdf"].count > 0, frame["z_qso"].notna())
    for objects, name in (("GALAXY", "z_gal_pdf"), ("QSO", "z_qso_pdf")):
        chosen = (frame["ojala_class"] == objects).to_numpy()
        dense = pdfs[name].take(chosen).dense()
        at = np.arange(chosen.sum()), bin_position(frame["z_q84"].to_numpy()[chosen]).astype(int)
        below = np.cumsum(dense, axis=1)[at]
        assert np.all(below > 0.8413 - 0.002), "the quantile's bin ends beyond it"
        assert np.all(below - dense[at] < 0.8413 + 0.002), "and begins before it"
    assert (frame["ojala_class"] == "GALAXY").any()
