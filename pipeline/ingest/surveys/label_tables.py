"""Tables of labels by object: redshifts, galaxy properties, stellar parameters.

They are joined to spectra by the survey's own key: DESI's TARGETID, and the visit (night, plan, spectrograph,
fibre) of LAMOST.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from upath import UPath

from ojala.catalogs_schema.spectra import LABEL_NAMES
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.detect import open_table
from ojala.pipeline.ingest.formats.fits import open_hdus
from ojala.pipeline.ingest.jpas import parsing
from ojala.pipeline.ingest.surveys.hdus import column_names, read_columns, whole_keys
from ojala.pipeline.ingest.surveys.reader import label_reader
from ojala.pipeline.ingest.surveys.spectrum import Labels, class_word, double, name_key

EXPECTED = (
    "a table of DESI by TARGETID (redrock REDSHIFTS, ZCATALOG, QSO_CAT, FastSpecFit, RVTAB) or of LAMOST's "
    "stellar parameters"
)

H_100_TO_PLANCK18 = 2.0 * np.log10(1.0 / 0.6766)
"""Shift of FastSpecFit's masses and rates from H0 = 100 km/s/Mpc to Planck 2018 [dex]."""

_CLASS = ("SPECTYPE", "SUBTYPE", "Z", "ZERR", "ZWARN")
_FASTSPEC_LINES = {
    "HBETA": "ew_hbeta",
    "OIII_5007": "ew_oiii_5007",
    "HALPHA": "ew_halpha",
    "NII_6584": "ew_nii_6584",
}
_STELLAR = {"TEFF": "teff", "LOGG": "logg", "FEH": "fe_h", "ALPHAFE": "alpha_fe"}
_TRUE = ("T", "1", "True")
_PRIMARY = ("ZCAT_PRIMARY", "MAIN_PRIMARY", "SV_PRIMARY")
_DESI_COLUMNS = (
    *_CLASS,
    *_PRIMARY,
    *("TARGETID", "TARGET_RA", "TARGET_DEC", "RA", "DEC"),
    *("LOGMSTAR", "LOGMSTAR_IVAR", "SFR", "SFR_IVAR"),
    *(f"{line}_{what}" for line in _FASTSPEC_LINES for what in ("EW", "EW_IVAR")),
    *(f"{name}{suffix}" for name in _STELLAR for suffix in ("", "_ERR")),
    "RVS_WARN",
)
_LAMOST_KEY = ("lmjd", "planid", "spid", "fiberid")
_LAMOST_NEEDED = {*_LAMOST_KEY, "teff", "logg", "feh"}
_LAMOST_LABELS = {"teff": "teff", "logg": "logg", "feh": "fe_h", "alpha_m": "alpha_fe"}


@dataclass(frozen=True, slots=True)
class LabelTable:
    """One table of labels, sorted by key.

    Attributes
    ----------
    survey : str
        Survey of the objects.
    rank : int
        Precedence of its class and redshift over those of other tables: the highest rank prevails.
    key : ndarray of int64, shape (N,)
        Keys of the objects, increasing.
    columns : mapping of str to ndarray, shape (N,)
        ``class``, ``subclass``, ``z``, ``z_err``, ``trusted``, ``ra``, ``dec``, and labels with ``_err``;
        those of them that the table has.
    """

    survey: str
    rank: int
    key: np.ndarray
    columns: Mapping[str, np.ndarray]


