"""The command `ojala validate` as a person uses it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ojala.flows.cli.app import app
from ojala.pipeline.quality.validation.result import Validation
from tests.helpers.survey import Finished

pytestmark = pytest.mark.integration


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    path = tmp_path / "truth.csv"
    rows = [f"7,{number},GALAXY,0.{number % 9 + 1},{18 + number % 4}" for number in range(1, 101)]
    path.write_text("\n".join(["tile_id,number,class,z,i_mag", *rows, "7,99999,STAR,,20"]) + "\n")
    return path


def validate(*arguments: object):
    return CliRunner().invoke(app, ["validate", *map(str, arguments)])


def test_collection_run_and_product_are_the_same_catalogue(finished: Finished, truth: Path) -> None:
    found = [
        Validation.model_validate_json(validate(place, "--truth", truth, "--json").stdout)
        for place in (finished.out, finished.run, finished.run / "ojala")
    ]
    assert found[0] == found[1] == found[2]
    assert found[0].truth_without_catalogue == 1
    assert found[0].matched + found[0].truth_without_catalogue == found[0].truth_rows == 101
    assert found[0].magnitudes == "truth"


def test_a_page_its_numbers_and_its_objects_are_written_on_request(
    finished: Finished, truth: Path, tmp_path: Path
) -> None:
    out = tmp_path / "validation"
    done = validate(finished.out, "--truth", truth, "--out", out)
    assert done.exit_code == 0, done.output
    assert "100 objects are in both" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "objects.csv", "validation.json"]
    assert Validation.model_validate_json((out / "validation.json").read_text()).matched == 100
    assert len((out / "objects.csv").read_text().splitlines()) == 101
    assert "Validation of" in (out / "index.html").read_text()


def test_magnitudes_come_from_the_photometry_that_the_run_names(finished: Finished, tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("tile_id,number,class,z\n7,1,GALAXY,0.5\n")
    found = json.loads(validate(finished.run, "--truth", path, "--json").stdout)
    assert found["magnitudes"] == "photometry"
    assert found["all"]["classes_by_magnitude"][0]["interval"]["middle"] > 10
    gone = validate(finished.run, "--truth", path, "--photometry", tmp_path / "none")
    assert gone.exit_code == 3
    assert "there is no catalogue at" in gone.output


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("tile_id,number,class,z\n7,1,AGN,0.5\n", "row 1, column class: 'AGN' is none of"),
        ("tile_id,number,class,z\n7,1,STAR,\n7,1,STAR,\n", "rows 1 and 2 are the same object"),
        ("tile_id,number,class,z,left_out\n7,1,STAR,,2\n", "row 1, column left_out: '2' is none of"),
        ("tile_id,number,class,z,log_mass\n7,1,STAR,,heavy\n", "column log_mass: 'heavy' is no number"),
        ("tile_id,number,class,z\n8,1,STAR,\n", "none of its rows is an object of"),
    ],
)
def test_a_truth_that_cannot_be_used_is_refused_with_row_and_column(
    finished: Finished, tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "truth.csv"
    path.write_text(text)
    done = validate(finished.out, "--truth", path)
    assert done.exit_code == 3
    assert complaint in done.output
    assert str(path) in done.output


def test_what_is_no_catalogue_is_refused(tmp_path: Path, truth: Path) -> None:
    done = validate(tmp_path, "--truth", truth)
    assert done.exit_code == 3
    assert "is neither a collection, a run nor a catalogue" in done.output
