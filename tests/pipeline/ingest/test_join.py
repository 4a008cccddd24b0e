"""Tables that the archive gives apart are joined on their key, to the photometry of the joined table."""

import json

import numpy as np
import pytest
from astropy.table import Table
from upath import UPath

from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.photometry import PROVENANCE, ingest_photometry
from tests.pipeline.ingest.archive_files import archive_columns, draw, write_csv
from tests.pipeline.ingest.test_photometry import digests

OBJECTS = draw(60, seed=11)
ALL = archive_columns(OBJECTS, "mag")
KEY = ("TILE_ID", "NUMBER")
CROSS_MATCH = (*(name for name in ALL if name.startswith("FLUX_")), "TYPE")
TABLES = {
    "objects": tuple(name for name in ALL if name not in (*KEY, *CROSS_MATCH, "EBV", "CLASS_STAR")),
    "MWExtinction": ("EBV",),
    "StarGalClass": ("CLASS_STAR",),
    "xmatch_legacy": CROSS_MATCH,
}


def part(names, rows=slice(None)) -> dict[str, np.ndarray]:
    return {name: ALL[name][rows] for name in (*KEY, *names)}


def leaves(out: UPath) -> dict[str, str]:
    return {name: sha256 for name, sha256 in digests(out).items() if name != PROVENANCE}


@pytest.fixture(scope="module")
def joined(tmp_path_factory) -> dict[str, str]:
    """Leaves of the ingest of one table with everything."""
    folder = UPath(tmp_path_factory.mktemp("joined"))
    ingest_photometry([write_csv(folder / "all.csv", ALL)], folder / "out", tile_rows=20)
    return leaves(folder / "out")


def write_apart(folder: UPath, seed: int) -> list[UPath]:
    """The tables in files of several formats, rows and columns in any order, one table in three parts."""
    rng = np.random.default_rng(seed)
    files = []
    for table, names in TABLES.items():
        columns = {n: ALL[n] for n in rng.permutation([*KEY, *names]).tolist()}
        order = rng.permutation(len(OBJECTS))
        pieces = np.array_split(order, 3) if table == "objects" else [order]
        for number, rows in enumerate(pieces):
            cut = {name: values[rows] for name, values in columns.items()}
            if table == "xmatch_legacy":
                path = folder / f"{table}.fits"
                Table({name.lower(): values for name, values in cut.items()}).write(path.path)
            else:
                path = write_csv(folder / f"{table}-{number}.csv", cut, f"SELECT * FROM jpas.{table}")
            files.append(path)
    return [files[n] for n in rng.permutation(len(files))]


@pytest.mark.parametrize("seed", range(2))
def test_joined_tables_give_the_leaves_of_one_table(seed, joined, tmp_path, monkeypatch):
    monkeypatch.setattr("ojala.pipeline.ingest.join.BUCKET_BYTES", 4_000)
    files = write_apart(UPath(tmp_path), seed)
    summary = ingest_photometry(files, UPath(tmp_path / "out"), tile_rows=20)
    assert summary.rows == len(OBJECTS)
    assert leaves(UPath(tmp_path / "out")) == joined
    record = json.loads((tmp_path / "out" / PROVENANCE).read_text())
    by_name = {one["name"]: one for one in record["inputs"]}
    assert by_name["StarGalClass-0.csv"]["ignored"] == ["CLASS_STAR"]
    assert by_name["xmatch_legacy.fits"]["rows"] == 60
    assert sum(by_name["MWExtinction-0.csv"]["tiles"].values()) == 60


def test_keys_without_partner_or_twice_are_told_with_file_and_row(tmp_path):
    folder = UPath(tmp_path)
    objects = write_csv(folder / "objects.csv", part((*TABLES["objects"], *CROSS_MATCH), slice(0, 59)))
    rows = [0, 1, 1, *range(3, 60)]
    dust = write_csv(folder / "dust.csv", part(["EBV"], rows))
    with pytest.raises(IngestError) as error:
        ingest_photometry([dust, objects], folder / "out")
    tile, number = OBJECTS.tile_id, OBJECTS.number
    key = [f"key ({tile[n]}, {number[n]})" for n in (1, 59, 2)]
    assert sorted(str(error.value).splitlines()) == [
        f"{dust}, row 3, columns tile_id and number: the {key[0]} has come before, in {dust}, row 2",
        f"{dust}, row 60, columns tile_id and number: the {key[1]} has no partner in {objects}",
        f"{objects}, row 3, columns tile_id and number: the {key[2]} has no partner in {dust}",
    ]
    assert not (tmp_path / "out").exists()


def test_an_error_of_a_cell_names_the_file_and_row_that_it_is_in(tmp_path):
    folder = UPath(tmp_path)
    dust = part(["EBV"])
    dust["EBV"] = dust["EBV"].astype(object)
    dust["EBV"][41] = "much"
    files = [
        write_csv(folder / "dust.csv", dust),
        write_csv(folder / "rest.csv", part([name for name in ALL if name not in (*KEY, "EBV")])),
    ]
    with pytest.raises(IngestError, match=r"dust.csv, row 42, column EBV: 'much' is no number"):
        ingest_photometry(files, folder / "out")


def test_tables_that_lack_positions_together_are_refused_by_their_names(tmp_path):
    folder = UPath(tmp_path)
    files = [
        write_csv(folder / "a.csv", part(["EBV"])),
        write_csv(folder / "b.csv", part(["CLASS_STAR"])),
    ]
    with pytest.raises(IngestError, match=r"the tables together, of .*a.csv; .*b.csv: has no position"):
        ingest_photometry(files, folder / "out")
