import json

import pytest
from typer.testing import CliRunner

from ojala.flows.cli.app import app
from tests.helpers import spectra_files

pytestmark = pytest.mark.integration


def test_spectra_become_a_catalogue_and_the_command_says_what_came_in(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    spectra_files.make_desi(folder / "coadd.fits")
    spectra_files.make_redrock(folder / "redrock.fits")
    (folder / "README").write_text("spectra")
    result = CliRunner().invoke(app, ["spectra", str(folder), "--out", str(tmp_path / "spectra")])
    assert result.exit_code == 0, result.output
    assert "2 spectra of 2 objects" in result.output
    assert "DESI: 1 GALAXY, 1 STAR" in result.output
    assert "README holds no spectra that are known here" in result.output
    again = ["spectra", str(folder), "--out", str(tmp_path / "again"), "--json"]
    facts = json.loads(CliRunner().invoke(app, again).output)
    assert (facts["spectra"], facts["partitions"]) == (2, 1)
    assert facts["counts"] == {"DESI": {"GALAXY": 1, "STAR": 1}}


def test_what_is_not_understood_ends_with_an_error_and_nothing_made(tmp_path):
    (tmp_path / "README").write_text("spectra")
    result = CliRunner().invoke(
        app, ["spectra", str(tmp_path / "README"), "--out", str(tmp_path / "spectra")]
    )
    assert result.exit_code == 3
    assert not (tmp_path / "spectra").exists()
