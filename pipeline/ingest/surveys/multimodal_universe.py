"""Spectra of the Multimodal Universe (arXiv:2412.02527), version 1.5 in HATS and the HDF5 files before it.

A row has ``object_id``, ``ra``, ``dec`` and ``spectrum``, a struct of lists (in HDF5 the data sets
``spectrum_flux`` ...), and its survey's own columns, by which the survey is told:

========  =====================  ==============  =====================================================
survey    columns                wavelength      notes
========  =====================  ==============  =====================================================
DESI      ZWARN                  vacuum          see `_fine`
SDSS      VDISP                  vacuum          ZWARNING: true is a warning; names from the SPECOBJID
APOGEE    m_h, alpha_m           vacuum          at rest
GALAH     fe_h, vbroad           air             relative flux
LAMOST    feh, snrg              vacuum          relative flux, no inverse variance: estimated
VIPERS    REDFLAG                air             inverse variance of the noise's unit: corrected
========  =====================  ==============  =====================================================

Labels are read from columns with the names of the contract (``teff``, ``ew_halpha`` with ``_err``) and those
of the surveys; classes from CLASS or SPECTYPE, which only the HDF5 files have, and from tables of labels.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from upath import UPath

from ojala.catalogs_schema.cutouts import NANOMAGGY
from ojala.catalogs_schema.spectra import LABEL_NAMES
from ojala.models.simulation.wavelength_grid import to_vacuum
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.columnar import column_names_of, read_batches
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex
from ojala.pipeline.ingest.surveys.reader import reader
from ojala.pipeline.ingest.surveys.spectrum import Labels, Spectrum, class_word, double

EXPECTED = (
    "spectra of the Multimodal Universe (Parquet or HDF5 with object_id, spectrum of flux and lambda, and "
    "columns of DESI, SDSS, APOGEE, GALAH, LAMOST or VIPERS)"
)

LIGHT_SPEED = 299792.458
"""Speed of light [km/s]."""

_BATCH = 64
_FLUX = ("spectrum.flux", "spectrum_flux")
_NOISE_BLOCK = 256  # pixels
_SURE_REDSHIFTS = (2, 3, 4, 9, 22, 23, 24, 29)
"""Whole parts of the flags of VIPERS' redshifts that are right in 90 % of the cases or more."""


@dataclass(frozen=True, slots=True)
class _Form:
    """How the Multimodal Universe keeps a survey; columns in lower case.

    Attributes
    ----------
    survey : str
        Name of the survey.
    signs : frozenset of str
        Columns that only this survey has.
    object_class : str
        Class of all its objects, empty where they differ.
    z, velocity : str
        Columns of the redshift and, where spectra are not at rest, of the radial velocity [km/s].
    labels : mapping of str to str
        Columns of labels by their names in the contract, beside those that have these names.
    from_air, relative, masked : bool
        Whether wavelengths are in air; the flux scale is arbitrary; pixels of the mask have no weight.
    """

    survey: str
    signs: frozenset[str]
    object_class: str = ""
    z: str = ""
    velocity: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    from_air: bool = False
    relative: bool = False
    masked: bool = True


_FORMS = (
    _Form("DESI", frozenset({"zwarn"}), z="z"),
    # The survey's inverse variance is zero where a pixel cannot be used; its mask also has warnings.
    _Form("SDSS", frozenset({"vdisp"}), z="z", masked=False),
    _Form(
        "APOGEE",
        frozenset({"m_h", "alpha_m"}),
        "STAR",
        labels={"fe_h": "m_h", "alpha_fe": "alpha_m"},
    ),
    _Form("GALAH", frozenset({"fe_h", "vbroad"}), "STAR", velocity="rv", from_air=True, relative=True),
    _Form("LAMOST", frozenset({"feh", "snrg"}), "STAR", velocity="rv", labels={"fe_h": "feh"}, relative=True),
    # Reduced by the same pipeline as VANDELS, whose files state wavelengths in air.
    _Form("VIPERS", frozenset({"redflag"}), z="redshift", from_air=True, masked=False),
)


def is_multimodal_universe(names: frozenset[str]) -> bool:
    """Whether a file with these columns holds spectra of a survey that is known here."""
    return "object_id" in names and any(name in names for name in _FLUX) and _form(names) is not None


