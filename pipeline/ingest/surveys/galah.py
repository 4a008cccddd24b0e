"""GALAH spectra of DR3 and DR4: four files of a star, one for each camera, and the survey's main catalogue.

A file is named by the star's ``sobject_id`` and the number of the camera. Wavelengths are in air, fluxes are
counts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np
from astropy.io import fits
from upath import UPath

from ojala.models.simulation.wavelength_grid import to_vacuum
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.detect import open_table
from ojala.pipeline.ingest.formats.fits import open_hdus
from ojala.pipeline.ingest.jpas import parsing
from ojala.pipeline.ingest.surveys.hdus import column_names
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex, LabelTable, sorted_table
from ojala.pipeline.ingest.surveys.reader import group_reader, label_reader
from ojala.pipeline.ingest.surveys.spectrum import Labels, Spectrum, double

EXPECTED = (
    "a GALAH spectrum (an image with its relative error as HDU input_sigma of DR3 or relative_error of DR4)"
)
EXPECTED_TABLE = "GALAH's catalogue of stars or spectra (a table with sobject_id, teff and fe_h)"

LIGHT_SPEED = 299792.458
"""Speed of light [km/s]."""

_ERRORS = ("relative_error", "input_sigma")
_TABLE_NEEDED = {"sobject_id", "teff", "fe_h"}
_LABELS = ("teff", "logg", "fe_h", "alpha_fe")
_COLUMNS: dict[str, tuple[str, ...]] = {
    "ra": ("ra", "ra_dr2"),
    "dec": ("dec", "dec_dr2"),
    "velocity": ("rv_galah", "rv_comp_1", "rv"),
    "velocity_err": ("e_rv_galah", "e_rv_comp_1", "e_rv"),
    **{name: (name,) for name in _LABELS},
    **{f"{name}_err": (f"e_{name}",) for name in _LABELS},
    "flag_sp": ("flag_sp",),
}
"""Columns by their meaning, in the spellings of DR4 and DR3."""


def is_galah(hdus: fits.HDUList) -> bool:
    """Whether a file is a camera's spectrum of GALAH."""
    header = hdus[0].header
    return any(name in hdus for name in _ERRORS) and header.get("NAXIS") == 1 and "CRVAL1" in header


def star_of(path: UPath) -> str:
    """Folder and ``sobject_id`` of a file."""
    return str(path.parent / path.name.split(".fits")[0][:-1])


@group_reader("GALAH spectrum", EXPECTED, group=star_of, fits=is_galah)
def read_galah(paths: Sequence[UPath], labels: LabelIndex | None = None) -> Spectrum:
    """Read the cameras of a star as one spectrum, without normalisation.

    Position, velocity and parameters come from the survey's catalogue; without it there are none.

    Raises
    ------
    SourceError
        A file is no spectrum of GALAH, or two are of the same camera.
    """
    arms = sorted((_camera(path) for path in paths), key=lambda arm: arm[0][0])
    wavelength, flux, ivar = (np.concatenate(parts) for parts in zip(*arms, strict=True))
    if not (np.diff(wavelength) > 0.0).all():
        raise SourceError("is not the only spectrum of its camera: name one of them")
    name = paths[0].name.split(".fits")[0][:-1]
    key = np.array([int(name) if name.isdecimal() else -1], np.int64)
    index = labels or LabelIndex()
    found = index.lookup("GALAH", key)[0] or Labels(object_class="STAR")
    ra, dec = index.positions("GALAH", key)
    return Spectrum(
        source=name,
        survey="GALAH",
        wavelength=to_vacuum(wavelength),
        flux=flux,
        ivar=ivar,
        object_class="STAR",
        subclass="",
        z=found.z,
        trusted=found.trusted,
        ra=float(ra[0]),
        dec=float(dec[0]),
        z_err=found.z_err,
        labels=found.labels,
        relative=True,
        from_air=True,
    )


def _camera(path: UPath) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with open_hdus(path) as hdus:
        if not is_galah(hdus):
            raise SourceError(f"is no GALAH spectrum: expected {EXPECTED}")
        header = hdus[0].header
        flux = double(hdus[0].data)
        error = double(hdus[next(name for name in _ERRORS if name in hdus)].data) * flux
        first = max(float(header.get("CRPIX1", 1.0)), 1.0)  # 0 stands for 1 in the files of the survey
        wavelength = header["CRVAL1"] + (np.arange(len(flux)) + 1.0 - first) * header["CDELT1"]
    if len(error) != len(flux):
        raise SourceError(f"has {len(flux)} pixels but {len(error)} errors")
    with np.errstate(divide="ignore", invalid="ignore"):
        ivar = error**-2.0
    return wavelength, flux, np.where(np.isfinite(ivar), ivar, 0.0)


def is_galah_table(hdus: fits.HDUList) -> bool:
    """Whether a file holds GALAH's catalogue."""
    tables = (hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU))
    return any({name.lower() for name in column_names(hdu)} >= _TABLE_NEEDED for hdu in tables)


def is_galah_text(head: bytes) -> bool:
    """Whether the first line of a file is the header of GALAH's catalogue."""
    first = head.partition(b"\n")[0].decode(errors="replace")
    return {name.strip().lower() for name in first.split(",")} >= _TABLE_NEEDED


@label_reader("GALAH catalogue", EXPECTED_TABLE, fits=is_galah_table, head=is_galah_text)
def read_galah_table(path: UPath) -> LabelTable:
    """Read positions, velocities and parameters by ``sobject_id``; trusted where ``flag_sp`` is 0.

    Raises
    ------
    SourceError
        The file is damaged or has other columns.
    """
    with tempfile.TemporaryDirectory() as scratch, open_table(path, UPath(scratch)) as source:
        if not set(source.columns) >= _TABLE_NEEDED:
            raise SourceError(f"is no catalogue of GALAH: expected {EXPECTED_TABLE}")
        names = {
            what: next((name for name in spellings if name in source.columns), "")
            for what, spellings in _COLUMNS.items()
        }
        names = {what: name for what, name in names.items() if name}
        keys: list[np.ndarray] = []
        parts: dict[str, list[np.ndarray]] = {what: [] for what in names}
        for batch in source.batches(["sobject_id", *names.values()]):
            keys.append(parsing.keys(batch["sobject_id"], source.columns["sobject_id"].name))
            for what, name in names.items():
                parts[what].append(parsing.numbers(batch[name], source.columns[name].name))
    key = np.concatenate(keys) if keys else np.empty(0, np.int64)
    values = {what: np.concatenate(arrays) if arrays else np.empty(0) for what, arrays in parts.items()}
    missing = np.full(len(key), np.nan)
    columns = {
        name: array for name, array in values.items() if name.removesuffix("_err") in ("ra", "dec", *_LABELS)
    }
    columns |= {
        "class": np.full(len(key), "STAR"),
        "z": values.get("velocity", missing) / LIGHT_SPEED,
        "z_err": values.get("velocity_err", missing) / LIGHT_SPEED,
        "trusted": values.get("flag_sp", missing) == 0,
    }
    return sorted_table("GALAH", 0, key, columns)
