"""Training of the spectral tokenizer on mock spectra.

``python -m flows.tokenizer_training --library FILE --out DIR --minutes 50`` trains the network, and heads
beside it; with ``--frozen WEIGHTS`` only the heads of those weights, the network staying as it is. A folder
that holds an unfinished training is gone on with.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from flows.synthesis import load_sky
from models.batch import LabelledSpectra
from models.spectral_tokenizer.heads import Heads
from models.spectral_tokenizer.lesson import LessonConfig
from models.spectral_tokenizer.network import SpectralTokenizer
from models.spectral_tokenizer.predictor import SpectralTokenizerPredictor
from models.spectral_tokenizer.quality import quality
from models.spectral_tokenizer.training import Draw, TokenizerTraining, train_tokenizer
from models.spectral_tokenizer.weights import TokenizerInfo
from models.synthesis.spectrograph import INSTRUMENTS, SpectraSky

SIGNAL_TO_NOISE: Mapping[str, tuple[float, float] | None] = {
    "DESI": None,
    "SDSS": (1.0, 50.0),
    "LAMOST": (2.0, 100.0),
    "GALAH": (3.0, 100.0),
}
"""Median signal-to-noise ratios of spectra by instrument; None for exposures as DESI's own of its targets."""

HEADS_ALONE = TokenizerTraining(
    batch_size=32, learning_rate=2e-3, lesson=LessonConfig(whole=0.5, asked=0.0, from_embedding=0.0)
)
"""How heads learn on a network that is frozen."""

GOING_ON = TokenizerTraining(version="0.2", batch_size=64, learning_rate=2.5e-3, contrast=0.1)
"""How a network goes on from weights, its embeddings of an object through two instruments pulled together."""

HELD_OUT = 256
"""Held-out spectra of each instrument that are checked at each save."""


def draw_spectra(
    sky: SpectraSky,
    instrument: str,
    n: int,
    of: np.random.Generator,
    rng: np.random.Generator,
    *,
    held_out: bool = False,
) -> LabelledSpectra:
    """Spectra of new objects, which ``of`` chooses, through an instrument."""
    objects = sky.choose(n, of, held_out=held_out)
    return sky.observe(objects, INSTRUMENTS[instrument], rng, signal_to_noise=SIGNAL_TO_NOISE[instrument])


class HeldOutCheck:
    """Measures on the same held-out spectra at each save."""

    def __init__(self, sky: SpectraSky, n: int) -> None:
        rng = np.random.default_rng(2**31)
        self._drawn = {name: draw_spectra(sky, name, n, rng, rng, held_out=True) for name in SIGNAL_TO_NOISE}

    def __call__(self, model: SpectralTokenizer, heads: Heads) -> dict[str, float]:
        """Quality by instrument, as `models.spectral_tokenizer.quality.quality`, and the mean residual."""
        info = TokenizerInfo("in training", "", model.config, {}, "")
        device = next(model.parameters()).device.type
        predictor = SpectralTokenizerPredictor(
            model, heads, info, device=device, precision="bf16", batch_size=16
        )
        found: dict[str, float] = {}
        for name, drawn in self._drawn.items():
            answers = predictor.predict(drawn.spectra)
            measures = quality(answers, drawn.class_code, drawn.labels)
            measures["residual"] = float(np.nanmedian(answers["reconstruction_residual"]))
            found |= {f"{name} {measure}": round(value, 5) for measure, value in measures.items()}
        return found


def train_from_library(config: TokenizerTraining, library: Path, folder: Path) -> Path:
    """Train on mock spectra of a library and write weights; see `train_tokenizer`."""
    sky = SpectraSky(load_sky(library).population)
    draws: dict[str, Draw] = {name: functools.partial(draw_spectra, sky, name) for name in SIGNAL_TO_NOISE}
    return train_tokenizer(config, draws, HeldOutCheck(sky, HELD_OUT), folder, _show)


def _show(record: dict[str, object]) -> None:
    print(record, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--library", type=Path, required=True, help="library of spectra")
    parser.add_argument("--out", type=Path, required=True, help="folder of the training")
    parser.add_argument("--minutes", type=float, default=50.0, help="of training")
    parser.add_argument("--seed", type=int, default=0, help="of weights and draws")
    parser.add_argument("--begin", default="", help="weights to go on from")
    parser.add_argument("--frozen", default="", help="weights whose heads alone shall learn on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = replace(
        HEADS_ALONE if arguments.frozen else GOING_ON if arguments.begin else TokenizerTraining(),
        minutes=arguments.minutes,
        seed=arguments.seed,
        begin=arguments.begin,
        frozen=arguments.frozen,
    )
    print(train_from_library(config, arguments.library, arguments.out))
