"""Gain of `ojala adapt` on a distorted survey, and its cost on undistorted mocks.

    python -m tests.benchmarks.adaptation --library FILE --out DIR [--labels 1000] [--steps 800]

Held-out mocks stand for a survey of other priors (more quasars and stars, i = 17 to 22.5) whose zero points
are off by 5 % rms and whose noise is 1.5 times that of the mocks. Weights are adapted with the labels of some
of its objects and without those of the rest. The measures are those of the rest, undistorted and distorted,
before and after, and of undistorted mocks with the priors of the training.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from upath import UPath

from ojala.flows.mocks.library import load_sky, photometry_table, truth_table
from ojala.flows.training import adapt as adaptation
from ojala.models import WEIGHTS_FOLDER
from ojala.models.data import LabelledPhotometry
from ojala.models.ojala.checkpoint import load
from ojala.pipeline.ingest.photometry import ingest_photometry

BASE_WEIGHTS = WEIGHTS_FOLDER / "ojala-base.safetensors"
SETTINGS = Path(adaptation.__file__).with_name("configs") / "adapt.toml"
ZERO_POINTS, NOISE = 0.05, 1.5
SHARES, I_RANGE = (0.45, 0.40, 0.15), (17.0, 22.5)
MEASURED = (("class", "f1_weighted"), ("z_gal", "sigma_nmad"), ("z_qso", "sigma_nmad"))


def distorted(objects: LabelledPhotometry, rng: np.random.Generator) -> tuple[LabelledPhotometry, np.ndarray]:
    """Add noise and move the zero point of every band; returns the objects and the factors (63,)."""
    scale = np.exp(rng.normal(0.0, ZERO_POINTS, objects.flux.shape[1])).astype(np.float32)
    noise = np.sqrt(NOISE**2 - 1.0) * objects.error * rng.standard_normal(objects.flux.shape)
    flux = ((objects.flux + noise) * scale).astype(np.float32)
    return replace(objects, flux=flux, error=objects.error * np.float32(NOISE) * scale), scale


def measure(
    library: Path, folder: Path, objects: int, labels: int, steps: int
) -> dict[str, dict[str, float]]:
    """Adapt the bundled weights in ``folder``, and measure them before and after by kind of objects."""
    sky, rng = load_sky(library), np.random.default_rng(77)
    plain = sky.draw(objects, rng, shares=SHARES, i_range=I_RANGE, held_out=True)
    survey, zero_points = distorted(plain, rng)
    folder.mkdir(parents=True, exist_ok=True)
    catalogue = folder / "photometry"
    if not catalogue.exists():
        ra, dec = 245.0 + rng.random(objects), 43.0 + rng.random(objects)
        pq.write_table(photometry_table(survey, ra, dec, 7), folder / "input.parquet")
        pq.write_table(truth_table(survey, 7).slice(0, labels), folder / "truth.parquet")
        ingest_photometry([UPath(folder / "input.parquet")], UPath(catalogue))
    settings = tomllib.loads(SETTINGS.read_text()) | {"steps": steps}
    lines = (f"{name} = {json.dumps(value)}" for name, value in settings.items())
    (folder / "settings.toml").write_text("\n".join(lines) + "\n")
    adapted = adaptation.adapt(
        folder / "settings.toml",
        weights=BASE_WEIGHTS,
        photometry=UPath(catalogue),
        truth=folder / "truth.parquet",
        library=library,
        folder=folder / "adapted",
        report=lambda record: print(json.dumps(record), flush=True),
    )
    rest = np.arange(labels, objects)
    samples = {
        "survey without its distortion": plain.rows(rest),
        "survey with its noise alone": adaptation.scaled(survey, 1.0 / zero_points).rows(rest),
        "survey": survey.rows(rest),
        "mocks": sky.draw(objects, np.random.default_rng(78), held_out=True),
    }
    fitted = load(adapted)[1].zero_points.factor.numpy()
    table = {}
    for name, rows in samples.items():
        for when, weights in (("before", BASE_WEIGHTS), ("after", adapted)):
            undistorted = name != "survey" and when == "after"  # as the survey would measure them
            rows = adaptation.scaled(rows, fitted) if undistorted else rows
            found = adaptation.measure(weights, rows)
            table[f"{name}, {when}"] = {f"{of} {what}": found[of][what] for of, what in MEASURED}
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--library", type=Path, required=True, help="library of spectra")
    parser.add_argument("--out", type=Path, required=True, help="folder of the training")
    parser.add_argument("--objects", type=int, default=6_000)
    parser.add_argument("--labels", type=int, default=1_000)
    parser.add_argument("--steps", type=int, default=800)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    asked = (arguments.library, arguments.out, arguments.objects, arguments.labels, arguments.steps)
    print(json.dumps(measure(*asked), indent=1))
