"""What AVIS' embeddings are worth, on held-out mock pairs and on real spectra.

``python -m ojala.flows.evaluation.avis --weights FILE --towers FILE --library FILE --out DIR`` and, for real
spectra, ``--spectra DIR`` writes ``<weights>.json`` and the model card ``<weights>.md``. ``--towers`` are the
weights of the first stage, the towers alone; ``--tried NAME=FILE`` others to be compared on fewer
objects: the card speaks of before, contrast, variance and kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ojala.flows.mocks.library import load_sky
from ojala.flows.mocks.pairs import MockPairs, PairSky
from ojala.models.avis.atlas import project
from ojala.models.avis.atlas_fit import fit_clusters, fit_map, principal_axes
from ojala.models.avis.evaluation import (
    cluster_quality,
    neighbour_redshifts,
    probe_class,
    probe_value,
    redshift_quality,
)
from ojala.models.avis.predictor import AvisPredictor
from ojala.models.data import Images, Pairs, Spectra
from ojala.models.evaluation.card import write_card
from ojala.models.quantities import CLASSES
from ojala.models.simulation.photometry.noise import to_flux
from ojala.models.simulation.skies.imaging import DEPTH
from ojala.models.spectral_tokenizer.evaluation import retrieval
from ojala.pipeline.ingest.surveys.folder import read_folder
from ojala.pipeline.ingest.surveys.spectrum import Spectrum

SIDES = {"joint": "embedding", "spectrum": "embedding_spectrum", "image": "embedding_image"}

PROBED = ("log_mass", "teff")
"""Labels that are read by a linear probe."""

AMONG = 1000
"""Pairs among which the right side is sought."""

MAPPED = 4000
"""Most objects on a map whose trustworthiness is measured."""

MANY = 100
"""Real objects from which on neighbours are sought among them."""

Report = dict[str, dict[str, float]]
Embeddings = dict[str, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """Mock pairs: neighbours from the side of the training, and held-out objects to be asked for."""

    neighbours: MockPairs
    asked: MockPairs

    @classmethod
    def drawn(cls, sky: PairSky, neighbours: int, asked: int, seed: int = 7) -> Samples:
        """So many of each."""
        rng = np.random.default_rng(seed)
        return cls(sky.draw(neighbours, rng), sky.draw(asked, rng, held_out=True))


def embed(predictor: AvisPredictor, pairs: Pairs) -> Embeddings:
    """Embeddings by `SIDES`."""
    answers = predictor.predict(pairs)
    return {side: answers[name] for side, name in SIDES.items()}


def photometry(drawn: MockPairs, rng: np.random.Generator) -> np.ndarray:
    """Asinh magnitudes in g, r and z with the noise of the Legacy Survey, as N x 3 numbers."""
    error = to_flux(np.array(DEPTH)) / 5.0
    flux = drawn.images.flux + error * rng.standard_normal(drawn.images.flux.shape)
    return np.asarray(np.arcsinh(0.5 * flux / error), np.float32)


def scaled(sample: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in the sample's principal components, each brought to a scatter of 1, as the atlas has them."""
    axes = principal_axes(sample)
    return project(sample, *axes), project(asked, *axes)


def redshifts(samples: Samples, neighbours: np.ndarray, asked: np.ndarray) -> dict[str, float]:
    """Redshift from the neighbours that are galaxies or quasars."""
    of_sample, of_asked = samples.neighbours.objects, samples.asked.objects
    far = (of_sample.class_code != CLASSES.index("STAR")) & np.isfinite(neighbours).all(axis=1)
    z = neighbour_redshifts(neighbours[far], of_sample.z[far], asked)
    return redshift_quality(z, of_asked.z, of_asked.class_code)


