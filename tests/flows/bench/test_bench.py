"""The benchmark: that it runs, and that its arithmetic holds. How fast anything is, is not tested."""

import json
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import torch

from ojala.flows import bench as bench_module
from ojala.flows.bench import Sizes, bench, machine
from ojala.flows.bench import _measure_network as measure_network
from ojala.flows.bench import flow as bench_flow
from ojala.flows.bench import network as bench_network
from ojala.flows.bench.agreement import DoublePrecisionPredictor, agreement, catalogue
from ojala.flows.bench.flow import survey
from ojala.flows.bench.machine import flops_of, multiply
from ojala.flows.bench.network import batches, leaves_of, one_request_at_a_time, published_network
from ojala.flows.bench.process_pool import ProcessPool
from ojala.flows.bench.report import MedianRange, ratios_of, read_page, roofline, write_page
from ojala.models.ojala.checkpoint import save
from ojala.models.ojala.network import PRESETS, Ojala
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.ojala_published.inputs import INPUTS
from ojala.pipeline.inference.process import peak_memory

pytestmark = [pytest.mark.integration, pytest.mark.processor]

TINY = Sizes(
    repeats=1,
    minutes=60.0,
    rows=128,
    tile_rows=64,
    network_rows=128,
    published_rows=128,
    small_rows=120,
    spectra=1,
    seconds=0.0,
    file_bytes=1 << 20,
    memory_rows=(),
)


class OwnProcess:
    """In place of a `ProcessPool`, this process."""

    def rate(self, work, *arguments):
        done, seconds = work(*arguments)
        return done / seconds

    def one(self, act, *arguments):
        return act(*arguments)


