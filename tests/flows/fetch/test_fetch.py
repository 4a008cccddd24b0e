"""Tables from a TAP service that fails, stalls, cuts off, is killed: nothing is lost, nothing twice."""

import json
import os
import signal
import subprocess
from collections import Counter
from dataclasses import replace

import pytest
from upath import UPath

from ojala.catalogs_schema.bands import JPAS_BANDS
from ojala.catalogs_schema.errors import AccessError
from ojala.flows.fetch import Limits, fetch_tables
from ojala.flows.fetch.download import FetchError
from ojala.flows.fetch.tables import TableError
from ojala.pipeline.ingest.formats.detect import open_table
from ojala.pipeline.storage.lock import LockedError, hold
from tests.helpers.commands import OJALA, here
from tests.helpers.pace import scaled, until
from tests.helpers.tap_server import tap_server

QUICK = Limits(backoff=0.01, poll=0.01, max_poll=0.05, silence=5.0, parallel=1)
TILES = {2241: 40, 2243: 25, 2300: 7}
MAGNITUDES = " ".join(["20.5"] * len(JPAS_BANDS))
ERRORS = " ".join(["0.05"] * len(JPAS_BANDS))


@pytest.fixture
def archive():
    """An archive of three tiles with photometry, extinction and a cross-match with gaps."""
    with tap_server() as service:
        keys = [(tile, number) for tile, rows in TILES.items() for number in range(1, 2 * rows, 2)]
        service.add_table(
            "jpas.MagABDualObj",
            {"tile_id": "INTEGER", "number": "INTEGER", "alpha_j2000": "DOUBLE", "delta_j2000": "DOUBLE",
             "class_star": "REAL", "flags": "INTEGER", "mask_flags": "INTEGER", "mag_auto": "REAL",
             "mag_err_auto": "REAL", "mag_aper_cor_3_0": "REAL", "mag_err_aper_cor_3_0": "REAL",
             "mag_petro": "REAL"},
            [(tile, n, 240.0 + n / 100, 43.0 + tile / 1e4, 0.5, 0, 0, MAGNITUDES, ERRORS, MAGNITUDES, ERRORS,
              MAGNITUDES) for tile, n in keys],
        )  # fmt: skip
        service.add_table(
            "jpas.MWExtinction",
            {"tile_id": "INTEGER", "number": "INTEGER", "ebv": "REAL"},
            [(*key, 0.02) for key in keys],
        )
        service.add_table(
            "jpas.xmatch_sdss",
            {"tile_id": "INTEGER", "number": "INTEGER", "objid": "BIGINT"},
            [(2241, 1, 11), (2241, 1, 12), (2243, 3, 13)],
        )
        service.add_table(
            "jpas.Filter",
            {"filter_id": "INTEGER", "name": "VARCHAR"},
            [(place + 1, band.name) for place, band in enumerate(JPAS_BANDS)],
        )
        service.add_table("main.MWExtinction", {"field": "VARCHAR", "n": "INTEGER"}, [])
        yield service


def fetch(service, out, tables=("jpas.MagABDualObj",), **options):
    limits = replace(QUICK, **{name: options.pop(name) for name in list(options) if hasattr(QUICK, name)})
    return fetch_tables(service.url, tables, out, limits=limits, **options)


def keys_in(out, table="MagABDualObj"):
    """How often each key is in the files of a table."""
    found = Counter()
    for path in sorted((out / table).glob("[!.]*")):
        with open_table(UPath(path), UPath(out)) as source:
            for batch in source.batches(["tile_id", "number"]):
                found.update(zip(*(map(int, column.to_pylist()) for column in batch.columns), strict=True))
    return found


def assert_whole(out, tiles=TILES):
    wanted = {(tile, number): 1 for tile, rows in tiles.items() for number in range(1, 2 * rows, 2)}
    assert keys_in(out) == wanted
    assert not list(out.rglob(".*.tmp"))


def test_every_tile_is_a_file_with_the_rows_of_the_archive(archive, tmp_path):
    summary = fetch(archive, tmp_path, ("MagABDualObj", "xmatch_sdss"))
    assert_whole(tmp_path)
    assert summary.rows == sum(TILES.values()) + 3
    assert summary.bytes == sum(path.stat().st_size for path in tmp_path.rglob("*.vot"))
    assert keys_in(tmp_path, "xmatch_sdss")[2241, 1] == 2, "an object may have two counterparts"
    manifest = json.loads((tmp_path / "fetch.json").read_text())
    tile = manifest["tables"]["MagABDualObj"]["tiles"]["2300"]
    assert tile == {"rows": 7, "files": ["MagABDualObj/2300.vot"]}
    assert "mag_petro" not in manifest["tables"]["MagABDualObj"]["query"], (
        "a preset has the columns that are read"
    )
    assert not archive.jobs, "results are deleted at the service"


