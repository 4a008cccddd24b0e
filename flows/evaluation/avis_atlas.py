"""Bundled atlas of AVIS: fit on simulated pairs, and evaluation on held-out pairs.

``python -m ojala.flows.evaluation.avis_atlas --weights FILE --library FILE --out FILE`` draws pairs of the
library's training side, embeds them, fits the atlas, places pairs of the held-out side, and prints the
trustworthiness of the maps and measures of clusters and redshifts as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ojala.flows.mocks.library import load_sky
from ojala.flows.mocks.pairs import INSTRUMENT_CYCLE, PairSky
from ojala.models.avis.atlas import Atlas, read_atlas, write_atlas
from ojala.models.avis.atlas_fit import fit_atlas
from ojala.models.avis.evaluation import cluster_quality, redshift_quality
from ojala.models.avis.predictor import AvisPredictor

PAIRS = 10_000
"""Objects of the atlas."""

HELD_OUT = 2_000
"""Held-out objects."""

NEAR = 10
"""Neighbours for the trustworthiness."""

_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings of N simulated pairs with redshifts and classes.

    Attributes
    ----------
    embedding : ndarray of float32, shape (N, EMBEDDING_SIZE)
        Joint embeddings.
    z : ndarray of float32, shape (N,)
        Redshifts; of stars, radial velocity over the speed of light.
    class_code : ndarray of int64, shape (N,)
        Index into `ojala.models.quantities.CLASSES`.
    """

    embedding: np.ndarray
    z: np.ndarray
    class_code: np.ndarray


def embed_pairs(
    sky: PairSky, predictor: AvisPredictor, n: int, seed: int, *, held_out: bool = False
) -> Embedded:
    """Draw ``n`` pairs of alternating spectrographs, and embed those with usable pixels."""
    embedding, z, codes = [], [], []
    for k, begin in enumerate(range(0, n, _BLOCK)):
        rng = np.random.default_rng([seed, int(held_out), k])
        size, instrument = min(_BLOCK, n - begin), INSTRUMENT_CYCLE[k % len(INSTRUMENT_CYCLE)]
        drawn = sky.draw(size, rng, instrument=instrument, held_out=held_out)
        vectors = predictor.predict(drawn.pairs)["embedding"]
        known = np.isfinite(vectors).all(axis=1)
        embedding.append(vectors[known])
        z.append(drawn.objects.z[known].astype(np.float32))
        codes.append(drawn.objects.class_code[known])
    return Embedded(np.concatenate(embedding), np.concatenate(z), np.concatenate(codes))


def quality(atlas: Atlas, sample: Embedded, other: Embedded) -> dict[str, object]:
    """Evaluate an atlas on its own sample and on other objects.

    Returns
    -------
    dict
        Trustworthiness of both maps (scikit-learn's, 10 neighbours) for as many of the sample as there are
        others, and for the others; `ojala.models.avis.evaluation.cluster_quality` of both; of the others,
        `ojala.models.avis.evaluation.redshift_quality` of the redshifts from the atlas.
    """
    from sklearn.manifold import trustworthiness

    places = atlas.place(other.embedding)
    maps = {
        "map2": np.stack([places["map_x"], places["map_y"]], axis=1),
        "map3": np.stack([places[f"map3_{axis}"] for axis in "xyz"], axis=1),
    }
    n = len(other.embedding)
    measures: dict[str, object] = {
        "clusters_sample": cluster_quality(atlas.cluster, sample.class_code),
        "clusters_placed": cluster_quality(places["cluster"], other.class_code),
        "redshift_placed": redshift_quality(places["z_nn"].astype(float), other.z, other.class_code),
    }
    for name, placed in maps.items():
        own = getattr(atlas, name)[:n]
        measures[f"trustworthiness_{name}"] = {
            "sample": float(trustworthiness(atlas.embedding[:n], own, n_neighbors=NEAR)),
            "placed": float(trustworthiness(other.embedding, placed, n_neighbors=NEAR)),
        }
    return measures


def main() -> None:
    """Fit, write and evaluate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="weights of AVIS")
    parser.add_argument("--library", type=Path, required=True, help="library of spectra")
    parser.add_argument("--out", type=Path, required=True, help="file of the atlas")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="objects of the atlas")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="held-out objects")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    begin = time.perf_counter()
    sky, predictor = PairSky(load_sky(options.library)), AvisPredictor.load(options.weights)
    with torch.inference_mode():
        sample = embed_pairs(sky, predictor, options.pairs, options.seed)
        other = embed_pairs(sky, predictor, options.held_out, options.seed, held_out=True)
    about: dict[str, object] = {"pairs": "simulated, of the training side of the library"}
    atlas = fit_atlas(
        sample.embedding, sample.z, weights_sha256=predictor.weights_sha256, seed=options.seed, about=about
    )
    write_atlas(options.out, atlas)
    measures = quality(read_atlas(options.out, predictor.weights_sha256), sample, other)
    print(json.dumps({**measures, "seconds": round(time.perf_counter() - begin)}, indent=1))


if __name__ == "__main__":
    main()
