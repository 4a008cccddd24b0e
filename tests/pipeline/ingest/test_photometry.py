"""Whatever form the archive gives its rows in, the same photometry comes out, or nothing does."""

import base64
import bz2
import gzip
import hashlib
import json
import lzma
import os
import re
import struct
import warnings
from dataclasses import dataclass

import lsdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import from_table, writeto
from astropy.io.votable.tree import Param, Values
from astropy.table import MaskedColumn, Table
from astropy.units import UnitsWarning
from hats.io.validation import is_valid_catalog
from upath import UPath

from ojala.catalogs_schema.bands import BY_NAME, JPAS_BANDS
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.photometry import PROVENANCE, ingest_photometry
from ojala.pipeline.storage.hats import read_leaves
from ojala.pipeline.storage.parquet import write_leaf

LEGACY = {"g": "ls_g", "r": "ls_r", "i": "ls_i", "z": "ls_z", "w1": "W1", "w2": "W2", "w3": "W3", "w4": "W4"}
PIVOTS = np.array([band.pivot for band in JPAS_BANDS])
UJY_PER_FNU = 0.1  # 1e-30 erg/s/cm2/Hz
C_ANGSTROM = 2.99792458e18  # A/s


@dataclass(frozen=True)
class Objects:
    """Objects of two tiles with their fluxes [uJy]; NaN is not observed."""

    tile_id: np.ndarray
    number: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    legacy: np.ndarray
    legacy_error: np.ndarray
    ebv: np.ndarray
    morph_type: np.ndarray
    flags: np.ndarray
    mask_flags: np.ndarray

    def __getitem__(self, rows) -> "Objects":
        return Objects(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.ra)


def draw(count: int, seed: int = 5) -> Objects:
    rng = np.random.default_rng(seed)
    flux = 10 ** rng.uniform(-1, 3, (count, 57))
    error = flux * rng.uniform(0.01, 0.3, (count, 57))
    unseen = rng.random((count, 57)) < 0.1
    legacy = 10 ** rng.uniform(-1, 3, (count, 8))
    legacy_error = legacy * rng.uniform(0.01, 0.3, (count, 8))
    unseen_legacy = rng.random((count, 8)) < 0.2
    return Objects(
        tile_id=np.where(np.arange(count) % 2, 9611, 9612),
        number=rng.permutation(count) + 1,
        ra=246 + rng.uniform(-1.5, 1.5, count),
        dec=44 + rng.uniform(-1, 1, count),
        flux=np.where(unseen, np.nan, flux),
        error=np.where(unseen, np.nan, error),
        legacy=np.where(unseen_legacy, np.nan, legacy),
        legacy_error=np.where(unseen_legacy, np.nan, legacy_error),
        ebv=rng.uniform(0.01, 0.1, count),
        morph_type=rng.choice(["PSF", "REX", "SER"], count),
        flags=rng.integers(0, 4, (count, 57)),
        mask_flags=rng.integers(0, 2, (count, 57)) * 8,
    )


def expected(objects: Objects) -> pa.Table:
    """The photometry that must come out, by key."""
    columns = {
        "tile_id": pa.array(objects.tile_id, pa.int32()),
        "number": pa.array(objects.number, pa.int32()),
        "ra": pa.array(objects.ra),
        "dec": pa.array(objects.dec),
        "ebv": pa.array(objects.ebv.astype("f4")),
        "morph_type": pa.array(objects.morph_type.tolist()),
        "flags": pa.array(objects.flags[:, -1], pa.int32()),
        "mask_flags": pa.array(objects.mask_flags[:, -1], pa.int32()),
    }
    fluxes = {band: (objects.flux[:, i], objects.error[:, i]) for i, band in enumerate(JPAS_BANDS)}
    for i, name in enumerate(LEGACY.values()):
        fluxes[BY_NAME[name]] = (objects.legacy[:, i], objects.legacy_error[:, i])
    for band, (flux, error) in fluxes.items():
        columns[band.flux_column] = pa.array(flux.astype("f4"), from_pandas=True)
        columns[band.error_column] = pa.array(error.astype("f4"), from_pandas=True)
    return by_key(pa.table(columns))


def by_key(table: pa.Table) -> pa.Table:
    return table.sort_by([("tile_id", "ascending"), ("number", "ascending")])