def test_files_name_the_filters_and_are_ingested(archive, tmp_path):
    fetch(archive, tmp_path)
    fetch(archive, tmp_path, ["jpas.MWExtinction"])
    assert set(json.loads((tmp_path / "fetch.json").read_text())["tables"]) == {
        "MagABDualObj",
        "MWExtinction",
    }
    files = sorted((tmp_path / "MagABDualObj").glob("*.vot"))
    with open_table(UPath(files[0]), UPath(tmp_path)) as source:
        assert source.notes["filters"].split() == [band.name for band in JPAS_BANDS]
    made = here("ingest", *files, "--out", tmp_path / "photometry", "--json")
    assert json.loads(made.stdout)["rows"] == sum(TILES.values()), made.output


def test_only_the_tiles_that_are_asked_for(archive, tmp_path):
    fetch(archive, tmp_path, tiles=["2300"])
    assert_whole(tmp_path, {2300: 7})
    with pytest.raises(TableError, match="no rows of the tiles 77 in"):
        fetch(archive, tmp_path, tiles=["2300", "77"])


@pytest.mark.parametrize("fault", ["submit", "error", "gone", "cut", "torn", "twice", "restart"])
def test_a_failure_is_repeated(fault, archive, tmp_path):
    archive.faults.extend([fault, "", fault])
    fetch(archive, tmp_path)
    assert_whole(tmp_path)


def test_a_silent_service_is_asked_again(archive, tmp_path):
    archive.faults.append("stall")
    fetch(archive, tmp_path, silence=0.5)
    assert_whole(tmp_path)


def test_a_job_that_does_not_end_is_submitted_again(archive, tmp_path):
    archive.faults.append("slow")
    fetch(archive, tmp_path, job_seconds=0.2)
    assert_whole(tmp_path)
    assert len(archive.queries) == len(TILES) + 1


@pytest.mark.parametrize(("limit", "maxrec"), [(13, 1_000_000), (1_000_000, 13)])
def test_what_is_cut_off_is_split_and_comes_whole(limit, maxrec, archive, tmp_path):
    archive.limit = limit
    fetch(archive, tmp_path, maxrec=maxrec)
    assert_whole(tmp_path)
    assert len(list((tmp_path / "MagABDualObj").glob("2241_*.vot"))) == 4
    assert (tmp_path / "MagABDualObj" / "2300.vot").exists()


def test_a_service_that_drops_rows_without_a_word_is_found_out(archive, tmp_path):
    archive.faults.append("lost")
    fetch(archive, tmp_path)
    assert_whole(tmp_path)


def test_more_rows_of_one_number_than_are_sent_at_once_are_a_failure(archive, tmp_path):
    archive.execute("UPDATE jpas.MagABDualObj SET number = 5 WHERE tile_id = 2300")
    with pytest.raises(FetchError, match=r"1 of 1 jobs failed, MagABDualObj, tile 2300.*cannot be split"):
        fetch(archive, tmp_path, maxrec=6, tiles=["2300"])


def test_failed_jobs_are_told_and_the_same_command_does_what_is_left(archive, tmp_path):
    archive.faults.extend(["", "error", "error"])
    with pytest.raises(FetchError, match=r"1 of 3 jobs failed, MagABDualObj, tile \d+: .*out of luck"):
        fetch(archive, tmp_path, attempts=2)
    assert len(keys_in(tmp_path)) < sum(TILES.values())
    before = len(archive.queries)
    summary = fetch(archive, tmp_path)
    assert_whole(tmp_path)
    assert (summary.kept, summary.jobs, len(archive.queries) - before) == (2, 1, 1)


def test_a_killed_command_is_continued(archive, tmp_path):
    archive.faults.extend(["", "stall"])
    command = [
        OJALA,
        "fetch",
        "tap",
        archive.url,
        "--tables",
        "MagABDualObj",
        "--jobs",
        "1",
        "--out",
        tmp_path,
    ]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        until(archive.stalled.is_set, "the second table", seconds=120)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=scaled(20))
    assert list(tmp_path.rglob(".*.tmp")), "it was killed in mid-table"
    with (tmp_path / "jobs.jsonl").open("a") as file:
        file.write('{"table": "MagABDualObj", "tile": "22')  # and in mid-line
    queries = len(archive.queries)
    summary = fetch(archive, tmp_path)
    assert_whole(tmp_path)
    assert summary.kept == 1
    assert len(archive.queries) == queries + 1, "the job that was sent is continued, not sent again"


