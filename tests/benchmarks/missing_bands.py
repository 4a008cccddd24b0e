"""Accuracy of OJALÁ with missing bands.

``python -m tests.benchmarks.missing_bands --photometry DIR --truth FILE`` predicts the rows as they
are, with 40 of the 54 narrow bands (another random choice for each object), and without WISE, the Legacy
Surveys or both, and prints the accuracy of all rows and of those brighter than i = 21. The truth may be of
real objects or of a mock sky.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from upath import UPath

from ojala.catalogs_schema.bands import MODEL_BANDS, System
from ojala.models import WEIGHTS_FOLDER
from ojala.pipeline.inference.photometry import Photometry
from ojala.pipeline.quality.validation.predictions import AB_ZERO
from ojala.pipeline.quality.validation.samples import BRIGHT
from ojala.pipeline.quality.validation.truth import read_truth
from tests.benchmarks.template_fitting.compare import (
    LabelledRows,
    markdown,
    read_labelled_rows,
    run_ojala,
)

N_NARROW = 40
"""Number of remaining narrow bands."""

_NARROW = np.flatnonzero([band.is_narrow for band in MODEL_BANDS])
_LEGACY, _WISE = (np.array([b.system is s for b in MODEL_BANDS]) for s in (System.LEGACY, System.WISE))


def fewer_narrow_bands(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw bands to leave out so that `N_NARROW` narrow ones remain; bool of shape (n, 63)."""
    lost = np.zeros((n, len(MODEL_BANDS)), dtype=bool)
    order = rng.random((n, len(_NARROW))).argsort(axis=1)
    np.put_along_axis(lost, _NARROW[order[:, N_NARROW:]], True, axis=1)
    return lost


def without(rows: LabelledRows, lost: np.ndarray) -> LabelledRows:
    """Mask bands of rows; ``lost`` is bool and broadcasts to (N, 63)."""
    p = rows.photometry
    flux, error = (np.where(lost, np.float32(np.nan), values) for values in (p.flux, p.error))
    return replace(rows, photometry=replace(p, flux=flux, error=error, usable=p.usable & ~lost))


def cases(rows: LabelledRows) -> dict[str, LabelledRows]:
    """Make the rows as observed and with missing bands, by name of the case."""
    fewer = fewer_narrow_bands(len(rows.z), np.random.default_rng(N_NARROW))
    return {
        "as observed": rows,
        f"{N_NARROW} of {len(_NARROW)} narrow bands": without(rows, fewer),
        "without WISE": without(rows, _WISE),
        "without Legacy": without(rows, _LEGACY),
        "without Legacy and WISE": without(rows, _LEGACY | _WISE),
    }


def bright(rows: LabelledRows) -> LabelledRows:
    """Select rows brighter than `BRIGHT` in iSDSS, corrected for Galactic extinction."""
    chosen = rows.photometry.reference()[0] > 10.0 ** (-0.4 * (BRIGHT - AB_ZERO))
    p = rows.photometry
    photometry = Photometry(p.flux[chosen], p.error[chosen], p.ebv[chosen], p.usable[chosen])
    return LabelledRows(photometry, rows.class_code[chosen], rows.z[chosen])


def main() -> None:
    """Evaluate and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photometry", type=UPath, required=True, help="photometry catalogue")
    parser.add_argument("--truth", type=UPath, required=True, help="labels of its objects")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER / "ojala-base.safetensors")
    options = parser.parse_args()
    rows = read_labelled_rows(options.photometry, read_truth(options.truth))
    for name, some in (("all", rows), (f"i < {BRIGHT:g}", bright(rows))):
        methods = [
            replace(run_ojala(options.weights, case.photometry), name=left)
            for left, case in cases(some).items()
        ]
        n = len(some.z)
        print(f"\n{options.photometry}, {name}: {n:,} rows\n\n{markdown(some, methods, some.first(n))}")


if __name__ == "__main__":
    main()
