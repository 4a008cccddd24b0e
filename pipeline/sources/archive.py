"""The archive's vocabulary: which columns of a file say what, and how they become photometry.

Understood are the contract's own columns; the archive's key, position and flags; its array columns over
the filters (magnitudes, or fluxes with relative errors) or single filters picked from them, such as
``MAG_APER_COR_3_0[jpas::J0660]``; and the Legacy Survey's fluxes with inverse variances. A column that
looks like a flux or a magnitude and is none of these is refused by name; other columns are left out and
listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from astropy.units import UnitBase

from catalogs_schema.bands import BANDS, BY_NAME, JPAS_BANDS, REFERENCE_BAND, Band, System
from catalogs_schema.contract import NONE
from catalogs_schema.photometry import KEY_SHIFT, MORPH_TYPES, PHOTOMETRY
from pipeline.sky import spatial_index
from pipeline.sources import cells, fluxes
from pipeline.sources.faults import SourceError
from pipeline.sources.fluxes import Family, Measure
from pipeline.sources.tables import SourceColumn, TableSource

APERTURE = "APER_COR_3_0"
"""Aperture of the published catalogue: 3 arcsec, corrected to the total flux."""

OTHER_FILTERS = ("uJPAS", "gSDSS", "rSDSS")
"""Filters of miniJPAS that the survey does not use; left out where a file names them."""

_POSITIONS = (("alpha_j2000", "delta_j2000"), ("ra", "dec"))
_MORPH_TYPE = ("morph_type", "morphtype", "type")
_COMPUTED = ("_healpix_29", "object_id")
_LEGACY = {"g": "ls_g", "r": "ls_r", "i": "ls_i", "z": "ls_z", "w1": "W1", "w2": "W2", "w3": "W3", "w4": "W4"}
_APERTURES = r"auto|petro|iso|psfcor|aper3_worstpsf|aper(?:_cor)?_\d+_\d+"
_OF_FILTERS = re.compile(
    rf"(?P<kind>mag_err|mag|flux_relerr|flux)_(?P<aperture>{_APERTURES})(?:\[(?:\w+::)?(?P<filter>\w+)\])?"
)
_ERROR_KIND = {"mag": "mag_err", "flux": "flux_relerr"}
# SExtractor's names that begin like a flux and are none.
_NO_FLUX = ("flux_radius",)
_INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Reading:
    """How one column, with its errors, becomes the fluxes of one band or of several.

    Attributes
    ----------
    value, error : str
        Columns of the file (lower case); the error may be missing from it (None).
    bands : tuple of Band or None
        The band of each place of an array column, None where it is not kept; one band for single values.
    is_array : bool
        Whether cells are arrays.
    measure : callable
        Turns values and errors into uJy.
    scale : tuple of float
        uJy per unit of value, for each band.
    """

    value: str
    error: str | None
    bands: tuple[Band | None, ...]
    is_array: bool
    measure: Measure
    scale: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in a file each thing stands.

    Attributes
    ----------
    position : tuple of str
        Columns of right ascension and declination.
    morph_type : str or None
        Column of the morphological type.
    filters : tuple of Band or None
        Band of each place of the array columns.
    readings : tuple of Reading
        Where the fluxes come from.
    read, ignored : tuple of str
        Columns that are read (lower case) and those that are not (in the file's spelling).
    """

    position: tuple[str, str]
    morph_type: str | None
    filters: tuple[Band | None, ...]
    readings: tuple[Reading, ...]
    read: tuple[str, ...]
    ignored: tuple[str, ...]

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands that the file has, in the contract's order."""
        found = {band for reading in self.readings for band in reading.bands}
        return tuple(band.name for band in BANDS if band in found)


