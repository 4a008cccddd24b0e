"""Observed spectra of SDSS/BOSS, DESI and LAMOST from the surveys' own files.

All wavelengths are in vacuum. The flux scale of LAMOST is relative, and its calibration from blue to red is
rough (of order ten per cent): fluxes from it serve as shapes only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits

from models.quantities import CLASSES

DESI_ARMS = ("B", "R", "Z")
"""Arms of a DESI coadd, from blue to red."""


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """One observed spectrum and what its survey says of it.

    Attributes
    ----------
    source : str
        Identifier of the spectrum within its survey.
    survey : str
        ``SDSS``, ``DESI`` or ``LAMOST``.
    wavelength : ndarray of float64, shape (P,)
        Vacuum wavelength [Angstrom], increasing.
    flux : ndarray of float64, shape (P,)
        f_lambda [1e-17 erg/s/cm2/A]; relative for LAMOST.
    ivar : ndarray of float64, shape (P,)
        Inverse variance of `flux`, 0 where there is no measurement.
    object_class : str
        One of `CLASSES`, empty where not known.
    subclass : str
        The survey's subclass, often empty.
    z : float
        Spectroscopic redshift, NaN where not known.
    trusted : bool
        Whether the survey's pipeline had no doubt about class and redshift.
    ra, dec : float
        Position [deg], NaN where not known.
    """

    source: str
    survey: str
    wavelength: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray
    object_class: str
    subclass: str
    z: float
    trusted: bool
    ra: float
    dec: float

    @property
    def valid(self) -> np.ndarray:
        """Pixels with a measurement; bool, shape (P,)."""
        return np.asarray((self.ivar > 0.0) & np.isfinite(self.flux) & np.isfinite(self.ivar))

    @property
    def signal_to_noise(self) -> float:
        """Median signal to noise of the measured pixels, 0 where there are none."""
        valid = self.valid
        return float(np.median(self.flux[valid] * np.sqrt(self.ivar[valid]))) if valid.any() else 0.0

    def moved_to(self, z: float) -> Spectrum:
        """The same object at another redshift: wavelengths stretched, fluxes kept.

        Bands that the spectrum no longer reaches go missing in its photometry.
        """
        return replace(self, wavelength=self.wavelength * (1.0 + z) / (1.0 + self.z), z=z)


def read_sdss(path: Path) -> Spectrum:
    """Read an SDSS or BOSS ``spec-PLATE-MJD-FIBER.fits``.

    Raises
    ------
    ValueError
        The file lacks the coadd's or the redshift's columns.
    """
    with fits.open(path) as hdus:
        try:
            coadd, best = hdus[1].data, hdus[2].data[0]
            flux, ivar = _double(coadd["flux"]), _double(coadd["ivar"])
            wavelength = 10.0 ** _double(coadd["loglam"])
            object_class, subclass = str(best["CLASS"]).strip(), str(best["SUBCLASS"]).strip()
            z, trusted = float(best["Z"]), int(best["ZWARNING"]) == 0
        except (IndexError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no SDSS spectrum: {error}") from error
        header = hdus[0].header
    return Spectrum(
        source=_stem(path),
        survey="SDSS",
        wavelength=wavelength,
        flux=flux,
        ivar=ivar,
        object_class=object_class if object_class in CLASSES else "",
        subclass=subclass,
        z=z,
        trusted=trusted,
        ra=float(header.get("PLUG_RA", header.get("RA", np.nan))),
        dec=float(header.get("PLUG_DEC", header.get("DEC", np.nan))),
    )


def read_lamost(path: Path) -> Spectrum:
    """Read a LAMOST low-resolution spectrum (flux and inverse variance as rows of the primary image).

    Raises
    ------
    ValueError
        The file is no LAMOST spectrum.
    """
    with fits.open(path) as hdus:
        header, rows = hdus[0].header, hdus[0].data
        if rows is None or rows.ndim != 2 or "COEFF0" not in header:
            raise ValueError(f"{path} is no LAMOST spectrum: it needs an image of rows and COEFF0")
        flux, ivar = _double(rows[0]), _double(rows[1])
    object_class = str(header.get("CLASS", "")).strip()
    return Spectrum(
        source=_stem(path),
        survey="LAMOST",
        wavelength=10.0 ** (header["COEFF0"] + header["COEFF1"] * np.arange(len(flux))),
        flux=flux,
        ivar=ivar,
        object_class=object_class if object_class in CLASSES else "",
        subclass=str(header.get("SUBCLASS", "")).strip(),
        z=float(header.get("Z", np.nan)),
        trusted=object_class in CLASSES,
        ra=float(header.get("RA", np.nan)),
        dec=float(header.get("DEC", np.nan)),
    )


@dataclass(frozen=True, slots=True)
class Redshift:
    """Class and redshift of a DESI target."""

    object_class: str
    subclass: str
    z: float
    trusted: bool


def read_desi_redshifts(path: Path) -> dict[int, Redshift]:
    """Read a redrock table (REDSHIFTS) or a quasar catalogue (QSO_CAT) of DESI, by TARGETID.

    Raises
    ------
    ValueError
        The file has neither table.
    """
    with fits.open(path) as hdus:
        if "REDSHIFTS" in hdus:
            table = hdus["REDSHIFTS"].data
            return {
                int(row["TARGETID"]): Redshift(
                    str(row["SPECTYPE"]).strip(),
                    str(row["SUBTYPE"]).strip(),
                    float(row["Z"]),
                    int(row["ZWARN"]) == 0,
                )
                for row in table
            }
        if "QSO_CAT" in hdus:
            table = hdus["QSO_CAT"].data
            return {int(row["TARGETID"]): Redshift("QSO", "", float(row["Z"]), True) for row in table}
    raise ValueError(f"{path} has neither a REDSHIFTS nor a QSO_CAT table")


def read_desi(path: Path, redshifts: Mapping[int, Redshift]) -> list[Spectrum]:
    """Read all spectra of a DESI coadd, HEALPix or tile, with its arms joined.

    Where arms overlap, pixels are averaged by inverse variance. A spectrum without an entry in
    ``redshifts`` has no class and no redshift.

    Raises
    ------
    ValueError
        The file is no DESI coadd.
    """
    with fits.open(path) as hdus:
        if "FIBERMAP" not in hdus or "B_WAVELENGTH" not in hdus:
            raise ValueError(f"{path} is no DESI coadd: it needs FIBERMAP and B_WAVELENGTH")
        fibermap = hdus["FIBERMAP"].data
        arms = [arm for arm in DESI_ARMS if f"{arm}_FLUX" in hdus]
        wavelength = np.concatenate([_double(hdus[f"{arm}_WAVELENGTH"].data) for arm in arms])
        flux = np.concatenate([_double(hdus[f"{arm}_FLUX"].data) for arm in arms], axis=1)
        ivar = np.concatenate([_double(hdus[f"{arm}_IVAR"].data) for arm in arms], axis=1)
        if f"{arms[0]}_MASK" in hdus:
            mask = np.concatenate([np.asarray(hdus[f"{arm}_MASK"].data) for arm in arms], axis=1)
            ivar = np.where(mask == 0, ivar, 0.0)
        names = set(fibermap.names)
        target = np.asarray(fibermap["TARGETID"], np.int64)
        ra, dec = (
            _double(fibermap[name]) if name in names else np.full(len(target), np.nan)
            for name in ("TARGET_RA", "TARGET_DEC")
        )
    wavelength, flux, ivar = _join(wavelength, flux, ivar)
    unknown = Redshift("", "", np.nan, False)
    spectra = []
    for k, targetid in enumerate(target.tolist()):
        known = redshifts.get(targetid, unknown)
        spectra.append(
            Spectrum(
                source=f"{_stem(path)}-{targetid}",
                survey="DESI",
                wavelength=wavelength,
                flux=flux[k],
                ivar=ivar[k],
                object_class=known.object_class if known.object_class in CLASSES else "",
                subclass=known.subclass,
                z=known.z,
                trusted=known.trusted,
                ra=float(ra[k]),
                dec=float(dec[k]),
            )
        )
    return spectra


def _join(
    wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average pixels of equal wavelength (to 0.01 A) by inverse variance; flux and ivar (N, P)."""
    grid, pixel = np.unique(np.round(wavelength, 2), return_inverse=True)
    weight = np.zeros((len(grid), len(flux)))
    total = np.zeros((len(grid), len(flux)))
    np.add.at(weight, pixel, ivar.T)
    np.add.at(total, pixel, (np.where(ivar > 0.0, flux, 0.0) * ivar).T)
    mean = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0.0)
    return grid, mean.T, weight.T


