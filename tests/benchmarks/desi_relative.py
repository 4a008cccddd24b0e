"""SpecPT on real spectra of DESI whose offset and scale are lost.

``python -m tests.benchmarks.desi_relative --spectra FILE``: a constant is added to them, since SpecPT needs a
positive median; see `ojala.flows.training.specpt_galaxies.relative_spectra`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ojala.flows.evaluation.specpt import measures
from ojala.flows.training.specpt_galaxies import OFFSETS, Z_TRAINED, relative_spectra
from ojala.models import WEIGHTS_FOLDER
from ojala.models.specpt.predictor import SpecPTPredictor

RANGES = ((0.0, 0.6), (0.6, Z_TRAINED), (Z_TRAINED, 5.0))
"""Ranges of redshift: bright galaxies, emission-line galaxies, and beyond the training."""


def main(path: Path, weights: Path) -> None:
    """Print a line for each offset and range of redshift."""
    torch.set_num_threads(1)
    predictor = SpecPTPredictor.load(weights, precision="bf16", batch_size=32)
    for offset in OFFSETS:
        z, spectra = relative_spectra(path, offset)
        found = predictor.predict(spectra)
        for low, high in RANGES:
            chosen = (z >= low) & (z < high)
            m = measures({name: values[chosen] for name, values in found.items()}, z[chosen])
            print(
                f"offset {offset:g}, z {low:g} to {high:g}: {chosen.sum()} spectra, sigma_NMAD "
                f"{m['sigma_nmad']:.5f}, beyond 0.15 {m['outliers_15']:.1%}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spectra", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER / SpecPTPredictor.WEIGHTS)
    asked = parser.parse_args()
    main(asked.spectra, asked.weights)
