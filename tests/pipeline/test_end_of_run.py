"""End of a run: the record comes first, and a failure after it does not touch the run."""

import json
import sys

import pytest
from upath import UPath

from ojala.pipeline import run as survey_run
from ojala.pipeline.ingest.spectra import ingest_spectra
from ojala.pipeline.quality.validation.locate import locate
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.config import ConfigError, RunConfig, read_config
from ojala.pipeline.runs.record import PENDING, Status, read_record
from ojala.pipeline.runs.releases import ReleaseError, only_product, pointers
from ojala.pipeline.runs.resolved import ResolvedRun, resolve_run
from ojala.pipeline.storage.hats import CatalogueError, read_leaves
from tests.helpers import spectra_files
from tests.helpers.survey import plan_run, run_and_publish


def broken(*args, **kwargs):
    raise KeyError("no such column")


def ended(config):
    """A run that has ended and was not published."""
    plan = plan_run(config)
    survey_run.begin(plan)
    for _ in survey_run.execute(plan):
        pass
    return plan, survey_run.finalise(plan)


def test_a_report_that_fails_is_stored_and_the_run_ends_and_is_published(config, monkeypatch):
    monkeypatch.setattr(survey_run, "write_report", broken)
    result = run_and_publish(config)
    assert result.record == read_record(result.run)
    assert (result.record.status, result.record.problems) == (
        Status.COMPLETE,
        {"report": "KeyError: 'no such column'"},
    )
    assert pointers(result.out) == {"ojala": result.plan.run_id}
    assert list(verify(result.out)) == []


@pytest.mark.parametrize("step", ["evaluate_gates", "write_checksums"])
def test_gates_or_checksums_that_fail_keep_a_run_from_being_published_until_repeated(
    config, monkeypatch, step
):
    monkeypatch.setattr(survey_run, "write_report", lambda *of_the_run: None)
    with monkeypatch.context() as broken_step:
        broken_step.setattr(survey_run, step, broken)
        plan, record = ended(config)
        assert (record.status, len(record.problems)) == (Status.COMPLETE, 1)
        with pytest.raises(ReleaseError, match=r"its assessment is not complete: .*: KeyError"):
            survey_run.publish(plan)
    assert plan_run(config).run_id == plan.run_id
    survey_run.publish(plan)
    assert read_record(plan.folder).problems == {}
    assert list(verify(plan.resolved.out)) == []


def test_the_record_is_written_before_gates_report_and_checksums(config, monkeypatch):
    states = []

    def look(run, record, *rest):
        kept = read_record(run.folder(record.run_id))
        states.append((kept.status, set(kept.problems.values())))

    monkeypatch.setattr(survey_run, "write_report", look)
    ended(config)
    assert states == [(Status.COMPLETE, {PENDING})]


opened: list[str] = []


def count_opened(event, args):
    if event == "open":
        opened.append(str(args[0]))


def test_weights_are_read_once_by_a_command_besides_its_workers(photometry, tmp_path, monkeypatch):
    monkeypatch.setattr(survey_run, "write_report", lambda *of_the_run: None)
    monkeypatch.setattr(survey_run, "run_tasks", lambda *tasks, **options: iter(()))
    source = RunConfig(photometry="p", out="o").weights
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(UPath(source).read_bytes())
    sys.addaudithook(count_opened)
    config = RunConfig(
        photometry=str(photometry), out=str(tmp_path / "out"), weights=str(weights), engine="serial"
    )
    resolve_run(config)  # the check of the request
    plan, record = ended(config)
    assert record.weights_sha256 == plan.resolved.weights_sha256
    assert opened.count(str(weights)) == 1
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert resolve_run(config) is not plan.resolved, "changed weights are read again"


def test_a_record_gives_back_the_resolved_run_without_reading_files(finished):
    again = ResolvedRun.from_record(finished.record)
    assert again == finished.plan.resolved


def test_a_record_of_an_earlier_version_is_read(finished):
    record = json.loads(finished.record.model_dump_json())
    for new in ("problems", "assets", "config_sha256"):
        del record[new]
    record |= {"mixture": record.pop("mixed_versions"), "atlas_sha256": "a" * 64}
    record["config"] |= {"gates.unanswered_warn": 0.2, "gates.of_the_past": 1.0}
    del record["config"]["gates.unclassified_warn"]
    read = type(finished.record).model_validate(record)
    assert read.assets == {"atlas": "a" * 64}
    assert RunConfig.from_record(read.config).gates.of("unclassified") == (0.2, 0.5)


@pytest.fixture(scope="module")
def spectra(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spectra")
    spectra_files.make_sdss(folder / "spec-1.fits", ra=150.0)
    ingest_spectra([UPath(folder / "spec-1.fits")], UPath(folder / "catalogue"), tile_rows=2)
    return UPath(folder / "catalogue")


def test_true_values_are_refused_before_the_run_of_a_model_that_they_cannot_judge(spectra, tmp_path):
    given = {"spectra": str(spectra), "out": str(tmp_path), "model": "specpt", "truth": "truth.csv"}
    with pytest.raises(ConfigError, match=r"model specpt .* true values .*: leave --truth out"):
        read_config(None, given)


def test_a_run_of_spectra_names_its_input_and_is_released_like_any(spectra, tmp_path):
    config = RunConfig(spectra=str(spectra), out=str(tmp_path / "out"), model="specpt", engine="serial")
    result = run_and_publish(config, report=True)
    assert (result.record.status, result.record.problems) == (Status.COMPLETE, {})
    document = json.loads((result.run / "provenance" / "prov.json").read_text())
    assert document["entity"]["ojala:spectra"]["prov:location"] == str(spectra)
    assert "photometry" not in str(document["entity"]["ojala:spectra"])
    assert "ojala:photometry" not in document["entity"]
    assert only_product(result.out) == "specpt"
    for place in (result.out, result.run, result.run / "specpt"):
        with pytest.raises(CatalogueError, match=r"true values (can )?judge"):
            locate(place)


def test_a_run_in_which_no_partition_succeeds_ends_incomplete(spectra, tmp_path):
    copy = tmp_path / "spectra"
    for file in spectra.rglob("*"):
        if file.is_file():
            target = copy / file.relative_to(spectra).as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    for partition in read_leaves(spectra):
        (copy / partition.leaf).write_bytes(b"PAR1")
    config = RunConfig(spectra=str(copy), out=str(tmp_path / "out"), model="specpt", engine="serial")
    result = run_and_publish(config, report=True)
    assert (result.record.status, result.record.problems) == (Status.INCOMPLETE, {})
    assert (result.run / "report" / "index.html").exists()
