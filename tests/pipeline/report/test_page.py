import hashlib
import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.quality.validation.result import Validation
from ojala.pipeline.quality.validation.truth import TruthError
from ojala.pipeline.report.svg import draw
from ojala.pipeline.runs.provenance import read_checksums
from ojala.pipeline.runs.record import run_folder
from ojala.pipeline.runs.report_state import BEGIN, END, NOT_PUBLISHED, mark_report
from tests.pipeline.report.small_run import ROWS, RUN_ID, Reported, SmallRun, failed, report

pytestmark = pytest.mark.integration

ERROR = "OSError: disk full <script>alert(1)</script>"


class Page(HTMLParser):
    """Identifiers, references and unclosed tags of a page."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        values = dict(attrs)
        if "id" in values:
            self.ids.append(values["id"])
        self.links += [values[k] for k in ("href", "src", "xlink:href") if k in values]
        if tag == "svg":
            self.images.append(values)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def report_of(run: SmallRun, folder: Path, receipts: list[Receipt], truth: UPath | None) -> tuple[str, dict]:
    """The page and its numbers, of the same leaves with other receipts."""
    out = UPath(folder / "out")
    shutil.copytree(run.run / "ojala", run_folder(out, RUN_ID) / "ojala")
    made = report(out, run.photometry, receipts, truth)
    return (made / "index.html").read_text(), json.loads((made / "quality.json").read_text())


def test_the_page_needs_no_network_and_is_well_formed(reported: Reported) -> None:
    page = Page(reported.text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link.startswith(("#", "data:"))
        assert not link.startswith("#") or link[1:] in page.ids
    assert not re.search(r"url\((?!#)|@import|<script", reported.text)
    assert len(reported.text) < 2_000_000


def test_every_figure_says_in_words_what_it_shows(reported: Reported) -> None:
    page = Page(reported.text)
    assert len(page.images) == 20
    assert all(image["role"] == "img" and len(image["aria-label"] or "") > 20 for image in page.images)
    assert reported.text.count("<figcaption>") == 20


def test_machines_get_the_same_numbers(small_run: SmallRun, reported: Reported) -> None:
    text, numbers = reported.text, reported.numbers
    counts = {"in": ROWS, "out": ROWS, "computed": ROWS, "linked": 0, "equal": True}
    assert numbers["rows"] == counts | {"flagged": numbers["rows"]["flagged"]}
    assert numbers["classes"]["GALAXY"] == (small_run.class_given == "GALAXY").sum()
    assert numbers["rows_per_second"] == ROWS / 20.0
    assert numbers["truth"]["matched"] == 600
    assert numbers["truth"]["truth_without_catalogue"] == 1
    assert numbers["truth"]["catalogue_without_truth"] == 600
    assert list(numbers["truth"]["samples"]) == ["mock", "SDSS"]
    found = Validation.model_validate(numbers["truth"])
    weighted = found.all.classification.f1_weighted
    assert f"<b>{weighted.value:.3f} ± {weighted.error:.3f}</b>" in text
    galaxies = found.all.redshifts[0]
    assert (galaxies.objects, galaxies.given, galaxies.selection) == ("GALAXY", "true class", "all")
    sigma = galaxies.scores.sigma_nmad
    assert f'<td>{sigma.value:.4f}<small class="error">± {sigma.error:.4f}</small></td>' in text


def test_the_top_tells_the_gates_and_whether_the_run_is_published(reported: Reported, tmp_path: Path) -> None:
    top = reported.text[: reported.text.index('<dl class="cards">')]
    assert "Quality gates: not evaluated." in top
    assert f"{BEGIN}{NOT_PUBLISHED}{END}" in html.unescape(top)
    run = UPath(tmp_path)
    (run / "report").mkdir()
    (run / "report" / "index.html").write_text(reported.text)
    (run / "checksums.sha256").write_text(f"{'0' * 64}  report/index.html\n")
    mark_report(run, "Published as release DR1 <now>.")
    marked = (run / "report" / "index.html").read_bytes()
    assert f"{BEGIN}Published as release DR1 &lt;now&gt;.{END}" in marked.decode()
    assert read_checksums(run) == {"report/index.html": hashlib.sha256(marked).hexdigest()}


def test_a_whole_run_has_no_banner(reported: Reported) -> None:
    assert 'role="alert"' not in reported.text


@pytest.fixture(scope="module")
def losses(small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    """Page and numbers of a run with a failed partition, one that is a row short, and one without receipt."""
    lost, short, *others = small_run.receipts
    short = short.model_copy(update={"rows_out": short.rows_out - 1})
    receipts = [failed(lost, ERROR), short, *others[:-1]]
    return report_of(small_run, tmp_path_factory.mktemp("losses"), receipts, None)


def test_a_run_with_losses_names_them(small_run: SmallRun, losses: tuple[str, dict]) -> None:
    text, numbers = losses
    assert text.count('role="alert"') == 3
    assert numbers["rows"]["equal"] is False
    assert numbers["partitions"]["failures"] == {small_run.receipts[0].partition: ERROR}
    assert numbers["partitions"]["unequal"] == [small_run.receipts[1].partition]
    assert numbers["partitions"]["without_receipt"] == 1
    assert "OSError: disk full" in text


def test_texts_of_a_run_cannot_become_markup(losses: tuple[str, dict]) -> None:
    assert "<script" not in losses[0]
    assert "&lt;script&gt;" in losses[0]


def test_a_run_in_which_everything_failed_still_has_a_page(small_run: SmallRun, tmp_path: Path) -> None:
    receipts = [failed(receipt) for receipt in small_run.receipts]
    text, numbers = report_of(small_run, tmp_path, receipts, small_run.truth)
    assert numbers["rows"]["out"] == 0
    assert numbers["truth"]["matched"] == 0
    assert Page(text).open == []


def test_wrong_answers_are_listed_by_object_and_sample(small_run: SmallRun, reported: Reported) -> None:
    number = np.arange(1, ROWS + 1)
    mocks = (number % 2 == 0) & (number % 3 == 0)
    wrong = number[mocks & (small_run.true_class != small_run.class_given)]
    assert f"{len(wrong):,} in all" in reported.text
    assert any(f"<td>9611</td><td>{one}</td>" in reported.text for one in wrong)
    others = (number % 2 == 0) & (number % 3 != 0) & (small_run.true_class != small_run.class_given)
    assert f"{others.sum():,} in all; the first 60 are shown" in reported.text
    assert len(reported.objects.splitlines()) == 601


def test_a_malformed_truth_leaves_no_page_behind(small_run: SmallRun, tmp_path: Path) -> None:
    bad = UPath(tmp_path / "bad.csv")
    bad.write_text("tile_id,number,class\n1,1,STAR\n")
    with pytest.raises(TruthError, match=r"bad\.csv, column z: is missing"):
        report(UPath(tmp_path / "out"), small_run.photometry, small_run.receipts, bad)
    assert not (tmp_path / "out").exists()


def test_the_same_drawing_is_the_same_text() -> None:
    def paint(figure) -> None:
        figure.subplots().plot([1, 2], [3, 4])

    first, second = (draw("line", paint, (3, 2), 'a "line" & more', "A line.") for _ in range(2))
    assert first == second
    assert 'aria-label="a &quot;line&quot; &amp; more"' in first.svg
    assert 'id="line-' in first.svg
