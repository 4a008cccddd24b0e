"""Mapping of a file's columns to the photometry contract.

Accepted are the contract's own columns; the archive's key, position and flags; its array columns over the
filters (magnitudes, or fluxes with relative errors) or single filters picked from them, such as
``MAG_APER_COR_3_0[jpas::J0660]``; the Legacy Survey's fluxes with inverse variances; and the table of ratios
and magnitudes that the authors of OJALÁ read (`published_table`). Beside the chosen aperture the Kron flux of
the detection band is kept. A column that looks like a flux or a magnitude and is none of these is refused by
name; other columns are left out and listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import astropy.units as u

from ojala.catalogs_schema.bands import (
    BANDS,
    BY_NAME,
    JPAS_BANDS,
    KRON_BAND,
    REFERENCE_BAND,
    Band,
    System,
)
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.table import SourceColumn, TableSource, scale_to
from ojala.pipeline.ingest.jpas import flux_units, published_table
from ojala.pipeline.ingest.jpas.flux_units import FluxConverter, FluxDensityKind
from ojala.pipeline.ingest.jpas.published_table import PublishedTable
from ojala.pipeline.storage.units import parse_unit

APERTURE = "APER_COR_3_0"
"""Aperture of the published catalogue: 3 arcsec, corrected to the total flux."""

KRON = "auto"
"""Kron aperture in the names of the archive's columns."""

OTHER_FILTERS = ("uJPAS", "gSDSS", "rSDSS")
"""Filters of miniJPAS that the survey does not use; left out where a file names them."""

POSITIONS = (("alpha_j2000", "delta_j2000"), ("ra", "dec"))
"""Columns of right ascension and declination, in the archive and in the contract."""

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


class IncompleteTable(SourceError):
    """A table without positions or without photometry, which may stand in another file."""


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """Mapping of one column, with its errors, to the fluxes of one band or of several.

    Attributes
    ----------
    value, error : str
        Columns of the file (lower case); the error may be missing from it (None).
    bands : tuple of Band or None
        Band of each element of an array column, None where it is not kept; one band for scalars.
    is_array : bool
        Whether cells are arrays.
    convert : FluxConverter
        Converts values and errors to uJy.
    scale : tuple of float
        uJy per unit of value, for each band.
    """

    value: str
    error: str | None
    bands: tuple[Band | None, ...]
    is_array: bool
    convert: FluxConverter
    scale: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TableMapping:
    """Mapping of all columns of a file.

    Attributes
    ----------
    position : tuple of str
        Columns of right ascension and declination.
    to_degrees : tuple of float
        Degrees per unit of each of them.
    morph_type : str or None
        Column of the morphological type.
    filters : tuple of Band or None
        Band of each element of the array columns.
    columns : tuple of ColumnMapping
        Mappings of the fluxes.
    read, ignored : tuple of str
        Columns that are read (lower case) and columns that are not (in the file's spelling).
    published : PublishedTable or None
        Columns of a table of the authors of OJALÁ, which then has all fluxes.
    """

    position: tuple[str, str]
    to_degrees: tuple[float, float]
    morph_type: str | None
    filters: tuple[Band | None, ...]
    columns: tuple[ColumnMapping, ...]
    read: tuple[str, ...]
    ignored: tuple[str, ...]
    published: PublishedTable | None = None

    @property
    def detection(self) -> int | None:
        """Index of the detection band in the array columns; None where they leave it out."""
        names = [band.name if band is not None else None for band in self.filters]
        return names.index(REFERENCE_BAND) if REFERENCE_BAND in names else None

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands with fluxes, in the contract's order."""
        if self.published is not None:
            return self.published.bands
        found = {band for column in self.columns for band in column.bands}
        return tuple(band.name for band in BANDS if band in found)


def map_columns(
    source: TableSource, aperture: str = APERTURE, units: FluxDensityKind | None = None
) -> TableMapping:
    """Map the columns of a file to the contract.

    Parameters
    ----------
    source : TableSource
        The file's columns, units and notes.
    aperture : str
        Aperture to read where a file has several.
    units : {"fnu", "flambda"}, optional
        Whether the archive's fluxes are those of FNuDualObj or FLambdaDualObj, for files that do not state
        it.

    Returns
    -------
    TableMapping

    Raises
    ------
    SourceError
        If the key, the position or all photometry is missing, or a flux or magnitude is not understood.
    """
    names = source.columns
    for key in ("tile_id", "number"):
        if key not in names:
            raise SourceError(f"is missing: tile_id and number are the key; {_present(names)}", column=key)
    position = next((pair for pair in POSITIONS if all(name in names for name in pair)), None)
    if position is None:
        raise IncompleteTable(
            f"has no position: neither ALPHA_J2000 and DELTA_J2000 nor ra and dec; {_present(names)}"
        )
    to_degrees = scale_to(names[position[0]], "deg", hour_angle=True), scale_to(names[position[1]], "deg")
    if "ebv" in names and scale_to(names["ebv"], "mag") != 1.0:
        raise SourceError(f"has the unit {names['ebv'].unit!r}, expected mag", column=names["ebv"].name)
    morph_type = next((name for name in _MORPH_TYPE if name in names), None)
    filters = _filters(source.notes.get("filters"))

    published = published_table.find(names, aperture)
    mappings: list[ColumnMapping] = []
    if published is None:
        scalars, survey = _split_columns(names)
        mappings = [*_contract_columns(scalars, names), *_legacy_columns(scalars, names)]
        mappings += _survey_columns(survey, source, filters, aperture.lower(), units)
        mappings += _kron_columns(survey, source, filters, units)
        _refuse_duplicates(mappings, names)
    if not mappings and published is None:
        raise IncompleteTable(f"has no photometry: no column of fluxes or magnitudes; {_present(names)}")

    read = ["tile_id", "number", *position]
    read += [
        name for name in ("ebv", morph_type, "flags", "mask_flags") if name in names and name is not None
    ]
    read += [name for r in mappings for name in (r.value, r.error) if name is not None]
    read = list(dict.fromkeys([*read, *(published.read if published else ())]))
    ignored = [c.name for key, c in names.items() if key not in read and key not in _COMPUTED]
    return TableMapping(
        position, to_degrees, morph_type, filters, tuple(mappings), tuple(read), tuple(ignored), published
    )


