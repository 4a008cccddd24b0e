"""How well OJALÁ predicts the flux in a band from the other bands, on held-out mocks.

``python -m ojala.flows.evaluation.bands --library FILE`` hides the bands of held-out draws in turn (see
`ojala.models.ojala.predictor.OjalaPredictor.predict_bands`) and prints for each band, over the objects in
which it was observed: their number; the median and sigma_NMAD of (predicted - true) / error; the share of
truths within the error, also of objects in which it was not observed; the median error over the flux; and
sigma_NMAD of (measured - predicted) / sqrt(both errors in quadrature). The truth is the flux that the band
would measure without noise.

With ``--moved J0660`` it also makes a survey of tiles of 2,000 held-out objects, moves the zero point of that
band in one of them by 3 %, and prints the table by tile of the report and the result of the gate
``zero_points``, with the zero point moved and as it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.flows.mocks.library import load_sky
from ojala.models import WEIGHTS_FOLDER
from ojala.models.data import LabelledPhotometry, valid_bands
from ojala.models.evaluation.metrics import NMAD
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.simulation.skies.photometric import SURVEY_SHARES
from ojala.pipeline.inference.photometry import Photometry
from ojala.pipeline.inference.products.band_residuals import band_residuals
from ojala.pipeline.runs.gates import GateLimits
from ojala.pipeline.runs.zero_points import ZeroPoints, combine_tiles

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


def zero_point_table(
    predictor: OjalaPredictor, drawn: LabelledPhotometry, tiles: int, band: int, factors: Sequence[float]
) -> dict[float, str]:
    """The table by tile of the report and the result of the gate ``zero_points``, as text.

    Parameters
    ----------
    predictor : OjalaPredictor
        Asked for bands.
    drawn : LabelledPhotometry
        The objects, in equal parts to the tiles, numbered from 0.
    tiles : int
        Number of tiles.
    band : int
        Model band whose fluxes and errors in tile 0 are multiplied.
    factors : sequence of float
        By what; each gives a table.
    """
    tile = np.arange(len(drawn)) * tiles // len(drawn)
    asked = predictor.predict_bands(drawn.flux, drawn.error, drawn.ebv)
    first = tile == 0
    found = {}
    for factor in factors:
        flux, error = drawn.flux.copy(), drawn.error.copy()
        flux[first, band] *= factor
        error[first, band] *= factor
        moved = predictor.predict_bands(flux[first], error[first], drawn.ebv[first])
        predicted, its_error = (
            np.concatenate([moved[name], asked[name][~first]]) for name in ("band_flux", "band_flux_err")
        )
        usable = valid_bands(torch.from_numpy(flux), torch.from_numpy(error)).numpy()
        photometry = Photometry(flux, error, drawn.ebv, usable)
        position = np.stack([1.4 * tile, np.zeros(len(tile))], axis=1)
        residuals = band_residuals(tile, position, photometry, predicted, its_error)
        found[factor] = _tiles(combine_tiles({name: [part] for name, part in residuals.items()}), band)
    return found


def _tiles(found: ZeroPoints | None, band: int) -> str:
    """Zero points of tiles as a Markdown table, with the outcome of the gate."""
    if found is None:
        return "no prediction stands out of the errors"
    lines = ["| tile | band | objects | off | error | sigma | bands beyond chance |", "|---" * 7 + "|"]
    for row, name in enumerate(found.tiles):
        k = int(np.nan_to_num(np.abs(found.sigma[row])).argmax())
        off, its_error, sigma = (a[row, k] for a in (found.deviation, found.deviation_err, found.sigma))
        beyond = [MODEL_BANDS[other].name for other in np.flatnonzero(found.beyond_chance[row])]
        lines.append(
            f"| {name} | {MODEL_BANDS[k].name} | {found.n[row, k]:,} | {off:+.2%} | {its_error:.2%} | "
            f"{sigma:+.1f} | {', '.join(beyond) or '-'} |"
        )
    warn, fail = GateLimits().of("zero_points")
    excess = float(np.nanmax(found.excess))
    outcome = "fail" if excess > fail else "warn" if excess > warn else "pass"
    off, sigma = found.deviation[0, band], found.sigma[0, band]
    lines.append(f"\n{MODEL_BANDS[band].name} of tile 0: {off:+.2%} ({sigma:+.1f} sigma); gate: {outcome}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, predict and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--library", type=Path, required=True, help="library of spectra")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER / "ojala-base.safetensors")
    parser.add_argument("--draws", type=int, default=4000, help="held-out objects in the survey's mix")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--moved", choices=[band.name for band in MODEL_BANDS], help="band to move in a tile")
    parser.add_argument("--by", type=float, default=0.03, help="relative change of its zero point")
    parser.add_argument("--tiles", type=int, default=6, help="tiles of that survey")
    parser.add_argument("--tile-objects", type=int, default=2000, help="objects of each of them")
    asked = parser.parse_args(arguments)
    predictor = OjalaPredictor.load(asked.weights)
    drawn = load_sky(asked.library).draw(
        asked.draws, np.random.default_rng(asked.seed), shares=SURVEY_SHARES, held_out=True
    )
    found = predictor.predict_bands(drawn.flux, drawn.error, drawn.ebv)
    print(table(band_measures(found, drawn)))
    per_band = found["chi2_bands"] / found["n_chi2_bands"]
    print(f"\nmedian of chi2_bands / n_chi2_bands: {np.nanmedian(per_band):.3f}")
    if asked.moved:
        band = [band.name for band in MODEL_BANDS].index(asked.moved)
        survey = load_sky(asked.library).draw(
            asked.tiles * asked.tile_objects,
            np.random.default_rng(asked.seed + 1),
            shares=SURVEY_SHARES,
            held_out=True,
        )
        factors = (1.0 + asked.by, 1.0)
        for factor, text in zero_point_table(predictor, survey, asked.tiles, band, factors).items():
            print(f"\nzero point of {asked.moved} in tile 0 times {factor:g}\n\n{text}")


if __name__ == "__main__":
    main()
