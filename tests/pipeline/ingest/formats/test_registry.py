"""A format is one module and one entry of the registry."""

import sys
from contextlib import contextmanager
from types import ModuleType

import pyarrow as pa
import pytest
from upath import UPath

from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.formats import FORMATS
from ojala.pipeline.ingest.formats.table import SourceColumn, TableSource, by_lower_case
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.storage.hats import read_leaves

TEXT = "LINES\nTILE_ID NUMBER RA DEC FLUX_J0660\n1 1 10.0 2.0 3.5\n1 2 10.1 2.1 4.5\n"


@pytest.fixture
def lines(monkeypatch):
    """A format whose rows are words on lines below a magic word."""
    module = ModuleType("ojala.pipeline.ingest.formats.lines")

    @contextmanager
    def open_table(path, scratch):
        _, header, *rows = (line.split() for line in path.read_text().splitlines())
        columns = by_lower_case(SourceColumn(name) for name in header)

        def batches(wanted):
            cells = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
            yield pa.RecordBatch.from_arrays([pa.array(cells[name]) for name in wanted], list(wanted))

        yield TableSource(columns, batches)

    module.matches = lambda head: head.startswith(b"LINES")
    module.open_table = open_table
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entries = {"Lines": "lines", **FORMATS}
    monkeypatch.setattr("ojala.pipeline.ingest.formats.detect.FORMATS", entries)


def test_a_registered_format_is_ingested(lines, tmp_path):
    file = UPath(tmp_path / "a.txt")
    file.write_text(TEXT)
    summary = ingest_photometry([file], UPath(tmp_path / "out"))
    assert (summary.rows, summary.inputs[0].form, summary.bands) == (2, "Lines", ("J0660",))
    assert sum(leaf.rows for leaf in read_leaves(UPath(tmp_path / "out")).values()) == 2
    file.write_text(TEXT.replace("4.5", "bright"))
    with pytest.raises(IngestError, match=r"a\.txt, row 2, column FLUX_J0660: 'bright' is no number"):
        ingest_photometry([file], UPath(tmp_path / "again"))


def test_a_format_that_is_not_registered_is_refused(tmp_path):
    file = UPath(tmp_path / "a.bin")
    file.write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(IngestError, match=r"a\.bin is none of Parquet, FITS, VOTable or CSV"):
        ingest_photometry([file], UPath(tmp_path / "out"))
