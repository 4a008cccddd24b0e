"""Fixtures of the tests of ingests."""

import pytest
from upath import UPath


@pytest.fixture
def folder(tmp_path) -> UPath:
    return UPath(tmp_path)
