"""What is not understood, damaged or cut off is refused by file, row and column."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from upath import UPath

from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.photometry import ingest_photometry
from tests.pipeline.ingest.archive_files import (
    FORMS,
    OBJECTS,
    archive_columns,
    expected,
    parquet_of,
    write_csv,
    write_fits,
)


def spoil(name: str, row: int, value):
    """Put another value into a cell (rows counted from 1)."""

    def spoilt(columns: dict) -> None:
        cells = list(columns[name])
        cells[row - 1] = value(cells[row - 1]) if callable(value) else value
        columns[name] = cells

    return spoilt


def add(name: str, values=1.0):
    return lambda columns: columns.update({name: np.full(len(OBJECTS), values)})


REFUSED = {
    "unknown filter": (add("FLUX_J0999"), "column FLUX_J0999: names no known filter"),
    "unknown picked filter": (add("MAG_APER_COR_3_0[jpas::J0999]"), "j0999"),
    "foreign magnitude": (add("MAG_G"), "column MAG_G: names no known filter"),
    "short array": (
        spoil("MAG_APER_COR_3_0", 3, lambda a: a[:-1]),
        "row 3, column MAG_APER_COR_3_0: holds 56 values, expected 57",
    ),
    "text in an array": (
        spoil("MAG_ERR_APER_COR_3_0", 7, lambda a: ["x" if i == 4 else v for i, v in enumerate(a)]),
        "row 7, column MAG_ERR_APER_COR_3_0: value 5: 'x' is no number",
    ),
    "no key column": (lambda c: c.pop("NUMBER"), "column number: is missing"),
    "no position": (lambda c: c.pop("DELTA_J2000"), "has no position"),
    "no photometry": (
        lambda c: [c.pop(n) for n in list(c) if n.startswith(("MAG", "FLUX"))],
        "has no photometry",
    ),
    "no errors": (lambda c: c.pop("MAG_ERR_APER_COR_3_0"), "column MAG_ERR_APER_COR_3_0: is missing"),
    "no key": (spoil("TILE_ID", 2, ""), "row 2, column TILE_ID: is missing"),
    "negative key": (spoil("NUMBER", 40, -1), "row 40, column NUMBER: '-1' is outside"),
    "key too large": (spoil("NUMBER", 1, 2**31), "row 1, column NUMBER: '2147483648' is outside"),
    "key too large for a double": (spoil("NUMBER", 1, 10**400), "row 1, column NUMBER: '1000.* is outside"),
    "broken key": (spoil("TILE_ID", 5, 1.5), "row 5, column TILE_ID: '1.5' is no whole number"),
    "text for a key": (spoil("TILE_ID", 5, "9611a"), "row 5, column TILE_ID: '9611a' is no number"),
    "text for a number": (spoil("EBV", 6, "high"), "row 6, column EBV: 'high' is no number"),
    "south of the pole": (
        spoil("DELTA_J2000", 9, -90.01),
        "row 9, column DELTA_J2000: '-90.01' is outside the",
    ),
    "beyond the circle": (
        spoil("ALPHA_J2000", 9, 360.5),
        "row 9, column ALPHA_J2000: '360.5' is outside the sky",
    ),
    "nowhere": (spoil("ALPHA_J2000", 9, "inf"), "row 9, column ALPHA_J2000: 'inf' is outside the sky"),
    "no coordinate": (spoil("ALPHA_J2000", 9, "nan"), "row 9, column ALPHA_J2000: is missing"),
    "unknown type": (spoil("TYPE", 4, "BLOB"), "row 4, column TYPE: 'BLOB' is none of"),
    "both forms of W1": (add("FLUX_W1_ERR"), "column flux_w1: has both FLUX_W1_ERR .uJy. and FLUX_IVAR_W1"),
    "W1 without errors": (lambda c: c.pop("FLUX_IVAR_W1"), "column FLUX_W1: has neither"),
    "g without errors": (lambda c: c.pop("FLUX_IVAR_G"), "column flux_ivar_g: is missing beside FLUX_G"),
    "a band twice": (add("FLUX_J0660"), "J0660 a second time"),
    "a column twice": (add("tile_id"), "column tile_id: comes twice"),
    "first of several faults": (
        lambda c: (spoil("EBV", 6, "high")(c), spoil("TYPE", 4, "BLOB")(c), spoil("FLAGS", 5, "1 2")(c)),
        "row 4, column TYPE",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_refused_by_file_row_and_column(case, folder):
    change, message = REFUSED[case]
    columns = archive_columns(OBJECTS, "mag")
    change(columns)
    file = write_csv(folder / "a.csv", columns)
    with pytest.raises(IngestError, match=message) as refusal:
        ingest_photometry([file], folder / "out")
    assert str(file) in str(refusal.value)
    assert [path.name for path in folder.iterdir()] == ["a.csv"]


def test_all_faulty_files_are_named_together(folder):
    files = []
    for name in ("one", "two", "three"):
        columns = archive_columns(OBJECTS, "mag")
        if name != "two":
            spoil("EBV", 6, name)(columns)
        files.append(write_csv(folder / f"{name}.csv", columns))
    with pytest.raises(IngestError) as refusal:
        ingest_photometry(files, folder / "out")
    lines = str(refusal.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [f"{f}, row 6, column EBV" for f in (files[0], files[2])]


def test_keys_that_come_twice_are_refused_with_both_places(folder):
    one = write_csv(folder / "one.csv", archive_columns(OBJECTS[:20], "mag"))
    two = write_fits(folder / "two.fits", archive_columns(OBJECTS[19:], "mag"))
    with pytest.raises(IngestError) as refusal:
        ingest_photometry([one, two], folder / "out")
    key = f"({OBJECTS.tile_id[19]}, {OBJECTS.number[19]})"
    assert str(refusal.value) == (
        f"{two}, row 1, columns tile_id and number: the key {key} has come before, in {one}, row 20"
    )


def test_many_keys_that_come_twice_are_counted(folder):
    one = write_csv(folder / "one.csv", archive_columns(OBJECTS, "mag"))
    two = write_csv(folder / "two.csv", archive_columns(OBJECTS, "mag"))
    with pytest.raises(IngestError, match="and 20 more rows"):
        ingest_photometry([one, two], folder / "out")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.98])
def test_a_file_that_was_cut_off_is_refused(form, kept, folder):
    file = FORMS[form](folder)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(IngestError, match=file.name.replace(".", r"\.")):
        ingest_photometry([file], folder / "out")
    assert [path.name for path in folder.iterdir()] == [file.name]


def test_a_changed_byte_is_found_where_the_file_carries_checksums(folder):
    parquet, image = folder / "a.parquet", folder / "a.fits"
    pq.write_table(expected(OBJECTS), parquet.path, write_page_checksum=True, compression="none")
    table = fits.BinTableHDU(Table(archive_columns(OBJECTS, "mag")))
    table.writeto(image.path, checksum=True)
    for file, at in ((parquet, 200), (image, -3000)):
        content = bytearray(file.read_bytes())
        content[at] ^= 1
        file.write_bytes(bytes(content))
        with pytest.raises(IngestError, match=f"{file.name} is a damaged"):
            ingest_photometry([file], folder / "out")


def test_a_csv_that_was_cut_off_within_its_last_number_is_refused(folder):
    file = FORMS["CSV, magnitudes"](folder)
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(IngestError, match="row 40: its last line has no line end"):
        ingest_photometry([file], folder / "out")


def test_a_line_with_too_few_cells_is_refused_by_its_row(folder):
    file = FORMS["CSV, magnitudes"](folder)
    lines = file.read_text().splitlines()
    lines[6] = lines[6].rsplit(",", 1)[0]
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(IngestError, match="row 5: has 28 cells, expected 29"):
        ingest_photometry([file], folder / "out")


def test_a_query_that_was_cut_off_by_the_archive_is_refused(folder):
    file = FORMS["VOTable, magnitudes"](folder)
    text = file.read_text().replace("</TABLE>", '</TABLE><INFO name="QUERY_STATUS" value="OVERFLOW"/>')
    file.write_text(text)
    with pytest.raises(IngestError, match="QUERY_STATUS OVERFLOW"):
        ingest_photometry([file], folder / "out")


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\x89PNG\r\n\x1a\n\0\0", b"\xff\xfe\xfd", b"TILE_ID,NUMBER\n", b"\x1f\x8b\x08"]
)
def test_a_file_that_is_no_table_is_refused(content, folder):
    (folder / "a.csv").write_bytes(content)
    with pytest.raises(IngestError, match=r"a\.csv"):
        ingest_photometry([folder / "a.csv"], folder / "out")


def without_rows(votable: UPath) -> UPath:
    votable.write_text(re.sub("<TR>.*</TR>", "", votable.read_text(), flags=re.DOTALL))
    return votable


def test_tables_without_rows_are_refused(folder):
    for file in (
        write_csv(folder / "a.csv", archive_columns(OBJECTS[:0], "mag")),
        parquet_of(folder / "a.parquet", expected(OBJECTS[:0])),
        write_fits(folder / "a.fits", archive_columns(OBJECTS[:0], "mag")),
        without_rows(FORMS["VOTable, magnitudes"](folder)),
    ):
        with pytest.raises(IngestError, match=f"{file.name} has no rows"):
            ingest_photometry([file], folder / "out")


def test_requests_that_make_no_sense_are_refused(folder):
    file = FORMS["contract Parquet"](folder)
    with pytest.raises(IngestError, match="no files"):
        ingest_photometry([], folder / "out")
    with pytest.raises(IngestError, match="named twice"):
        ingest_photometry([file, file], folder / "out")
    with pytest.raises(IngestError, match="does not exist"):
        ingest_photometry([folder / "b.csv"], folder / "out")
    with pytest.raises(IngestError, match="is a folder"):
        ingest_photometry([folder], folder / "out")
    with pytest.raises(IngestError, match="is a file"):
        ingest_photometry([file], file)
    with pytest.raises(IngestError, match="is not empty"):
        ingest_photometry([file], folder)
    with pytest.raises(IngestError, match="0 rows"):
        ingest_photometry([file], folder / "out", tile_rows=0)


def test_more_objects_in_one_place_than_a_leaf_may_hold_are_refused(folder):
    rows = {
        "tile_id": [1] * 3,
        "number": [1, 2, 3],
        "ra": [10.0] * 3,
        "dec": [0.0] * 3,
        "flux_j0660": [1.0] * 3,
    }
    with pytest.raises(IngestError, match="raise --tile-rows"):
        ingest_photometry([parquet_of(folder / "a.parquet", rows)], folder / "out", tile_rows=2)
