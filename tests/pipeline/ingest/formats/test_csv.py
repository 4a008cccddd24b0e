"""CSV as the archive writes it."""

from pathlib import Path

import pytest
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.csv import open_table

ARCHIVE = Path(__file__).parents[4].parent / "shared" / "data" / "jpas"


def read(path: UPath, *wanted: str) -> list[dict]:
    with open_table(path, UPath("unused")) as source:
        return [row for batch in source.batches(wanted) for row in batch.to_pylist()]


@pytest.mark.skipif(not ARCHIVE.exists(), reason="real archive tables are not part of the project")
def test_a_real_table_of_the_archive_is_read():
    path = UPath(ARCHIVE / "minijpas.TileImage.csv")
    with open_table(path, UPath("unused")) as source:
        assert source.notes == {"select": "* FROM minijpas.TileImage"}
        assert source.columns["zpt"].name == "ZPT"
    rows = read(path, "name", "observation_dates")
    assert len(rows) == len(path.read_text().splitlines()) - 2
    assert rows[0]["name"] == "AEGIS002-v201912_J0500_swp"
    assert rows[0]["observation_dates"].split()[0] == "20180803224739"


@pytest.mark.parametrize(
    "content",
    [
        b"A,B\n1,2 3\n4,5 6\n",
        b'\xef\xbb\xbf#SELECT a, b FROM t\n"A","B"\n"1","2 3"\n"4","5 6"\n',
        b"#SELECT *\r\n#COMMENT\r\n A , B \r\n1,2 3\r\n4,5 6\r\n",
        b"\nA,B\n1,2 3\n\n4,5 6\n\n",
    ],
    ids=["plain", "quoted", "Windows", "blank lines"],
)
def test_dialects_are_understood(content, tmp_path):
    path = UPath(tmp_path / "a.csv")
    path.write_bytes(content)
    assert read(path, "b", "a") == [{"b": "2 3", "a": "1"}, {"b": "5 6", "a": "4"}]


def test_a_cell_may_hold_a_line_end(tmp_path):
    path = UPath(tmp_path / "a.csv")
    path.write_text('A,B\n1,"2\n3"\n')
    assert read(path, "b") == [{"b": "2\n3"}]


def test_rows_are_counted_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("ojala.pipeline.ingest.formats.csv.BLOCK_BYTES", 64)
    path = UPath(tmp_path / "a.csv")
    path.write_text("A,B\n" + "1,2\n" * 1000 + "3\n" + "4,5\n" * 10)
    with pytest.raises(SourceError, match="row 1001: has 1 cells, expected 2"):
        read(path, "a")


def test_a_quote_left_open_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ojala.pipeline.ingest.formats.csv.BLOCK_BYTES", 64)
    path = UPath(tmp_path / "a.csv")
    path.write_text("A,B\n" + "1,2\n" * 1000 + '3,"4\n' + "4,5\n" * 100)
    with pytest.raises(SourceError, match="is a quote left open"):
        read(path, "a")
