"""What is said with a probability comes true as often, after the calibration."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from ojala.models.layers.redshift_pdf import N_REDSHIFT_BINS
from ojala.models.ojala.calibration import (
    Calibration,
    calibration_measures,
    fit_calibration,
    fit_floors,
    gaussian,
    interpolation_weights,
    smooth,
    weights_by_class,
)
from ojala.models.ojala.losses import Targets
from ojala.models.ojala.network import Ojala, OjalaConfig
from ojala.models.ojala.outputs import (
    RawBands,
    RawOutputs,
    predict_uncalibrated,
    predict_uncalibrated_bands,
    snr_level,
)
from ojala.models.ojala.tokens import N_BANDS, tokenise
from ojala.models.quantities import SCALARS
from tests.models.ojala.test_training import TwoColours

pytestmark = [pytest.mark.integration, pytest.mark.processor]

EVEN = (1.0, 1.0, 1.0)
N = 1200


def simulated(sure: float = 1.0, narrow: float = 1.0, astray: float = 0.0, small: float = 1.0) -> RawOutputs:
    """Answers of a network that is right but for its confidence.

    Its class's logits are multiplied by ``sure``, its PDFs' widths divided by ``narrow`` and its scalars'
    scales by ``small``; a share ``astray`` of the redshifts is anywhere.
    """
    rng = np.random.default_rng(4)
    logits = rng.normal(0.0, 2.0, (N, 3))
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    code = (rng.random((N, 1)) > chance.cumsum(axis=1)).sum(axis=1)
    sigma = rng.uniform(8.0, 30.0, N)
    middle = rng.uniform(200.0, 600.0, N)
    truth = middle + sigma * rng.standard_normal(N)
    truth = np.where(rng.random(N) < astray, rng.uniform(150.0, 650.0, N), truth)
    redshift = np.where(np.stack([code == 0, code == 2]), truth, np.nan)
    bins = np.arange(N_REDSHIFT_BINS) + 0.5
    pdf = -0.5 * ((bins - middle[:, None]) / sigma[:, None] * narrow) ** 2
    scalars = np.zeros((len(SCALARS), N, 2))
    scalars[..., 1] = -math.log(small)
    values = rng.standard_t(3, (len(SCALARS), N))

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(array, np.float32))

    return RawOutputs(
        targets=Targets(torch.as_tensor(code), tensor(redshift), tensor(values)),
        depth=tensor(rng.uniform(1.0, 5.0, N)),
        embedding=torch.zeros(N, 4),
        class_logits=tensor(sure * logits),
        redshift_logits=(tensor(pdf[code == 0]), tensor(pdf[code == 2])),
        scalars=tensor(scalars),
    )


def test_a_network_that_is_too_sure_of_the_class_is_tempered():
    raw = simulated(sure=2.0)
    found = fit_calibration(raw, EVEN)
    np.testing.assert_allclose(found.class_log_temperature.exp(), 2.0, rtol=0.2)
    before = calibration_measures(raw, Calibration.none(), EVEN)["class"]
    after = calibration_measures(raw, found, EVEN)["class"]
    assert before["ece"] > 0.08
    assert after["ece"] < 0.03
    assert after["accuracy"] == pytest.approx(before["accuracy"], abs=0.01)


def test_a_network_that_is_not_sure_enough_of_the_class_is_left_as_it_is():
    raw = simulated(sure=0.5)
    found = fit_calibration(raw, EVEN)
    assert (found.class_log_temperature == 0).all()
    assert (found.class_bias.abs() < 0.1).all()


@pytest.mark.parametrize("narrow", [0.5, 1.0, 2.0])
def test_widths_of_redshift_pdfs_become_right(narrow):
    raw = simulated(narrow=narrow)
    found = fit_calibration(raw, EVEN)
    np.testing.assert_allclose(found.redshift_log_temperature.exp(), narrow**2, rtol=0.4)
    for name in ("z_gal", "z_qso"):
        after = calibration_measures(raw, found, EVEN)[name]
        assert after["within_68"] == pytest.approx(0.683, abs=0.05), name
        assert after["within_95"] == pytest.approx(0.954, abs=0.03), name
        assert after["pit_ks"] < 0.06, name


def test_catastrophic_errors_are_expected_where_they_occur():
    found = fit_calibration(simulated(astray=0.1), EVEN)
    share = found.redshift_floor.sigmoid()
    assert share[0].mean() == pytest.approx(0.1, abs=0.05)
    assert (fit_calibration(simulated(), EVEN).redshift_floor.sigmoid() < 0.01).all()


def test_the_errors_of_scalars_hold_two_thirds_of_the_truths():
    raw = simulated(small=2.0)
    found = calibration_measures(raw, fit_calibration(raw, EVEN), EVEN)
    before = calibration_measures(raw, Calibration.none(), EVEN)
    for quantity in SCALARS:
        assert before[quantity.name]["within_68"] < 0.5
        assert found[quantity.name]["within_68"] == pytest.approx(0.683, abs=0.02)


def test_floors_are_what_observed_objects_show_beyond_the_stated_errors():
    mocks = fit_calibration(simulated(), EVEN)
    observed, rng = simulated(), np.random.default_rng(5)
    astray = torch.as_tensor(rng.normal(0.0, 3.0, (len(SCALARS), N)), dtype=torch.float32)
    code, redshift, scalars = observed.targets
    moved = redshift.clone()
    moved[1] += torch.as_tensor(rng.normal(0.0, 12.0, N), dtype=torch.float32)
    observed = dataclasses.replace(observed, targets=Targets(code, moved, scalars + astray))
    found = fit_floors(mocks, observed)
    for quantity, measures in calibration_measures(observed, found, EVEN).items():
        if quantity not in ("class", "z_gal"):
            assert measures["within_68"] == pytest.approx(0.683, abs=0.05), quantity
    away = torch.arange(found.redshift_kernel.shape[1]) - found.redshift_kernel.shape[1] // 2
    galaxy, quasar = (found.redshift_kernel @ away.square().float()).sqrt()
    assert galaxy < 5.0
    assert quasar == pytest.approx(12.0, rel=0.3)
    few = torch.arange(N) < 90
    kept = fit_floors(mocks, observed.rows(few))
    assert torch.equal(kept.scalar_log_floor, mocks.scalar_log_floor)
    assert torch.equal(kept.redshift_kernel[0], mocks.redshift_kernel)


def test_no_calibration_changes_nothing():
    raw, none = simulated(), Calibration.none()
    assert torch.equal(none.class_logits(raw.class_logits, raw.depth), raw.class_logits)
    logits = torch.stack([raw.redshift_logits[0][:50]] * 2)
    torch.testing.assert_close(none.redshift_pdfs(logits, raw.depth[:50]), logits.softmax(dim=-1))
    log_scale = raw.scalars[..., 1]
    torch.testing.assert_close(none.scalar_log_scales(log_scale, raw.depth), log_scale, rtol=0, atol=1e-12)


def test_a_calibrated_pdf_is_still_a_probability():
    raw = simulated(narrow=2.0, astray=0.05)
    p = fit_calibration(raw, EVEN).redshift_pdfs(
        torch.stack([raw.redshift_logits[0][:50]] * 2), raw.depth[:50]
    )
    assert (p >= 0).all()
    torch.testing.assert_close(p.sum(dim=-1), torch.ones(2, 50))


def test_smoothing_keeps_the_mass_also_at_the_ends_of_the_grid():
    p = torch.zeros(3, 40)
    p[0, 0] = p[1, 20] = p[2, 39] = 1.0
    torch.testing.assert_close(smooth(p, gaussian(2.0)).sum(dim=-1), torch.ones(3))
    assert smooth(p, gaussian(2.0))[1].argmax() == 20


def test_between_knots_values_are_interpolated_and_beyond_them_they_hold():
    near = interpolation_weights(torch.tensor([0.0, 1.0, 1.5, 2.0, 4.0, 9.0]), torch.tensor([1.0, 2.0, 6.0]))
    value = near @ torch.tensor([10.0, 20.0, 40.0])
    torch.testing.assert_close(value, torch.tensor([10.0, 10.0, 15.0, 20.0, 30.0, 40.0]))


def test_the_classes_weigh_as_the_survey_has_them():
    code = torch.tensor([0] * 50 + [1] * 30 + [2] * 20 + [-1] * 7)
    weight = weights_by_class(code, (0.67 / 0.5, 0.28 / 0.3, 0.05 / 0.2))
    shares = torch.stack([weight[code == k].sum() for k in (0, 1, 2, -1)]) / weight.sum()
    torch.testing.assert_close(shares, torch.tensor([0.67, 0.28, 0.05, 0.0]))


def test_a_calibration_survives_the_round_trip_and_a_damaged_one_is_refused():
    tensors = fit_calibration(simulated(), EVEN).tensors()
    again = Calibration.from_tensors(tensors)
    assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in tensors.items())
    for damage, complaint in (
        ({"class_bias": torch.zeros(2)}, "class_bias of the calibration has another shape"),
        ({"class_bias": torch.full((3,), torch.nan)}, "not finite"),
        ({"surplus": torch.zeros(1)}, "lacks a tensor or has one too many"),
    ):
        with pytest.raises(ValueError, match=complaint):
            Calibration.from_tensors(tensors | damage)


def test_depth_is_that_of_the_bands_that_are_there():
    flux = np.full((2, 63), 10.0, np.float32)
    flux[0, 5:] = np.nan
    flux[1] = np.nan
    tokens = tokenise(flux, np.full_like(flux, 2.0), np.zeros(2, np.float32))
    np.testing.assert_allclose(snr_level(tokens), [math.asinh(5.0), 0.0], rtol=1e-6)


def test_a_network_is_asked_for_what_its_objects_have_labels_for():
    shape = OjalaConfig(
        width=16, encoder=((2, 32),), decoder=((2, 32),), trunk=(32,), pre_norm=True, reads_errors=True
    )
    drawn = TwoColours().draw(150, np.random.default_rng(1))
    model = Ojala(shape).eval()
    raw = predict_uncalibrated(model, drawn, batch_size=64)
    galaxies = drawn.class_code == 0
    assert raw.redshift_logits[0].shape == (galaxies.sum(), N_REDSHIFT_BINS)
    with torch.no_grad():
        direct = model(tokenise(drawn.flux, drawn.error, drawn.ebv))
    torch.testing.assert_close(raw.redshift_logits[0], direct["z_gal"][torch.as_tensor(galaxies)])
    some = raw.rows(torch.arange(150) < 40)
    torch.testing.assert_close(some.redshift_logits[0], raw.redshift_logits[0][: galaxies[:40].sum()])


def test_the_scales_of_bands_are_corrected_band_by_band():
    raw, rng = simulated(), np.random.default_rng(5)
    small = np.where(np.arange(N_BANDS) == 9, 3.0, 1.0)
    pull = torch.as_tensor((small * rng.standard_t(3, (N, N_BANDS))).astype(np.float32))
    pull[:, 20] = torch.nan
    bands = RawBands(raw.depth, pull)
    calibration = fit_calibration(raw, EVEN, bands)
    factor = calibration.band_log_factor.exp()
    assert factor[9].median() == pytest.approx(3.0, rel=0.15)
    assert factor[10].median() == pytest.approx(1.0, rel=0.15)
    assert (factor[20] == 1.0).all(), "nothing is known of this one"
    measures = [calibration_measures(raw, c, EVEN, bands)["bands"] for c in (Calibration.none(), calibration)]
    assert abs(measures[1]["within_68"] - 0.683) < 0.01 < abs(measures[0]["within_68"] - 0.683) + 0.01


def test_a_calibration_from_before_bands_leaves_their_scales():
    tensors = fit_calibration(simulated(), EVEN).tensors()
    del tensors["band_log_factor"]
    assert (Calibration.from_tensors(tensors).band_log_factor == 0).all()


def test_a_band_is_asked_for_from_the_others_alone():
    shape = OjalaConfig(
        width=16,
        encoder=((2, 32),),
        decoder=((2, 32),),
        trunk=(32,),
        pre_norm=True,
        reads_errors=True,
        band_requests=True,
    )
    drawn = TwoColours().draw(40, np.random.default_rng(1))
    torch.manual_seed(2)
    model = Ojala(shape).eval()
    before = predict_uncalibrated_bands(model, drawn, batch_size=16).pull
    drawn.flux[:, 30] *= 5.0
    after = predict_uncalibrated_bands(model, drawn, batch_size=16).pull
    torch.testing.assert_close(after[:, 30], before[:, 30])
    assert (after[:, 31] - before[:, 31]).abs().max() > 1e-4
