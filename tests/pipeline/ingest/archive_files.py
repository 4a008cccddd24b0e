"""Files in the forms of the archive with the same objects, and the photometry that they must give."""

import warnings
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.io.votable import from_table, writeto
from astropy.table import MaskedColumn, Table
from astropy.units import UnitsWarning
from upath import UPath

from ojala.catalogs_schema.bands import BY_NAME, JPAS_BANDS
from ojala.pipeline.storage.hats import read_leaves

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


def parquet_of(path: UPath, columns: dict) -> UPath:
    pq.write_table(pa.table(columns), path.path)
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
