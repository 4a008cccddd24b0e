"""Redshift accuracy that PDFs predict for all rows is the one that true redshifts drawn from them show."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import norm
from upath import UPath

from ojala.catalogs_schema.redshift_pdfs import Z_EDGES, RedshiftPdfs
from ojala.models.evaluation.metrics import redshift_measures
from ojala.pipeline.quality.validation.expected import FEWEST, ODDS_CUTS, expectation, expected_redshifts
from ojala.pipeline.quality.validation.result import Expectation
from ojala.pipeline.quality.validation.truth import match_truth, read_truth
from ojala.pipeline.report.expected import expected_section
from ojala.pipeline.report.render import render
from ojala.pipeline.storage.hats import CatalogueError
from ojala.pipeline.storage.healpix import Partition

N = 3000
PARTITIONS = (Partition(5, 1), Partition(5, 2))


class Sky:
    """Galaxies whose errors grow with magnitude, some of them with a second mode, and as many stars.

    Everything is drawn from the PDFs, so these are right.
    """

    def __init__(self, folder, seed=2):
        rng = np.random.default_rng(seed)
        self.folder = UPath(folder)
        self.z = rng.uniform(0.3, 0.9, N)
        self.i_mag = rng.uniform(17.0, 23.0, N)
        self.sigma = 0.002 * 10 ** (0.3 * (self.i_mag - 18.0)).clip(0.5)
        self.second = np.where(rng.random(N) < 0.3, 0.2, 0.0)
        x = np.log(Z_EDGES + 1.0)
        centre = np.log1p(self.z)
        parts = [np.diff(norm.cdf((x - at[:, None]) / self.sigma[:, None])) for at in (centre, centre + 0.4)]
        pdf = (1 - self.second)[:, None] * parts[0] + self.second[:, None] * parts[1]
        self.pdf = RedshiftPdfs.from_dense(np.where(pdf > 1e-6, pdf, 0.0))
        self.odds = (1 - self.second) * (2 * norm.cdf(0.03 / self.sigma) - 1)
        moved = np.where(rng.random(N) < self.second, 0.4, 0.0)
        self.true = np.expm1(centre + moved + self.sigma * rng.standard_normal(N))
        self.words = np.where(np.arange(N) % 2 == 0, "GALAXY", "STAR")

    def write(self):
        error = self.sigma * (1 + self.z)
        for part, partition in enumerate(PARTITIONS):
            rows = np.arange(part * N // 2, (part + 1) * N // 2)
            pdf = self.pdf.take(rows)
            ends = pa.array(np.concatenate([[0], np.cumsum(pdf.count)]).astype(np.int32))
            empty = pa.array([[]] * len(rows), pa.list_(pa.float16()))
            key = {"object_id": rows}
            galaxy = np.where(self.words[rows] == "GALAXY", 1.0, np.nan)
            main = key | {
                "class": self.words[rows],
                **{
                    n: pa.array(galaxy * v[rows], pa.float32(), from_pandas=True)
                    for n, v in (("z", self.z), ("z_err", error), ("z_odds", self.odds))
                },
            }
            vectors = key | {
                "z_gal_pdf": pa.ListArray.from_arrays(ends, pa.array(pdf.probability.astype(np.float16))),
                "z_gal_pdf_bin": pa.ListArray.from_arrays(ends, pa.array(pdf.bins.astype(np.int16))),
                "z_qso_pdf": empty,
                "z_qso_pdf_bin": empty.cast(pa.list_(pa.int16())),
            }
            flux = {"flux_isdss": 10 ** (-0.4 * (self.i_mag[rows] - 23.9))}
            for name, table in (("main", main), ("pdfs", vectors), ("photometry", key | flux)):
                path = self.folder / name / partition.leaf
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.table(table), path.path)
        return self

    def expected(self, *, pdfs=True, photometry=True, matched=None):
        roots = {"pdfs": pdfs, "photometry": photometry}
        given = [self.folder / name if there else None for name, there in roots.items()]
        return expected_redshifts(self.folder / "main", *given, PARTITIONS, matched)

    def matched(self, share=0.5):
        """True redshifts of the bright half."""
        rows = np.flatnonzero(self.i_mag < 17.0 + 6.0 * share)
        truth = self.folder / "truth.parquet"
        columns = {"class": self.words, "z": self.true, "i_mag": self.i_mag}
        known = {"object_id": rows, **{name: values[rows] for name, values in columns.items()}}
        pq.write_table(pa.table(known), truth.path)
        main = pa.concat_tables(
            pq.read_table((self.folder / "main" / p.leaf).path, partitioning=None) for p in PARTITIONS
        )
        pdf = {"GALAXY": self.pdf, "QSO": RedshiftPdfs.from_dense(np.zeros((N, 1825)))}
        return match_truth(read_truth(truth), main, N, pdf)


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    return Sky(tmp_path_factory.mktemp("sky")).write()


@pytest.fixture(scope="module")
def galaxies(sky):
    (found,) = sky.expected(matched=sky.matched())
    return found


def drawn(sky, chosen):
    """Measures of the galaxies' true redshifts, chosen by a mask."""
    chosen = chosen & (sky.words == "GALAXY")
    return int(chosen.sum()), redshift_measures(sky.z[chosen], sky.true[chosen])


