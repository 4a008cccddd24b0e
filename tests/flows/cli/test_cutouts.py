import json

import pytest
from typer.testing import CliRunner

from ojala.flows.cli.app import app
from tests.helpers import image_files

pytestmark = pytest.mark.integration


def test_images_become_a_catalogue_and_the_command_says_what_came_in(tmp_path):
    image_files.make_brick(tmp_path / "brick", "gr")
    objects = image_files.write_objects(tmp_path / "objects.csv", {"1": (50.0, 100.0), "2": (500.0, 100.0)})
    asked = ["cutouts", str(tmp_path / "brick"), "--objects", str(objects)]
    result = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "cutouts")])
    assert result.exit_code == 0, result.output
    assert "cut-outs of 1 of 2 objects from 1 images of the sky, in 1 partitions" in result.output
    assert "bands: 1 NONE, 1 gr" in result.output
    assert "1 NO_IMAGE, 1 NOT_COVERED, 1 BAND_MISSING" in result.output
    assert "is a map of nexp" in result.output
    facts = json.loads(CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "again"), "--json"]).output)
    assert (facts["objects"], facts["without_image"], facts["bands"]) == (2, 1, {"NONE": 1, "gr": 1})
    assert CliRunner().invoke(app, ["verify", str(tmp_path / "again")]).exit_code == 0


def test_what_is_not_understood_ends_with_an_error_and_nothing_made(tmp_path):
    objects = image_files.write_objects(tmp_path / "objects.csv", {"1": (50.0, 100.0)})
    asked = ["cutouts", str(objects), "--objects", str(objects), "--out", str(tmp_path / "cutouts")]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 3
    assert not (tmp_path / "cutouts").exists()
