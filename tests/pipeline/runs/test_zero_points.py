"""Zero points that are off in one band of one tile stand out; the model's own errors do not."""

import csv
import io

import numpy as np
import pytest
from upath import UPath

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.receipt import Fingerprint, Receipt, Summary
from ojala.pipeline.inference.photometry import Photometry
from ojala.pipeline.inference.products.band_residuals import MAX_TILES, band_residuals, weighted_median
from ojala.pipeline.report.render import render
from ojala.pipeline.report.zero_points import zero_points_csv, zero_points_numbers, zero_points_section
from ojala.pipeline.runs.gates import GATES, GateLimits, RunEvidence
from ojala.pipeline.runs.zero_points import zero_points_of

BANDS = [band.name for band in MODEL_BANDS]
MOVED = BANDS.index("J0660")
OBJECTS = 2000


def tile(rng, objects=OBJECTS, moved=1.0):
    """Photometry of a tile as it would be predicted by a model that errs by 2 % in every band.

    The predictions' errors are half of what they should be, and one prediction in twenty is far off.
    """
    level = 10 ** (-0.4 * (rng.uniform(17.5, 22.5, objects)[:, None] - 23.9))
    true = level * (1.0 + 0.3 * rng.standard_normal((objects, len(BANDS)))).clip(0.2)
    error = np.hypot(0.6, 0.01 * true)
    spread = 0.06 * true
    bias = 1.0 + 0.02 * np.sin(np.arange(len(BANDS)))
    predicted = bias * true + spread * rng.standard_normal(true.shape)
    lost = rng.random(true.shape) < 0.05
    predicted[lost] *= rng.uniform(0.5, 1.5, lost.sum())
    flux = true + error * rng.standard_normal(true.shape)
    flux[:, MOVED] *= moved
    flux[rng.random(flux.shape) < 0.1] = np.nan
    return flux, error, predicted, 0.5 * spread


def receipt(partition, tiles, rng):
    """Receipt of a partition with some tiles, by number: objects and factor of the moved band."""
    parts = [tile(rng, *of) for of in tiles.values()]
    flux, error, predicted, its_error = (np.concatenate(one) for one in zip(*parts, strict=True))
    number = np.repeat(list(tiles), [len(part[0]) for part in parts])
    position = np.stack([10.0 + number, np.full(len(number), 40.0)], axis=1)
    photometry = Photometry(flux, error, np.zeros(len(flux)), np.isfinite(flux))
    residuals = band_residuals(number, position, photometry, predicted, its_error)
    summary = Summary(
        classes={}, expected={}, flags={}, flagged=0, redshifts={}, bands=[], band_residuals=residuals
    )
    fingerprint = Fingerprint(
        input_sha256="a", weights_sha256="b", config_sha256="c", code_version="1", contract_version="1"
    )
    return Receipt(
        partition=partition,
        status="done",
        key=fingerprint.key(),
        ingredients=fingerprint,
        model="ojala",
        rows_in=len(flux),
        rows_out=len(flux),
        leaves=[],
        summary=summary,
        attempts=[],
        device="cpu",
        seconds={},
        peak_rss=0,
    )


@pytest.fixture(scope="module")
def receipts():
    """Six tiles in three partitions; J0660 of tile 4 is 3 % too bright, and tile 3 lies in two partitions."""
    rng = np.random.default_rng(8)
    shares = [
        {1: (OBJECTS,), 2: (OBJECTS,), 3: (700,)},
        {3: (1300,), 4: (OBJECTS, 1.03)},
        {5: (OBJECTS,), 6: (OBJECTS,)},
    ]
    return [receipt(f"5/{k}", tiles, rng) for k, tiles in enumerate(shares)]


def judged(receipts):
    gate, limits = GATES["zero_points"], GateLimits()
    found = gate.check(RunEvidence(UPath("run"), None, receipts, {}, {}))
    warn, fail = limits.of(gate.name)
    return found, "fail" if found.value > fail else "warn" if found.value > warn else "pass"