def test_what_the_pdfs_predict_is_what_the_draws_show(sky, galaxies):
    assert (galaxies.objects, galaxies.source, galaxies.rows) == ("GALAXY", "pdf", N // 2)
    for cell in galaxies.by_odds:
        n, shown = drawn(sky, sky.odds.astype(np.float32) >= np.float32(cell.odds_min))
        assert cell.rows == pytest.approx(n, abs=1)
        assert cell.completeness == pytest.approx(n / (N // 2), abs=1e-3)
        assert cell.predicted.sigma_nmad == pytest.approx(shown["sigma_nmad"], rel=0.08)
        assert cell.predicted.sigma_iqr == pytest.approx(shown["sigma_iqr"], rel=0.08)
        for name in ("outliers_15", "outliers_03", "outliers_iqr"):
            assert getattr(cell.predicted, name) == pytest.approx(shown[name], abs=0.025), name
    assert galaxies.by_odds[0].predicted.outliers_15 == pytest.approx(0.06, abs=0.01)
    assert galaxies.by_odds[-1].predicted.outliers_15 < 0.001


def test_accuracy_falls_with_magnitude_and_the_odds_keep_fewer_of_the_faint(sky, galaxies):
    sigma = [cell.predicted.sigma_nmad for cell in galaxies.by_magnitude]
    kept = [cell.completeness for cell in galaxies.at(0.9)]
    assert sigma == sorted(sigma)
    assert kept[0] > 0.6 > 0.1 > kept[-1]
    for cell in galaxies.by_magnitude:
        inside = (sky.i_mag >= cell.magnitude.low) & (sky.i_mag < cell.magnitude.high)
        n, shown = drawn(sky, inside)
        assert cell.rows == n
        assert cell.predicted.sigma_nmad == pytest.approx(shown["sigma_nmad"], rel=0.2)


def test_the_achieved_accuracy_stands_beside_that_of_the_same_objects(sky, galaxies):
    whole = galaxies.by_odds[0]
    n, shown = drawn(sky, sky.i_mag < 20.0)
    assert whole.known == n < whole.rows
    assert whole.achieved.sigma_nmad.value == pytest.approx(shown["sigma_nmad"], rel=1e-5)
    assert whole.achieved.outliers_15.value == pytest.approx(shown["outliers_15"])
    difference = whole.predicted_of_known.sigma_nmad - whole.achieved.sigma_nmad.value
    assert abs(difference) < 3 * whole.achieved.sigma_nmad.error
    assert whole.predicted.sigma_nmad > 1.5 * whole.predicted_of_known.sigma_nmad, "bright ones are better"
    faint = galaxies.by_magnitude[-1]
    assert (faint.known, faint.achieved) == (0, None)
    assert all(cell.achieved is None or cell.known >= FEWEST for cell in galaxies.cells)


def test_without_pdfs_it_is_said_that_second_modes_are_missing(sky, galaxies):
    (found,) = sky.expected(pdfs=False)
    assert found.source == "z_err"
    of_gaussians, of_pdfs = found.by_odds[0].predicted, galaxies.by_odds[0].predicted
    assert of_gaussians.sigma_nmad == pytest.approx(of_pdfs.sigma_nmad, rel=0.3)
    assert of_gaussians.outliers_15 < 0.01
    page = render("expected.html.j2", {"section": expected_section([found])})
    assert "second modes are missing" in page
    assert page.count("<svg") == 1


def test_without_magnitudes_there_are_the_odds_alone(sky):
    (found,) = sky.expected(photometry=False)
    assert found.by_magnitude == []
    assert [cell.odds_min for cell in found.by_odds] == list(ODDS_CUTS)


def test_rows_of_other_objects_are_refused(sky, tmp_path):
    other = Sky(tmp_path).write()
    leaf = (other.folder / "pdfs" / PARTITIONS[0].leaf).path
    pq.write_table(pq.read_table(leaf, partitioning=None).slice(1), leaf)
    with pytest.raises(CatalogueError, match="its rows are not those of the catalogue"):
        other.expected()


def test_nothing_is_expected_of_nothing():
    assert expectation(np.zeros(7600)) == Expectation(**dict.fromkeys(Expectation.model_fields))
