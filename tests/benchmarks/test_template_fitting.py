"""Template fitting beside OJALÁ, and what missing bands cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from ojala.catalogs_schema.bands import MODEL_BANDS, System
from ojala.models.simulation.wavelength_grid import redshifts
from ojala.pipeline.inference.photometry import Photometry
from ojala.pipeline.quality.validation.truth import read_truth
from tests.benchmarks import missing_bands
from tests.benchmarks.template_fitting.compare import (
    LabelledRows,
    Method,
    TemplateFitting,
    markdown,
    read_labelled_rows,
)
from tests.benchmarks.template_fitting.fit import fit_single, fit_sums
from tests.benchmarks.template_fitting.templates import TemplateGrid
from tests.helpers.survey import Finished

pytestmark = pytest.mark.integration

DATA = Path(__file__).parents[2].parent / "shared" / "data"
PIVOT = np.array([band.pivot for band in MODEL_BANDS])


def lined_grid() -> TemplateGrid:
    """Two continua and a line at 4000 A rest, at redshifts to 0.6."""
    z = redshifts(np.arange(0, 1570, 5))
    wave = PIVOT / (1.0 + z[:, None])
    line = np.exp(-0.5 * ((wave - 4000.0) / 80.0) ** 2)
    return TemplateGrid(z, np.stack([wave / 6e3, (6e3 / wave) ** 2, line], axis=1).astype(np.float32))


def observed(grid: TemplateGrid, k: np.ndarray, amount: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of templates with noise of 1 % and some bands missing."""
    rng = np.random.default_rng(3)
    flux = np.einsum("nt,ntb->nb", amount, grid.flux[k])
    error = np.full(flux.shape, 0.01) * flux.mean(axis=1, keepdims=True)
    flux = flux + error * rng.standard_normal(flux.shape)
    missing = rng.random(flux.shape) < 0.1
    return np.where(missing, np.nan, flux), np.where(missing, np.nan, error)


def test_sums_of_templates_are_found_at_their_redshift() -> None:
    grid = lined_grid()
    k = np.array([20, 111, 222, 300])
    amount = np.array([[1.0, 0.0, 1.0], [5.0, 2.0, 4.0], [0.0, 40.0, 30.0], [0.3, 0.1, 0.5]])
    fit = fit_sums(*observed(grid, k, amount), grid)
    np.testing.assert_allclose(fit.z, grid.z[k], atol=1.5e-3)
    assert (fit.chi2 > 0).all()
    assert (fit.chi2 < 63).all()


def test_a_sum_has_no_negative_part() -> None:
    grid = lined_grid()
    flux, error = observed(grid, np.array([100]), np.array([[10.0, 0.0, -6.0]]))
    assert fit_sums(flux, error, grid).chi2[0] > 500, "absorption is not what these templates have"


def test_the_best_single_template_has_a_free_level() -> None:
    grid = TemplateGrid(np.zeros(1), lined_grid().flux[:1])
    fit = fit_single(*observed(grid, np.zeros(2, int), np.array([[7.0, 0, 0], [0, 0.01, 0]])), grid)
    assert (fit.chi2 < 80).all()
    assert (fit.z == 0.0).all()


def rows_of(n: int) -> LabelledRows:
    flux = np.full((n, len(MODEL_BANDS)), 10.0, np.float32)
    photometry = Photometry(flux, flux / 20, np.full(n, np.nan, np.float32), np.ones(flux.shape, bool))
    return LabelledRows(photometry, np.arange(n) % 3, np.linspace(0.1, 1.0, n))


def test_fewer_bands_are_fewer_by_the_number_that_is_said() -> None:
    rng = np.random.default_rng(1)
    lost = missing_bands.fewer_narrow_bands(50, rng)
    narrow = np.array([band.is_narrow for band in MODEL_BANDS])
    assert (lost[:, narrow].sum(axis=1) == 14).all()
    assert not lost[:, ~narrow].any()
    assert len(np.unique(lost, axis=0)) == 50, "another choice for each object"
    usable, _ = missing_bands.without(rows_of(50), lost).usable_fluxes
    assert (np.isfinite(usable).sum(axis=1) == len(MODEL_BANDS) - 14).all()


@pytest.mark.parametrize(
    ("left", "lost"),
    [
        ("without WISE", {System.WISE}),
        ("without Legacy", {System.LEGACY}),
        ("without Legacy and WISE", {System.LEGACY, System.WISE}),
    ],
)
def test_the_other_surveys_can_be_left_out(left: str, lost: set[System]) -> None:
    less = missing_bands.cases(rows_of(3))[left].photometry
    there = [band.system not in lost for band in MODEL_BANDS]
    assert (less.usable == there).all()


def test_bright_rows_are_those_whose_flux_in_i_says_so() -> None:
    rows = rows_of(2)
    flux = 10.0 ** (-0.4 * (np.array([[20.9], [21.1]]) - 23.9)) * np.ones(len(MODEL_BANDS), np.float32)
    rows = replace(rows, photometry=replace(rows.photometry, flux=flux, ebv=np.zeros(2)))
    assert missing_bands.bright(rows).photometry.flux[:, 0] == pytest.approx([15.85], abs=0.01)


def test_a_method_without_classes_has_dashes_in_the_table() -> None:
    rows = rows_of(30)
    right = Method("right", rows.class_code, {"GALAXY": rows.z, "QSO": rows.z}, {"all": 100.0})
    shy = Method("shy", None, {"GALAXY": rows.z * 2, "QSO": np.full(30, np.nan)}, {"GALAXY": 5.0})
    first, second = markdown(rows, [right, shy], rows.first(5)).splitlines()[2:]
    assert first.startswith("| right | 1.000±0.000 |")
    assert second.startswith("| shy | – | – | – | – |")
    assert "| - | - | - | GALAXY 5 |" in second


def test_known_rows_are_those_of_the_truth(finished: Finished, tmp_path: Path) -> None:
    path = UPath(tmp_path / "truth.csv")
    path.write_text("tile_id,number,class,z\n7,12,GALAXY,0.5\n7,3,STAR,\n7,250,QSO,1.5\n")
    rows = read_labelled_rows(finished.photometry, read_truth(path))
    assert sorted(rows.class_code.tolist()) == [0, 1, 2]
    assert rows.z[rows.class_code == 2] == 1.5
    assert np.isnan(rows.z[rows.class_code == 1])
    assert rows.photometry.flux.shape == (3, len(MODEL_BANDS))


@pytest.mark.skipif(not DATA.exists(), reason="transmission curves are not part of the repository")
def test_fits_are_kept_for_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = lined_grid()
    flux, error = observed(grid, np.array([20, 111]), np.ones((2, 3)))
    rows = LabelledRows(
        replace(rows_of(2).photometry, flux=flux.astype(np.float32), error=error.astype(np.float32)),
        np.array([0, 2]),
        grid.z[[20, 111]],
    )
    fitting = TemplateFitting(DATA / "templates", DATA / "filters", tmp_path)
    monkeypatch.setattr(
        TemplateFitting, "_grids", dict.fromkeys(("GALAXY", "STAR", "QSO", "QSO without host"), grid)
    )
    first = fitting.all_classes(rows)
    np.testing.assert_allclose(first.z["GALAXY"], rows.z, atol=2e-3)
    monkeypatch.setattr(TemplateFitting, "_grids", {})
    again = fitting.all_classes(rows)
    np.testing.assert_array_equal(first.z["QSO"], again.z["QSO"])
    other = replace(rows, photometry=replace(rows.photometry, flux=rows.photometry.flux * 2))
    with pytest.raises(KeyError):
        fitting.all_classes(other)