def resolve(source: TableSource, aperture: str = APERTURE, units: Family | None = None) -> Layout:
    """Find out what the columns of a file mean.

    Parameters
    ----------
    source : TableSource
        The file's columns, units and notes.
    aperture : str
        Which aperture to read where a file has several.
    units : {"fnu", "flambda"}, optional
        Whether the archive's fluxes are those of FNuDualObj or FLambdaDualObj, for files that do not say.

    Returns
    -------
    Layout

    Raises
    ------
    SourceError
        If the key, the position or all photometry is missing, or a flux or magnitude is not understood.
    """
    names = source.columns
    for key in ("tile_id", "number"):
        if key not in names:
            raise SourceError(f"is missing: tile_id and number are the key; {_present(names)}", column=key)
    position = next((pair for pair in _POSITIONS if all(name in names for name in pair)), None)
    if position is None:
        raise SourceError(
            f"has no position: neither ALPHA_J2000 and DELTA_J2000 nor ra and dec; {_present(names)}"
        )
    for name in position:
        if names[name].unit.strip().lower() not in ("", "deg", "degree", "degrees"):
            raise SourceError(f"has the unit {names[name].unit!r}, expected deg", column=names[name].name)
    morph_type = next((name for name in _MORPH_TYPE if name in names), None)
    filters = _filters(source.notes.get("filters"))

    scalars, survey = _sort_out(names)
    readings = [*_contract_readings(scalars, names), *_legacy_readings(scalars, names)]
    readings += _survey_readings(survey, source, filters, aperture.lower(), units)
    _refuse_twice(readings, names)
    if not readings:
        raise SourceError(f"has no photometry: no column of fluxes or magnitudes; {_present(names)}")

    read = ["tile_id", "number", *position]
    read += [
        name for name in ("ebv", morph_type, "flags", "mask_flags") if name in names and name is not None
    ]
    read += [name for r in readings for name in (r.value, r.error) if name is not None]
    ignored = [c.name for key, c in names.items() if key not in read and key not in _COMPUTED]
    return Layout(position, morph_type, filters, tuple(readings), tuple(read), tuple(ignored))


def _filters(named: str | None) -> tuple[Band | None, ...]:
    if named is None:
        return JPAS_BANDS
    words = named.replace(",", " ").split()
    for word in words:
        if word not in OTHER_FILTERS and word not in BY_NAME:
            raise SourceError(f"names the unknown filter {word!r} among its filters")
        if words.count(word) > 1:
            raise SourceError(f"names the filter {word!r} twice among its filters")
    return tuple(BY_NAME.get(word) for word in words)


def _sort_out(
    names: Mapping[str, SourceColumn],
) -> tuple[set[str], dict[str, re.Match[str]]]:
    """Columns with the flux of one band, and those of the archive."""
    known = {c for band in BANDS for c in (band.flux_column, band.error_column)}
    known |= {f"{kind}_{short}" for short in _LEGACY for kind in ("flux", "flux_ivar")}
    scalars: set[str] = set()
    survey: dict[str, re.Match[str]] = {}
    for name, column in names.items():
        if name in known:
            scalars.add(name)
        elif match := _OF_FILTERS.fullmatch(name):
            survey[name] = match
        elif name.startswith(("flux_", "mag_")) and name not in _NO_FLUX:
            raise SourceError(
                "names no known filter or aperture: fluxes are flux_<band> in uJy, arrays such as "
                f"FLUX_{APERTURE} or MAG_{APERTURE}, or Legacy Survey fluxes such as flux_g with "
                "flux_ivar_g; leave the column out if it is not photometry to be read",
                column=column.name,
            )
    return scalars, survey


def _contract_readings(scalars: set[str], names: Mapping[str, SourceColumn]) -> list[Reading]:
    readings = []
    for band in BANDS:
        value, error = band.flux_column, band.error_column
        legacy = f"flux_ivar_{band.name.lower()}" in scalars
        if legacy and error in scalars:
            raise SourceError(
                f"has both {names[error].name} (uJy) and {names[f'flux_ivar_{band.name.lower()}'].name} "
                "(nanomaggies) beside it; leave one out",
                column=band.flux_column,
            )
        if legacy or not {value, error} & scalars:
            continue
        if value not in scalars:
            raise SourceError(f"is the error of {value}, which is missing", column=names[error].name)
        if band.system is System.WISE and error not in scalars:
            raise SourceError(
                f"has neither {error} (then it is in uJy) nor flux_ivar_{band.name.lower()} (then it is in "
                "nanomaggies) beside it",
                column=names[value].name,
            )
        if error in scalars and names[error].unit not in ("", names[value].unit):
            raise SourceError(
                f"has the unit {names[error].unit!r}, but {names[value].name} has {names[value].unit!r}",
                column=names[error].name,
            )
        scale = _scalar_scale(names[value], band)
        readings.append(
            Reading(value, error if error in scalars else None, (band,), False, fluxes.from_flux, (scale,))
        )
    return readings


def _scalar_scale(column: SourceColumn, band: Band) -> float:
    unit = _unit(column)
    if unit is None:
        return 1.0
    if fluxes.family_of(unit) is None:
        raise SourceError(f"has the unit {column.unit!r}, expected a flux density", column=column.name)
    return fluxes.microjansky_per(unit, band.pivot)