def _form(names: frozenset[str]) -> _Form | None:
    lower = {name.lower() for name in names}
    return next((form for form in _FORMS if form.signs <= lower), None)


@reader("spectra of the Multimodal Universe", EXPECTED, columns=is_multimodal_universe)
def read_multimodal_universe(path: UPath, labels: LabelIndex | None = None) -> Iterator[Spectrum]:
    """Read the spectra of a Parquet or HDF5 file of the Multimodal Universe.

    Pixels that fill up a list (wavelengths that are not positive) are left out. Classes and redshifts of
    DESI's objects are those of `labels` where these have them.

    Raises
    ------
    SourceError
        If the file is damaged, or a row's lists are missing or differ in length: names row and column.
    """
    names = column_names_of(path)
    form = _form(names)
    if form is None or not is_multimodal_universe(names):
        raise SourceError(f"holds no spectra of the Multimodal Universe: expected {EXPECTED}")
    wanted = [name for name in names if not name.startswith("spectrum.")]
    warning = _meaning_of_true(path, wanted) if form.survey == "DESI" else True
    before = 0
    for batch in read_batches(path, wanted, _BATCH):
        rows = _Rows(batch, before)
        known: Sequence[Labels | None] = [None] * len(rows)
        if labels is not None and form.survey == "DESI":
            known = labels.lookup("DESI", [rows.target(k) for k in range(len(rows))])
        for k in range(len(rows)):
            yield _spectrum(rows, k, form, warning, known[k])
        before += len(rows)


def _meaning_of_true(path: UPath, names: Sequence[str]) -> bool:
    """Whether a true ZWARN of DESI is a warning, where it is a truth value; numbers are bits of warnings.

    The HATS catalogues have the survey's bits as truth values, so that true is a warning, while exports of
    the package ``datasets`` have them inverted, so that true is fine, and no file states which. Redshifts
    without a warning are by far the most in DESI: the value of most rows of the file stands for them, and
    true where there are as many of both.
    """
    column = [name for name in names if name.lower() == "zwarn"]
    flags = [np.asarray(batch[column[0]]) for batch in read_batches(path, column, 8192)]
    if not flags or flags[0].dtype != bool:
        return True
    return bool(np.concatenate(flags).mean() < 0.5)


class _Rows:
    """Rows of a batch, with columns by their names in lower case.

    Parameters
    ----------
    batch : dict of str to array
        See `read_batches`.
    before : int
        Rows of the file before the batch.
    """

    def __init__(self, batch: Mapping[str, Any], before: int) -> None:
        self._before = before
        self._length = len(next(iter(batch.values())))
        self._columns: dict[str, Any] = {}
        self._missing = np.zeros(self._length, bool)  # the members of a struct that is null are not null
        for name, column in batch.items():
            if isinstance(column, pa.ListArray) and pa.types.is_struct(column.type.value_type):
                raise SourceError("is a list of structs, expected a struct of lists", column=name)
            if isinstance(column, pa.StructArray):
                kind = column.type
                members = {kind.field(i).name: column.field(i) for i in range(kind.num_fields)}
                self._columns |= {f"{name.lower()}_{member.lower()}": a for member, a in members.items()}
                self._missing |= ~column.is_valid().to_numpy(zero_copy_only=False)
            else:
                self._columns[name.lower()] = column

    def __len__(self) -> int:
        return self._length

    def error(self, problem: str, row: int, column: str) -> SourceError:
        """An error in a row of the batch."""
        return SourceError(problem, row=self._before + row + 1, column=column)

    def pixels(self, row: int, *names: str) -> np.ndarray | None:
        """The list of a row in the first column that exists, as float64; None without such a column."""
        for name in names:
            column = self._columns.get(name)
            if column is None:
                continue
            if isinstance(column, pa.Array):
                if self._missing[row] or not column[row].is_valid:
                    raise self.error("is missing: leave the spectrum out", row, name)
                values = column[row].values.to_numpy(zero_copy_only=False)
            else:
                values = column[row]
            return double(values)
        return None

    def number(self, row: int, *names: str) -> float:
        """The number of a row in the first column that exists; NaN without one."""
        value = self._value(row, names)
        return float(value) if isinstance(value, (int, float, np.number, np.bool_)) else np.nan

    def text(self, row: int, *names: str) -> str:
        """The text of a row in the first column that exists; empty without one."""
        value = self._value(row, names)
        return "" if value is None else _text(value)

    def identifier(self, row: int) -> str:
        """The object's name: the SDSS HATS catalogue has the literal of a padded byte string."""
        word = _text(self._value(row, ("object_id",)))
        if word.startswith(("b'", 'b"')):
            word = ast.literal_eval(word).decode().strip()
        if not word:
            raise self.error("is missing", row, "object_id")
        return word.removesuffix(".0")

    def target(self, row: int) -> int:
        """The object's name as a number, as DESI's TARGETID."""
        try:
            return int(self.identifier(row))
        except ValueError:
            problem = f"{self.identifier(row)!r} is no TARGETID, expected a whole number"
            raise self.error(problem, row, "object_id") from None

    def is_truth_value(self, name: str) -> bool:
        """Whether a column holds truth values."""
        column = self._columns[name]
        return bool(
            pa.types.is_boolean(column.type) if isinstance(column, pa.Array) else column.dtype == bool
        )

    def _value(self, row: int, names: Sequence[str]) -> object:
        column = next((self._columns[name] for name in names if name in self._columns), None)
        if column is None:
            return None
        return column[row].as_py() if isinstance(column, pa.Array) else column[row]


