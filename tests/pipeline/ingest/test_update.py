"""A survey grows by tiles: in whatever steps, it has the leaves of one ingest; readers keep their release."""

import hashlib

import lsdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from upath import UPath

from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.fetched import add_fetched, new_files
from ojala.pipeline.ingest.lineage import release_before, withdrawn_rows
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.ingest.update import roll_back, update_photometry
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.coverage import find_loss
from ojala.pipeline.runs.diff import read_difference
from ojala.pipeline.storage.hats import current_release, read_counts, read_leaves, survey_of
from tests.helpers.commands import here
from tests.helpers.survey import photometry_table, plan_run, run_and_publish, without_report

pytestmark = pytest.mark.integration

TILE_ROWS = 30
OBJECTS = 120


def tile(number: int, rows: int = 60, seed: int | None = None) -> pa.Table:
    """A tile of the survey: 0.5 degrees beside the one before."""
    table = photometry_table(rows, seed=number if seed is None else seed, tile_id=number)
    ra = pa.array(table["ra"].to_numpy() / 4 + 180.0 + 0.5 * number)
    return table.set_column(table.schema.get_field_index("ra"), "ra", ra)


def write(folder, table: pa.Table, name: str) -> UPath:
    pq.write_table(table, f"{folder}/{name}.parquet")
    return UPath(f"{folder}/{name}.parquet")