def _legacy_readings(scalars: set[str], names: Mapping[str, SourceColumn]) -> list[Reading]:
    readings = []
    for short, band_name in _LEGACY.items():
        value, ivar = f"flux_{short}", f"flux_ivar_{short}"
        band = BY_NAME[band_name]
        if ivar not in scalars and (value not in scalars or value == band.flux_column):
            continue
        for name, other in ((value, ivar), (ivar, value)):
            if name not in scalars:
                raise SourceError(f"is missing beside {names[other].name}", column=name)
        if names[value].unit.strip().lower() not in ("", "nanomaggy", "nanomaggies", "nmgy"):
            raise SourceError(
                f"has the unit {names[value].unit!r}, expected nanomaggies", column=names[value].name
            )
        readings.append(Reading(value, ivar, (band,), False, fluxes.from_nanomaggies, (1.0,)))
    return readings


def _survey_readings(
    survey: dict[str, re.Match[str]],
    source: TableSource,
    filters: tuple[Band | None, ...],
    aperture: str,
    units: Family | None,
) -> list[Reading]:
    if not survey:
        return []
    values = {name: match for name, match in survey.items() if match["kind"] in _ERROR_KIND}
    apertures = sorted({match["aperture"].upper() for match in values.values()})
    chosen = {name: match for name, match in values.items() if match["aperture"] == aperture}
    if not chosen:
        raise SourceError(
            f"has no aperture {aperture.upper()}; those it has, to be asked for with --aperture, are: "
            f"{', '.join(apertures) or 'none'}"
        )
    # Fluxes say more than magnitudes, which cannot be negative.
    kind = "flux" if any(match["kind"] == "flux" for match in chosen.values()) else "mag"
    readings = []
    for name, match in chosen.items():
        if match["kind"] != kind:
            continue
        column = source.columns[name]
        bands = filters if match["filter"] is None else (_picked(match["filter"], column),)
        error = _ERROR_KIND[kind] + name.removeprefix(kind)
        if error not in source.columns:
            raise SourceError(f"is missing beside {column.name}", column=error.upper())
        measure: Measure = fluxes.from_magnitude
        scale: tuple[float, ...] = (1.0,) * len(bands)
        if kind == "flux":
            measure, scale = fluxes.from_relative_error, _flux_scale(column, bands, source, units)
        readings.append(Reading(name, error, bands, match["filter"] is None, measure, scale))
    return readings


def _picked(name: str, column: SourceColumn) -> Band:
    for band in JPAS_BANDS:
        if band.name.lower() == name:
            return band
    raise SourceError(f"names the unknown filter {name!r}", column=column.name)


def _flux_scale(
    column: SourceColumn, bands: tuple[Band | None, ...], source: TableSource, units: Family | None
) -> tuple[float, ...]:
    """UJy per unit of the archive's flux columns, which have the same names in its two flux tables."""
    query = source.notes.get("select", "").lower()
    tables: list[tuple[str, Family]] = [("fnudualobj", "fnu"), ("flambdadualobj", "flambda")]
    said: dict[str, Family] = {
        f"the query reads {table}": family for table, family in tables if table in query
    }
    if units is not None:
        said["--units"] = units
    stated = set(said.values())
    unit = _unit(column)
    if unit is not None:
        family = fluxes.family_of(unit)
        if family is None:
            raise SourceError(f"has the unit {column.unit!r}, expected a flux density", column=column.name)
        said[f"the unit is {column.unit!r}"] = family
        if fluxes.is_bare_cgs(unit):
            # The archive's numbers are in units of 1e-30 or 1e-19 of this; a file that leaves the power
            # of ten out has to be vouched for.
            unit = None
    if len(set(said.values())) > 1:
        contradiction = "; ".join(f"{where}: {family}" for where, family in said.items())
        raise SourceError(f"is said to be in different units ({contradiction})", column=column.name)
    if unit is None:
        if not stated:
            raise SourceError(
                "does not say its units: name the archive's table it comes from with --units fnu "
                "(FNuDualObj, 1e-30 erg/s/cm2/Hz) or --units flambda (FLambdaDualObj, 1e-19 erg/s/cm2/A)",
                column=column.name,
            )
        unit = fluxes.parse_unit(fluxes.ARCHIVE_UNIT[stated.pop()])
    return tuple(1.0 if band is None else fluxes.microjansky_per(unit, band.pivot) for band in bands)


def _unit(column: SourceColumn) -> UnitBase | None:
    try:
        return fluxes.parse_unit(column.unit)
    except ValueError:
        raise SourceError(
            f"has the unit {column.unit!r}, which is not understood", column=column.name
        ) from None


def _refuse_twice(readings: list[Reading], names: Mapping[str, SourceColumn]) -> None:
    seen: dict[Band, Reading] = {}
    for reading in readings:
        for band in reading.bands:
            if band is None:
                continue
            if band in seen:
                raise SourceError(
                    f"gives {band.name} a second time, beside {names[seen[band].value].name}; leave one out",
                    column=names[reading.value].name,
                )
            seen[band] = reading


