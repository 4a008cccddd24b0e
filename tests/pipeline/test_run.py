"""A run from plan to publication: what is done again, what is not, and what a failure leaves."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline import run as survey_run
from ojala.pipeline.inference.adapters.base import ModelAdapter
from ojala.pipeline.inference.process import receipt_path
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs import resolved
from ojala.pipeline.runs.config import ConfigError, RunConfig, read_config
from ojala.pipeline.runs.plan import rows_per_second
from ojala.pipeline.runs.receipts import all_receipts
from ojala.pipeline.runs.record import Status, read_record
from ojala.pipeline.runs.releases import pointers
from tests.helpers.survey import ingest_table, photometry_table, plan_run, replace, run_and_publish

pytestmark = pytest.mark.integration


def data(run, product="ojala"):
    """Columns of all leaves by name."""
    leaves = sorted((run / product / "dataset").rglob("Npix=*.parquet"), key=str)
    return {leaf.name: pq.ParquetFile(leaf.path).read() for leaf in leaves}


def test_rows_out_are_rows_in_per_partition(finished):
    receipts = all_receipts(finished.run)
    assert len(receipts) == len(finished.plan.entries) > 3
    assert all(receipt.rows_in == receipt.rows_out for receipt in receipts)
    assert finished.record.rows_in == finished.record.rows_out == 300


def test_a_plan_writes_nothing(config):
    plan = plan_run(config)
    assert (len(plan.to_do), plan.rows_to_do) == (len(plan.entries), 300)
    assert not UPath(config.out).exists()


def test_a_finished_run_leaves_nothing_to_do(finished):
    plan = plan_run(finished.config)
    assert plan.run_id == finished.plan.run_id
    assert plan.to_do == []


def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(config, finished):
    plan = plan_run(config)
    survey_run.begin(plan)
    receipts = survey_run.execute(plan)
    first = next(receipts)
    receipts.close()

    again = plan_run(config)
    assert again.run_id == plan.run_id
    assert again.states() == {"done": 1, "missing": len(plan.entries) - 1}
    result = run_and_publish(config)
    assert result.record.status == Status.COMPLETE
    untouched = Receipt.model_validate_json(
        receipt_path(result.run, next(e.partition for e in plan.entries)).read_bytes()
    )
    assert untouched == first, "what was done is not done again"
    assert data(result.run) == data(finished.run)


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"precision": "bf16"}, "stale: configuration"), ({"vectors": True}, "stale: configuration, contract")],
)
def test_changed_numbers_make_partitions_of_an_unfinished_run_stale(config, changes, why):
    plan = plan_run(config)
    survey_run.begin(plan)
    receipts = survey_run.execute(plan)
    next(receipts)
    receipts.close()
    states = plan_run(config.model_copy(update=changes)).states()
    assert states == {why: 1, "missing": len(plan.entries) - 1}


def test_other_weights_or_other_code_make_what_was_done_stale_and_say_which(config, tmp_path, monkeypatch):
    weights = tmp_path / "base.safetensors"
    shutil.copy(
        RunConfig.model_validate(config.model_dump() | {"model": "ojala", "weights": ""}).weights, weights
    )
    asked = config.model_copy(update={"model": "ojala", "weights": str(weights)})
    plan = plan_run(asked)
    survey_run.begin(plan)
    receipts = survey_run.execute(plan)
    assert next(receipts).status == "done"
    receipts.close()
    left = len(plan.entries) - 1
    assert plan_run(asked).states() == {"done": 1, "missing": left}
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert plan_run(asked).states() == {"stale: weights": 1, "missing": left}
    weights.write_bytes(content)
    monkeypatch.setattr(ModelAdapter, "code_version", "0.0.1+another")
    resolved._resolve.cache_clear()
    assert plan_run(asked).states() == {"stale: code": 1, "missing": left}


def test_workers_and_engine_do_not_make_anything_stale(finished):
    assert plan_run(finished.config.model_copy(update={"workers": 7, "engine": "local"})).to_do == []


def test_a_finished_run_is_not_written_to_again(config):
    first = run_and_publish(config)
    second = run_and_publish(config.model_copy(update={"precision": "bf16"}))
    assert second.plan.run_id != first.plan.run_id
    assert read_record(first.run).status == Status.COMPLETE
    assert list(verify(first.run)) == []
    assert pointers(first.out) == {"ojala": second.plan.run_id}


def test_a_changed_input_leaf_makes_its_partition_stale(tmp_path):
    table = photometry_table(300)
    survey = ingest_table(table, tmp_path / "one")
    config = RunConfig(photometry=str(survey), out=str(tmp_path / "out"), model="empty", engine="serial")
    plan = plan_run(config)
    survey_run.begin(plan)
    for _ in survey_run.execute(plan):
        pass
    changed = replace(table, "flux_isdss", 5, 1.0)
    other = config.model_copy(update={"photometry": str(ingest_table(changed, tmp_path / "two"))})
    states = plan_run(other).states()
    assert states == {"done": len(plan.entries) - 1, "stale: input": 1}


def test_a_damaged_leaf_of_an_unfinished_run_is_done_again(config, finished):
    plan = plan_run(config)
    survey_run.begin(plan)
    for _ in survey_run.execute(plan):
        pass
    run = UPath(config.out) / "runs" / plan.run_id
    leaf = run / "ojala" / plan.entries[0].partition.leaf
    leaf.write_bytes(leaf.read_bytes()[:-100])
    receipt_path(run, plan.entries[1].partition).write_bytes(b"{")
    assert plan_run(config).states() == {"damaged": 2, "done": len(plan.entries) - 2}
    assert data(run_and_publish(config).run) == data(finished.run)


def test_a_failed_partition_leaves_the_run_incomplete_and_unpublished(config, photometry, tmp_path):
    broken = UPath(tmp_path / "broken")
    shutil.copytree(photometry.path, broken.path)
    leaf = next(iter(sorted(broken.rglob("Npix=*.parquet"), key=str)))
    whole = leaf.read_bytes()
    leaf.write_bytes(whole[:5000])
    config = config.model_copy(update={"photometry": str(broken)})
    result = run_and_publish(config)
    assert result.record.status == Status.INCOMPLETE
    assert len(result.record.failed) == 1
    assert not (result.out / "collection.properties").exists()
    assert not (result.run / "ojala" / "hats.properties").exists()
    with pytest.raises(ValueError, match="is not complete and cannot be published"):
        survey_run.publish(result.plan)
    assert "is incomplete" in str(next(iter(verify(result.run))))

    leaf.write_bytes(whole)
    assert plan_run(config).states()["failed"] == 1
    assert run_and_publish(config).record.status == Status.COMPLETE


def test_the_collection_is_published_last_and_names_the_run(finished):
    text = (finished.out / f"ojala-{finished.plan.run_id}.properties").read_text()
    assert f"hats_assn_join_table_url=runs/{finished.plan.run_id}/supplemental/ojala\n" in text
    assert pointers(finished.out) == dict.fromkeys(("ojala", "ojala_vectors"), finished.plan.run_id)


def test_leaves_tell_run_key_and_weights(finished):
    for receipt in all_receipts(finished.run):
        footer = pq.ParquetFile((finished.run / receipt.leaves[0].path).path).metadata.metadata
        assert footer[b"ojala.run_id"].decode() == finished.plan.run_id
        assert footer[b"ojala.key"].decode() == receipt.key
        assert footer[b"ojala.input_sha256"].decode() == receipt.ingredients.input_sha256
        assert footer[b"ojala.partition"].decode() == receipt.partition


def test_checksums_are_those_that_sha256sum_reads(finished):
    import subprocess

    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", "checksums.sha256"], cwd=finished.run.path, check=False
    )
    assert done.returncode == 0
    listed = {line.split("  ")[1] for line in (finished.run / "checksums.sha256").read_text().splitlines()}
    files = {f.relative_to(finished.run).as_posix() for f in finished.run.rglob("*") if f.is_file()}
    assert files - listed == {"run.json", "checksums.sha256"}


def test_the_table_of_partitions_says_where_every_partition_came_from(finished):
    table = pq.read_table((finished.run / "provenance" / "partitions.parquet").path)
    assert table.num_rows == len(finished.plan.entries)
    assert pa.compute.sum(table["rows_out"]).as_py() == 300
    assert set(table["status"].to_pylist()) == {"done"}
    assert table["input_sha256"].null_count == 0


def test_provenance_is_prov_json_with_the_run_its_inputs_and_outputs(finished):
    from prov.model import ProvDocument

    text = (finished.run / "provenance" / "prov.json").read_text()
    document = ProvDocument.deserialize(content=text)
    labels = {str(value) for record in document.get_records() for value in record.get_attribute("prov:label")}
    assert {"photometry catalogue", "OJALA value-added catalogue", "OJALA vectors"} <= labels
    assert len(json.loads(text)["wasGeneratedBy"]) == 2
    assert json.loads(text)["wasAssociatedWith"]


def test_the_estimate_comes_from_earlier_runs(config, finished):
    assert rows_per_second(plan_run(config)) == 0.0
    expected = finished.record.rows_per_worker_second * finished.config.workers
    assert rows_per_second(finished.plan) == pytest.approx(expected)


def test_a_report_is_made(finished):
    assert "<html" in (finished.run / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model = 'other'",
            "model: there is no model 'other': choose from ojala, ojala-published, ojala-published-bias",
        ),
        ("modell = 'ojala'", "modell: Extra inputs are not permitted"),
        ("workers = 0", "workers: Input should be greater than or equal to 1"),
        ("workers = ", "Invalid value"),
    ],
)
def test_a_configuration_that_is_not_understood_is_refused(tmp_path, text, message):
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(file, {"photometry": "p", "out": "o"})
    assert str(file) in str(caught.value)


def test_flags_override_the_file(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("photometry = 'a'\nout = 'b'\nworkers = 3\nvectors = true\n")
    config = read_config(file, {"photometry": "c", "out": None, "workers": None})
    assert (config.photometry, config.out, config.workers, config.vectors) == ("c", "b", 3, True)
