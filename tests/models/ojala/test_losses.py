"""Labels become targets, answers are weighed by how far they are from them."""

import numpy as np
import pytest
import torch
from scipy import stats

from ojala.models.data import LabelledPhotometry
from ojala.models.layers.distributions import redshift_loss, student_t_loss
from ojala.models.layers.redshift_pdf import N_REDSHIFT_BINS
from ojala.models.ojala.losses import (
    BandTargets,
    Targets,
    band_loss,
    label_counts,
    losses,
    mean_discrepancy,
    targets_of,
    total_loss,
)
from ojala.models.ojala.network import REQUESTS
from ojala.models.ojala.tokens import N_BANDS
from ojala.models.quantities import BY_NAME, SCALARS

UNIT = torch.ones(3)


def photometry(class_code, **labels) -> LabelledPhotometry:
    n = len(class_code)
    flux = np.ones((n, N_BANDS), dtype=np.float32)
    arrays = {name: np.asarray(values, dtype=np.float32) for name, values in labels.items()}
    return LabelledPhotometry(flux, flux, flux[:, 0], np.asarray(class_code), arrays)


def answers_of(n: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shape = {"class": (n, 3), "z_gal": (n, N_REDSHIFT_BINS), "z_qso": (n, N_REDSHIFT_BINS)}
    return {name: torch.randn(shape.get(name, (n, 2)), requires_grad=True) for name in REQUESTS}


def test_labels_become_bins_and_standardised_values():
    targets = targets_of(
        photometry([0, 2], z_gal=[0.5, np.nan], z_qso=[np.nan, 2.3], log_mass=[11.2, np.nan])
    )
    np.testing.assert_allclose(targets.redshift[0, 0], np.log(1.5) / 0.001, rtol=1e-6)
    np.testing.assert_allclose(targets.redshift[1, 1], np.log(3.3) / 0.001, rtol=1e-6)
    assert torch.isnan(targets.redshift[0, 1])
    mass = [q.name for q in SCALARS].index("log_mass")
    assert targets.scalars[mass, 0] == pytest.approx(BY_NAME["log_mass"].standardise(11.2), rel=1e-5)
    assert torch.isnan(targets.scalars[mass, 1])


def test_a_redshift_beyond_the_bins_is_not_known():
    targets = targets_of(photometry([0, 0, 2], z_gal=[-0.01, 6.0, np.nan], z_qso=[np.nan, np.nan, np.inf]))
    assert torch.isnan(targets.redshift).all()


def test_the_redshift_loss_is_least_at_the_label():
    bins = torch.tensor([400.5])
    position = torch.arange(N_REDSHIFT_BINS) + 0.5

    def loss_of_peak_at(center):
        return redshift_loss(-0.5 * ((position - center) / 1.0)[None] ** 2, bins).item()

    assert loss_of_peak_at(400.5) < loss_of_peak_at(401.5) < loss_of_peak_at(405.5) < loss_of_peak_at(900.5)
    # A label spread as a Gaussian of one bin has an entropy of ln(sqrt(2 pi e)).
    assert loss_of_peak_at(400.5) == pytest.approx(0.5 * np.log(2 * np.pi * np.e), rel=1e-3)


def test_the_redshift_loss_at_the_ends_of_the_grid_is_finite():
    logits = torch.zeros(2, N_REDSHIFT_BINS)
    found = redshift_loss(logits, torch.tensor([0.0, N_REDSHIFT_BINS - 0.01]))
    torch.testing.assert_close(found, torch.full((2,), float(np.log(N_REDSHIFT_BINS))))


def test_the_scalar_loss_is_the_student_t_likelihood():
    answer = torch.tensor([[0.3, -0.7], [2.0, 0.4]])
    target = torch.tensor([1.1, -3.0])
    expected = -stats.t.logpdf(
        target.numpy(), df=3, loc=answer[:, 0].numpy(), scale=np.exp(answer[:, 1].numpy())
    )
    np.testing.assert_allclose(student_t_loss(answer, target), expected, rtol=1e-5)


def test_objects_without_a_label_do_not_pull():
    answers = answers_of(4)
    targets = targets_of(photometry([0, -1, 2, 1], z_gal=[0.4, np.nan, np.nan, np.nan]))
    total_loss(losses(answers, targets, UNIT)).backward()
    assert (answers["z_gal"].grad[0] != 0).any()
    assert (answers["z_gal"].grad[1:] == 0).all()
    assert (answers["class"].grad[1] == 0).all()
    assert (answers["teff"].grad == 0).all()


def test_a_rare_label_weighs_as_much_as_a_common_one():
    answers = answers_of(20)
    same = dict.fromkeys(("z_gal", "z_qso"), torch.zeros(20, N_REDSHIFT_BINS))
    z_qso = np.where(np.arange(20) < 1, 2.0, np.nan)
    z_gal = np.where(np.arange(20) < 1, np.nan, 0.4)
    found = losses(answers | same, targets_of(photometry([0] * 20, z_gal=z_gal, z_qso=z_qso)), UNIT)
    assert found["z_qso"].item() == pytest.approx(found["z_gal"].item(), rel=1e-5)


def test_class_weights_move_the_probabilities_to_other_shares():
    """With logits fitted freely, the optimum is the share of the draws times the weight."""
    weights = torch.tensor([2.0, 1.0, 0.5])
    code = [0] * 10 + [1] * 10 + [2] * 20
    logits = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100)
    targets = targets_of(photometry(code))
    fixed = answers_of(40)

    def closure():
        optimizer.zero_grad()
        loss = losses(fixed | {"class": logits.expand(40, 3)}, targets, weights)["class"]
        loss.backward()
        return loss

    optimizer.step(closure)
    np.testing.assert_allclose(logits.detach().softmax(0), np.array([20, 10, 10]) / 40, atol=1e-3)