def read_collection(path: Path) -> Iterator[Spectrum]:
    """Read spectra from a Parquet file with one row each.

    Columns: ``id``, ``class``, ``subclass``, ``z``, ``ra``, ``dec`` and the lists ``wavelength``, ``flux``
    and ``ivar``; an ``id`` that starts with ``lamost`` is LAMOST's.
    """
    names = ["id", "class", "subclass", "z", "ra", "dec", "wavelength", "flux", "ivar"]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=64, columns=names):
            columns = {name: batch.column(name) for name in names}
            for k in range(batch.num_rows):
                row = {name: column[k].as_py() for name, column in columns.items() if name in names[:6]}
                arrays = [_double(columns[name][k].values.to_numpy(False)) for name in names[6:]]
                subclass = row["subclass"]
                yield Spectrum(
                    source=str(row["id"]),
                    survey="LAMOST" if str(row["id"]).startswith("lamost") else "SDSS",
                    wavelength=arrays[0],
                    flux=arrays[1],
                    ivar=arrays[2],
                    object_class=row["class"] if row["class"] in CLASSES else "",
                    subclass=subclass if isinstance(subclass, str) else "",
                    z=_number(row["z"]),
                    trusted=True,
                    ra=_number(row["ra"]),
                    dec=_number(row["dec"]),
                )


