"""Spectrum of any survey in memory, with its labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np

from ojala.catalogs_schema.ojala import CLASSES


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of an object from a survey's tables.

    Attributes
    ----------
    object_class : str
        One of `CLASSES`, empty where not known.
    subclass : str
        The survey's subclass, often empty.
    z, z_err : float
        Spectroscopic redshift and its error, NaN where not known.
    trusted : bool
        Whether the survey's pipeline had no doubt about class and redshift.
    labels : mapping of str to (float, float)
        Value and standard error of each known label (see `ojala.catalogs_schema.spectra.LABELS`); the
        error is NaN where it is not.
    """

    object_class: str = ""
    subclass: str = ""
    z: float = np.nan
    z_err: float = np.nan
    trusted: bool = False
    labels: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """One observed spectrum with its metadata and labels.

    Attributes
    ----------
    source : str
        Identifier of the spectrum within its survey.
    survey : str
        One of `ojala.catalogs_schema.spectra.SURVEYS`.
    wavelength : ndarray of float64, shape (P,)
        Vacuum wavelength [Angstrom], increasing.
    flux : ndarray of float64, shape (P,)
        f_lambda [1e-17 erg/s/cm2/A], or of arbitrary scale where ``relative``.
    ivar : ndarray of float64, shape (P,)
        Inverse variance of `flux`, 0 where there is no measurement.
    ra, dec : float
        Position [deg], NaN where not known.
    object_class, subclass, z, z_err, trusted, labels
        As in `Labels`.
    mask : ndarray of int32, shape (P,), or None
        The survey's mask bits; None where it has none.
    target : str
        The survey's name of the object, empty where it has none.
    relative : bool
        Whether the flux has an arbitrary scale.
    ebv : float
        Galactic E(B-V) [mag], NaN where not known.
    imaging : mapping of str to (float, float)
        Flux density f_nu of the target and its error [uJy] by band.
    from_air : bool
        Whether the wavelengths of the file are in air and were converted.
    """

    source: str
    survey: str
    wavelength: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray
    ra: float
    dec: float
    object_class: str = ""
    subclass: str = ""
    z: float = np.nan
    z_err: float = np.nan
    trusted: bool = False
    labels: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    mask: np.ndarray | None = None
    target: str = ""
    relative: bool = False
    ebv: float = np.nan
    imaging: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    from_air: bool = False

    @property
    def valid(self) -> np.ndarray:
        """Pixels with a measurement; bool, shape (P,)."""
        return np.asarray((self.ivar > 0.0) & np.isfinite(self.flux) & np.isfinite(self.ivar))

    @property
    def signal_to_noise(self) -> float:
        """Median signal to noise of the measured pixels, 0 where there are none."""
        valid = self.valid
        return float(np.median(self.flux[valid] * np.sqrt(self.ivar[valid]))) if valid.any() else 0.0

    def labelled(self, labels: Labels) -> Spectrum:
        """The same spectrum with labels of its object."""
        return replace(self, **{field.name: getattr(labels, field.name) for field in fields(Labels)})

    def moved_to(self, z: float) -> Spectrum:
        """The same object at another redshift: wavelengths stretched, fluxes kept.

        Bands that the spectrum no longer reaches go missing in its photometry.
        """
        return replace(self, wavelength=self.wavelength * (1.0 + z) / (1.0 + self.z), z=z)


def class_word(text: str) -> str:
    """A survey's class if it is one of `CLASSES`, else empty."""
    word = text.strip()
    return word if word in CLASSES else ""


def double(values: np.ndarray) -> np.ndarray:
    """Any numbers as float64 in the machine's byte order."""
    return np.asarray(values, np.float64)


def name_key(name: str) -> int:
    """Integer key of a name: the first 63 bits of its SHA-256."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