def measure(samples: Samples, neighbours: np.ndarray, asked: np.ndarray) -> dict[str, float]:
    """Redshift from the neighbours as the atlas seeks them, and linear probes, of one kind of embedding."""
    of_sample, of_asked = samples.neighbours.objects, samples.asked.objects
    found = redshifts(samples, *scaled(neighbours, asked))
    found["class"] = probe_class(neighbours, of_sample.class_code, asked, of_asked.class_code)
    for name in PROBED:
        probed = probe_value(neighbours, of_sample.labels[name], asked, of_asked.labels[name])
        found |= {f"{name}_{measure}": probed[measure] for measure in ("r2", "nmad")}
    return found


def clusters(embedding: np.ndarray, class_code: np.ndarray) -> dict[str, float]:
    """How HDBSCAN's clusters meet the classes, and how far a map of PaCMAP can be trusted."""
    from sklearn.manifold import trustworthiness

    cluster, _ = fit_clusters(embedding)
    few, _ = scaled(embedding[:MAPPED], embedding[:1])
    found = cluster_quality(cluster, class_code)
    for dimensions in (2, 3):
        place = fit_map(few, dimensions, seed=1)
        found[f"trustworthiness_{dimensions}"] = float(trustworthiness(few, place, n_neighbors=15))
    return found


def both_ways(found: Embeddings) -> Report:
    """Ranks of the right image for a spectrum, and of the right spectrum for an image."""
    spectrum, image = (found[side][:AMONG] for side in ("spectrum", "image"))
    return {
        "image of a spectrum": retrieval(spectrum, image),
        "spectrum of an image": retrieval(image, spectrum),
    }


def on_real_spectra(predictor: AvisPredictor, sky: PairSky, folder: Path, neighbours: int) -> Report:
    """Redshifts of real galaxies and quasars by their spectra alone.

    Neighbours are mock objects that were seen with the same instrument, or the survey's other real objects.
    """
    spectra, found = read_folder(folder), {}
    for survey in ("DESI", "SDSS"):
        chosen = [s for s in spectra if s.survey == survey and s.object_class in ("GALAXY", "QSO")]
        if not chosen:
            continue
        code = np.array([CLASSES.index(s.object_class) for s in chosen])
        z = np.array([s.z for s in chosen])
        real = embed(predictor, _without_image(chosen))["spectrum"]
        mock = sky.draw(neighbours, np.random.default_rng(9), instrument=survey)
        far = mock.objects.class_code != CLASSES.index("STAR")
        embedded = embed(predictor, mock.pairs)["spectrum"]
        sample, asked = scaled(embedded[far], real)
        answer = neighbour_redshifts(sample, mock.objects.z[far], asked)
        found[f"{survey}, mock neighbours"] = redshift_quality(answer, z, code)
        if len(chosen) >= MANY:
            seen = np.isfinite(real).all(axis=1)
            among, _ = scaled(real[seen], real[seen])
            answer = neighbour_redshifts(among, z[seen], among)
            found[f"{survey}, real neighbours"] = redshift_quality(answer, z[seen], code[seen])
    return found


def _without_image(chosen: list[Spectrum]) -> Pairs:
    flat = Spectra.from_arrays([(s.wavelength, s.flux, np.where(s.valid, s.ivar, 0.0)) for s in chosen])
    shape = (len(chosen), 3, 64, 64)
    nothing = np.zeros(shape, np.float32)
    return Pairs(flat, Images(nothing, nothing, np.full(shape[:2], np.nan, np.float32)))