def read_folder(directory: Path) -> list[Spectrum]:
    """Read every spectrum under a folder with ``sdss``, ``lamost``, ``desi`` and ``more_spectra.parquet``.

    Returns
    -------
    list of Spectrum
        Those with a trusted class and redshift, one per object: of repeated visits, that of the highest
        signal to noise. Sorted by survey and source.
    """
    spectra = [read_sdss(path) for path in sorted(directory.glob("sdss/spec-*.fits*"))]
    spectra += [read_lamost(path) for path in sorted(directory.glob("lamost/spec-*.fits*"))]
    redshifts: dict[int, Redshift] = {}
    for pattern in ("desi/**/QSO_cat_*.fits*", "desi/**/redrock-*.fits*"):
        for path in sorted(directory.glob(pattern)):
            redshifts.update(read_desi_redshifts(path))
    for path in sorted(directory.glob("desi/**/coadd-*.fits*")):
        spectra += read_desi(path, redshifts)
    collection = directory / "more_spectra.parquet"
    if collection.exists():
        spectra += read_collection(collection)
    return _each_once([s for s in spectra if s.trusted and s.object_class and np.isfinite(s.z)])


def _each_once(spectra: Sequence[Spectrum]) -> list[Spectrum]:
    """One spectrum per object: of visits within about 2 arcsec of each other, that of highest S/N."""
    best: dict[tuple[object, ...], tuple[float, Spectrum]] = {}
    for spectrum in spectra:
        if np.isfinite(spectrum.ra):
            place = (
                np.round(spectrum.dec * 1800.0),
                np.round(spectrum.ra * np.cos(np.radians(spectrum.dec)) * 1800.0),
            )
            key: tuple[object, ...] = place
        else:
            key = (spectrum.survey, spectrum.source.rsplit("-", 1)[-1])
        quality = spectrum.signal_to_noise
        if key not in best or quality > best[key][0]:
            best[key] = (quality, spectrum)
    return sorted((spectrum for _, spectrum in best.values()), key=lambda s: (s.survey, s.source))


def _double(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float64)


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _stem(path: Path) -> str:
    return path.name.split(".fits")[0]