def archive_columns(objects: Objects, kind: str) -> dict[str, np.ndarray]:
    """Columns in the archive's names and units, fluxes as `kind`: mag, fnu or flambda."""
    if kind == "mag":
        value = 22.5 - 2.5 * np.log10(objects.flux / 3.631)
        error = 2.5 / np.log(10) * objects.error / objects.flux
        photometry = {
            "MAG_APER_COR_3_0": np.where(np.isnan(value), 99.0, value),
            "MAG_ERR_APER_COR_3_0": np.where(np.isnan(error), 99.0, error),
            "MAG_AUTO": np.full_like(value, 20.0),
            "MAG_ERR_AUTO": np.full_like(value, 0.1),
        }
    else:
        per_ujy = 1 / UJY_PER_FNU if kind == "fnu" else C_ANGSTROM / PIVOTS**2 * 1e-29 / 1e-19
        photometry = {
            "FLUX_APER_COR_3_0": np.nan_to_num(objects.flux * per_ujy, nan=0.0),
            "FLUX_RELERR_APER_COR_3_0": np.nan_to_num(objects.error / objects.flux, nan=0.0),
        }
    columns = {
        "TILE_ID": objects.tile_id,
        "NUMBER": objects.number,
        "ALPHA_J2000": objects.ra,
        "DELTA_J2000": objects.dec,
        "CLASS_STAR": np.full(len(objects), 0.5),
        "FLAGS": objects.flags,
        "MASK_FLAGS": objects.mask_flags,
        **photometry,
        "EBV": objects.ebv,
        "TYPE": objects.morph_type,
    }
    for i, short in enumerate(LEGACY):
        unseen = np.isnan(objects.legacy[:, i])
        columns[f"FLUX_{short.upper()}"] = np.where(unseen, 0.0, objects.legacy[:, i] / 3.631)
        columns[f"FLUX_IVAR_{short.upper()}"] = np.where(
            unseen, 0.0, (3.631 / objects.legacy_error[:, i]) ** 2
        )
    return columns


def contract_columns(objects: Objects) -> dict[str, list]:
    """Columns in the contract's names and units, as the archive would write them."""
    rows = expected(objects)
    return {
        name.upper(): ["" if cell is None else cell for cell in rows[name].to_pylist()]
        for name in rows.column_names
    }