def evaluate(
    weights: Path,
    towers: Path,
    sky: PairSky,
    *,
    neighbours: int,
    asked: int,
    spectra: Path | None,
    tried: Mapping[str, Path],
    few: int,
) -> dict[str, Report]:
    """All measures, by table.

    Parameters
    ----------
    weights, towers : Path
        Weights to be judged, and those of the towers before the joint objective.
    sky : PairSky
        Source of the mock pairs.
    neighbours, asked : int
        Mock pairs among which neighbours are sought, and held-out ones.
    spectra : Path, optional
        Folder of real spectra.
    tried : mapping of str to Path
        Weights to be compared.
    few : int
        Neighbours for that; a third as many held-out pairs are asked for.
    """
    samples = Samples.drawn(sky, neighbours, asked)
    rng = np.random.default_rng(8)
    predictor = AvisPredictor.load(weights, precision="bf16", batch_size=32)
    there, here = (embed(predictor, one.pairs) for one in (samples.neighbours, samples.asked))
    kinds = {side: (there[side], here[side]) for side in SIDES}
    alone = AvisPredictor.load(towers, precision="bf16", batch_size=32)
    before = [embed(alone, one.pairs) for one in (samples.neighbours, samples.asked)]
    for side in ("spectrum", "image"):
        kinds[f"{side} tower alone"] = (before[0][side], before[1][side])
    magnitudes = [photometry(one, rng) for one in (samples.neighbours, samples.asked)]
    kinds["PCA of g, r, z"] = (magnitudes[0], magnitudes[1])
    code = samples.neighbours.objects.class_code
    grouped = ("joint", "spectrum", "image", "spectrum tower alone", "PCA of g, r, z")
    report = {
        "pairs": {name: measure(samples, *both) for name, both in kinds.items()},
        "unscaled": {f"{side}, not scaled": redshifts(samples, *kinds[side]) for side in SIDES},
        "clusters": {name: clusters(kinds[name][0], code) for name in grouped},
        "retrieval": both_ways(here),
    }
    if spectra is not None:
        report["real"] = on_real_spectra(predictor, sky, spectra, neighbours // 2)
    if tried:
        report["tried"] = compare(tried, sky, few)
    return report


def compare(tried: Mapping[str, Path], sky: PairSky, few: int) -> Report:
    """Objectives against each other, on the same pairs."""
    samples, found = Samples.drawn(sky, few, max(AMONG, few // 3), seed=11), {}
    for name, path in tried.items():
        predictor = AvisPredictor.load(path, precision="bf16", batch_size=32)
        there, here = (embed(predictor, one.pairs) for one in (samples.neighbours, samples.asked))
        for side in SIDES:
            found[f"{name}, {side}"] = measure(samples, there[side], here[side])
        found[f"{name}, joint"] |= (
            cluster_quality(fit_clusters(there["joint"])[0], samples.neighbours.objects.class_code)
            | both_ways(here)["image of a spectrum"]
        )
    return found


def _named(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    return name, Path(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--towers", type=Path, required=True, help="weights of the first stage")
    parser.add_argument("--library", type=Path, required=True, help="library of spectra")
    parser.add_argument("--spectra", type=Path, help="folder of real spectra")
    parser.add_argument("--tried", type=_named, nargs="*", default=[], help="NAME=FILE, to be compared")
    parser.add_argument("--neighbours", type=int, default=12_000, help="mock pairs to find neighbours among")
    parser.add_argument("--asked", type=int, default=3_000, help="held-out mock pairs")
    parser.add_argument("--few", type=int, default=3_000, help="neighbours in the comparison")
    parser.add_argument("--out", type=Path, required=True, help="folder for the measures and the card")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured = evaluate(
        arguments.weights,
        arguments.towers,
        PairSky(load_sky(arguments.library)),
        neighbours=arguments.neighbours,
        asked=arguments.asked,
        spectra=arguments.spectra,
        tried=dict(arguments.tried),
        few=arguments.few,
    )
    optional = {" --spectra DIR": arguments.spectra, " --tried NAME=FILE ...": arguments.tried}
    command = (
        f"python -m ojala.flows.evaluation.avis --weights {arguments.weights.name}"
        " --towers FILE --library FILE"
        f"{''.join(text for text, given in optional.items() if given)} --neighbours {arguments.neighbours}"
        f" --asked {arguments.asked} --few {arguments.few} --out DIR"
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_card(arguments.weights, {"command": command, "measures": measured}, arguments.out)
    print(json.dumps(measured, indent=1))