def _present(names: Mapping[str, SourceColumn]) -> str:
    shown = [column.name for column in names.values()][:12]
    return f"its columns are {', '.join(shown)}{' ...' if len(names) > len(shown) else ''}"


class _Faults:
    """Keeps the fault of the first row, so that it does not matter which column is looked at first."""

    def __init__(self) -> None:
        self.first: SourceError | None = None

    def __enter__(self) -> _Faults:
        return self

    def __exit__(self, kind: object, fault: BaseException | None, trace: object) -> bool:
        if not isinstance(fault, SourceError):
            return False
        if self.first is None or (fault.row or 0) < (self.first.row or 0):
            self.first = fault
        return True


def photometry(batch: pa.RecordBatch, layout: Layout, names: Mapping[str, SourceColumn]) -> pa.Table:
    """Rows of a file as photometry.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        The columns ``layout.read``.
    layout : Layout
        What they mean.
    names : mapping of str to SourceColumn
        The file's columns, for messages.

    Returns
    -------
    pyarrow.Table
        The same rows in the same order, in the columns of the contract `PHOTOMETRY`.

    Raises
    ------
    SourceError
        With the first row of the batch, counted from 1, that is not understood.
    """
    faults = _Faults()
    columns: dict[str, pa.Array] = {"morph_type": pa.array([NONE] * batch.num_rows)}
    key: dict[str, np.ndarray] = {}
    for name in ("tile_id", "number"):
        with faults:
            key[name] = cells.whole_numbers(
                batch[name], names[name].name, low=0, high=_INT32, required=True
            ).astype(np.int64)
    sky: list[np.ndarray] = []
    for name, low, high in zip(layout.position, (0.0, -90.0), (360.0, 90.0), strict=True):
        with faults:
            sky.append(cells.angles(batch[name], names[name].name, low=low, high=high))
    if "ebv" in layout.read:
        with faults:
            columns["ebv"] = _single(cells.numbers(batch["ebv"], names["ebv"].name))
    if layout.morph_type is not None:
        with faults:
            found = cells.words(batch[layout.morph_type], names[layout.morph_type].name, MORPH_TYPES)
            columns["morph_type"] = found.fill_null(NONE)
    for name in ("flags", "mask_flags"):
        if name in layout.read:
            with faults:
                columns[name] = _flags(batch[name], names[name].name, layout.filters)
    for reading in layout.readings:
        with faults:
            columns |= _fluxes(batch, reading, names)
    if faults.first is not None:
        raise faults.first

    columns["tile_id"] = pa.array(key["tile_id"], pa.int32())
    columns["number"] = pa.array(key["number"], pa.int32())
    columns["object_id"] = pa.array(key["tile_id"] << KEY_SHIFT | key["number"])
    columns["ra"], columns["dec"] = pa.array(sky[0]), pa.array(sky[1])
    columns["_healpix_29"] = pa.array(spatial_index(sky[0], sky[1]))
    schema = PHOTOMETRY.schema()
    return pa.Table.from_arrays(
        [columns.get(field.name, pa.nulls(batch.num_rows, field.type)) for field in schema], schema=schema
    )


def _flags(values: pa.Array, column: str, filters: tuple[Band | None, ...]) -> pa.Array:
    """Flags of the detection band, from flags of each filter or of the object."""
    detection = next((slot for slot, band in enumerate(filters) if band == BY_NAME[REFERENCE_BAND]), None)
    chosen = pa.array(cells.pick(values, column, len(filters), detection))
    found = cells.whole_numbers(chosen, column, low=-_INT32 - 1, high=_INT32)
    return pa.array(found, pa.int32(), from_pandas=True)


def _fluxes(
    batch: pa.RecordBatch, reading: Reading, names: Mapping[str, SourceColumn]
) -> dict[str, pa.Array]:
    value = _matrix(batch, reading.value, reading, names)
    error = np.full_like(value, np.nan)
    if reading.error is not None:
        error = _matrix(batch, reading.error, reading, names)
    flux, sigma = reading.measure(value, error, np.asarray(reading.scale))
    columns = {}
    for slot, band in enumerate(reading.bands):
        if band is not None:
            columns[band.flux_column] = _single(flux[:, slot])
            columns[band.error_column] = _single(sigma[:, slot])
    return columns


def _matrix(
    batch: pa.RecordBatch, name: str, reading: Reading, names: Mapping[str, SourceColumn]
) -> np.ndarray:
    if reading.is_array:
        return cells.arrays(batch[name], names[name].name, len(reading.bands))
    return cells.numbers(batch[name], names[name].name)[:, np.newaxis]


def _single(values: np.ndarray) -> pa.Array:
    with np.errstate(over="ignore"):
        return pa.array(values.astype(np.float32), from_pandas=True)