def _text(value: object) -> str:
    return (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip()


def _spectrum(rows: _Rows, k: int, form: _Form, true_is_warning: bool, known: Labels | None) -> Spectrum:
    wavelength, flux, ivar, mask = _pixels(rows, k, form)
    name = rows.identifier(k)
    z, z_err = _redshift(rows, k, form)
    labelled = known or Labels(
        object_class=form.object_class or class_word(rows.text(k, "class", "spectype")),
        subclass=rows.text(k, "subclass", "subtype"),
        z=z,
        z_err=z_err,
        trusted=_is_fine(rows, k, form, true_is_warning),
        labels=_labels(rows, k, form),
    )
    return Spectrum(
        source=_sdss_name(name) if form.survey == "SDSS" else f"mmu-{name}",
        survey=form.survey,
        wavelength=to_vacuum(wavelength) if form.from_air else wavelength,
        flux=flux,
        ivar=ivar,
        ra=rows.number(k, "ra"),
        dec=rows.number(k, "dec"),
        mask=mask,
        target="" if form.survey == "SDSS" else name,  # as of the native files
        relative=form.relative,
        ebv=rows.number(k, "ebv"),
        imaging=_imaging(rows, k) if form.survey == "DESI" else {},
        from_air=form.from_air,
    ).labelled(labelled)


def _pixels(rows: _Rows, k: int, form: _Form) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Wavelength, flux, inverse variance and mask of a row, without the pixels that fill up its lists."""
    wavelength = rows.pixels(k, "spectrum_lambda", "spectrum_wavelength", "spectrum_wave")
    flux = rows.pixels(k, "spectrum_flux")
    if wavelength is None or flux is None:
        raise SourceError("is missing", column="spectrum.lambda" if wavelength is None else "spectrum.flux")
    ivar = rows.pixels(k, "spectrum_ivar", "spectrum_flux_ivar")
    noise = rows.pixels(k, "spectrum_noise")
    mask = rows.pixels(k, "spectrum_mask", "spectrum_pix_bitmask", "spectrum_bitmask")
    for column, values in (("flux", flux), ("ivar", ivar), ("noise", noise), ("mask", mask)):
        if values is not None and len(values) != len(wavelength):
            raise rows.error(
                f"has {len(values)} elements, but the wavelengths are {len(wavelength)}",
                k,
                f"spectrum.{column}",
            )
    if noise is not None:  # VIPERS in HDF5: flux and noise in erg/s/cm2/A
        flux = flux * 1e17
        ivar = _inverse(noise * 1e17) ** 2
    elif form.survey == "VIPERS" and ivar is not None:
        # The conversion took 1 / (1e34 noise) [erg/s/cm2/A] for the inverse variance.
        ivar = (ivar * 1e17) ** 2
    real = np.isfinite(wavelength) & (wavelength > 0.0)
    wavelength, flux = wavelength[real], flux[real]
    ivar = estimated_ivar(flux) if ivar is None else np.where(np.isfinite(ivar[real]), ivar[real], 0.0)
    if mask is None:
        return wavelength, flux, ivar, None
    bits = np.nan_to_num(mask[real]).astype(np.int64).astype(np.int32)
    return wavelength, flux, np.where(bits != 0, 0.0, ivar) if form.masked else ivar, bits


def _inverse(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(1.0, values, out=np.zeros_like(values), where=values > 0.0))


def estimated_ivar(flux: np.ndarray) -> np.ndarray:
    """Inverse variance of a spectrum without one, from the scatter between its pixels.

    Blocks of 256 pixels have one value each, that of DER_SNR (Stoehr et al. 2008, ASPC 394, 505):
    ``1.482602 / sqrt(6) median|2 f[i] - f[i-2] - f[i+2]|``; 0 where the flux is 0 or not a number.
    """
    ivar = np.zeros_like(flux)
    blocks = max(round(len(flux) / _NOISE_BLOCK), 1)
    for pixels in np.array_split(np.arange(len(flux)), blocks):
        f = flux[pixels]
        second = 2.0 * f[2:-2] - f[:-4] - f[4:]
        second = second[np.isfinite(second)]
        sigma = 1.482602 / np.sqrt(6.0) * np.median(np.abs(second)) if len(second) else 0.0
        if sigma > 0.0:
            ivar[pixels] = np.where(np.isfinite(f) & (f != 0.0), sigma**-2.0, 0.0)
    return ivar


def _redshift(rows: _Rows, k: int, form: _Form) -> tuple[float, float]:
    if form.z:
        z = rows.number(k, form.z)
        return (z if z > -1.0 else np.nan), rows.number(k, "z_err", "zerr")
    if form.velocity:  # its spectra are not shifted, although LAMOST's are said to be at rest
        names = form.velocity, "radial_velocity"
        return rows.number(k, *names) / LIGHT_SPEED, rows.number(k, "rv_err", "e_rv") / LIGHT_SPEED
    return 0.0, np.nan


def _is_fine(rows: _Rows, k: int, form: _Form, true_is_warning: bool) -> bool:
    """Whether the survey had no doubt about class and redshift."""
    if form.survey == "DESI":
        flag = rows.number(k, "zwarn")
        return (flag != 0) != true_is_warning if rows.is_truth_value("zwarn") else flag == 0
    if form.survey == "SDSS":
        return rows.number(k, "zwarning") == 0
    if form.survey == "VIPERS":
        flag = rows.number(k, "redflag")
        # In the public HATS catalogue the flag is a copy of the redshift.
        return flag != rows.number(k, "redshift") and int(np.nan_to_num(flag)) in _SURE_REDSHIFTS
    return not rows.number(k, "flag_sp") > 0


def _labels(rows: _Rows, k: int, form: _Form) -> dict[str, tuple[float, float]]:
    found = {}
    for name in LABEL_NAMES:
        theirs = form.labels.get(name, name)
        value = rows.number(k, theirs)
        if np.isfinite(value) and value > -999.0:  # -9999: not measured
            found[name] = (value, rows.number(k, f"{theirs}_err", f"e_{theirs}"))
    return found


def _imaging(rows: _Rows, k: int) -> dict[str, tuple[float, float]]:
    """Fluxes and errors [uJy] of a target of DESI in the Legacy Surveys."""
    found = {}
    for letter in "grz":
        ivar = rows.number(k, f"flux_ivar_{letter}")
        if ivar > 0.0:
            flux = rows.number(k, f"flux_{letter}")
            found[f"ls_{letter}"] = (NANOMAGGY * flux, NANOMAGGY * ivar**-0.5)
    return found


def _sdss_name(identifier: str) -> str:
    """Name of the file of a spectrum, from the plate, night and fibre in the bits of its SPECOBJID."""
    if not identifier.isdecimal() or int(identifier) < 1 << 50:
        return f"mmu-{identifier}"
    key = int(identifier)
    plate, fibre, night = key >> 50, (key >> 38) & 0xFFF, 50_000 + ((key >> 24) & 0x3FFF)
    return f"spec-{plate:04d}-{night}-{fibre:04d}"