class LabelIndex:
    """Labels of all tables by object.

    Parameters
    ----------
    tables : iterable of LabelTable
        In any order.
    """

    def __init__(self, tables: Iterable[LabelTable] = ()) -> None:
        self._tables = sorted(tables, key=lambda table: table.rank)

    def lookup(self, survey: str, keys: Sequence[int] | np.ndarray) -> list[Labels | None]:
        """Labels of objects; None for objects without a row in any table."""
        found: list[dict[str, object]] = [{} for _ in keys]
        keys = np.asarray(keys, np.int64)
        for table, rows in self._rows(survey, keys):
            for here, row in enumerate(rows.tolist()):
                if row >= 0:
                    found[here] |= {
                        name: values[row]
                        for name, values in table.columns.items()
                        if values.dtype.kind != "f" or np.isfinite(values[row])
                    }
        return [_labels(entry) if entry else None for entry in found]

    def positions(self, survey: str, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Right ascension and declination [deg] of objects, NaN where no table has them."""
        ra, dec = np.full(len(keys), np.nan), np.full(len(keys), np.nan)
        for table, rows in self._rows(survey, keys):
            if "ra" in table.columns:
                known = rows >= 0
                ra[known] = table.columns["ra"][rows[known]]
                dec[known] = table.columns["dec"][rows[known]]
        return ra, dec

    def _rows(self, survey: str, keys: np.ndarray) -> Iterable[tuple[LabelTable, np.ndarray]]:
        """For each table the row of each key, -1 where it has none."""
        for table in self._tables:
            if table.survey == survey and len(table.key):
                at = np.minimum(np.searchsorted(table.key, keys), len(table.key) - 1)
                # A negative key of DESI names a fibre without a target, in every tile another one.
                yield table, np.where((table.key[at] == keys) & (keys >= 0), at, -1)


def _labels(entry: Mapping[str, object]) -> Labels:
    def number(name: str) -> float:
        value = entry.get(name, np.nan)
        return float(value) if isinstance(value, (float, np.floating)) else np.nan

    return Labels(
        object_class=str(entry.get("class", "")),
        subclass=str(entry.get("subclass", "")),
        z=number("z"),
        z_err=number("z_err"),
        trusted=bool(entry.get("trusted", False)),
        labels={name: (number(name), number(f"{name}_err")) for name in LABEL_NAMES if name in entry},
    )


def is_desi_table(hdus: fits.HDUList) -> bool:
    """Whether a file holds tables of DESI objects and no spectra."""
    if any(hdu.name.endswith("WAVELENGTH") for hdu in hdus):
        return False
    for hdu in hdus:
        if isinstance(hdu, fits.BinTableHDU):
            names = set(column_names(hdu))
            has_class = {"Z", "SPECTYPE"} <= names or (hdu.name == "QSO_CAT" and "Z" in names)
            if "TARGETID" in names and (has_class or names & {"LOGMSTAR", "HALPHA_EW", "TEFF"}):
                return True
    return False


@label_reader("table of DESI objects", EXPECTED, fits=is_desi_table)
def read_desi_tables(path: UPath) -> list[LabelTable]:
    """Read the labels of a DESI file: all its tables with TARGETID.

    Stellar masses and star-formation rates of FastSpecFit come to the Planck 2018 cosmology; its rates are
    those at the time of observation. Stellar parameters are left out where RVSpecFit warns. Of a
    target with several rows (of several surveys or programs of a release) the primary one counts
    (ZCAT_PRIMARY, else MAIN_PRIMARY or SV_PRIMARY); without such columns the last of those without a
    warning, else the last.

    Raises
    ------
    SourceError
        The file has no such table.
    """
    tables = []
    with open_hdus(path) as hdus:
        if not is_desi_table(hdus):
            raise SourceError(f"is no table of DESI objects: expected {EXPECTED}")
        for hdu in hdus:
            if isinstance(hdu, fits.BinTableHDU) and "TARGETID" in column_names(hdu):
                raw = read_columns(hdu, _DESI_COLUMNS)
                columns = _desi_columns(raw, is_quasar_catalogue=hdu.name == "QSO_CAT")
                if columns:
                    rank = 1 if hdu.name == "QSO_CAT" else 0
                    key = whole_keys(raw["TARGETID"], "TARGETID")
                    tables.append(sorted_table("DESI", rank, key, columns, _preference(raw)))
    return tables


def _preference(raw: Mapping[str, np.ndarray]) -> np.ndarray:
    """How much each row is preferred to others of the same target."""
    preference = (raw["ZWARN"] == 0).astype(int) if "ZWARN" in raw else np.zeros(len(raw["TARGETID"]), int)
    for weight, name in enumerate(reversed(_PRIMARY), start=1):
        if name in raw:
            preference += np.isin(raw[name].astype(str), _TRUE).astype(int) << weight
    return preference


def _desi_columns(raw: Mapping[str, np.ndarray], *, is_quasar_catalogue: bool) -> dict[str, np.ndarray]:
    n = len(raw["TARGETID"])
    found: dict[str, np.ndarray] = {}
    if is_quasar_catalogue:
        found |= {"class": np.full(n, "QSO"), "trusted": np.ones(n, bool), "z": double(raw["Z"])}
    elif "SPECTYPE" in raw and "Z" in raw:
        found |= {
            "class": np.array([class_word(word) for word in raw["SPECTYPE"]]),
            "subclass": raw.get("SUBTYPE", np.full(n, "")),
            "z": double(raw["Z"]),
            "trusted": raw["ZWARN"] == 0 if "ZWARN" in raw else np.zeros(n, bool),
        }
        if "ZERR" in raw:
            found["z_err"] = double(raw["ZERR"])
    for prefix in ("TARGET_", ""):
        if f"{prefix}RA" in raw and f"{prefix}DEC" in raw and "ra" not in found:
            found |= {"ra": double(raw[f"{prefix}RA"]), "dec": double(raw[f"{prefix}DEC"])}
    return found | _galaxy_labels(raw) | _stellar_labels(raw)


def _galaxy_labels(raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    if "LOGMSTAR" in raw:
        mass = double(raw["LOGMSTAR"])
        found["log_mass"] = np.where(mass > 0.0, mass + H_100_TO_PLANCK18, np.nan)
        found["log_mass_err"] = _error(raw.get("LOGMSTAR_IVAR"), len(mass))
    if "SFR" in raw:
        rate = double(raw["SFR"])
        with np.errstate(divide="ignore", invalid="ignore"):
            found["log_sfr"] = np.where(rate > 0.0, np.log10(rate) + H_100_TO_PLANCK18, np.nan)
            found["log_sfr_err"] = _error(raw.get("SFR_IVAR"), len(rate)) / (rate * np.log(10.0))
    for line, name in _FASTSPEC_LINES.items():
        if f"{line}_EW" in raw:
            ew = double(raw[f"{line}_EW"])
            error = _error(raw.get(f"{line}_EW_IVAR"), len(ew))
            # A line that lies outside the spectrum stands as EW 0 with inverse variance 0.
            found[name], found[f"{name}_err"] = np.where(np.isfinite(error), ew, np.nan), error
    return found


def _stellar_labels(raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if "TEFF" not in raw:
        return {}
    good = raw["RVS_WARN"] == 0 if "RVS_WARN" in raw else np.ones(len(raw["TEFF"]), bool)
    found = {}
    for theirs, ours in _STELLAR.items():
        if theirs in raw:
            found[ours] = np.where(good, double(raw[theirs]), np.nan)
            if f"{theirs}_ERR" in raw:
                found[f"{ours}_err"] = double(raw[f"{theirs}_ERR"])
    return found


def _error(ivar: np.ndarray | None, n: int) -> np.ndarray:
    """Standard error, NaN where there is none."""
    if ivar is None:
        return np.full(n, np.nan)
    positive = np.where(ivar > 0.0, double(ivar), np.nan)
    return np.asarray(positive**-0.5)


def visit_of_lamost(lmjd: str, planid: str, spid: str, fiberid: str) -> int:
    """The key of a visit of LAMOST; the same for ``6`` and ``06``, and -1 where a part of it is missing.

    Raises
    ------
    ValueError
        If night, spectrograph or fibre is no number.
    """
    parts = [part.strip() for part in (lmjd, planid, spid, fiberid)]
    if not all(parts):
        return -1
    night, spectrograph, fibre = (str(int(float(parts[at]))) for at in (0, 2, 3))
    return name_key(f"{night}-{parts[1]}-{spectrograph}-{fibre}")


def is_lamost_table(head: bytes) -> bool:
    """Whether the first line of a file is the header of LAMOST's stellar parameters."""
    first = head.partition(b"\n")[0].decode(errors="replace")
    return {name.strip().lower() for name in first.replace("|", ",").split(",")} >= _LAMOST_NEEDED


def is_lamost_fits_table(hdus: fits.HDUList) -> bool:
    """Whether a file holds a binary table of LAMOST's stellar parameters."""
    tables = (hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU))
    return any({name.lower() for name in column_names(hdu)} >= _LAMOST_NEEDED for hdu in tables)