def write_csv(path: UPath, columns: dict, query: str | None = "SELECT * FROM jpas.MagABDualObj") -> UPath:
    def cell(value) -> str:
        return " ".join(str(v) for v in np.atleast_1d(value))

    lines = [] if query is None else [f"#{query}"]
    lines.append(",".join(f'"{name}"' for name in columns))
    lines += [",".join(map(cell, row)) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_fits(path: UPath, columns: dict, unit: str = "") -> UPath:
    table = Table(columns)
    if unit:
        table["FLUX_APER_COR_3_0"].unit = unit
    table.write(path, format="fits", overwrite=True)
    return path


def write_fits_of_variable_length(path: UPath, columns: dict) -> UPath:
    cards = []
    for name, values in columns.items():
        if values.ndim == 2:
            cells = np.array([None, *values], dtype=object)[1:]
            cards.append(fits.Column(name, "PD()" if values.dtype.kind == "f" else "PJ()", array=cells))
        else:
            code = {"f": "D", "i": "K", "U": "3A"}[values.dtype.kind]
            cards.append(fits.Column(name, code, array=values))
    fits.BinTableHDU.from_columns(cards).writeto(path.path)
    return path


def of_variable_length(columns: dict) -> dict:
    """The same columns with arrays that a VOTable says may have any length."""
    varying = {}
    for name, values in columns.items():
        varying[name] = values
        if values.ndim == 2:
            varying[name] = np.empty(len(values), dtype=object)
            varying[name][:] = [np.ma.array(cell, mask=np.zeros(cell.shape, bool)) for cell in values]
    return varying


def write_votable(path: UPath, columns: dict, serialisation: str = "tabledata", unit: str = "") -> UPath:
    table = Table({name.lower(): values for name, values in columns.items()})
    table["type"] = MaskedColumn(table["type"].astype(object), dtype=object)
    if unit:
        table["flux_aper_cor_3_0"].unit = unit
    with warnings.catch_warnings():
        # The archive's unit, erg, is deprecated by VOUnits.
        warnings.simplefilter("ignore", UnitsWarning)
        writeto(from_table(table), path.path, tabledata_format=serialisation)
    return path


def write_parquet(path: UPath, objects: Objects) -> UPath:
    pq.write_table(expected(objects), path.path)
    return path


def contents(out: UPath) -> pa.Table:
    """All rows of a catalogue, in the order of the sky."""
    leaves = [pq.read_table((out / p.leaf).path, partitioning=None) for p in read_leaves(out)]
    return pa.concat_tables(leaves)


def same(found: pa.Table, wanted: pa.Table) -> None:
    found = by_key(found)
    assert found.num_rows == wanted.num_rows
    for name in wanted.column_names:
        if pa.types.is_floating(wanted[name].type):
            np.testing.assert_array_equal(found[name].is_null(), wanted[name].is_null(), err_msg=name)
            np.testing.assert_allclose(
                found[name].to_numpy(), wanted[name].to_numpy(), rtol=2e-6, err_msg=name
            )
        else:
            assert found[name].to_pylist() == wanted[name].to_pylist(), name


OBJECTS = draw(40)


@pytest.fixture
def folder(tmp_path) -> UPath:
    return UPath(tmp_path)


FORMS = {
    "contract Parquet": lambda f: write_parquet(f / "a.parquet", OBJECTS),
    "CSV, magnitudes": lambda f: write_csv(f / "a.csv", archive_columns(OBJECTS, "mag")),
    "CSV, FNu": lambda f: write_csv(
        f / "a.csv", archive_columns(OBJECTS, "fnu"), "SELECT * FROM jpas.FNuDualObj AS t"
    ),
    "CSV, FLambda": lambda f: write_csv(
        f / "a.csv", archive_columns(OBJECTS, "flambda"), "select * from jpas.flambdadualobj"
    ),
    "CSV, upper-case contract": lambda f: write_csv(
        f / "a.csv",
        contract_columns(OBJECTS),
        None,
    ),
    "FITS, magnitudes": lambda f: write_fits(f / "a.fits", archive_columns(OBJECTS, "mag")),
    "FITS, FLambda": lambda f: write_fits(
        f / "a.fits", archive_columns(OBJECTS, "flambda"), "1e-19 erg / (s cm2 Angstrom)"
    ),
    "FITS, gzipped, FNu": lambda f: write_fits(
        f / "a.fits.gz", archive_columns(OBJECTS, "fnu"), "1e-30 erg / (s cm2 Hz)"
    ),
    "VOTable, magnitudes": lambda f: write_votable(f / "a.vot", archive_columns(OBJECTS, "mag")),
    "FITS, arrays of variable length": lambda f: write_fits_of_variable_length(
        f / "a.fits", archive_columns(OBJECTS, "mag")
    ),
    "VOTable, arrays of variable length": lambda f: write_votable(
        f / "a.vot", of_variable_length(archive_columns(OBJECTS, "mag"))
    ),
    "VOTable, arrays of variable length, binary2": lambda f: write_votable(
        f / "a.vot", of_variable_length(archive_columns(OBJECTS, "mag")), "binary2"
    ),
    "VOTable, binary": lambda f: write_votable(f / "a.vot", archive_columns(OBJECTS, "mag"), "binary"),
    "VOTable, FNu, binary2": lambda f: write_votable(
        f / "a.xml", archive_columns(OBJECTS, "fnu"), "binary2", "1e-30 erg / (s cm2 Hz)"
    ),
    "Parquet, arrays": lambda f: (
        pq.write_table(
            pa.table({n: v.tolist() for n, v in archive_columns(OBJECTS, "mag").items()}),
            (f / "a.parquet").path,
        ),
        f / "a.parquet",
    )[1],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_photometry(form, folder):
    summary = ingest_photometry([FORMS[form](folder)], folder / "out")
    assert summary.rows == len(OBJECTS)
    assert len(summary.bands) == 65
    same(contents(folder / "out"), expected(OBJECTS))


def test_result_is_a_valid_hats_catalogue_that_lsdb_opens(folder):
    summary = ingest_photometry([FORMS["contract Parquet"](folder)], folder / "out", tile_rows=15)
    assert is_valid_catalog(folder / "out", strict=True)
    catalogue = lsdb.open_catalog((folder / "out").path)
    assert len(catalogue) == len(OBJECTS)
    near = catalogue.cone_search(246.0, 44.0, 3600.0).compute()
    assert 0 < len(near) < len(OBJECTS)
    assert max(summary.partitions.values()) <= 15
    assert len(summary.partitions) > 1


def test_leaves_hold_their_part_of_the_sky_in_order_and_inputs_say_their_tiles(folder):
    one = write_csv(folder / "one.csv", archive_columns(OBJECTS[:20], "mag"))
    two = write_fits(folder / "two.fits", archive_columns(OBJECTS[20:], "mag"))
    summary = ingest_photometry([one, two], folder / "out", tile_rows=15)
    for partition, rows in summary.partitions.items():
        leaf = pq.read_table((folder / "out" / partition.leaf).path, partitioning=None)
        index = leaf["_healpix_29"].to_numpy()
        assert leaf.num_rows == rows
        assert (np.diff(index) >= 0).all()
        assert set(index >> 2 * (29 - partition.order)) == {partition.pixel}
        assert leaf["object_id"].to_pylist() == [
            tile << 32 | number
            for tile, number in zip(leaf["tile_id"].to_pylist(), leaf["number"].to_pylist(), strict=True)
        ]
    record = json.loads((folder / "out" / PROVENANCE).read_text())
    tiles = {one["name"]: one["tiles"] for one in record["inputs"]}
    assert tiles == {"one.csv": {"9611": 10, "9612": 10}, "two.fits": {"9611": 10, "9612": 10}}


def test_catalogue_says_what_it_was_made_from(folder):
    file = FORMS["CSV, magnitudes"](folder)
    summary = ingest_photometry([file], folder / "out", tile_rows=15)
    record = json.loads((folder / "out" / PROVENANCE).read_text())
    (source,) = record["inputs"]
    assert source["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (source["name"], source["form"], source["rows"]) == ("a.csv", "CSV", 40)
    assert source["ignored"] == ["CLASS_STAR"], "the Kron magnitude is kept in iSDSS"
    assert record["rows"] == summary.rows == 40
    assert record["options"] == {
        "tile_rows": 15,
        "aperture": "APER_COR_3_0",
        "units": None,
        "ignore": [],
        "columns": {},
    }
    assert str(folder) not in json.dumps(record)


def digests(out: UPath) -> dict[str, str]:
    paths = [UPath(path) for path in (out / "dataset").rglob("*.parquet")] + [out / PROVENANCE]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def test_result_depends_neither_on_the_order_of_files_nor_on_batches(folder, monkeypatch):
    files = [
        write_csv(folder / "one.csv", archive_columns(OBJECTS[:11], "mag")),
        write_fits(folder / "two.fits", archive_columns(OBJECTS[11:25], "mag")),
        write_votable(folder / "three.vot", archive_columns(OBJECTS[25:], "mag")),
    ]
    ingest_photometry(files, folder / "out", tile_rows=15)
    monkeypatch.setattr("ojala.pipeline.ingest.external_sort.RUN_ROWS", 6)
    for form in ("csv", "fits", "votable"):
        monkeypatch.setattr(f"ojala.pipeline.ingest.formats.{form}.BATCH_ROWS", 4)
    ingest_photometry(files[::-1], folder / "again", tile_rows=15)
    assert digests(folder / "again") == digests(folder / "out")


def test_objects_at_one_place_are_ordered_by_their_key(folder):
    rows = {
        "tile_id": [1, 1, 1],
        "number": [3, 1, 2],
        "ra": [10.0] * 3,
        "dec": [0.0] * 3,
        "flux_j0660": [1.0] * 3,
    }
    ingest_photometry([parquet_of(folder / "a.parquet", rows)], folder / "out")
    assert contents(folder / "out")["number"].to_pylist() == [1, 2, 3]


def parquet_of(path: UPath, columns: dict) -> UPath:
    pq.write_table(pa.table(columns), path.path)
    return path


def test_fluxes_are_kept_however_absurd_unless_single_precision_cannot_hold_them(folder):
    values = [float("nan"), float("inf"), -float("inf"), -3.5, 0.0, 1e39, None]
    count = len(values)
    file = parquet_of(
        folder / "a.parquet",
        {
            "tile_id": [1] * count,
            "number": range(count),
            "ra": np.linspace(0, 360, count),
            "dec": np.linspace(-90, 90, count),
            "flux_j0660": values,
            "flux_j0660_err": values[::-1],
        },
    )
    ingest_photometry([file], folder / "out")
    found = by_key(contents(folder / "out"))
    inf = float("inf")
    assert found["flux_j0660"].to_pylist() == [None, inf, -inf, -3.5, 0.0, None, None]
    assert found["flux_j0660_err"].to_pylist() == [None, None, 0.0, -3.5, -inf, inf, None]
    assert found["flux_j0670"].null_count == count


def test_apertures_can_be_chosen(folder):
    file = FORMS["CSV, magnitudes"](folder)
    ingest_photometry([file], folder / "out", aperture="AUTO")
    np.testing.assert_allclose(contents(folder / "out")["flux_j0660"].to_numpy(), 36.31, rtol=1e-6)
    with pytest.raises(IngestError, match=r"has no aperture PETRO.*APER_COR_3_0, AUTO"):
        ingest_photometry([file], folder / "other", aperture="PETRO")


def test_fluxes_of_unknown_units_need_a_word(folder):
    file = write_csv(folder / "a.csv", archive_columns(OBJECTS, "flambda"), None)
    with pytest.raises(IngestError, match=r"column FLUX_APER_COR_3_0: does not say its units.*--units fnu"):
        ingest_photometry([file], folder / "out")
    ingest_photometry([file], folder / "out", units="flambda")
    same(contents(folder / "out"), expected(OBJECTS))


def test_contradictory_units_are_refused(folder):
    file = write_fits(folder / "a.fits", archive_columns(OBJECTS, "fnu"), "1e-30 erg / (s cm2 Hz)")
    with pytest.raises(IngestError, match="different units"):
        ingest_photometry([file], folder / "out", units="flambda")


def test_arrays_of_other_filters_are_understood_when_they_are_named(folder):
    columns = archive_columns(OBJECTS, "mag")
    for name, values in columns.items():
        if values.ndim == 2:
            columns[name] = np.hstack([values[:, :1] * 0 + 1, values, values[:, :2] * 0 + 1])
    file = write_csv(folder / "a.csv", columns)
    with pytest.raises(IngestError, match="row 1, column FLAGS: holds 60 values, expected 57"):
        ingest_photometry([file], folder / "out")
    names = " ".join(["uJPAS", *(band.name for band in JPAS_BANDS), "gSDSS", "rSDSS"])
    file.write_text(f"#FILTERS {names}\n{file.read_text()}")
    ingest_photometry([file], folder / "out")
    same(contents(folder / "out"), expected(OBJECTS))
    file.write_text(file.read_text().replace("J0660", "J0999"))
    with pytest.raises(IngestError, match="unknown filter 'J0999'"):
        ingest_photometry([file], folder / "again")


def test_single_filters_picked_in_a_query_are_understood(folder):
    columns = archive_columns(OBJECTS, "mag")
    slot = [band.name for band in JPAS_BANDS].index("J0660")
    picked = {name: columns[name] for name in ("TILE_ID", "NUMBER", "ALPHA_J2000", "DELTA_J2000")}
    for kind in ("MAG", "MAG_ERR"):
        picked[f"{kind}_APER_COR_3_0[jpas::J0660]"] = columns[f"{kind}_APER_COR_3_0"][:, slot]
    summary = ingest_photometry([write_csv(folder / "a.csv", picked)], folder / "out")
    assert summary.bands == ("J0660",)
    wanted = expected(OBJECTS).select(["tile_id", "number", "flux_j0660", "flux_j0660_err"])
    same(contents(folder / "out"), wanted)


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


def test_nothing_stays_behind_when_the_disk_is_full(folder):
    # A limit on the size of files is what a test can have of a full disk without being root.
    resource = pytest.importorskip("resource", reason="limits on file size are a thing of Unix")
    file = FORMS["contract Parquet"](folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(IngestError, match="File too large"):
            ingest_photometry([file], folder / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in folder.iterdir()] == [file.name]


def test_an_ingest_that_was_interrupted_goes_on_from_what_is_finished(folder, monkeypatch):
    written = []

    def write(path, *arguments):
        if len(written) == 1:
            written.append(path)
            raise KeyboardInterrupt
        written.append(path)
        return write_leaf(path, *arguments)

    file = FORMS["contract Parquet"](folder)
    ingest_photometry([file], folder / "once" / "out", tile_rows=15)
    monkeypatch.setattr("ojala.pipeline.ingest.leaves.write_leaf", write)
    monkeypatch.setattr("ojala.pipeline.ingest.leaves.TASK_ROWS", 1)
    with pytest.raises(KeyboardInterrupt):
        ingest_photometry([file], folder / "out", tile_rows=15)
    first, interrupted = written
    monkeypatch.setattr("ojala.pipeline.ingest.pieces.open_table", None)  # the file is not read again
    summary = ingest_photometry([file], folder / "out", tile_rows=15)
    assert written.count(first) == 1
    assert written.count(interrupted) == 2
    assert len(written) == len(summary.partitions) + 1
    assert digests(folder / "out") == digests(folder / "once" / "out")
    assert sorted(path.name for path in folder.iterdir()) == sorted([file.name, "once", "out"])


def test_what_an_interrupted_ingest_had_finished_is_for_the_same_request_alone(folder, monkeypatch):
    file = FORMS["contract Parquet"](folder)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ojala.pipeline.ingest.leaves.write_leaf", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ingest_photometry([file], folder / "out")
        (kept,) = folder.glob(".out.*")
        with pytest.raises(KeyboardInterrupt):
            ingest_photometry([file], folder / "out", tile_rows=15)
        (other,) = folder.glob(".out.*")
    assert other != kept
    os.utime(file, ns=(0, 0))
    ingest_photometry([file], folder / "out", tile_rows=15)
    assert sorted(path.name for path in folder.iterdir()) == sorted([file.name, "out"])


def test_rows_can_come_from_an_object_store_and_go_to_one(folder):
    store = UPath("memory://ingest-test")
    try:
        source = store / "a.fits"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(FORMS["FITS, magnitudes"](folder).read_bytes())
        ingest_photometry([source], store / "out", tile_rows=15)
        found = [
            pq.read_table(pa.BufferReader((store / "out" / p.leaf).read_bytes()))
            for p in read_leaves(store / "out")
        ]
        same(pa.concat_tables(found), expected(OBJECTS))
        with pytest.raises(IngestError, match="not empty"):
            ingest_photometry([source], store / "out")
    finally:
        store.fs.rm(store.path, recursive=True)


def objects_of(folder: UPath, **more) -> Table:
    """Four objects in the contract's columns."""
    columns = {"tile_id": [9611] * 4, "number": [1, 2, 3, 4], "ra": 246.0 + np.arange(4), "dec": [44.0] * 4}
    return Table(columns | {"flux_j0660": np.arange(4) + 0.25, "flux_j0660_err": [0.5] * 4, **more})


def fluxes(out: UPath) -> list[float | None]:
    return by_key(contents(out))["flux_j0660"].to_pylist()


def text(divider: str) -> str:
    table = objects_of(UPath())
    lines = [divider.join(table.colnames), *(divider.join(map(str, row)) for row in table.iterrows())]
    return "\n".join(lines) + "\n"


TEXTS = {
    "semicolons": text(";"),
    "a spreadsheet's divider": "sep=;\n" + text(";"),
    "tabs": text("\t"),
    "bars": text("|"),
    "blanks": text("   "),
    "header behind #": "# made by hand\n# " + text(","),
    "header behind #, blanks": "# " + text("  "),
    "line ends of Windows": text(",").replace("\n", "\r\n"),
}


@pytest.mark.parametrize("form", TEXTS)
def test_tables_of_text_are_read_however_they_are_divided(form, folder):
    (folder / "a.csv").write_text(TEXTS[form])
    ingest_photometry([folder / "a.csv"], folder / "out")
    assert fluxes(folder / "out") == [0.25, 1.25, 2.25, 3.25]


def test_numbers_without_a_header_are_refused_with_the_line_that_was_tried(folder):
    (folder / "a.csv").write_text("# a table of mine, with notes\n" + text(",").partition("\n")[2])
    with pytest.raises(IngestError, match="has no header: its first line without # holds numbers"):
        ingest_photometry([folder / "a.csv"], folder / "out")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_tables_are_read_and_damage_of_them_is_named(pack, folder):
    table = objects_of(folder)
    table.write(folder / "a.fits")
    for content in (text(",").encode(), (folder / "a.fits").read_bytes()):
        (folder / "packed").write_bytes(pack(content))
        out = folder / f"out{len(content)}"
        ingest_photometry([folder / "packed"], out)
        assert fluxes(out) == [0.25, 1.25, 2.25, 3.25]
        (folder / "packed").write_bytes(pack(content)[:-12])
        with pytest.raises(IngestError, match="packed is damaged"):
            ingest_photometry([folder / "packed"], folder / "again")
    zipped = folder / "a.zip"
    zipped.write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(IngestError, match="is a ZIP archive: unpack it first"):
        ingest_photometry([zipped], folder / "again")


@pytest.mark.parametrize(
    "form", ["parquet", "ecsv", "comma.ecsv", "fits", "vot", "voparquet", "units.parquet"]
)
def test_units_are_those_that_the_file_states_in_every_form(form, folder):
    table = objects_of(folder)
    table["flux_j0660"].unit = table["flux_j0660_err"].unit = "mJy"
    table["ra"] = np.radians(table["ra"])
    table["ra"].unit = "rad"
    path = folder / f"a.{form}"
    if form == "comma.ecsv":
        table.write(path.path, format="ascii.ecsv", delimiter=",")
    elif form == "vot":
        table.write(path.path, format="votable")
    elif form == "voparquet":
        metadata = {name: {"unit": str(table[name].unit or "")} for name in table.colnames}
        table.write(path.path, format="parquet.votable", metadata=metadata)
    elif form == "units.parquet":
        arrays = pa.table({name: table[name].data for name in table.colnames})
        fields = [
            f.with_metadata({"units": str(table[f.name].unit)} if table[f.name].unit else {})
            for f in arrays.schema
        ]
        pq.write_table(arrays.cast(pa.schema(fields)), path.path)
    else:
        table.write(path.path)
    ingest_photometry([path], folder / "out")
    assert fluxes(folder / "out") == pytest.approx([250.0, 1250.0, 2250.0, 3250.0])
    assert by_key(contents(folder / "out"))["ra"].to_pylist() == pytest.approx([246.0, 247.0, 248.0, 249.0])


@pytest.mark.parametrize(
    "form", ["fits", "fits, floats", "fits, arrays", "votable, tabledata", "votable, binary2"]
)
def test_nulls_are_those_that_the_file_declares(form, folder):
    table = objects_of(folder)
    if form.startswith("fits"):
        if form == "fits":
            for name in ("flux_j0660", "flux_j0660_err"):
                table[name] = np.array([-32768, 0, 25, 50], "i2")
        elif form == "fits, floats":
            table["flux_j0660"][0] = -77.0
        hdu = fits.BinTableHDU(table)
        if form == "fits":
            for i in (5, 6):
                hdu.header[f"TSCAL{i}"], hdu.header[f"TZERO{i}"], hdu.header[f"TNULL{i}"] = 0.25, 0.5, -32768
        elif form == "fits, floats":
            hdu.header["TNULL5"] = -77
        else:
            hdu = column_oriented(table)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto((folder / "a").path, output_verify="ignore")
        wanted = {"fits": [None, 0.5, 6.75, 13.0], "fits, floats": [None, 1.25, 2.25, 3.25]}
        wanted["fits, arrays"] = [0.25, 1.25, 2.25, 3.25]
    else:
        table["flux_j0660"] = np.array([-99, 1, 2, 3], "i4")
        votable = from_table(table)
        first = votable.get_first_table()
        first.get_field_by_id("flux_j0660").values.null = -99
        parameter = Param(votable, name="seeing", datatype="int", value=3)
        parameter.values = Values(votable, parameter, null=2)
        first.params.append(parameter)
        writeto(
            votable, (folder / "a").path, tabledata_format="tabledata" if form == "votable" else "binary2"
        )
        wanted = {form: [None, 1.0, 2.0, 3.0]}
    ingest_photometry([folder / "a"], folder / "out")
    assert fluxes(folder / "out") == wanted[form]


def column_oriented(table: Table) -> fits.BinTableHDU:
    """A table as TOPCAT's column-oriented FITS: one row whose cells are the columns."""
    codes = {"i": "K", "f": "D"}
    columns = [
        fits.Column(name, f"{len(table)}{codes[table[name].dtype.kind]}", array=np.array(table[name])[None])
        for name in table.colnames
    ]
    return fits.BinTableHDU.from_columns(columns)


def test_null_elements_of_arrays_in_votables_are_missing(folder):
    nulls = " ".join(["-32768" if i % 2 else "20" for i in range(57)])
    names = ("tile_id", "number", "ra", "dec", "mag_aper_cor_3_0", "mag_err_aper_cor_3_0")
    fields = "".join(
        f'<FIELD name="{name}" datatype="short" arraysize="57"><VALUES null="-32768"/></FIELD>'
        if name.startswith("mag")
        else f'<FIELD name="{name}" datatype="int"/>'
        for name in names
    )
    cells = "".join(f"<TD>{cell}</TD>" for cell in (1, 1, 10, 20, nulls, nulls.replace("20", "1")))
    (folder / "a.vot").write_text(
        f"<VOTABLE><RESOURCE><TABLE>{fields}<DATA><TABLEDATA><TR>{cells}</TR></TABLEDATA></DATA></TABLE>"
        "</RESOURCE></VOTABLE>"
    )
    ingest_photometry([folder / "a.vot"], folder / "out")
    row = contents(folder / "out").to_pylist()[0]
    found = [row[band.flux_column] for band in JPAS_BANDS]
    assert found[1::2] == [None] * 28
    assert found[::2] == pytest.approx([36.31] * 29)


@pytest.mark.parametrize("serialisation", ["BINARY", "BINARY2"])
def test_numbers_of_arraysize_1_are_numbers(serialisation, folder):
    fields = [
        ("tile_id", "int"),
        ("number", "int"),
        ("ra", "double"),
        ("dec", "double"),
        ("flux_j0660", "float"),
    ]
    head = "".join(f'<FIELD name="{name}" datatype="{kind}" arraysize="1"/>' for name, kind in fields)
    mask = b"\0" if serialisation == "BINARY2" else b""
    data = base64.b64encode(mask + struct.pack(">iiddf", 1, 1, 10.5, 20.5, 5.0)).decode()
    (folder / "a.vot").write_text(
        f"<VOTABLE><RESOURCE><TABLE>{head}<DATA><{serialisation}>"
        f'<STREAM encoding="base64">{data}</STREAM></{serialisation}></DATA></TABLE></RESOURCE></VOTABLE>'
    )
    ingest_photometry([folder / "a.vot"], folder / "out")
    assert fluxes(folder / "out") == [5.0]


def test_odd_headers_and_what_follows_the_last_hdu_are_no_damage(folder):
    hdu = fits.BinTableHDU(objects_of(folder))
    hdu.header["TDISP5"], hdu.header["OBSERVER"] = "none", "J. Doe"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto((folder / "a.fits").path, output_verify="ignore")
    content = (folder / "a.fits").read_bytes().replace(b"J. Doe", b"Jos\xe9 D")
    for number, trailing in enumerate((b"", bytes(2880), b"\0" * 100_000, b"notes")):
        (folder / "a.fits").write_bytes(content + trailing)
        ingest_photometry([folder / "a.fits"], folder / f"out{number}")
        assert fluxes(folder / f"out{number}") == [0.25, 1.25, 2.25, 3.25]
    (folder / "a.fits").write_bytes(content[:-1])
    with pytest.raises(IngestError, match=r"a\.fits is a damaged FITS file: it is cut off"):
        ingest_photometry([folder / "a.fits"], folder / "out")


def test_a_compressed_fits_file_is_unpacked_as_far_as_its_headers_say(folder):
    cards = [
        "SIMPLE  =                    T",
        "BITPIX  =                    8",
        "NAXIS   =                    0",
    ]
    head = b"".join(card.ljust(80).encode() for card in [*cards, "END"]).ljust(2880)
    with gzip.open((folder / "bomb.fits.gz").path, "wb", 1) as file:
        file.write(head)
        for _ in range(200):
            file.write(bytes(1 << 20))
    with pytest.raises(IngestError, match="holds 0 binary tables, expected one"):
        ingest_photometry([folder / "bomb.fits.gz"], folder / "out")
    large = head.replace(b"NAXIS   =                    0", b"NAXIS   =                    1").replace(
        b"END" + b" " * 77, b"NAXIS1  =      900000000000000".ljust(80) + b"END" + b" " * 77
    )
    (folder / "bomb.fits.gz").write_bytes(gzip.compress(large[:2880] + bytes(1 << 20)))
    with pytest.raises(IngestError, match=r"unpacks to more than the .* bytes that are left for it"):
        ingest_photometry([folder / "bomb.fits.gz"], folder / "out")
    assert [path.name for path in folder.iterdir()] == ["bomb.fits.gz"]


def test_columns_can_be_left_out_and_read_under_other_names(folder):
    table = objects_of(folder, mag_J0660=[20.0] * 4, my_flux=[7.0] * 4)
    table.rename_column("ra", "RA_J2000")
    table.write(folder / "a.fits")
    with pytest.raises(IngestError, match=r"column mag_J0660: names no known filter .* --ignore mag_J0660"):
        ingest_photometry([folder / "a.fits"], folder / "out", columns={"ra": "ra_j2000"})
    ingest_photometry([folder / "a.fits"], folder / "out", ignore=["MAG_j0660"], columns={"ra": "ra_j2000"})
    assert fluxes(folder / "out") == [0.25, 1.25, 2.25, 3.25]
    with pytest.raises(IngestError, match="column my_flux: is to be read as flux_j0660, but"):
        ingest_photometry([folder / "a.fits"], folder / "other", columns={"flux_j0660": "my_flux"})
    with pytest.raises(IngestError, match="no file has a column mag_j0661"):
        ingest_photometry(
            [folder / "a.fits"],
            folder / "other",
            ignore=["mag_j0660", "mag_j0661"],
            columns={"ra": "ra_j2000"},
        )


def test_crowds_are_divided_into_fine_partitions(folder):
    table = objects_of(folder)
    table["ra"] = 246.0 + 3.0 * np.arange(4) / 3600.0
    table.write(folder / "a.fits")
    summary = ingest_photometry([folder / "a.fits"], folder / "out", tile_rows=1)
    assert list(summary.partitions.values()) == [1, 1, 1, 1]
    assert min(partition.order for partition in summary.partitions) > 10
    assert fluxes(folder / "out") == [0.25, 1.25, 2.25, 3.25]
    assert is_valid_catalog(folder / "out", strict=True)