def test_the_discrepancy_of_a_sample_with_itself_is_zero_and_grows_with_a_shift():
    generator = torch.Generator().manual_seed(2)
    sample = torch.randn(200, 8, generator=generator)
    shifts = [float(mean_discrepancy(sample, sample + shift)) for shift in (0.0, 0.3, 1.0)]
    assert shifts[0] == pytest.approx(0.0, abs=1e-6)
    assert shifts[0] < shifts[1] < shifts[2]


def test_the_discrepancy_moves_the_observed_encodings_only():
    generator = torch.Generator().manual_seed(2)
    simulated = torch.randn(20, 8, generator=generator).requires_grad_()
    observed = (torch.randn(20, 8, generator=generator) + 1.0).requires_grad_()
    mean_discrepancy(simulated, observed).backward()
    assert simulated.grad is None
    assert observed.grad.abs().max() > 0


def test_the_losses_of_parts_add_up_to_that_of_the_whole():
    answers = answers_of(6)
    targets = targets_of(photometry([0, 0, 2, 1, 0, 2], z_gal=[0.4, 0.2, np.nan, np.nan, 1.0, np.nan]))
    whole, counts = losses(answers, targets, UNIT), label_counts(targets)
    parts = [
        losses(
            {name: answer[rows] for name, answer in answers.items()},
            Targets(targets.class_code[rows], targets.redshift[:, rows], targets.scalars[:, rows]),
            UNIT,
            counts,
        )
        for rows in (slice(0, 2), slice(2, 6))
    ]
    for name, loss in whole.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], loss)


def test_a_flux_in_a_band_pulls_where_it_is_known_and_less_where_it_is_uncertain():
    answer = torch.zeros(1, 3, 2, requires_grad=True)
    value, error = torch.tensor([[2.0, 2.0, np.nan]]), torch.tensor([[0.0, 3.0, 0.0]])
    unit = torch.ones(1, 3)
    band_loss(answer, BandTargets(torch.tensor([[4, 5, 6]]), value, error), 0.0 * unit, unit).sum().backward()
    exact, uncertain, unknown = answer.grad[0, :, 0].abs()
    assert exact > uncertain > 0
    assert unknown == 0
    assert (answer.grad[0, 2] == 0).all()
