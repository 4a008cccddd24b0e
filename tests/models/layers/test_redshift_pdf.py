"""What is said of a redshift PDF, on PDFs whose answers are known."""

import numpy as np
import pytest
import torch
from scipy import stats

from ojala.catalogs_schema.ojala import PDF_BINS, PDF_MASS, PDF_STEP
from ojala.models.layers.redshift_pdf import LOG1PZ_STEP, N_REDSHIFT_BINS, most_probable_bins, summarise

pytestmark = pytest.mark.processor

EDGES = np.arange(N_REDSHIFT_BINS + 1) * 0.001


def gaussian(z: float, sigma: float) -> np.ndarray:
    """Mass in the bins of a Gaussian in ln(1 + z)."""
    mass = np.diff(stats.norm.cdf(EDGES, np.log1p(z), sigma))
    return mass / mass.sum()


def summary_of(p: np.ndarray):
    return summarise(torch.as_tensor(p, dtype=torch.float32)[None])


@pytest.mark.parametrize("z", [0.05, 0.3337, 1.7, 4.4])
@pytest.mark.parametrize("sigma", [0.0007, 0.002, 0.02])
def test_a_gaussian_is_found_far_within_its_width(z, sigma):
    found = summary_of(gaussian(z, sigma))
    assert found.z.item() == pytest.approx(z, abs=max(1e-4, sigma / 40) * (1 + z))


def test_quantiles_and_error_of_a_gaussian():
    z, sigma = 0.8, 0.012
    found = summary_of(gaussian(z, sigma))
    levels = stats.norm.ppf([0.0228, 0.1587, 0.5, 0.8413, 0.9772])
    np.testing.assert_allclose(found.quantiles[0], np.expm1(np.log1p(z) + sigma * levels), atol=2e-4)
    assert found.error.item() == pytest.approx(0.9945 * sigma * (1 + z), rel=0.01)
    assert found.odds.item() == pytest.approx(2 * stats.norm.cdf(0.03 / sigma) - 1, abs=1e-3)


def test_a_single_mode_has_no_second():
    found = summary_of(gaussian(0.8, 0.02))
    assert torch.isnan(found.mode2).all()
    assert found.mode2_p.item() == 0


@pytest.mark.parametrize("swap", [False, True])
def test_two_modes_and_their_masses(swap):
    first, second = (2.9, 0.4) if swap else (0.4, 2.9)
    found = summary_of(0.7 * gaussian(first, 0.003) + 0.3 * gaussian(second, 0.004))
    assert found.z.item() == pytest.approx(first, abs=1e-3)
    assert found.mode2.item() == pytest.approx(second, abs=2e-3)
    assert found.odds.item() == pytest.approx(0.7, abs=1e-3)
    assert found.mode2_p.item() == pytest.approx(0.3, abs=1e-3)


def test_masses_of_modes_that_are_close_do_not_overlap():
    found = summary_of(0.6 * gaussian(0.40, 0.003) + 0.4 * gaussian(0.46, 0.003))
    assert found.odds.item() + found.mode2_p.item() <= 1.0 + 1e-6
    assert found.mode2.item() == pytest.approx(0.46, abs=2e-3)


def test_a_mode_of_less_than_a_hundredth_is_not_reported():
    found = summary_of(0.995 * gaussian(0.4, 0.003) + 0.005 * gaussian(2.0, 0.003))
    assert torch.isnan(found.mode2).item()
    assert found.mode2_p.item() == 0


@pytest.mark.parametrize("bin_number", [0, 1, N_REDSHIFT_BINS - 1])
def test_all_mass_in_one_bin_at_the_end_of_the_grid(bin_number):
    p = np.zeros(N_REDSHIFT_BINS)
    p[bin_number] = 1.0
    found = summary_of(p)
    low, high = np.expm1(EDGES[bin_number]), np.expm1(EDGES[bin_number + 1])
    assert low <= found.z.item() <= high
    assert low <= found.quantiles.min() <= found.quantiles.max() <= high + 1e-9
    assert found.odds.item() == pytest.approx(1.0)


def test_a_flat_pdf_gives_finite_ordered_numbers():
    found = summary_of(np.full(N_REDSHIFT_BINS, 1 / N_REDSHIFT_BINS))
    assert (found.quantiles.diff() > 0).all()
    assert found.quantiles[0, 2].item() == pytest.approx(np.expm1(EDGES[-1] / 2), rel=1e-4)
    assert torch.isfinite(found.z).all()


def test_the_catalogue_has_the_bins_of_the_network():
    assert (PDF_BINS, PDF_STEP) == (N_REDSHIFT_BINS, LOG1PZ_STEP)


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.002, 0.05, 1.0])
def test_stored_bins_are_the_most_probable_and_hold_the_mass(share):
    population = stats.norm.pdf(EDGES[:-1], 0.5, 0.2)
    p = (1 - share) * gaussian(0.8, 0.003) + share * population / population.sum()
    kept = most_probable_bins(torch.as_tensor(p)[None], PDF_MASS)[0].numpy()
    stored = kept > 0
    assert (kept[stored] == p[stored]).all()
    assert p[stored].min() >= p[~stored].max(initial=0.0)
    assert kept.sum() >= PDF_MASS
    fewest = np.searchsorted(np.sort(p)[::-1].cumsum(), PDF_MASS) + 1
    assert fewest <= stored.sum() <= 1.1 * fewest + 2