def test_new_changed_and_withdrawn_tiles(archive, tmp_path):
    fetch(archive, tmp_path, maxrec=20)
    archive.execute("DELETE FROM jpas.MagABDualObj WHERE tile_id = 2243")
    archive.execute("DELETE FROM jpas.MagABDualObj WHERE tile_id = 2241 AND number > 19")
    archive.execute(
        "INSERT INTO jpas.MagABDualObj SELECT 9, 1, 10.0, 10.0, 0.5, 0, 0, '1', '1', '1', '1', '1'"
    )
    summary = fetch(archive, tmp_path, maxrec=20)
    assert (summary.changed, summary.withdrawn) == ({"MagABDualObj": ["2241"]}, {"MagABDualObj": ["2243"]})
    assert summary.tables == {"MagABDualObj": {"2241": 10, "2300": 7, "9": 1}}
    assert set(keys_in(tmp_path).values()) == {1}, "parts of the earlier division are gone"
    assert fetch(archive, tmp_path, maxrec=20).jobs == 0


def test_names_that_the_archive_does_not_have_are_refused_with_those_it_has(archive, tmp_path):
    with pytest.raises(TableError, match=r"no table Nothing: it has jpas\.Filter, jpas\.MWExtinction"):
        fetch(archive, tmp_path, ["Nothing"])
    with pytest.raises(
        TableError, match=r"several tables MWExtinction: name one of jpas\.MWExtinction, main"
    ):
        fetch(archive, tmp_path, ["MWExtinction"])
    (tmp_path / "mapping.toml").write_text('[xmatch_sdss]\ncolumns = ["redshift"]\n')
    with pytest.raises(TableError, match="no column redshift: it has tile_id, number, objid"):
        fetch(archive, tmp_path, ["xmatch_sdss"], mapping=tmp_path / "mapping.toml")


def test_a_table_with_other_names_takes_a_mapping(archive, tmp_path):
    archive.add_table(
        "main.sources",
        {"field": "VARCHAR", "running": "INTEGER"},
        [("A 1/2", n) for n in range(5)] + [("B", 1)],
    )
    (tmp_path / "mapping.toml").write_text(
        '[stars]\ntable = "main.sources"\ntile = "field"\nnumber = "running"'
    )
    summary = fetch(archive, tmp_path / "out", ["stars"], mapping=tmp_path / "mapping.toml", maxrec=3)
    assert summary.tables == {"stars": {"A 1/2": 5, "B": 1}}
    assert {path.name for path in (tmp_path / "out" / "stars").iterdir()} == {
        "A%201%2F2_0-2.vot", "A%201%2F2_3-4.vot", "B.vot",
    }  # fmt: skip


def test_an_archive_with_a_login(archive, tmp_path, monkeypatch):
    archive.account = "someone:a-secret-word"
    with pytest.raises(AccessError, match="set OJALA_TAP_USER and OJALA_TAP_PASSWORD"):
        fetch(archive, tmp_path)
    monkeypatch.setenv("OJALA_TAP_USER", "someone")
    monkeypatch.setenv("OJALA_TAP_PASSWORD", "a-secret-word")
    fetch(archive, tmp_path, tiles=["2300"])
    archive.sessions.clear()
    archive.url = archive.url.replace("/catalogues/vo/tap/jpas-test", "/tap")
    fetch(archive, tmp_path / "basic", tiles=["2300"])
    assert "a-secret-word" not in "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())


def test_one_command_at_a_time_works_in_a_folder(archive, tmp_path):
    with hold(UPath(tmp_path), "fetch"), pytest.raises(LockedError):
        fetch(archive, tmp_path)


def test_the_command_says_what_came(archive, tmp_path):
    told = here("fetch", "tap", archive.url, "--tables", "MagABDualObj", "--tiles", "2300", "--out", tmp_path)
    assert told.exit_code == 0, told.output
    assert "7 rows in 1 jobs" in told.stdout
    assert "MagABDualObj: 7 rows of 1 tiles" in told.stdout
    os.unlink(tmp_path / "MagABDualObj" / "2300.vot")
    archive.faults.extend(["error"])
    told = here(
        "fetch",
        "tap",
        archive.url,
        "--tables",
        "MagABDualObj",
        "--tiles",
        "2300",
        "--attempts",
        1,
        "--out",
        tmp_path,
    )
    assert told.exit_code == 4
    assert all(word in told.stderr for word in ("tile 2300", "out of luck", "same command"))