@label_reader("table of LAMOST stars", EXPECTED, fits=is_lamost_fits_table, head=is_lamost_table)
def read_lamost_table(path: UPath) -> LabelTable:
    """Read stellar parameters of LAMOST: FITS, or text separated by commas or bars, as in its releases.

    Rows without a night, plan, spectrograph or fibre belong to no spectrum and are left out.

    Raises
    ------
    SourceError
        The file is cut off or has other columns.
    """
    with tempfile.TemporaryDirectory() as scratch, open_table(path, UPath(scratch)) as source:
        if not set(source.columns) >= _LAMOST_NEEDED:
            raise SourceError(f"is no table of LAMOST's stellar parameters: expected {EXPECTED}")
        labels = {
            f"{theirs}{end}": f"{ours}{end}"
            for theirs, ours in _LAMOST_LABELS.items()
            for end in ("", "_err")
            if f"{theirs}{end}" in source.columns
        }
        keys: list[int] = []
        parts: dict[str, list[np.ndarray]] = {name: [] for name in labels.values()}
        for batch in source.batches([*_LAMOST_KEY, *labels]):
            for row in zip(*(batch[name].to_pylist() for name in _LAMOST_KEY), strict=True):
                try:
                    keys.append(visit_of_lamost(*("" if part is None else str(part) for part in row)))
                except ValueError:
                    raise SourceError(
                        f"{', '.join(map(str, row))} is no visit: night, spectrograph and fibre are numbers",
                        row=len(keys) + 1,
                        column=", ".join(_LAMOST_KEY),
                    ) from None
            for theirs, ours in labels.items():
                values = parsing.numbers(batch[theirs], source.columns[theirs].name)
                parts[ours].append(np.where(values > -999.0, values, np.nan))  # -9999: not measured
    key = np.array(keys, np.int64)
    columns = {name: np.concatenate(values)[key >= 0] for name, values in parts.items() if values}
    return sorted_table("LAMOST", 0, key[key >= 0], columns)


def sorted_table(
    survey: str,
    rank: int,
    key: np.ndarray,
    columns: Mapping[str, np.ndarray],
    preference: np.ndarray | None = None,
) -> LabelTable:
    """Table with one row per key: of equal keys the last of those with the highest preference."""
    order = np.lexsort((np.zeros(len(key)) if preference is None else preference, key))
    last = np.r_[key[order][1:] != key[order][:-1], True][: len(key)]
    rows = order[last]
    return LabelTable(survey, rank, key[rows], {name: values[rows] for name, values in columns.items()})
