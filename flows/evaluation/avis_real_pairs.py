"""Evaluation of AVIS on real galaxies with an r image and a spectrum, moved to redshifts of the survey.

``python -m ojala.flows.evaluation.avis_real_pairs`` with ``--weights --library --galaxies --images`` reads
rest-frame spectra (Parquet: ``wavelength`` [Angstrom], ``flux``, ``image``, ``r_total``) and r images (FITS,
nanomaggy, with ``REDSHIFT`` and ``PIXSCALE`` in the header). The galaxies are near and larger than a cut-out:
spectrum and image are moved together to a random redshift, dimmed and rebinned as the distance says, and
observed with the noise of DESI and of the Legacy Survey. Prints measures as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from astropy.cosmology import Planck18
from astropy.io import fits
from scipy.ndimage import gaussian_filter, map_coordinates

from ojala.catalogs_schema.cutouts import PIXEL_SCALE, SIZE
from ojala.flows.evaluation.avis import SIDES, embed, scaled
from ojala.flows.mocks.library import load_sky
from ojala.flows.mocks.pairs import PairSky
from ojala.models.avis.evaluation import neighbour_redshifts
from ojala.models.avis.predictor import AvisPredictor
from ojala.models.data import Images, Pairs, Spectra
from ojala.models.evaluation.metrics import redshift_metrics
from ojala.models.quantities import CLASSES
from ojala.models.serving.precision import fastest_precision
from ojala.models.simulation.photometry.noise import to_flux
from ojala.models.simulation.skies.imaging import DEPTH, SEEING
from ojala.models.simulation.spectroscopy.instruments import INSTRUMENTS
from ojala.models.simulation.spectroscopy.observing import expose
from ojala.models.spectral_tokenizer.evaluation import retrieval

REDSHIFTS = (0.08, 0.4)
"""Range of the redshifts that galaxies are moved to, uniform."""

FIBRE_LOSS = 0.7
"""Light that the fibre misses [mag]."""

NEAREST = 16
"""Neighbours whose classes are counted."""

_R_PIVOT, _NANOMAGGY = 6420.0, 3.631  # Angstrom; uJy
_PSF_PIXELS = 30.0  # effective noise area of a point source


def moved_pairs(galaxies: Path, images: Path, rng: np.random.Generator) -> tuple[Pairs, np.ndarray]:
    """Read galaxies with an image and move each to a redshift; returns the pairs and the redshifts (N,)."""
    rows = [row for row in pq.read_table(galaxies).to_pylist() if row["image"]]
    desi = INSTRUMENTS["DESI"]
    truth, planes, z = (
        np.empty((len(rows), len(desi.wavelength)), np.float32),
        [],
        rng.uniform(*REDSHIFTS, len(rows)),
    )
    for i, row in enumerate(rows):
        plane, near = _read_image(images / row["image"])
        distance = Planck18.luminosity_distance([near["z"], z[i]]).value
        magnitude = row["r_total"] + 5.0 * np.log10(distance[1] / distance[0])
        shrink = (distance[0] / (1.0 + near["z"]) ** 2) / (distance[1] / (1.0 + z[i]) ** 2)
        planes.append(_rebinned(plane, near["scale"], shrink) * to_flux(np.array(magnitude)))
        wavelength, flux = (np.asarray(row[name], float) for name in ("wavelength", "flux"))
        own = np.interp(desi.wavelength, wavelength * (1.0 + z[i]), flux)
        level = 2.998e18 / _R_PIVOT**2 * 10.0 ** (-0.4 * (magnitude + FIBRE_LOSS + 48.6)) * 1e17
        truth[i] = own * level / own[np.abs(desi.wavelength - _R_PIVOT) < 400.0].mean()
    flux, ivar = expose(truth, np.ones(len(rows), bool), desi, None, rng)
    spectra = Spectra.from_arrays(list(zip([desi.wavelength] * len(rows), flux, ivar, strict=True)))
    return Pairs(spectra, _observed(np.array(planes), rng)), z


def _read_image(path: Path) -> tuple[np.ndarray, dict[str, float]]:
    with fits.open(path) as file:
        plane, header = np.array(file[1].data, float), file[1].header
    return np.nan_to_num(plane) * _NANOMAGGY, {"z": header["REDSHIFT"], "scale": header["PIXSCALE"]}


def _rebinned(plane: np.ndarray, scale: float, shrink: float) -> np.ndarray:
    """Image of sum 1 on the pixels of a cut-out (SIZE, SIZE), its angular size ``shrink`` times its own."""
    step = PIXEL_SCALE / (scale * shrink)  # pixels of the image in one of the cut-out
    smooth = gaussian_filter(plane, 0.4 * step) if step > 1.0 else plane
    at = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2.0
    centre = (np.array(plane.shape)[:, None, None] - 1) / 2.0
    moved = gaussian_filter(
        map_coordinates(smooth, centre + at * step, order=1), SEEING[1] / 2.355 / PIXEL_SCALE
    )
    return np.asarray(moved / moved.sum())


def _observed(planes: np.ndarray, rng: np.random.Generator) -> Images:
    """Images with r alone, with the noise of the Legacy Survey."""
    sigma = float(to_flux(np.array(DEPTH[1])) / 5.0 / np.sqrt(_PSF_PIXELS))
    flux = np.zeros((len(planes), 3, SIZE, SIZE), np.float32)
    flux[:, 1] = planes + sigma * rng.standard_normal(planes.shape)
    ivar = np.zeros_like(flux)
    ivar[:, 1] = sigma**-2
    psf = np.full((len(planes), 3), np.nan, np.float32)
    psf[:, 1] = SEEING[1]
    return Images(flux, ivar, psf)


def evaluate(
    weights: Path, sky: PairSky, pairs: Pairs, z: np.ndarray, neighbours: int
) -> dict[str, dict[str, float]]:
    """Measure redshifts and classes of mock neighbours, by side, and the retrieval between the sides."""
    predictor = AvisPredictor.load(weights, precision=fastest_precision(), batch_size=32)
    mock = sky.draw(neighbours, np.random.default_rng(7))
    there, here = embed(predictor, mock.pairs), embed(predictor, pairs)
    far = mock.objects.class_code != CLASSES.index("STAR")
    report: dict[str, dict[str, float]] = {}
    for side in SIDES:
        known = np.isfinite(there[side]).all(axis=1)
        sample, queries = scaled(there[side][known], here[side])
        of_far = far[known]
        found = neighbour_redshifts(sample[of_far], mock.objects.z[known][of_far], queries)
        distance = np.linalg.norm(sample[None] - queries[:, None], axis=2)
        near = mock.objects.class_code[known][np.argsort(distance, axis=1)[:, :NEAREST]]
        report[side] = redshift_metrics(found, z)
        report[side]["galaxies among the nearest"] = float(np.mean(near == CLASSES.index("GALAXY")))
    report["spectrum of an image"] = retrieval(here["image"], here["spectrum"])
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--library", type=Path, required=True, help="library of spectra")
    parser.add_argument("--galaxies", type=Path, required=True, help="rest-frame spectra (Parquet)")
    parser.add_argument("--images", type=Path, required=True, help="folder of their r images")
    parser.add_argument("--neighbours", type=int, default=8_000, help="mock pairs to find neighbours among")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    real, moved_to = moved_pairs(arguments.galaxies, arguments.images, np.random.default_rng(1))
    mocks = PairSky(load_sky(arguments.library))
    print(json.dumps(evaluate(arguments.weights, mocks, real, moved_to, arguments.neighbours), indent=1))
