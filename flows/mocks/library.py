"""Library of simulated spectra, and mock photometry with truth drawn from it.

library = build_library(Path("library.npz"), templates=..., curves=..., n_galaxies=34_000)
sky = load_sky(Path("library.npz"))
photometry = sky.draw(10_000, np.random.default_rng(1))
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.bands import BANDS, MODEL_BANDS
from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.files import atomic_file
from ojala.models.data import LabelledPhotometry
from ojala.models.quantities import CLASSES
from ojala.models.simulation.photometry.photometer import Curves, Photometer
from ojala.models.simulation.populations import galaxies, quasars, stars
from ojala.models.simulation.skies.photometric import SURVEY_SHARES, Libraries, MockSky
from ojala.pipeline.ingest.reference.filter_curves import read_curves
from ojala.pipeline.ingest.reference.templates import (
    read_archetypes,
    read_atmospheres,
    read_quasar_templates,
    read_single_stars,
)
from ojala.pipeline.storage.files import write_whole

_DIGITS = 4
_COLUMN = {band.name: i for i, band in enumerate(MODEL_BANDS)}


def photometry_table(drawn: LabelledPhotometry, ra: np.ndarray, dec: np.ndarray, tile_id: int) -> pa.Table:
    """Make a table of photometry for `ojala ingest`, with four significant digits.

    Parameters
    ----------
    drawn : LabelledPhotometry
        N objects.
    ra, dec : ndarray, shape (N,)
        Their positions [deg].
    tile_id : int
        Tile of all objects; they are numbered from 1.
    """
    n = len(drawn)
    columns: dict[str, pa.Array] = {**_key(n, tile_id), "ra": pa.array(ra), "dec": pa.array(dec)}
    columns["ebv"] = _rounded(drawn.ebv)
    columns["flags"] = columns["mask_flags"] = pa.array(np.zeros(n, np.int32))
    missing = np.full(n, np.nan, np.float32)
    for band in BANDS:
        at = _COLUMN.get(band.name)
        flux, error = (missing, missing) if at is None else (drawn.flux[:, at], drawn.error[:, at])
        columns[band.flux_column], columns[band.error_column] = _rounded(flux), _rounded(error)
    return pa.table(columns)


def truth_table(drawn: LabelledPhotometry, tile_id: int) -> pa.Table:
    """Make a table of class, redshift (null for stars) and labels, by the key of `photometry_table`."""
    z = np.where(np.isfinite(drawn.labels["z_gal"]), drawn.labels["z_gal"], drawn.labels["z_qso"])
    return pa.table(
        {
            **_key(len(drawn), tile_id),
            "class": pa.array([CLASSES[code] for code in drawn.class_code]),
            "z": pa.array(z, mask=np.isnan(z)),
            **{name: _rounded(values) for name, values in drawn.labels.items()},
        }
    )


def _rounded(values: np.ndarray) -> pa.Array:
    """Round to four significant digits; float32, null for NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        place = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(np.abs(values.astype(np.float64)))))
        short = np.where(np.isfinite(place), np.round(values * place) / place, values)
    return pa.array(short.astype(np.float32), mask=np.isnan(values))


def _key(n: int, tile_id: int) -> dict[str, pa.Array]:
    return {
        "tile_id": pa.array(np.full(n, tile_id, np.int32)),
        "number": pa.array(np.arange(1, n + 1, dtype=np.int32)),
    }


ARCHETYPES = ("M", "K", "G", "F", "A", "B", "WD")
"""Classes of stellar archetypes in the library."""


def check_sources(templates: Path, curves: Path) -> dict[str, str]:
    """Read all that `build_library` needs, without simulating anything.

    Parameters
    ----------
    templates, curves : Path
        As for `build_library`.

    Returns
    -------
    dict of str to str
        Problem of each source by its name; empty where it can be used.
    """
    sources: dict[str, Callable[[], object]] = {
        "ck04 atmospheres": lambda: read_atmospheres(templates),
        "redrock's stars": lambda: [read_archetypes(templates, kind) for kind in ARCHETYPES],
        "SDSS, Koester's and Pickles' stars": lambda: read_single_stars(templates),
        "quasar model, IGM coefficients": lambda: read_quasar_templates(templates),
        "transmission curves": lambda: read_curves(curves),
    }
    problems = {}
    for name, read in sources.items():
        try:
            read()
        except (OSError, ValueError, LookupError) as problem:
            problems[name] = str(problem)
        else:
            problems[name] = ""
    present = find_spec("bagpipes") is not None
    problems["bagpipes"] = (
        "" if present else "is not installed: pip install '.[training]' in a checkout of ojala"
    )
    return problems


