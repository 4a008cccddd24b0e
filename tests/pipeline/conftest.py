import json

import pytest

from ojala.catalogs_schema.ojala import OJALA
from ojala.pipeline.quality.validation.predictions import predictions_for
from ojala.pipeline.quality.validation.truth import Matched, match_truth, read_truth
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.totals import totals_of
from tests.pipeline.report.small_run import Reported, SmallRun, make_run, report


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """1,200 objects on 3 square degrees, in partitions of order 6, with a truth of two samples. Read only."""
    return make_run(tmp_path_factory.mktemp("small_run"))


@pytest.fixture(scope="session")
def reported(small_run: SmallRun) -> Reported:
    """The page of that run with its truth, and the numbers beside it."""
    folder = report(small_run.out, small_run.photometry, small_run.receipts, small_run.truth)
    numbers = json.loads((folder / "quality.json").read_text())
    return Reported((folder / "index.html").read_text(), numbers, (folder / "objects.csv").read_text())


@pytest.fixture(scope="session")
def matched(small_run: SmallRun) -> Matched:
    """Answers of that run beside its truth."""
    truth = read_truth(small_run.truth)
    partitions = totals_of(small_run.receipts).partitions
    product, names = small_run.run / "ojala", OJALA.column_names
    answers = predictions_for(truth, product, small_run.photometry, partitions, names)
    return match_truth(truth, answers, catalogue_rows=1200)


@pytest.fixture
def config(photometry, tmp_path) -> RunConfig:
    """The empty model over the shared photometry, in this process, into a new collection."""
    return RunConfig(photometry=str(photometry), out=str(tmp_path / "out"), model="empty", engine="serial")