def _filters(named: str | None) -> tuple[Band | None, ...]:
    if named is None:
        return JPAS_BANDS
    words = named.replace(",", " ").split()
    known = {band.name: band for band in JPAS_BANDS}
    for word in words:
        if word not in OTHER_FILTERS and word not in known:
            raise SourceError(f"names the unknown filter {word!r} among its filters")
        if words.count(word) > 1:
            raise SourceError(f"names the filter {word!r} twice among its filters")
    return tuple(known.get(word) for word in words)


def _split_columns(
    names: Mapping[str, SourceColumn],
) -> tuple[set[str], dict[str, re.Match[str]]]:
    """Columns with the flux of one band, and columns of the archive."""
    known = {c for band in (*BANDS, KRON_BAND) for c in (band.flux_column, band.error_column)}
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
                f"flux_ivar_g; leave it out with --ignore {column.name} if it is not photometry to be read",
                column=column.name,
            )
    return scalars, survey


def _contract_columns(scalars: set[str], names: Mapping[str, SourceColumn]) -> list[ColumnMapping]:
    mappings = []
    for band in (*BANDS, KRON_BAND):
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
        mappings.append(
            ColumnMapping(
                value, error if error in scalars else None, (band,), False, flux_units.from_flux, (scale,)
            )
        )
    return mappings


def _scalar_scale(column: SourceColumn, band: Band) -> float:
    unit = _unit(column)
    if unit is None:
        return 1.0
    if flux_units.kind_of(unit) is None:
        raise SourceError(f"has the unit {column.unit!r}, expected a flux density", column=column.name)
    return flux_units.microjansky_per(unit, band.pivot)


def _legacy_columns(scalars: set[str], names: Mapping[str, SourceColumn]) -> list[ColumnMapping]:
    mappings = []
    for short, band_name in _LEGACY.items():
        value, ivar = f"flux_{short}", f"flux_ivar_{short}"
        band = BY_NAME[band_name]
        if ivar not in scalars and (value not in scalars or value == band.flux_column):
            continue
        for name, other in ((value, ivar), (ivar, value)):
            if name not in scalars:
                raise SourceError(f"is missing beside {names[other].name}", column=name)
        for name, unit in ((value, "nanomaggy"), (ivar, "1 / nanomaggy2")):
            if scale_to(names[name], unit) != 1.0:
                raise SourceError(
                    f"has the unit {names[name].unit!r}, expected {unit}", column=names[name].name
                )
        mappings.append(ColumnMapping(value, ivar, (band,), False, flux_units.from_nanomaggies, (1.0,)))
    return mappings


def _survey_columns(
    survey: dict[str, re.Match[str]],
    source: TableSource,
    filters: tuple[Band | None, ...],
    aperture: str,
    units: FluxDensityKind | None,
) -> list[ColumnMapping]:
    if not survey:
        return []
    apertures = sorted({m["aperture"].upper() for m in survey.values() if m["kind"] in _ERROR_KIND})
    if aperture.upper() not in apertures:
        raise SourceError(
            f"has no aperture {aperture.upper()}; those it has, to be asked for with --aperture, are: "
            f"{', '.join(apertures) or 'none'}"
        )
    return _aperture_columns(survey, source, filters, aperture, units)


def _kron_columns(
    survey: dict[str, re.Match[str]],
    source: TableSource,
    filters: tuple[Band | None, ...],
    units: FluxDensityKind | None,
) -> list[ColumnMapping]:
    """Kron flux of the detection band with its error, where the table has both."""
    with_error = {
        name: match
        for name, match in survey.items()
        if match["kind"] in _ERROR_KIND
        and name.replace(match["kind"], _ERROR_KIND[match["kind"]], 1) in survey
    }
    mappings = []
    for mapping in _aperture_columns(with_error, source, filters, KRON, units):
        bands = tuple(
            KRON_BAND if band is not None and band.name == REFERENCE_BAND else None for band in mapping.bands
        )
        if KRON_BAND in bands:
            mappings.append(replace(mapping, bands=bands))
    return mappings