def build_library(
    out: Path,
    *,
    templates: Path,
    curves: Path,
    n_galaxies: int = 34_000,
    n_stars: int = 8_000,
    n_quasars: int = 7_000,
    seed: int = 1,
) -> None:
    """Simulate the library of spectra for mock skies; half a minute per thousand galaxies.

    Parameters
    ----------
    out : Path
        File (``.npz``) for spectra, labels and transmission curves, about 25 kB per member.
    templates : Path
        Folder with the ck04 atmospheres, the redrock templates, the Pickles library and the data files
        of the quasar model.
    curves : Path
        Folder with the transmission curves.
    n_galaxies, n_stars, n_quasars : int
        Members of each library, without the stellar archetypes.
    seed : int
        Seed of all draws.

    Raises
    ------
    ModuleNotFoundError
        bagpipes (extra ``training``) is not installed.
    FileNotFoundError
        A template or curve is missing.
    """
    rng_galaxies, rng_stars, rng_quasars = np.random.default_rng(seed).spawn(3)
    quasar_templates = read_quasar_templates(templates)
    libraries = Libraries(
        galaxies=galaxies.simulate(n_galaxies, rng_galaxies),
        stars=stars.simulate(
            read_atmospheres(templates),
            [read_archetypes(templates, kind) for kind in ARCHETYPES],
            read_single_stars(templates),
            n_stars,
            rng_stars,
        ),
        quasars={
            **quasars.simulate(quasar_templates, n_quasars, rng_quasars),
            "igm": quasars.igm_transmission(quasar_templates),
        },
    )
    save_library(out, libraries, read_curves(curves))


def save_library(path: Path, libraries: Libraries, curves: Curves) -> None:
    """Write libraries and curves to one ``.npz`` file atomically."""
    arrays = {
        f"{kind}/{name}": values
        for kind in ("galaxies", "stars", "quasars")
        for name, values in getattr(libraries, kind).items()
    }
    for band, curve in curves.items():
        arrays[f"curves/{band}"] = np.array(curve)
    with atomic_file(path) as file:
        np.savez(file, **arrays)


def load_sky(path: Path, *, without: frozenset[str] = frozenset()) -> MockSky:
    """Read a library into a sampler, in seconds; memory is the size of the library.

    Parameters
    ----------
    path : Path
        Library, made by `build_library`.
    without : frozenset of str
        Rare kinds that are not drawn; see `ojala.models.simulation.skies.photometric.RARE`.

    Raises
    ------
    InputError
        The file is not a library, or is one of an older version.
    """
    groups: dict[str, dict[str, np.ndarray]] = {"galaxies": {}, "stars": {}, "quasars": {}, "curves": {}}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for key in arrays.files:
                group, _, name = key.partition("/")
                if group not in groups:
                    raise InputError(f"unexpected entry {key!r}")
                groups[group][name] = arrays[key]
    except (ValueError, EOFError, BadZipFile, AttributeError) as error:
        raise InputError(f"{path} is not a library of spectra: {error}") from error
    absent = [group for group, members in groups.items() if not members]
    if absent:
        raise InputError(f"{path} is not a library of spectra: it has no {', '.join(absent)}")
    curves = groups.pop("curves")
    photometer = Photometer({band: (c[0], c[1]) for band, c in curves.items()})
    try:
        return MockSky(Libraries(**groups), photometer, without=without)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def write_mock_catalogue(
    sky: MockSky,
    out: Path,
    truth: Path,
    *,
    positions: tuple[np.ndarray, np.ndarray],
    tile_id: int,
    rng: np.random.Generator,
) -> None:
    """Write photometry and truth of held-out objects in the mix of a survey.

    Parameters
    ----------
    sky : MockSky
        Sampler.
    out, truth : Path
        Parquet files for the photometry [uJy, four digits] and, by the same key, ``class``, ``z`` (null for
        stars) and labels.
    positions : tuple of ndarray
        Right ascension and declination of each object [deg].
    tile_id : int
        Tile of all objects; they are numbered from 1.
    rng : Generator
        Source of randomness.
    """
    ra, dec = positions
    drawn = sky.draw(len(ra), rng, shares=SURVEY_SHARES, held_out=True)
    _write_parquet(photometry_table(drawn, ra, dec, tile_id), out)
    _write_parquet(truth_table(drawn, tile_id), truth)


def _write_parquet(table: pa.Table, path: Path) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=19)
    write_whole(UPath(path), memoryview(sink.getvalue()))
