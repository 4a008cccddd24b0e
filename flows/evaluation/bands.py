"""How well OJALÁ predicts the flux in a band from the other bands, on held-out mocks.

``python -m ojala.flows.evaluation.bands --library FILE`` hides the bands of held-out draws in turn (see
`ojala.models.ojala.predictor.OjalaPredictor.predict_bands`) and prints for each band, over the objects in
which it was observed: their number; the median and sigma_NMAD of (predicted - true) / error; the share of
truths within the error, also of objects in which it was not observed; the median error over the flux; and
sigma_NMAD of (measured - predicted) / sqrt(both errors in quadrature). The truth is the flux that the band
would measure without noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.flows.mocks.library import load_sky
from ojala.models import WEIGHTS_FOLDER
from ojala.models.data import LabelledPhotometry
from ojala.models.evaluation.metrics import NMAD
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.simulation.skies.photometric import SURVEY_SHARES

COLUMNS = {
    "n": ".0f",
    "median": "+.3f",
    "sigma_nmad": ".3f",
    "within_68": ".3f",
    "unobserved_within_68": ".3f",
    "relative_error": ".3f",
    "measured_sigma_nmad": ".3f",
}
"""Measures of a band, as they are printed."""


def band_measures(found: dict[str, np.ndarray], drawn: LabelledPhotometry) -> dict[str, dict[str, float]]:
    """Measures of predicted fluxes by band.

    Parameters
    ----------
    found : dict of str to ndarray
        Answers of `OjalaPredictor.predict_bands`.
    drawn : LabelledPhotometry
        The objects; their noiseless fluxes must be known.

    Returns
    -------
    dict of dict
        `COLUMNS` of each band, NaN without any object, and under ``all`` their medians over the bands and the
        sum of ``n``.
    """
    if drawn.noiseless is None:
        raise ValueError("predicted fluxes are compared with noiseless ones: draw objects from a mock sky")
    pull = (found["band_flux"] - drawn.noiseless) / found["band_flux_err"]
    measures = {
        band.name: _of_band(k, pull[:, k], found, np.isfinite(drawn.flux[:, k]))
        for k, band in enumerate(MODEL_BANDS)
    }
    table = np.array([list(of.values()) for of in measures.values()])
    middle = dict(zip(COLUMNS, np.nanmedian(table, axis=0).tolist(), strict=True))
    return measures | {"all": middle | {"n": float(table[:, 0].sum())}}


def _of_band(
    k: int, pull: np.ndarray, found: dict[str, np.ndarray], observed: np.ndarray
) -> dict[str, float]:
    known = np.isfinite(pull)
    seen, unseen = known & observed, known & ~observed
    if not seen.any():
        return dict.fromkeys(COLUMNS, np.nan) | {"n": 0.0}
    flux, error, sigma = (found[f"band_{name}"][seen, k] for name in ("flux", "flux_err", "sigma"))
    return {
        "n": float(seen.sum()),
        "median": float(np.median(pull[seen])),
        "sigma_nmad": _nmad(pull[seen]),
        "within_68": float((np.abs(pull[seen]) <= 1.0).mean()),
        "unobserved_within_68": float((np.abs(pull[unseen]) <= 1.0).mean()) if unseen.any() else np.nan,
        "relative_error": float(np.median(error / np.abs(flux))),
        "measured_sigma_nmad": _nmad(sigma[np.isfinite(sigma)]),
    }


def _nmad(values: np.ndarray) -> float:
    return float(NMAD * np.median(np.abs(values - np.median(values))))


def table(measures: dict[str, dict[str, float]]) -> str:
    """The measures as a Markdown table."""
    lines = ["| band | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, of in measures.items():
        cells = [format(of[column], form) for column, form in COLUMNS.items()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, ask and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--library", type=Path, required=True, help="library of spectra")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER / "ojala-base.safetensors")
    parser.add_argument("--draws", type=int, default=4000, help="held-out objects in the survey's mix")
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args(arguments)
    predictor = OjalaPredictor.load(asked.weights)
    drawn = load_sky(asked.library).draw(
        asked.draws, np.random.default_rng(asked.seed), shares=SURVEY_SHARES, held_out=True
    )
    found = predictor.predict_bands(drawn.flux, drawn.error, drawn.ebv)
    print(table(band_measures(found, drawn)))
    per_band = found["chi2_bands"] / found["n_chi2_bands"]
    print(f"\nmedian of chi2_bands / n_chi2_bands: {np.nanmedian(per_band):.3f}")


if __name__ == "__main__":
    main()