def test_a_zero_point_moved_by_three_percent_stands_out_and_warns(receipts):
    found = zero_points_of(receipts)
    row = found.tiles.index("4")
    assert found.sigma[row, MOVED] > 5.0
    assert found.deviation[row, MOVED] == pytest.approx(0.03, abs=0.006)
    assert np.argwhere(found.beyond_chance).tolist() == [[row, MOVED]]
    finding, outcome = judged(receipts)
    assert outcome == "warn"
    assert "J0660 of tile 4: +" in finding.text


def test_tiles_of_an_untouched_survey_pass_though_the_model_errs(receipts):
    rng = np.random.default_rng(9)
    found = zero_points_of(untouched := [receipt("5/1", dict.fromkeys(range(1, 7), (OBJECTS,)), rng)])
    assert np.abs(found.median).max() > 0.015, "the model's error is seen"
    assert not found.beyond_chance.any()
    assert found.scatter < 1.15
    finding, outcome = judged(untouched)
    assert (outcome, finding.value) == ("pass", 0.0)
    assert not zero_points_of(receipts).beyond_chance[[0, 1, 2, 4, 5]].any()


def test_parts_of_a_tile_are_put_together(receipts):
    found = zero_points_of(receipts)
    assert found.tiles == ("1", "2", "3", "4", "5", "6")
    assert found.rows.tolist() == [OBJECTS] * 6
    assert found.position[2].tolist() == [13.0, 40.0]
    assert found.offset_err[2] == pytest.approx(found.offset_err[1], rel=0.2)


def test_the_reports_table_has_the_tile_first_with_its_sigma(receipts):
    found = zero_points_of(receipts)
    section = zero_points_section(found)
    first = section["rows"][0]
    assert (first["tile_id"], first["band"], first["others"]) == ("4", "J0660", ["J0660"])
    assert first["sigma"] > 5.0
    assert [row["others"] for row in section["rows"][1:]] == [[]] * 5
    page = render("zero_points.html.j2", {"section": section})
    assert page.count("<svg") == 2
    assert ">J0660<" in page
    cells = list(csv.DictReader(io.StringIO(zero_points_csv(found).decode())))
    assert len(cells) == 6 * len(BANDS)
    assert [(c["tile_id"], c["band"]) for c in cells if c["beyond_chance"] == "True"] == [("4", "J0660")]
    numbers = zero_points_numbers(found)
    assert [cell["band"] for cell in numbers["beyond_chance"]] == ["J0660"]
    assert numbers["bands"]["J0378"]["n"] > 5_000


def test_what_receipts_hold_is_bounded_and_few_objects_give_no_median():
    rng = np.random.default_rng(3)
    many = receipt("5/1", dict.fromkeys(range(MAX_TILES + 3), (40,)) | {99: (20,)}, rng)
    residuals = many.summary.band_residuals
    assert len(residuals) == MAX_TILES
    assert "99" not in residuals
    for of in residuals.values():
        assert [n >= 30 for n in of.n] == [offset is not None for offset in of.offset]
    assert len(many.model_dump_json(indent=1)) < 5_000 * MAX_TILES
    assert Receipt.model_validate_json(many.model_dump_json()) == many


def test_a_single_tile_or_no_bands_are_nothing_to_compare(receipts):
    one = [receipt("5/1", {1: (OBJECTS,)}, np.random.default_rng(1))]
    without = one[0].summary.model_copy(update={"band_residuals": {}})
    none = [one[0].model_copy(update={"summary": without})]
    for some in (one, none):
        finding, outcome = judged(some)
        assert outcome == "pass"
        assert "two tiles" in finding.text
    assert zero_points_of(none) is None
    assert zero_points_section(zero_points_of(one))["map"] is None


def test_the_weighted_median_is_where_half_of_the_weight_lies_below():
    values = np.array([[3.0, 1.0], [1.0, 2.0], [2.0, np.nan]])
    weights = np.array([[1.0, 1.0], [1.0, 5.0], [3.0, np.nan]])
    assert weighted_median(values, weights).tolist() == [2.0, 2.0]