def leaves(catalogue: UPath) -> dict[str, str]:
    """SHA-256 of each leaf as it is on the disk, by its path."""
    files = (UPath(catalogue) / "dataset").rglob("*.parquet")
    return {str(f.relative_to(catalogue)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def ingest_once(folder, tables: list[pa.Table], name: str = "once") -> UPath:
    file = write(folder, pa.concat_tables(tables), name)
    ingest_photometry([file], UPath(f"{folder}/{name}"), tile_rows=TILE_ROWS)
    return UPath(f"{folder}/{name}")


@pytest.fixture
def grown(tmp_path) -> UPath:
    """A catalogue of two tiles."""
    return ingest_once(tmp_path, [tile(1), tile(2)], "photometry")


@pytest.fixture(scope="module")
def survey() -> pa.Table:
    return pa.concat_tables([tile(number) for number in range(1, 3)])


@pytest.fixture(scope="module")
def at_once(survey, tmp_path_factory) -> UPath:
    return ingest_once(tmp_path_factory.mktemp("survey"), [survey])


@settings(max_examples=2, phases=[Phase.explicit, Phase.generate])
@given(seed=st.integers(0, 2**32 - 1))
def test_ten_steps_in_any_order_give_the_leaves_of_one_ingest(seed, survey, at_once, tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    order = np.random.default_rng(seed).permutation(OBJECTS)
    parts = [survey.take(pa.array(rows)) for rows in np.array_split(order, 10)]
    ingest_photometry([write(folder, parts[0], "0")], UPath(folder / "p"), tile_rows=TILE_ROWS)
    for number, part in enumerate(parts[1:], start=1):
        update_photometry(UPath(folder / "p"), [write(folder, part, str(number))], add=True)
    release = current_release(UPath(folder / "p"))
    assert leaves(release) == leaves(at_once)
    assert (read_counts(release) == read_counts(at_once)).all()
    assert list(read_leaves(release).items()) == [(p, leaf) for p, leaf in read_leaves(at_once).items()], (
        "rows, sizes and hashes, in order of the sky"
    )


def test_untouched_leaves_are_links_and_readers_keep_their_release(grown, tmp_path):
    before = current_release(grown)
    old = lsdb.open_catalog(before.path)
    summary = update_photometry(grown, [write(tmp_path, tile(9), "night")], add=True)
    assert current_release(grown) == summary.release != before == summary.before
    assert survey_of(summary.release) == grown
    assert (summary.added, summary.replaced, summary.withdrawn) == ({9: 60}, {}, {})
    untouched = read_leaves(summary.release).keys() - set(summary.written)
    assert untouched
    for partition in untouched:
        assert (summary.release / partition.leaf).stat().st_ino == (before / partition.leaf).stat().st_ino
    assert len(old.compute(progress_bar=False)) == 120
    assert len(lsdb.open_catalog((grown / "collection.properties").path)) == 180
    assert list(verify(grown)) == []
    assert roll_back(grown) == before == current_release(grown)
    with pytest.raises(IngestError, match="nothing to roll back to"):
        roll_back(grown)


def test_tiles_are_replaced_and_withdrawn_and_leaves_merge_again(grown, tmp_path):
    update_photometry(grown, [write(tmp_path, tile(3), "three")], add=True)
    redone = tile(2, rows=45, seed=77)
    replaced = update_photometry(grown, [write(tmp_path, redone, "redone")], replace=True, withdraw=[3])
    assert (replaced.rows, replaced.replaced, replaced.withdrawn) == (105, {2: 60}, {3: 60})
    assert leaves(replaced.release) == leaves(ingest_once(tmp_path, [tile(1), redone]))
    assert withdrawn_rows(replaced.release, grown) == 60
    assert withdrawn_rows(grown, replaced.release) == 0, "the first one does not descend from it"
    both = update_photometry(
        grown, [write(tmp_path, pa.concat_tables([tile(2), tile(4)]), "both")], add=True, replace=True
    )
    assert leaves(both.release) == leaves(ingest_once(tmp_path, [tile(1), tile(2), tile(4)], "all"))
    assert release_before(both.release) == replaced.release


def test_a_survey_can_grow_from_nothing_and_is_a_collection_then(tmp_path):
    root = UPath(tmp_path / "photometry")
    first = update_photometry(root, [write(tmp_path, tile(1), "one")], add=True)
    assert (first.before, first.rows) == (None, 60)
    update_photometry(root, [write(tmp_path, tile(2), "two")], add=True)
    opened = lsdb.open_catalog(root.path)
    assert (len(opened), opened.name) == (120, "photometry")


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (
            {"add": True, "tile": 2},
            r"tile2.parquet, row 1, .*key \(2, 1\) is in .*photometry already",
        ),
        ({"replace": True, "tile": 5}, "tiles 5 cannot be replaced: .* with --add they are added"),
        ({"withdraw": [1, 7]}, "tiles 7 cannot be withdrawn"),
        ({"withdraw": [1, 2]}, "a catalogue cannot be empty"),
        ({"add": True, "tile": 5, "aperture": "AUTO"}, "holds fluxes in the aperture APER_COR_3_0"),
        ({"tile": 5}, "not what to do with their rows"),
        ({}, "neither files nor tiles"),
    ],
)
def test_what_cannot_be_done_leaves_the_catalogue_as_it_was(grown, tmp_path, request_, problem):
    before = leaves(grown)
    number = request_.pop("tile", None)
    files = [] if number is None else [write(tmp_path, tile(number), f"tile{number}")]
    with pytest.raises(IngestError, match=problem):
        update_photometry(grown, files, **request_)
    assert current_release(grown) == grown
    assert leaves(grown) == before
    assert not list((grown / "releases").rglob("*.parquet"))


def test_a_damaged_leaf_of_the_former_release_is_not_carried_on(grown, tmp_path):
    for leaf in read_leaves(grown):
        content = bytearray((grown / leaf.leaf).read_bytes())
        content[len(content) // 3] ^= 1
        (grown / leaf.leaf).write_bytes(bytes(content))
    with pytest.raises(IngestError, match=r"(?s)is damaged: .*Roll back"):
        update_photometry(grown, withdraw=[1])


def test_the_command_says_what_it_did_and_a_plan_marks_what_was_touched(grown, tmp_path, monkeypatch):
    without_report(monkeypatch)
    config = RunConfig(photometry=str(grown), out=str(tmp_path / "out"), model="empty", engine="serial")
    assert run_and_publish(config).record.source == str(grown)
    night = write(tmp_path, tile(9), "night")
    told = here("ingest", "--add", night, "--to", grown)
    assert told.exit_code == 0, told.output
    assert "60 rows of 1 tile added; 180 rows" in told.output
    plan = plan_run(config)
    release = current_release(grown)
    touched = {p for p, leaf in read_leaves(release).items() if read_leaves(grown).get(p) != leaf}
    assert {entry.partition for entry in plan.to_do} == touched
    assert len(plan.to_link) == len(plan.entries) - len(touched) > 0
    done = run_and_publish(config)
    assert (done.record.rows_out, done.record.source) == (180, str(release))
    kept = read_difference(done.run)
    assert (kept.total.added, kept.total.withdrawn, kept.total.either_changed) == (60, 0, 0)
    assert {tile: changes.added for tile, changes in kept.by_tile.items() if changes.added} == {9: 60}
    assert list(kept.by_cause) == ["input"]
    assert kept.partitions_same == len(plan.to_link)
    assert here("ingest", "--withdraw", "9", "--to", grown).exit_code == 0
    assert "60 rows were withdrawn on purpose" in find_loss(done.run, current_release(grown)).text
    assert find_loss(done.run, current_release(grown)).share == 0
    assert here("ingest", "--rollback", "--to", grown).exit_code == 0
    assert current_release(grown) == release


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["a.csv"], "either --out"),
        (["a.csv", "--to", "p"], "none of them was given"),
        (["a.csv", "--out", "p", "--add"], "which was not given"),
        (["--to", "p", "--rollback", "a.csv"], "takes no files"),
        (["--to", "p", "--withdraw", "x"], "expected numbers of tiles"),
        (["--to", "p", "--add", "a.csv", "--tile-rows", "5"], "fixed when a catalogue is made"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, problem):
    told = here("ingest", *words)
    assert told.exit_code != 0
    assert problem in " ".join(told.output.split())


def test_fetched_tiles_are_added_once_and_again_where_they_changed(tmp_path):
    root, fetched = UPath(tmp_path / "photometry"), UPath(tmp_path / "fetched")
    for name in ("objects", "dust"):
        (fetched / name).mkdir(parents=True)

    def fetch(table):
        number = table["tile_id"][0].as_py()
        write(fetched / "objects", table.drop_columns(["ebv"]), str(number))
        write(fetched / "dust", table.select(["tile_id", "number", "ebv"]), str(number))

    fetch(tile(1))
    assert add_fetched(root, fetched).rows == 60
    assert add_fetched(root, fetched) is None
    fetch(tile(2))
    fetch(tile(1, rows=50, seed=5))
    later = add_fetched(root, fetched)
    assert (later.added, later.replaced) == ({1: 50, 2: 60}, {1: 60})
    assert [file.parent.name for file in new_files(UPath(tmp_path / "other"), fetched)] == [
        "dust",
        "objects",
    ] * 2
    once = ingest_once(tmp_path, [tile(2), tile(1, rows=50, seed=5)])
    rows = [sum(leaf.rows for leaf in read_leaves(one).values()) for one in (later.release, once)]
    assert rows == [110, 110]
    assert add_fetched(root, fetched) is None
