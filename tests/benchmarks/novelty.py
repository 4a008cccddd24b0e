"""Evaluation of the novelty score: detection of rare kinds by a small network that is trained without them.

``python -m tests.benchmarks.novelty --library FILE --out DIR`` trains on a sky without extreme
emitters, white dwarfs and quasars at z > 4 (`ojala.models.simulation.skies.photometric.RARE`), fits the
score, and prints how well it separates each kind from held-out objects of the same sky. A quarter of an hour
with one thread; the results are in `NOVELTY.md` next to this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from ojala.flows.mocks.library import load_sky
from ojala.flows.training.ojala import HeldOutSky
from ojala.models.evaluation.metrics import area_under_curve
from ojala.models.ojala.checkpoint import load
from ojala.models.ojala.network import PRESETS, OjalaConfig
from ojala.models.ojala.novelty import Novelty, fit_novelty, raw_vector
from ojala.models.ojala.outputs import RawOutputs, predict_uncalibrated
from ojala.models.ojala.training import OjalaTraining, train
from ojala.models.simulation.skies.photometric import RARE

SMALL = OjalaConfig(
    width=64, encoder=((4, 192),) * 3, decoder=((4, 192),), trunk=(192,), pre_norm=True, reads_errors=True
)
"""Shape of the network."""

DRAWS = 204_800
"""Draws of the training by default."""

BRIGHT = 3.0
"""Lower limit of the depth of bright objects (a median signal-to-noise ratio of 10)."""


def measure_left_out(library: Path, folder: Path, draws: int) -> dict[str, dict[str, float]]:
    """Train without the rare kinds and measure their scores.

    Returns
    -------
    dict of dict
        For each kind, and its bright objects: ``n``; ``auc``, the probability of a higher novelty than that
        of an object of the sky; ``novel``, the fraction with a novelty above 1.
    """
    PRESETS["left-out"] = SMALL
    sky = load_sky(library, without=frozenset(RARE))
    config = OjalaTraining(
        name="left-out",
        preset="left-out",
        steps=max(1, draws // 256),
        batch_size=256,
        compiled=False,
        warm_up=100,
        ema_decay=0.99,
        held_out=1000,
    )
    model, _ = load(train(config, sky, HeldOutSky(sky), folder))
    draw = np.random.default_rng(1)
    known = predict_uncalibrated(model, sky.draw(5000, draw))
    novelty = fit_novelty(known, predict_uncalibrated(model, sky.draw(3000, draw, held_out=True)))
    usual = predict_uncalibrated(model, sky.draw(3000, draw, held_out=True))
    kinds = {"known objects": usual} | {
        kind: predict_uncalibrated(model, sky.draw_rare(kind, 500, draw)) for kind in RARE
    }
    measures = {}
    for kind, raw in kinds.items():
        for label, faintest in (("", -np.inf), (", bright", BRIGHT)):
            score, reference = (_score(novelty, r.rows(r.depth > faintest)) for r in (raw, usual))
            own = np.arange(len(score) + len(reference)) < len(score)
            measures[f"{kind}{label}"] = {
                "n": float(len(score)),
                "auc": float(area_under_curve(np.concatenate([score, reference]), own)),
                "novel": float((score > 1).mean()),
            }
    return measures


def _score(novelty: Novelty, raw: RawOutputs) -> np.ndarray:
    vector = raw_vector(raw.class_logits, raw.scalars)
    return np.asarray(novelty.score(raw.embedding, vector, raw.depth))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--library", type=Path, required=True, help="library of spectra")
    parser.add_argument("--out", type=Path, required=True, help="folder of the training")
    parser.add_argument("--draws", type=int, default=DRAWS, help="of the training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, values in measure_left_out(arguments.library, arguments.out, arguments.draws).items():
        print(
            f"{name:28s} n {values['n']:5.0f}  AUC {values['auc']:.3f}  novel {100 * values['novel']:.1f} %"
        )
