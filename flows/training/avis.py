"""Training of AVIS on mock pairs.

``python -m ojala.flows.training.avis --library FILE --objective towers --out DIR --minutes 15``, then with
``--objective contrastive --start DIR/avis-base.safetensors --out OTHER``. With ``--pool DIR`` pairs are read
from a folder that ``ojala.flows.mocks.pairs`` has filled; otherwise each step draws new ones. An unfinished
training in the folder is resumed.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from ojala.flows.mocks.library import load_sky
from ojala.flows.mocks.pairs import SEEN_BY, KeptPairs, PairSky
from ojala.models.avis.checkpoint import AvisInfo
from ojala.models.avis.network import Avis
from ojala.models.avis.predictor import AvisPredictor
from ojala.models.avis.training import AvisTraining, Draw, Objective, train
from ojala.models.data import Pairs
from ojala.models.evaluation.card import write_card
from ojala.models.spectral_tokenizer.evaluation import retrieval

HELD_OUT = 500
"""Held-out pairs that are checked at each save."""

JOINT = AvisTraining(batch_size=256, learning_rate=3e-3, spectrum=0.3, image=0.3)
"""Settings of the joint stage: the joint objective, with a small weight of the reconstruction."""

WEIGHTS = {"towers": 0.0, "contrastive": 1.0, "variance": 0.2}
"""Weights of the joint objectives; at the start, theirs are losses of about 5."""


class HeldOutCheck:
    """Retrieval of images by spectra of the same held-out objects."""

    def __init__(self, sky: PairSky, n: int) -> None:
        self._pairs = sky.draw(n, np.random.default_rng(2**31), held_out=True).pairs

    def __call__(self, model: Avis) -> dict[str, float]:
        """Ranks of the right image among all for a spectrum."""
        info = AvisInfo("in training", "", model.config, {}, "")
        device = next(model.parameters()).device.type
        answers = AvisPredictor(model, info, device=device, precision="bf16", batch_size=32).predict(
            self._pairs
        )
        found = retrieval(answers["embedding_spectrum"], answers["embedding_image"])
        return {name: round(value, 4) for name, value in found.items()}


def on_the_fly(sky: PairSky, seed: int) -> Draw:
    """New pairs for each step."""

    def draw(step: int, n: int) -> Pairs:
        instrument = SEEN_BY[step % len(SEEN_BY)]
        return sky.draw(n, np.random.default_rng([seed, step]), instrument=instrument).pairs

    return draw


def train_from_library(config: AvisTraining, library: Path, pool: Path | None, folder: Path) -> Path:
    """Train on mock pairs of a library, stored in a pool or drawn anew, and write weights and their card."""
    sky = PairSky(load_sky(library))
    draw: Draw = on_the_fly(sky, config.seed)
    if pool is not None:
        draw = partial(KeptPairs(pool).batch, seed=config.seed)
    weights = train(config, draw, HeldOutCheck(sky, HELD_OUT), folder, _show)
    write_card(weights)
    return weights


def _show(record: dict[str, object]) -> None:
    print(record, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--library", type=Path, required=True, help="library of spectra")
    parser.add_argument("--pool", type=Path, help="folder of kept pairs")
    parser.add_argument("--objective", choices=get_args(Objective), default="towers")
    parser.add_argument("--start", default="", help="weights to begin with")
    parser.add_argument("--out", type=Path, required=True, help="folder of the training")
    parser.add_argument(
        "--second-view", type=float, default=0.0, help="weight of the contrast of two views of a spectrum"
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="of training")
    parser.add_argument("--seed", type=int, default=0, help="of weights and pairs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = replace(
        AvisTraining() if arguments.objective == "towers" else JOINT,
        objective=arguments.objective,
        joint=WEIGHTS[arguments.objective],
        start=arguments.start,
        second_view=arguments.second_view,
        minutes=arguments.minutes,
        seed=arguments.seed,
    )
    print(train_from_library(config, arguments.library, arguments.pool, arguments.out))
