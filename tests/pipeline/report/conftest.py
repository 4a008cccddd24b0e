import json

import pytest

from pipeline.report import write_report
from tests.pipeline.report.small_run import FACTS, Reported, SmallRun, make_run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """1,200 objects on 3 square degrees, in partitions of order 6, with a truth of two samples. Read only."""
    return make_run(tmp_path_factory.mktemp("small_run"))


@pytest.fixture(scope="session")
def reported(small_run: SmallRun) -> Reported:
    """The page of that run with its truth, and the numbers beside it."""
    page = write_report(small_run.run, small_run.photometry, small_run.receipts, FACTS, small_run.truth)
    objects = (page.parent / "objects.csv").read_text()
    return Reported(page.read_text(), json.loads((page.parent / "quality.json").read_text()), objects)