def _aperture_columns(
    survey: dict[str, re.Match[str]],
    source: TableSource,
    filters: tuple[Band | None, ...],
    aperture: str,
    units: FluxDensityKind | None,
) -> list[ColumnMapping]:
    """Mappings of one aperture's columns."""
    chosen = {
        name: match
        for name, match in survey.items()
        if match["kind"] in _ERROR_KIND and match["aperture"] == aperture
    }
    # Fluxes say more than magnitudes, which cannot be negative.
    kind = "flux" if any(match["kind"] == "flux" for match in chosen.values()) else "mag"
    mappings = []
    for name, match in chosen.items():
        if match["kind"] != kind:
            continue
        column = source.columns[name]
        bands = filters if match["filter"] is None else (_band_of_filter(match["filter"], column),)
        error = _ERROR_KIND[kind] + name.removeprefix(kind)
        if error not in source.columns:
            raise SourceError(f"is missing beside {column.name}", column=error.upper())
        convert: FluxConverter = flux_units.from_magnitude
        scale: tuple[float, ...] = (1.0,) * len(bands)
        if kind == "flux":
            convert, scale = flux_units.from_relative_error, _flux_scale(column, bands, source, units)
            if scale_to(source.columns[error], "") != 1.0:
                raise SourceError(
                    f"has the unit {source.columns[error].unit!r}, expected relative errors without unit",
                    column=source.columns[error].name,
                )
        else:
            _require_magnitudes(column, source.columns[error])
        mappings.append(ColumnMapping(name, error, bands, match["filter"] is None, convert, scale))
    return mappings


def _require_magnitudes(*columns: SourceColumn) -> None:
    """Refuse magnitudes, or their errors, in another unit than AB magnitudes."""
    for column in columns:
        unit = _unit(column)
        if unit is not None and unit not in (u.mag, u.ABmag):
            raise SourceError(f"has the unit {column.unit!r}, expected AB magnitudes", column=column.name)


def _band_of_filter(name: str, column: SourceColumn) -> Band:
    for band in JPAS_BANDS:
        if band.name.lower() == name:
            return band
    raise SourceError(f"names the unknown filter {name!r}", column=column.name)


def _flux_scale(
    column: SourceColumn, bands: tuple[Band | None, ...], source: TableSource, units: FluxDensityKind | None
) -> tuple[float, ...]:
    """Microjansky per unit of the archive's flux columns, named alike in both of its flux tables."""
    query = source.notes.get("select", "").lower()
    tables: list[tuple[str, FluxDensityKind]] = [("fnudualobj", "fnu"), ("flambdadualobj", "flambda")]
    stated: dict[str, FluxDensityKind] = {
        f"the query reads {table}": kind for table, kind in tables if table in query
    }
    if units is not None:
        stated["--units"] = units
    kinds = set(stated.values())
    unit = _unit(column)
    if unit is not None:
        kind = flux_units.kind_of(unit)
        if kind is None:
            raise SourceError(f"has the unit {column.unit!r}, expected a flux density", column=column.name)
        stated[f"the unit is {column.unit!r}"] = kind
        if flux_units.is_bare_cgs(unit):
            # The archive's numbers are in units of 1e-30 or 1e-19 of this; a file that leaves the power
            # of ten out has to be confirmed by the user.
            unit = None
    if len(set(stated.values())) > 1:
        contradiction = "; ".join(f"{where}: {kind}" for where, kind in stated.items())
        raise SourceError(f"is said to be in different units ({contradiction})", column=column.name)
    if unit is None:
        if not kinds:
            raise SourceError(
                "does not say its units: name the archive's table it comes from with --units fnu "
                "(FNuDualObj, 1e-30 erg/s/cm2/Hz) or --units flambda (FLambdaDualObj, 1e-19 erg/s/cm2/A)",
                column=column.name,
            )
        unit = parse_unit(flux_units.ARCHIVE_UNIT[kinds.pop()])
    return tuple(1.0 if band is None else flux_units.microjansky_per(unit, band.pivot) for band in bands)


def _unit(column: SourceColumn) -> u.UnitBase | None:
    try:
        return parse_unit(column.unit)
    except ValueError:
        raise SourceError(
            f"has the unit {column.unit!r}, which is not understood", column=column.name
        ) from None


def _refuse_duplicates(mappings: list[ColumnMapping], names: Mapping[str, SourceColumn]) -> None:
    seen: dict[Band, ColumnMapping] = {}
    for mapping in mappings:
        for band in mapping.bands:
            if band is None:
                continue
            if band in seen:
                raise SourceError(
                    f"gives {band.name} a second time, beside {names[seen[band].value].name}; leave one out",
                    column=names[mapping.value].name,
                )
            seen[band] = mapping


def _present(names: Mapping[str, SourceColumn]) -> str:
    shown = [column.name for column in names.values()][:12]
    return f"its columns are {', '.join(shown)}{' ...' if len(names) > len(shown) else ''}"
