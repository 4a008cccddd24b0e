"""The Multimodal Universe in HATS and HDF5: rows equal to those of SDSS' files, and each survey's ways."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.models.simulation.wavelength_grid import to_vacuum
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.spectra import ingest_spectra
from ojala.pipeline.ingest.surveys.detect import detect_kind
from ojala.pipeline.ingest.surveys.multimodal_universe import estimated_ivar, read_multimodal_universe
from tests.helpers import mmu_files
from tests.helpers.spectra_files import make_sdss

WAVELENGTH = np.arange(5000.0, 5050.0, 1.0)


def rows_of(out):
    leaves = sorted((out / "dataset").rglob("Npix=*.parquet"), key=str)
    return {row["object_id"]: row for leaf in leaves for row in pq.read_table(leaf.path).to_pylist()}


@pytest.fixture(scope="module")
def sdss(tmp_path_factory):
    """Spectra of SDSS as files, as a HATS collection and as HDF5, and the rows of each in the catalogue."""
    folder = tmp_path_factory.mktemp("sdss")
    files = folder / "files"
    files.mkdir()
    names = ("spec-0266-51630-0215.fits", "spec-2287-53705-0007.fits", "spec-10273-57401-1000.fits")
    for k, name in enumerate(names):
        make_sdss(files / name, z=0.05 + 0.1 * k, zwarning=4 * (k == 1), ra=150.0 + k)
    paths = sorted(files.iterdir())
    mmu_files.write_hats(folder / "hats", [mmu_files.sdss_row(path, catalogue=False) for path in paths])
    mmu_files.write_hdf5(
        folder / "hdf5" / "sdss" / "healpix=1" / "001-of-001.hdf5",
        [mmu_files.sdss_row(path, catalogue=True) for path in paths],
    )
    found = {}
    for form in ("files", "hats", "hdf5"):
        ingest_spectra([UPath(folder / form)], UPath(folder / f"out-{form}"))
        found[form] = rows_of(UPath(folder / f"out-{form}"))
    return found


@pytest.mark.parametrize("form", ["hats", "hdf5"])
def test_files_of_sdss_and_their_form_in_the_multimodal_universe_give_equal_rows(sdss, form):
    assert len(sdss["files"]) == 3
    assert set(sdss[form]) == set(sdss["files"])
    # HATS has no class; neither has lines, and bits of the mask are truth values.
    lost = {"mask", "ew_halpha", "ew_halpha_err"} | ({"class", "subclass"} if form == "hats" else set())
    for key, row in sdss["files"].items():
        other = sdss[form][key]
        assert np.array_equal(np.asarray(row["mask"]) != 0, np.asarray(other["mask"]) != 0)
        for name in set(row) - lost:
            if isinstance(row[name], list):
                np.testing.assert_array_equal(other[name], row[name], err_msg=name)
            else:
                assert other[name] == row[name], name


def desi_row(name, zwarn, **more):
    arrays = {"flux": np.ones(50), "ivar": np.full(50, 4.0), "lambda": WAVELENGTH, "mask": np.arange(50) == 3}
    lists = {key: np.asarray(a, bool if key == "mask" else "f4") for key, a in arrays.items()}
    fluxes = {"FLUX_G": 10.0, "FLUX_IVAR_G": 4.0, "EBV": 0.02}
    return {"object_id": name, "spectrum": lists, "Z": 0.3, "ZERR": 1e-4, "ZWARN": zwarn} | fluxes | more


def read(path, rows):
    pq.write_table(mmu_files.struct_table(rows), path)
    assert detect_kind(UPath(path)).name == "spectra of the Multimodal Universe"
    return list(read_multimodal_universe(UPath(path)))


@pytest.mark.parametrize(
    ("flags", "trusted"),
    [
        ([True, True, False], [True, True, False]),  # as of the package datasets: true is fine
        ([False, False, True], [True, True, False]),  # as of the HATS catalogue: the survey's bits
        ([True], [True]),
        ([0, 4, 0], [True, False, True]),
    ],
)
def test_a_truth_value_of_zwarn_is_what_most_redshifts_are(tmp_path, flags, trusted):
    rows = [desi_row(str(39633127718519967 + k), flag) for k, flag in enumerate(flags)]
    assert [s.trusted for s in read(tmp_path / "desi.parquet", rows)] == trusted


def test_desi_has_imaging_and_pixels_of_the_mask_have_no_weight(tmp_path):
    (one,) = read(tmp_path / "desi.parquet", [desi_row("39633127718519967", True, ra=246.7, dec=42.9)])
    assert (one.survey, one.target, one.source) == ("DESI", "39633127718519967", "mmu-39633127718519967")
    assert (one.ra, one.dec, one.ebv, one.z, one.z_err) == (246.7, 42.9, 0.02, 0.3, 1e-4)
    assert one.imaging == {"ls_g": (pytest.approx(36.31), pytest.approx(3.631 / 2))}
    assert one.ivar.tolist() == [0.0 if k == 3 else 4.0 for k in range(50)]


def stellar_row(**more):
    lists = {"flux": np.full(60, 2.0, "f4"), "ivar": np.ones(60, "f4")}
    lists["lambda"] = np.r_[WAVELENGTH, np.full(10, -1.0)].astype("f4")  # filled up at its end
    return {"object_id": "x", "ra": 1.0, "dec": 2.0, "spectrum": lists, **more}


def test_stars_have_labels_under_the_names_of_their_surveys(tmp_path):
    parameters = {"teff": 4800.0, "teff_err": 20.0, "logg": 2.5, "logg_err": 0.1}
    apogee = stellar_row(
        m_h=-0.3, m_h_err=0.01, alpha_m=0.1, alpha_m_err=0.02, radial_velocity=30.0, **parameters
    )
    galah = stellar_row(
        fe_h=-0.2, e_fe_h=0.05, vbroad=5.0, alpha_fe=np.nan, teff=5000.0, e_teff=80.0, flag_sp=4
    )
    (first,), (second,) = read(tmp_path / "a.parquet", [apogee]), read(tmp_path / "g.parquet", [galah])
    assert (first.survey, first.object_class, first.z, first.trusted) == ("APOGEE", "STAR", 0.0, True)
    assert first.labels["fe_h"] == (-0.3, 0.01)
    assert first.labels["alpha_fe"] == (0.1, 0.02)
    assert first.labels["teff"] == (4800.0, 20.0)
    assert (first.from_air, len(first.flux)) == (False, 50)
    assert (second.survey, second.trusted, second.relative) == ("GALAH", False, True)
    assert set(second.labels) == {"fe_h", "teff"}
    assert second.labels["teff"] == (5000.0, 80.0)
    assert second.from_air
    np.testing.assert_allclose(second.wavelength, to_vacuum(WAVELENGTH.astype("f4").astype(float)))


def test_lamost_has_its_own_columns_and_no_inverse_variance(tmp_path):
    rng = np.random.default_rng(1)
    flux = 100.0 + rng.normal(0.0, 5.0, 1000)
    wavelength = np.r_[np.linspace(3700.0, 9000.0, 990), np.zeros(10)]
    table = {"object_id": ["101"], "spectrum_flux": [flux], "spectrum_wavelength": [wavelength]}
    table |= {"feh": [-0.5], "feh_err": [0.1], "snrg": [20.0], "rv": [29.9792458], "teff": [-9999.0]}
    pq.write_table(pa.table(table), tmp_path / "lamost.parquet")
    (one,) = read_multimodal_universe(UPath(tmp_path / "lamost.parquet"))
    assert (one.survey, one.z, len(one.flux)) == ("LAMOST", pytest.approx(1e-4), 990)
    assert one.labels == {"fe_h": (-0.5, 0.1)}
    assert np.median(one.ivar) ** -0.5 == pytest.approx(5.0, rel=0.1)


def test_vipers_noise_is_no_variance_and_its_flag_no_redshift(tmp_path):
    noise = 0.1166  # in 1e-17 erg/s/cm2/A
    lists = {
        "flux": np.full(50, 0.15),
        "ivar": np.full(50, 1.0 / (noise * 1e-17 * 1e34)),
        "lambda": WAVELENGTH,
    }
    rows = [
        {"object_id": "404055346.0", "spectrum": lists, "REDSHIFT": 0.73, "REDFLAG": flag}
        for flag in (3.5, 1.2, 0.73)
    ]
    found = read(tmp_path / "vipers.parquet", rows)
    assert [s.trusted for s in found] == [True, False, False]
    assert found[0].ivar[0] ** -0.5 == pytest.approx(noise, rel=1e-3)
    assert (found[0].survey, found[0].target, found[0].from_air) == ("VIPERS", "404055346", True)
    hdf5 = [
        row
        | {
            "spectrum": {
                "flux": lists["flux"] * 1e-17,
                "noise": np.full(50, noise * 1e-17),
                "wave": WAVELENGTH,
            }
        }
        for row in rows
    ]
    mmu_files.write_hdf5(tmp_path / "vipers.h5", hdf5)
    (again, *_) = read_multimodal_universe(UPath(tmp_path / "vipers.h5"))
    np.testing.assert_allclose(again.flux, found[0].flux)
    np.testing.assert_allclose(again.ivar, found[0].ivar, rtol=1e-3)


def test_faulty_rows_are_named_by_row_and_column(tmp_path):
    good = desi_row("1", True)
    table = mmu_files.struct_table([good, good])
    without = pa.StructArray.from_arrays(
        table["spectrum"].combine_chunks().flatten(),
        table["spectrum"].type.names,
        mask=pa.array([False, True]),
    )
    pq.write_table(table.set_column(1, "spectrum", without), tmp_path / "a.parquet")
    with pytest.raises(
        SourceError, match=r"row 2, column spectrum_lambda: is missing: leave the spectrum out"
    ):
        list(read_multimodal_universe(UPath(tmp_path / "a.parquet")))
    short = good | {"spectrum": good["spectrum"] | {"ivar": np.ones(3)}}
    pq.write_table(mmu_files.struct_table([short]), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"row 1, column spectrum.ivar: has 3 elements, but .* 50"):
        list(read_multimodal_universe(UPath(tmp_path / "b.parquet")))
    (tmp_path / "c.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(SourceError, match="is a damaged HDF5 file"):
        detect_kind(UPath(tmp_path / "c.h5"))


def test_noise_is_estimated_in_blocks_and_not_where_there_are_no_data():
    flux = np.r_[
        np.random.default_rng(1).normal(0, 1, 512), np.random.default_rng(2).normal(0, 4, 512), np.zeros(300)
    ]
    ivar = estimated_ivar(flux)
    assert ivar[:250].mean() ** -0.5 == pytest.approx(1.0, rel=0.15)
    assert ivar[600:900].mean() ** -0.5 == pytest.approx(4.0, rel=0.15)
    assert not ivar[1100:].any()
