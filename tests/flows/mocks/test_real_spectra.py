"""All real spectra at hand, from FITS to the value-added catalogue. Skips where there are no spectra."""

import json
from pathlib import Path

import pytest
from upath import UPath

from ojala.flows.mocks.real_objects import write_real_table
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.quality.validation.result import Validation
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.config import RunConfig
from tests.helpers.mmu_files import convert_collection
from tests.helpers.survey import run_and_publish

DATA = Path(__file__).parents[3].parent / "shared" / "data"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (DATA / "spectra").is_dir(), reason="the public spectra are not beside the checkout"
    ),
]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Number of real objects, the run over them, and its quality, at i = 20."""
    folder = tmp_path_factory.mktemp("real")
    spectra = folder / "spectra"
    convert_collection(DATA / "spectra" / "more_spectra.parquet", spectra / "mmu")
    for survey in ("sdss", "desi", "lamost"):
        (spectra / survey).symlink_to(DATA / "spectra" / survey)
    objects = write_real_table(
        spectra, DATA / "filters", folder / "photometry.csv", folder / "truth.csv", magnitude=20.0
    )
    ingest_photometry([UPath(folder / "photometry.csv")], UPath(folder / "photometry"))
    result = run_and_publish(
        RunConfig(
            photometry=str(folder / "photometry"),
            out=str(folder / "out"),
            engine="serial",
            truth=str(folder / "truth.csv"),
        ),
        report=True,
    )
    quality = json.loads((result.run / "report" / "quality.json").read_text())
    return len(objects.spectra), result, Validation.model_validate(quality["truth"]).all


def test_every_usable_spectrum_becomes_a_row_of_a_whole_catalogue(judged):
    count, result, _ = judged
    assert count > 900
    assert result.record.rows_out == count
    assert list(verify(result.out)) == []


def test_classes_of_real_objects_are_right(judged):
    assert judged[2].classification.f1_weighted.value > 0.93


def test_redshifts_of_real_galaxies_and_quasars_are_right(judged):
    scores = {(r.objects, r.given, r.selection): r.scores for r in judged[2].redshifts}
    galaxies, quasars = (scores[name, "true class", "all"] for name in ("GALAXY", "QSO"))
    assert galaxies.sigma_nmad.value < 0.006
    assert galaxies.outliers_15.value < 0.03
    assert quasars.sigma_nmad.value < 0.006
    assert quasars.outliers_15.value < 0.10


def test_widths_of_strong_lines_of_real_galaxies_follow_their_spectra(judged):
    widths = {label.name: label for label in judged[2].labels if label.selection == "EW > 3 Å"}
    assert widths["ew_halpha"].n > 80
    assert widths["ew_halpha"].r2.value > 0.4


def test_every_object_is_written_down_with_its_answer(judged):
    count, result, _ = judged
    rows = (result.run / "report" / "objects.csv").read_text().splitlines()
    assert len(rows) == count + 1