@pytest.fixture(scope="module")
def report():
    """The benchmark in this process, as each of its own takes seconds to import and to load the weights.

    Bands, which cost several times as much, have a test of their own, as `ProcessPool` has.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_network, "predicts_bands", lambda: False)
        patch.setattr(bench_module, "ProcessPool", lambda workers: nullcontext(OwnProcess()))
        patch.setattr(machine, "COPY_BYTES", 1 << 24)
        patch.setattr(machine, "SQUARES", (256,))
        patch.setattr(bench_flow, "config", partial(bench_flow.config, engine="serial"))
        return bench(TINY, workers=1)


def test_everything_that_was_measured_is_a_positive_number(report):
    def numbers(part):
        if isinstance(part, dict):
            return [n for value in part.values() for n in numbers(value)]
        if isinstance(part, list):
            return [n for value in part for n in numbers(value)]
        return [part] if isinstance(part, float) else []

    found = json.loads(json.dumps(asdict(report)))
    found["device"].pop("load")
    assert len(numbers(found)) > 80
    assert min(numbers(found)) > 0


def test_the_flow_did_all_rows_in_all_partitions(report):
    assert (report.flow.rows, report.flow.workers) == (TINY.rows, 1)
    assert report.flow.partitions >= 2
    assert set(report.flow.stages) >= {"read", "predict", "derive", "write"}


def test_the_cost_of_bands_is_stated_where_the_weights_can_be_asked_for_them(report, monkeypatch, tmp_path):
    network = report.network
    assert network.predict_with_bands == {}
    assert "these weights cannot be asked for bands" in report.table()
    model = Ojala(replace(PRESETS["base"], width=32, encoder=((2, 32),), decoder=((2, 32),), trunk=(32,)))
    weights = tmp_path / "small.safetensors"
    save(weights, model, name="small", version="1", training={})
    small = OjalaPredictor.load(weights, batch_size=16)
    monkeypatch.setattr(bench_network, "predictor", lambda precision: small)
    assert bench_network.predicts_bands()
    root = str(survey(tmp_path / "sky", 64, 64))
    turns = defaultdict(list)
    measure_network(OwnProcess(), root, replace(TINY, network_rows=32, published_rows=64), turns)
    predict, bands = (MedianRange.from_values(turns[f"{what} fp32"]) for what in ("predict", "bands"))
    assert bands.median < predict.median
    asked = replace(network, predict={"fp32": predict}, predict_with_bands={"fp32": bands})
    flow = replace(report.flow, precision="fp32")
    ratios = ratios_of(asked, report.machine, flow)
    expected = predict.median / bands.median
    assert ratios["predictor fp32 without bands / with bands"] == pytest.approx(expected)
    table = replace(report, network=asked, ratios=ratios).table()
    assert "| predictor fp32, with bands |" in table
    assert "these weights cannot be asked for bands" not in table


def test_models_of_spectra_are_held_against_the_matrix_rate(report):
    assert report.spectra.keys() == {"specpt", "spectral-tokenizer"}
    for model in report.spectra.values():
        assert model.flops > 1e8
        for precision, limit in model.roofline.items():
            assert limit == report.machine.matrix[precision].median / model.flops


def test_ratios_are_those_of_the_medians(report):
    bare = report.network.forward[report.flow.precision].median
    assert report.ratios["flow / bare network"] == pytest.approx(report.flow.rate.median / bare)
    twice = replace(report.flow, rate=MedianRange.from_values([2.0 * bare]))
    ratios = ratios_of(report.network, report.machine, twice)
    assert ratios["flow / bare network"] == pytest.approx(2.0)
    assert ratios["flow / published network in its authors' way"] == pytest.approx(
        2.0 * ratios["bare network / published network in its authors' way"]
    )
    alone = report.network.published.median / report.network.reference.median
    assert ratios["published network / its authors' way of serving"] == pytest.approx(alone)


def test_the_table_names_every_ratio(report):
    table = report.table()
    for name in report.ratios:
        assert f"| {name} |" in table


def test_a_page_has_a_column_for_each_kind_of_machine(report, tmp_path):
    page = tmp_path / "bench.md"
    assert read_page(page) == []
    write_page(page, [], report)
    other = replace(report, device=replace(report.device, processor="Other", bf16=not report.device.bf16))
    write_page(page, read_page(page), other)
    write_page(page, read_page(page), replace(report, turns=7))
    assert read_page(page) == [other, replace(report, turns=7)], "the same kind is replaced"
    text = page.read_text()
    assert f"| rate | {other.device.kind} | {report.device.kind} |" in text
    assert "Skipped: memory of workers" in text


@pytest.mark.parametrize(("name", "content"), [("bench.txt", None), ("bench.md", "[{}]")])
def test_a_page_that_cannot_be_continued_is_refused(tmp_path, name, content):
    if content:
        (tmp_path / "bench.json").write_text(content)
    with pytest.raises(ValueError, match=r"bench\.(txt: tables|json: not measurements)"):
        read_page(tmp_path / name)


def test_the_network_s_operations_are_those_of_its_shape(report, tmp_path):
    """Counted by hand: four encoder blocks, keys and values, two passes of the decoder, trunk and heads.

    The encoder's products with weights are of valid tokens alone.
    """
    d, ff, slots, asked = 128, 512, 64, 15
    valid = (
        batches(str(survey(tmp_path / "sky", TINY.rows, TINY.tile_rows)), 128, 128)[0]
        .valid.sum(dim=1)
        .float()
        .mean()
        .item()
        + 1
    )
    block = valid * d * (4 * d + 2 * ff) + 2 * slots * slots * d
    ask = asked * d * (2 * d + 2 * ff) + 2 * asked * (slots + 1) * d
    memory = slots * d * 2 * d
    heads = asked * d * ff + ff * (3 + 2 * 1825 + 12 * 2)
    products = 4 * block + 2 * (memory + ask) + heads
    assert report.network.flops == pytest.approx(2 * products, rel=0.02)
    assert report.network.bytes_moved > report.network.bytes_least


def test_a_roofline_is_set_by_the_scarcer_of_arithmetic_and_memory():
    assert roofline(flops=100.0, least=1.0, matrix=1000.0, copy=1000.0) == 10.0
    assert roofline(flops=100.0, least=500.0, matrix=1000.0, copy=1000.0) == 2.0


def test_a_product_of_matrices_is_two_operations_for_each_of_its_terms():
    shapes = {(2, 3, 5): 7, (1, 1, 1): 1}
    assert flops_of(shapes) == 2 * 30 * 7 + 2
    done, seconds = multiply(shapes, "bf16", 0.0)
    assert done >= flops_of(shapes)
    assert seconds > 0


def test_the_authors_way_gives_the_same_answers():
    """Also where inputs are missing, which their mask hides from the others and from the requests."""
    values = torch.from_numpy(np.random.default_rng(1).normal(1.0, 1.0, (8, len(INPUTS))).astype(np.float32))
    values[1, ::2] = torch.nan
    values[2] = torch.nan
    with torch.inference_mode():
        together = published_network()(values)["mean"]
    alone = one_request_at_a_time(published_network(), values)
    np.testing.assert_allclose(alone.numpy(), together.numpy(), atol=5e-5)


def test_members_of_a_team_work_at_the_same_time_and_errors_are_heard():
    with ProcessPool(1) as pool:
        assert pool.all(peak_memory)[0] > 0
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            pool.all(divmod, 1, 0)
        assert pool.one(divmod, 7, 2) == (3, 1)


def test_bf16_moves_no_quantity_by_a_tenth_of_its_error_in_most_rows(tmp_path):
    """On eighty objects of the mock sky; ``flows/bench/BENCHMARK.md`` has the tails over many more."""
    sky = leaves_of(str(survey(tmp_path / "sky", 80, 80)))
    exact = catalogue(sky, DoublePrecisionPredictor.load())
    found = agreement(catalogue(sky, OjalaPredictor.load(precision="bf16")), exact)
    assert found.rows == 80
    assert found.other_class <= 1
    of_error = {one.column: one.median for one in found.columns if one.of_error}
    assert {"z", "log_mass", "teff", "ew_halpha", "log_mbh"} <= set(of_error)
    assert max(of_error.values()) < 0.1
    single = agreement(catalogue(sky, OjalaPredictor.load(precision="fp32")), exact)
    assert max(one.median for one in single.columns if one.of_error) < 1e-3
