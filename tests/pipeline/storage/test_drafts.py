"""Drafts beside the place of a file: complete or not there, and nothing of a killed process stays."""

import pytest

from ojala.pipeline.storage.drafts import draft, locked_folder


def test_a_file_or_a_folder_takes_its_place_at_the_end(tmp_path):
    file, folder = tmp_path / "new" / "table.csv", tmp_path / "site"
    with draft(file) as path:
        path.write_text("rows")
        assert path.suffix == ".csv"
        assert not file.exists()
    with draft(folder) as path:
        path.mkdir()
        (path / "index.html").touch()
    assert file.read_text() == "rows"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["index.html", "new", "site", "table.csv"]


def test_after_an_error_nothing_is_left_and_the_older_file_stays(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("old")

    def write_half():
        with draft(file) as path:
            path.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert [*tmp_path.iterdir()] == [file]
    assert file.read_text() == "old"


def test_drafts_of_killed_processes_are_removed_and_those_of_living_ones_are_not(tmp_path):
    dead, empty, living, other = (tmp_path / f".table.csv.{name}" for name in ("dead", "e0", "f0", "notes"))
    empty.mkdir()
    other.mkdir()
    dead.mkdir()
    (dead / "owner").touch()
    (dead / "table.csv").write_text("half")
    with locked_folder(living), draft(tmp_path / "table.csv") as path:
        path.write_text("rows")
    assert sorted(tmp_path.iterdir()) == [living, other, tmp_path / "table.csv"]
