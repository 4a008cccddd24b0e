"""What passes between mock data and a training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.spectra import Spectra


@dataclass(frozen=True, slots=True)
class LabelledPhotometry:
    """Photometry of N objects with what is known of them.

    Attributes
    ----------
    flux, error : ndarray of float32, shape (N, 63)
        Flux densities f_nu and their standard errors [uJy] in the order of
        `catalogs_schema.bands.MODEL_BANDS`; NaN where a band was not observed.
    ebv : ndarray of float32, shape (N,)
        Galactic E(B-V) [mag] that the fluxes still carry; NaN where not known.
    class_code : ndarray of int64, shape (N,)
        Index into `models.quantities.CLASSES`, -1 where not known.
    labels : dict of str to ndarray of float32, shape (N,)
        One entry per quantity other than the class, physical units as in `models.quantities`;
        NaN where not known or without meaning for the object's class.
    """

    flux: np.ndarray
    error: np.ndarray
    ebv: np.ndarray
    class_code: np.ndarray
    labels: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.flux)


@dataclass(frozen=True, slots=True)
class LabelledSpectra:
    """Observed spectra of N objects with what is known of them.

    Attributes
    ----------
    spectra : Spectra
        The spectra.
    class_code : ndarray of int64, shape (N,)
        Index into `models.quantities.CLASSES`, -1 where not known.
    labels : dict of str to ndarray of float32, shape (N,)
        ``z`` (of stars: radial velocity over the speed of light) and others, physical units as in
        `models.quantities`; NaN where not known or without meaning for the object's class.
    member : ndarray of int64, shape (N,)
        Row in the library of the object's class.
    """

    spectra: Spectra
    class_code: np.ndarray
    labels: dict[str, np.ndarray]
    member: np.ndarray

    def __len__(self) -> int:
        return len(self.spectra)

    @classmethod
    def joined(cls, parts: Sequence[LabelledSpectra]) -> LabelledSpectra:
        """Several of these, with the same labels, one after the other."""
        sizes = np.concatenate([part.spectra.sizes for part in parts])
        pixels = (
            np.concatenate([getattr(part.spectra, name) for part in parts])
            for name in ("wavelength", "flux", "ivar")
        )
        return cls(
            Spectra(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), *pixels),
            np.concatenate([part.class_code for part in parts]),
            {name: np.concatenate([part.labels[name] for part in parts]) for name in parts[0].labels},
            np.concatenate([part.member for part in parts]),
        )
