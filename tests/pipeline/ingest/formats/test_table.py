"""Files are opened as they are; what cannot be read twice is refused before it blocks."""

import os

import pytest
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.detect import open_table
from ojala.pipeline.ingest.surveys.detect import detect_kind


def test_a_pipe_without_a_writer_is_refused_at_once(tmp_path):
    """Found as an ingest that waited for ever."""
    pipe = UPath(tmp_path / "night.csv")
    os.mkfifo(pipe.path)
    with pytest.raises(SourceError, match="is a pipe or a device"), open_table(pipe, UPath(tmp_path)):
        pass
    with pytest.raises(SourceError, match="is a pipe or a device"):
        detect_kind(pipe)


def test_a_device_is_refused(tmp_path):
    with (
        pytest.raises(SourceError, match="is a pipe or a device"),
        open_table(UPath("/dev/zero"), UPath(tmp_path)),
    ):
        pass
