"""Labelled objects of a photometry catalogue, for adaptation and calibration."""

from __future__ import annotations

import numpy as np
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.models.data import LabelledPhotometry
from ojala.models.quantities import CLASSES, SCALARS
from ojala.pipeline.inference.photometry import read_photometry
from ojala.pipeline.quality.validation.samples import code_of
from ojala.pipeline.quality.validation.truth import Truth
from ojala.pipeline.storage.hats import current_release, read_objects

FEWEST_LABELS = 100
"""Number of labelled objects that is needed."""


def labelled_rows(photometry: UPath, truth: Truth) -> LabelledPhotometry:
    """Photometry and labels of the objects of a catalogue whose class is known, in its order.

    Parameters
    ----------
    photometry : UPath
        Made by `ojala ingest`; its current release is read.
    truth : Truth
        Known objects; redshifts and labels are those of the class.

    Raises
    ------
    InputError
        Fewer than `FEWEST_LABELS` objects of known class are in the catalogue.
    """
    labelled = truth.rows["object_id"].to_numpy()
    rows = read_objects(current_release(photometry), labelled)
    place = np.searchsorted(labelled, rows["object_id"].to_numpy())
    code = code_of(np.array(truth.rows["class"].to_pylist(), dtype=object), CLASSES)[place]
    usable = np.flatnonzero(code >= 0)
    if len(usable) < FEWEST_LABELS:
        raise InputError(
            f"{truth.path}: {len(usable)} objects of known class are in {photometry}, at least "
            f"{FEWEST_LABELS} are needed"
        )

    def of_class(name: str, word: str | None) -> np.ndarray:
        values = np.asarray(truth.rows[name].to_numpy(zero_copy_only=False), np.float32)[place]
        return np.where(code == CLASSES.index(word), values, np.float32(np.nan)) if word else values

    labels = {"z_gal": of_class("z", "GALAXY"), "z_qso": of_class("z", "QSO")}
    labels |= {q.name: of_class(q.name, q.applies_to) for q in SCALARS if q.name in truth.labels}
    measured = read_photometry(rows)
    return LabelledPhotometry(measured.flux, measured.error, measured.ebv, code, labels).rows(usable)
