"""A catalogue's numbers: complete, finite, and each row's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.redshift_pdfs import RedshiftPdfs
from ojala.models.data import CALIBRATION_FLOOR
from ojala.models.layers.redshift_pdf import summarise
from ojala.models.ojala.checkpoint import save
from ojala.models.ojala.headers import NO_BAND_REQUESTS
from ojala.models.ojala.network import Ojala, OjalaConfig
from ojala.models.ojala.predictor import QUANTILE_NAMES, STUDENT_T3_HALF_WIDTH, OjalaPredictor
from ojala.models.ojala.tokens import N_BANDS, tokenise
from ojala.models.quantities import SCALARS

pytestmark = pytest.mark.processor

SMALL = OjalaConfig(
    width=32, encoder=((2, 64), (2, 64)), decoder=((2, 64),), trunk=(64,), pre_norm=True, reads_errors=True
)
NOT_KNOWN = ("log_mbh", "log_mbh_err", "novelty")  # without a head, without a record of the training
OF_CLASS = ("z", "z_err", *QUANTILE_NAMES, "z_odds", "z_mode2")
N = 37


def sky(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    flux = rng.lognormal(2.0, 1.0, (n, N_BANDS)).astype(np.float32)
    flux[rng.random(flux.shape) < 0.3] = np.nan
    error = rng.lognormal(-1.0, 0.7, flux.shape).astype(np.float32)
    return flux, error, rng.uniform(0, 0.2, n).astype(np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(3)
    model = Ojala(SMALL)
    model.tokens.fit(tokenise(*sky(300, seed=9)))
    with torch.no_grad():  # so that all three classes and several modes occur
        model.heads["class"].weight.mul_(20.0)
        encoded = model.encode(tokens := tokenise(*sky(300, seed=9)))
        logits = model.decode_requests(encoded, tokens.valid, ("class",))["class"]
        model.heads["class"].bias.sub_(logits.median(dim=0).values)
        model.heads["redshift"].weight.mul_(20.0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save(path, model, name="small", version="9.9", training={})
    return path


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def predictor(request, weights):
    return OjalaPredictor.load(weights, precision=request.param, batch_size=16)


def by_row(found):
    """Answers with N rows each: the PDFs with all their bins."""
    rows = {name: values for name, values in found.items() if "_pdf" not in name}
    for name in ("z_gal_pdf", "z_qso_pdf"):
        rows[name] = RedshiftPdfs(found[f"{name}_n"], found[f"{name}_bin"], found[name]).dense()
    return rows


def assert_rows_equal(predictor, a, b, rows=slice(None)):
    """Within 1e-6; in single precision, where products have as many rows as tokens, within rounding."""
    a, b = (by_row(found) if "z_gal_pdf_n" in found else found for found in (a, b))
    for name in a:
        rtol, atol = 1e-6, 1e-9
        if predictor.network.encoder[0].attention.query.weight.dtype == torch.float32:
            rtol, atol = (2e-3, 2e-4) if a[name].dtype == np.float16 else (1e-4, 1e-5)
        one, other = (values.astype(np.float64) for values in (a[name], b[name][rows]))
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol, err_msg=name)


def test_every_column_is_there_and_one_row_per_object(predictor):
    found = predictor.predict(*sky(N))
    expected = {"class_code", "p_galaxy", "p_star", "p_qso", *OF_CLASS, "z_mode2_p", "embedding"}
    expected |= {f"{name}_pdf{part}" for name in ("z_gal", "z_qso") for part in ("", "_bin", "_n")}
    expected |= {"z_gal", "z_gal_err", "z_qso", "z_qso_err", *NOT_KNOWN}
    expected |= {q.name for q in SCALARS} | {f"{q.name}_err" for q in SCALARS}
    assert set(found) == expected
    flat = {f"{name}_pdf{part}" for name in ("z_gal", "z_qso") for part in ("", "_bin")}
    assert {len(found[name]) for name in set(found) - flat} == {N}
    for name in ("z_gal_pdf", "z_qso_pdf"):
        assert len(found[name]) == len(found[f"{name}_bin"]) == found[f"{name}_n"].sum() > 0
    assert found["class_code"].dtype == np.int8
    assert found["z_gal_pdf"].dtype == found["embedding"].dtype == np.float16
    assert (found["z_gal_pdf_bin"].dtype, found["z_gal_pdf_n"].dtype) == (np.int16, np.int32)
    assert found["embedding"].shape == (N, 32)
    others = {name for name in found if "_pdf" not in name} - {"class_code", "embedding"}
    assert {found[name].dtype for name in others} == {np.dtype(np.float32)}


def test_a_row_gets_the_same_answer_alone_and_among_others(predictor):
    flux, error, ebv = sky(N)
    together = predictor.predict(flux, error, ebv)
    for row in (0, 15, 16, 36):
        alone = predictor.predict(flux[[row]], error[[row]], ebv[[row]])
        assert_rows_equal(predictor, alone, together, [row])


def test_the_order_of_the_rows_does_not_matter(predictor):
    flux, error, ebv = sky(N)
    order = np.random.default_rng(5).permutation(N)
    together = predictor.predict(flux, error, ebv)
    assert_rows_equal(predictor, predictor.predict(flux[order], error[order], ebv[order]), together, order)


def test_neighbours_without_any_band_change_nothing(predictor):
    flux, error, ebv = sky(N)
    together = predictor.predict(flux, error, ebv)
    flux[1::2] = np.nan
    assert_rows_equal(
        predictor,
        {k: v[::2] for k, v in by_row(predictor.predict(flux, error, ebv)).items()},
        together,
        slice(None, None, 2),
    )


def test_the_batch_size_hardly_matters(weights):
    flux, error, ebv = sky(N)
    small, large = (OjalaPredictor.load(weights, batch_size=n).predict(flux, error, ebv) for n in (8, 64))
    for name in ("p_galaxy", "z_gal", "z_qso", "teff", "log_mass"):
        np.testing.assert_allclose(small[name], large[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_halving_the_batch_changes_rows_by_rounding_alone(weights):
    flux, error, ebv = sky(N)
    predictor = OjalaPredictor.load(weights, batch_size=32)
    before = predictor.predict(flux, error, ebv)
    for size in (16, 8, 4, 2, 1, 1):
        predictor.halve_batch()
        assert predictor.batch_size == size
        after = predictor.predict(flux, error, ebv)
        for name in ("p_galaxy", "z_gal", "z_qso", "teff", "log_mass"):
            np.testing.assert_allclose(after[name], before[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_half_precision_agrees_with_single(weights):
    flux, error, ebv = sky(N)
    single, half = (
        OjalaPredictor.load(weights, precision=p).predict(flux, error, ebv) for p in ("fp32", "bf16")
    )
    for name in ("log_mass", "logg", "fe_h"):
        difference = np.abs(single[name] - half[name])
        assert (difference < 0.1 * single[f"{name}_err"]).all(), name


def hostile_rows():
    """Photometry that no survey should hold, one kind a row."""
    flux, error, ebv = sky(12)
    flux[0] = np.nan
    flux[1] = np.inf
    flux[2] = -flux[2]
    flux[3] = 1e30
    error[4] = 0.0
    error[5] = -1.0
    error[6] = 1e-30
    error[7] = 1e30
    flux[8], error[8] = 0.0, 1e-38
    ebv[9] = np.nan
    ebv[10] = 1e9
    flux[11, 1:] = np.nan
    flux[11, 0], error[11, 0] = 9e8, 1e-6
    return flux, error, ebv


def test_hostile_photometry_gets_finite_answers(predictor):
    found = predictor.predict(*hostile_rows())
    extragalactic = found["class_code"] != 1
    for name, values in found.items():
        if name in ("z_mode2", *NOT_KNOWN):  # there need not be a second mode
            continue
        rows = values[extragalactic] if name in OF_CLASS else values
        assert np.isfinite(rows.astype(np.float64)).all(), name
    for name in ("z_gal_err", "z_qso_err", *(f"{q.name}_err" for q in SCALARS)):
        assert (found[name] > 0).all(), name


def test_rows_without_any_band_all_get_the_same_answer(predictor):
    nothing = np.full((3, N_BANDS), np.nan, dtype=np.float32)
    found = predictor.predict(nothing, nothing, np.array([0.0, 0.1, np.nan], dtype=np.float32))
    found = by_row(found)
    for values in found.values():
        np.testing.assert_allclose(values[1:], values[[0, 0]], rtol=1e-6, atol=1e-9)


def test_stars_have_no_redshift_and_others_have_that_of_their_class(predictor):
    found = predictor.predict(*sky(400))
    galaxy, star, qso = (found["class_code"] == code for code in range(3))
    assert galaxy.any()
    assert star.any()
    assert qso.any()
    for name in OF_CLASS:
        assert np.isnan(found[name][star]).all(), name
    assert (found["z_mode2_p"][star] == 0).all()
    np.testing.assert_array_equal(found["z"][galaxy], found["z_gal"][galaxy])
    np.testing.assert_array_equal(found["z"][qso], found["z_qso"][qso])
    total = found["p_galaxy"] + found["p_star"] + found["p_qso"]
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


def test_pdfs_are_those_of_which_redshift_and_error_are_given(predictor):
    found = predictor.predict(*sky(400))
    for name, probability in (("z_gal", "p_galaxy"), ("z_qso", "p_qso")):
        pdfs = RedshiftPdfs(found[f"{name}_pdf_n"], found[f"{name}_pdf_bin"], found[f"{name}_pdf"])
        there = pdfs.count > 0
        np.testing.assert_array_equal(there, found[probability].astype(float) >= 0.01)
        assert there.any()
        start = np.cumsum(pdfs.count) - pdfs.count
        mass = np.add.reduceat(pdfs.probability.astype(float), start[there])
        assert ((mass > 0.998) & (mass < 1.001)).all()
        again = summarise(torch.as_tensor(pdfs.dense()[there]))
        np.testing.assert_allclose(again.z, found[name][there], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(again.error, found[f"{name}_err"][there], rtol=0.02, atol=1e-4)


def test_without_pdfs_the_other_answers_stay_the_same(weights):
    with_pdfs, without = (
        OjalaPredictor.load(weights, batch_size=16, pdfs=on).predict(*sky(N)) for on in (1, 0)
    )
    assert not any("_pdf" in name for name in without)
    for name, values in without.items():
        np.testing.assert_array_equal(values, with_pdfs[name], err_msg=name)


def test_the_error_of_a_scalar_is_half_its_central_interval(weights):
    assert stats.t.cdf(STUDENT_T3_HALF_WIDTH, 3) - stats.t.cdf(-STUDENT_T3_HALF_WIDTH, 3) == pytest.approx(
        0.6827, abs=1e-4
    )
    predictor = OjalaPredictor.load(weights, batch_size=16)
    flux, error, ebv = sky(16)
    found = predictor.predict(flux, error, ebv)
    model = Ojala(SMALL)
    model.load_state_dict(predictor.network.state_dict())
    with torch.no_grad():
        answers = model(tokenise(flux, error, ebv))
    mean, scale = answers["logg"][:, 0].numpy(), answers["logg"][:, 1].exp().numpy()
    np.testing.assert_allclose(found["logg"], 4.4 + 0.5 * mean, rtol=1e-5)
    np.testing.assert_allclose(found["logg_err"], 0.5 * STUDENT_T3_HALF_WIDTH * scale, rtol=1e-4)


def test_no_rows_give_no_rows(predictor):
    flux, error, ebv = sky(4)
    some, none = predictor.predict(flux, error, ebv), predictor.predict(flux[:0], error[:0], ebv[:0])
    assert {name: (values.dtype, values.shape[1:]) for name, values in none.items()} == {
        name: (values.dtype, values.shape[1:]) for name, values in some.items()
    }
    assert {len(values) for values in none.values()} == {0}


def test_a_predictor_says_what_it_is(predictor, weights):
    assert (predictor.name, predictor.version) == ("small", "9.9")
    assert len(predictor.weights_sha256) == 64
    assert (predictor.device, predictor.batch_size) == ("cpu", 16)
    with pytest.raises(ValueError, match="precision"):
        OjalaPredictor.load(weights, precision="fp8")


@pytest.fixture(scope="module")
def of_bands(tmp_path_factory) -> OjalaPredictor:
    torch.manual_seed(3)
    model = Ojala(replace(SMALL, chain=True, band_requests=True))
    model.tokens.fit(tokenise(*sky(300, seed=9)))
    path = tmp_path_factory.mktemp("bands") / "small.safetensors"
    save(path, model, name="small", version="9.9", training={})
    return OjalaPredictor.load(path, batch_size=16)


def test_every_band_gets_a_flux_and_those_that_were_measured_are_compared_with_it(of_bands):
    flux, error, ebv = sky(N)
    flux[0] = np.nan
    found = of_bands.predict_bands(flux, error, ebv)
    predicted, its_error, sigma = (found[f"band_{name}"] for name in ("flux", "flux_err", "sigma"))
    assert predicted.shape == its_error.shape == sigma.shape == (N, N_BANDS)
    assert np.isfinite(predicted[1:]).all()
    assert (its_error[1:] > 0).all()
    floored = np.maximum(error, CALIBRATION_FLOOR * np.abs(flux))
    np.testing.assert_allclose(
        sigma[1:], (flux - predicted)[1:] / np.hypot(floored, its_error)[1:], rtol=1e-4
    )
    np.testing.assert_allclose(found["chi2_bands"][1:], np.nansum(sigma[1:] ** 2, axis=1), rtol=1e-4)
    np.testing.assert_array_equal(found["n_chi2_bands"], np.isfinite(flux).sum(axis=1))
    worst = np.nanargmax(np.abs(sigma[1:]), axis=1)
    np.testing.assert_array_equal(found["worst_band"][1:], worst)
    np.testing.assert_allclose(found["worst_band_sigma"][1:], sigma[1:][np.arange(N - 1), worst])
    assert np.isnan(predicted[0]).all()
    assert np.isnan(found["chi2_bands"][0])
    assert found["worst_band"][0] == -1


def test_a_band_is_predicted_without_its_own_measurement(of_bands):
    flux, error, ebv = sky(N)
    before = of_bands.predict_bands(flux, error, ebv)
    flux[:, 11] = 3.0 * flux[:, 11]
    after = of_bands.predict_bands(flux, error, ebv)
    np.testing.assert_array_equal(after["band_flux"][:, 11], before["band_flux"][:, 11])
    seen = np.isfinite(flux[:, 11])
    assert (np.abs(after["band_flux"] - before["band_flux"])[seen].max(axis=1) > 0).all()


def test_predicted_fluxes_are_as_reddened_as_those_that_were_measured(of_bands):
    flux, error, _ = sky(N)
    k_x = np.array([band.k_x for band in MODEL_BANDS], np.float32)
    dimming = 10.0 ** (-0.4 * 0.2 * k_x)
    free = of_bands.predict_bands(flux, error, np.zeros(N, np.float32))
    behind = of_bands.predict_bands(flux * dimming, error * dimming, np.full(N, 0.2, np.float32))
    np.testing.assert_allclose(behind["band_flux"], free["band_flux"] * dimming, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(behind["chi2_bands"], free["chi2_bands"], rtol=1e-2)


def test_weights_without_band_requests_are_refused_before_any_work(predictor):
    with pytest.raises(ValueError, match=NO_BAND_REQUESTS[:40]):
        predictor.predict_bands(*sky(3))
