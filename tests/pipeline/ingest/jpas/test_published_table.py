"""The table of ratios and magnitudes of the authors of OJALÁ, and the Kron flux of the archive's tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.catalogs_schema.bands import BY_NAME, JPAS_BANDS, KRON_BAND, NARROW_BANDS
from ojala.models.ojala_published.inputs import INPUTS, NARROW
from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.storage.hats import read_leaves
from tests.helpers.published import GOLDEN, golden_inputs


def table(n: int = 3, **changes: object) -> dict[str, object]:
    columns = {"TILE_ID": [9611] * n, "NUMBER": list(range(1, n + 1))}
    columns |= {"ALPHA_J2000": [245.0] * n, "DELTA_J2000": [43.5] * n, "FLUX_APER_COR_6_0_iSDSS": [1.0] * n}
    columns |= {f"APER_COR_3_0_{name}": [0.5 + 0.01 * k] * n for k, name in enumerate(NARROW)}
    columns |= {f"AUTO_{name}": [2.0] * n for name in NARROW}
    magnitudes = {"MAG_i": 20.0, "MAG_G": 21.5, "MAG_R": 20.5, "MAG_Z": 19.5, "MAG_W1": 19.0, "MAG_W2": 19.4}
    columns |= {name: [value] * n for name, value in magnitudes.items()}
    return columns | {"AUTO_iSDSS": [170.0] * n, "MAG_I": [19.9] * n} | changes


def ingested(tmp_path, columns: dict[str, object], **options: object) -> pa.Table:
    pyarrow.csv.write_csv(pa.table(columns), tmp_path / "photometry.csv")
    out = UPath(tmp_path / "out")
    ingest_photometry([UPath(tmp_path / "photometry.csv")], out, **options)
    return pa.concat_tables([pq.read_table((out / leaf.leaf).path) for leaf in read_leaves(out)]).sort_by(
        "number"
    )


def inputs_of(photometry: pa.Table) -> np.ndarray:
    return ADAPTERS["ojala-published"].read_inputs(photometry).script_columns()[0]


def test_ratios_and_magnitudes_come_back_as_they_were(tmp_path):
    columns = table()
    made = ingested(tmp_path, columns)
    expected = [columns[f"APER_COR_3_0_{name}" if name in NARROW else name] for name in INPUTS]
    np.testing.assert_allclose(inputs_of(made), np.array(expected).T, rtol=1e-6)
    assert made["flux_isdss"][0].as_py() == pytest.approx(36.31, rel=1e-6)
    assert made["flux_ls_i"].null_count == 3, "MAG_I is none of the published inputs"
    assert made["flux_isdss_auto"][0].as_py() == pytest.approx(170 * 1e-19 * 7656.2**2 / 2.99792458e18 * 1e29)
    assert made["flux_j0660_err"].null_count == 3


def test_another_aperture_and_errors_are_read(tmp_path):
    made = ingested(tmp_path, table(AUTO_J0660_ERR=[0.2] * 3), aperture="AUTO")
    np.testing.assert_allclose(inputs_of(made)[:, : len(NARROW)], 2.0, rtol=1e-6)
    ratio = made["flux_j0660_err"][0].as_py() / made["flux_j0660"][0].as_py()
    assert ratio == pytest.approx(0.1, rel=1e-6)


def test_a_missing_magnitude_keeps_the_ratios_and_99_is_a_measurement(tmp_path):
    made = inputs_of(ingested(tmp_path, table(MAG_i=[None, 20.0, 20.0], MAG_G=[None, 99.0, 0.0])))
    of = INPUTS.index
    np.testing.assert_allclose(made[0, : len(NARROW)], made[1, : len(NARROW)], rtol=1e-6)
    assert np.isnan(made[0, of("MAG_i")])
    np.testing.assert_allclose(made[:, of("MAG_G")], [np.nan, 99.0, 0.0], atol=1e-5)


def test_faults_are_told_with_row_and_column(tmp_path):
    with pytest.raises(IngestError, match=r"row 2, column MAG_G: 'faint' is no number"):
        ingested(tmp_path, table(MAG_G=["21", "faint", "20"]))
    with pytest.raises(IngestError, match=r"ratios to iSDSS in APER_COR_3_0, AUTO, not in PETRO: choose one"):
        ingested(tmp_path, table(), aperture="PETRO")


def test_the_kron_flux_of_the_archive_is_kept_beside_the_aperture(tmp_path):
    bands = len(JPAS_BANDS)
    isdss = [band.name for band in JPAS_BANDS].index("iSDSS")
    kron = np.arange(1.0, bands + 1.0)
    columns = {name: value for name, value in table(1).items() if name in ("TILE_ID", "NUMBER")}
    columns |= {"ALPHA_J2000": [245.0], "DELTA_J2000": [43.5]}
    for aperture, values in (("APER_COR_3_0", np.full(bands, 5.0)), ("AUTO", kron)):
        columns[f"FLUX_{aperture}"] = [" ".join(map(str, values))]
        columns[f"FLUX_RELERR_{aperture}"] = [" ".join(["0.1"] * bands)]
    made = ingested(tmp_path, columns, units="flambda")
    per_unit = 1e-19 * BY_NAME["iSDSS"].pivot ** 2 / 2.99792458e18 * 1e29
    assert made[KRON_BAND.flux_column][0].as_py() == pytest.approx(kron[isdss] * per_unit, rel=1e-6)
    assert made[KRON_BAND.error_column][0].as_py() == pytest.approx(0.1 * kron[isdss] * per_unit, rel=1e-6)
    assert made["flux_isdss"][0].as_py() == pytest.approx(5.0 * per_unit, rel=1e-6)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"there are no golden data at {GOLDEN}")
def test_golden_rows_survive_the_way_through_the_catalogue(tmp_path):
    """All but row 61, whose ratio of 3e38 is no flux in single precision."""
    source = pq.read_table(GOLDEN / "inputs.parquet")
    kept = [name for name in source.column_names if not name.startswith(("FLUX", "row", "case", "note"))]
    columns = {name: source[name] for name in kept if name not in ("truth", "archive")}
    columns["NUMBER"] = pa.array(range(1, 65))
    expected = golden_inputs()
    expected[~np.isfinite(expected)] = np.nan
    rows = np.arange(64) != 61
    made = inputs_of(ingested(tmp_path, columns))
    np.testing.assert_allclose(made[rows], expected[rows], rtol=1e-6, atol=1e-6)
    assert {f"APER_COR_3_0_{band.name}" for band in NARROW_BANDS} <= set(kept)
