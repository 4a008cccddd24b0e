"""Evaluation of AVIS on held-out mock pairs and on real spectra.

``python -m ojala.flows.evaluation.avis --weights FILE --library FILE --out DIR`` and, for real
spectra, ``--spectra DIR`` writes ``<weights>.json`` and the model card ``<weights>.md``. ``--before FILE``
measures other weights on the same objects; ``--tried NAME=FILE`` adds others to the comparison of
objectives, on fewer objects.
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
from ojala.models.serving.precision import fastest_precision
from ojala.models.simulation.photometry.noise import to_flux
from ojala.models.simulation.skies.imaging import DEPTH
from ojala.models.spectral_tokenizer.evaluation import retrieval
from ojala.pipeline.ingest.surveys.folder import read_folder
from ojala.pipeline.ingest.surveys.spectrum import Spectrum

SIDES = {"joint": "embedding", "spectrum": "embedding_spectrum", "image": "embedding_image"}

PROBED = ("log_mass", "teff")
"""Labels of the linear probes."""

AMONG = 1000
"""Pairs of a retrieval."""

MAPPED = 4000
"""Largest number of objects for the trustworthiness of a map."""

MANY = 100
"""Smallest number of real objects for neighbours among them."""

Report = dict[str, dict[str, float]]
Embeddings = dict[str, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """Mock pairs: neighbours from the training side, and held-out queries."""

    neighbours: MockPairs
    queries: MockPairs

    @classmethod
    def drawn(cls, sky: PairSky, neighbours: int, queries: int, seed: int = 7) -> Samples:
        """Draw samples."""
        rng = np.random.default_rng(seed)
        return cls(sky.draw(neighbours, rng), sky.draw(queries, rng, held_out=True))


def embed(predictor: AvisPredictor, pairs: Pairs) -> Embeddings:
    """Compute embeddings by `SIDES`."""
    predictions = predictor.predict(pairs)
    return {side: predictions[name] for side, name in SIDES.items()}


def photometry(drawn: MockPairs, rng: np.random.Generator) -> np.ndarray:
    """Draw asinh magnitudes in g, r and z with the noise of the Legacy Survey, shape (N, 3)."""
    error = to_flux(np.array(DEPTH)) / 5.0
    flux = drawn.images.flux + error * rng.standard_normal(drawn.images.flux.shape)
    return np.asarray(np.arcsinh(0.5 * flux / error), np.float32)


def scaled(sample: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project on the sample's principal components with unit scatter, as in an atlas."""
    axes = principal_axes(sample)
    return project(sample, *axes), project(queries, *axes)


def redshifts(samples: Samples, neighbours: np.ndarray, queries: np.ndarray) -> dict[str, float]:
    """Measure redshifts from neighbours that are galaxies or quasars."""
    of_sample, of_queries = samples.neighbours.objects, samples.queries.objects
    far = (of_sample.class_code != CLASSES.index("STAR")) & np.isfinite(neighbours).all(axis=1)
    z = neighbour_redshifts(neighbours[far], of_sample.z[far], queries)
    return redshift_quality(z, of_queries.z, of_queries.class_code)


def measure(samples: Samples, neighbours: np.ndarray, queries: np.ndarray) -> dict[str, float]:
    """Measure redshifts of neighbours, as in an atlas, and linear probes of one kind of embedding."""
    of_sample, of_queries = samples.neighbours.objects, samples.queries.objects
    measures = redshifts(samples, *scaled(neighbours, queries))
    measures["class"] = probe_class(neighbours, of_sample.class_code, queries, of_queries.class_code)
    for name in PROBED:
        probed = probe_value(neighbours, of_sample.labels[name], queries, of_queries.labels[name])
        measures |= {f"{name}_{measure}": probed[measure] for measure in ("r2", "nmad")}
    return measures


def clusters(embedding: np.ndarray, class_code: np.ndarray) -> dict[str, float]:
    """Measure clusters against classes, and the trustworthiness of maps."""
    from sklearn.manifold import trustworthiness

    cluster, _ = fit_clusters(embedding)
    few, _ = scaled(embedding[:MAPPED], embedding[:1])
    measures = cluster_quality(cluster, class_code)
    for dimensions in (2, 3):
        points = fit_map(few, dimensions, seed=1)
        measures[f"trustworthiness_{dimensions}"] = float(trustworthiness(few, points, n_neighbors=15))
    return measures


def both_ways(embeddings: Embeddings) -> Report:
    """Measure the retrieval of images by spectra and of spectra by images."""
    spectrum, image = (embeddings[side][:AMONG] for side in ("spectrum", "image"))
    return {
        "image of a spectrum": retrieval(spectrum, image),
        "spectrum of an image": retrieval(image, spectrum),
    }


def on_real_spectra(predictor: AvisPredictor, sky: PairSky, folder: Path, neighbours: int) -> Report:
    """Measure redshifts of real galaxies and quasars from their spectra alone.

    Neighbours are mock objects observed with the same instrument, or the survey's other real objects.
    """
    spectra, report = read_folder(folder), {}
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
        sample, queries = scaled(embedded[far], real)
        predicted = neighbour_redshifts(sample, mock.objects.z[far], queries)
        report[f"{survey}, mock neighbours"] = redshift_quality(predicted, z, code)
        if len(chosen) >= MANY:
            known = np.isfinite(real).all(axis=1)
            among, _ = scaled(real[known], real[known])
            predicted = neighbour_redshifts(among, z[known], among)
            report[f"{survey}, real neighbours"] = redshift_quality(predicted, z[known], code[known])
    return report


def _without_image(chosen: list[Spectrum]) -> Pairs:
    flat = Spectra.from_arrays([(s.wavelength, s.flux, np.where(s.valid, s.ivar, 0.0)) for s in chosen])
    shape = (len(chosen), 3, 64, 64)
    empty = np.zeros(shape, np.float32)
    return Pairs(flat, Images(empty, empty, np.full(shape[:2], np.nan, np.float32)))


def evaluate(
    weights: Path,
    sky: PairSky,
    *,
    neighbours: int,
    queries: int,
    before: Path | None,
    spectra: Path | None,
    tried: Mapping[str, Path],
    few: int,
) -> dict[str, Report]:
    """Compute all measures, by table of the card.

    Parameters
    ----------
    weights : Path
        Evaluated weights.
    sky : PairSky
        Sampler of mock pairs.
    neighbours, queries : int
        Numbers of mock pairs for neighbours and of held-out pairs.
    before : Path, optional
        Other weights, measured on the same pairs.
    spectra : Path, optional
        Folder of real spectra.
    tried : mapping of str to Path
        Weights for the comparison of objectives.
    few : int
        Neighbours for the comparison, with a third as many held-out pairs.
    """
    samples = Samples.drawn(sky, neighbours, queries)
    rng = np.random.default_rng(8)
    predictor = AvisPredictor.load(weights, precision=fastest_precision(), batch_size=32)
    there, here = (embed(predictor, one.pairs) for one in (samples.neighbours, samples.queries))
    kinds = {side: (there[side], here[side]) for side in SIDES}
    grouped = ["joint", "spectrum", "image", "PCA of g, r, z"]
    if before is not None:
        other = AvisPredictor.load(before, precision=fastest_precision(), batch_size=32)
        earlier = [embed(other, one.pairs) for one in (samples.neighbours, samples.queries)]
        kinds |= {f"{side}, before": (earlier[0][side], earlier[1][side]) for side in SIDES}
        grouped.append("joint, before")
    magnitudes = [photometry(one, rng) for one in (samples.neighbours, samples.queries)]
    kinds["PCA of g, r, z"] = (magnitudes[0], magnitudes[1])
    code = samples.neighbours.objects.class_code
    report = {
        "pairs": {name: measure(samples, *both) for name, both in kinds.items()},
        "unscaled": {f"{side}, not scaled": redshifts(samples, *kinds[side]) for side in SIDES},
        "clusters": {name: clusters(kinds[name][0], code) for name in grouped},
        "retrieval": both_ways(here),
    }
    if before is not None:
        report["retrieval"] |= {f"{name}, before": ranks for name, ranks in both_ways(earlier[1]).items()}
    if spectra is not None:
        report["real"] = on_real_spectra(predictor, sky, spectra, neighbours // 2)
    if tried:
        report["tried"] = compare(tried, sky, few)
    return report


def compare(tried: Mapping[str, Path], sky: PairSky, few: int) -> Report:
    """Compare objectives on the same pairs."""
    samples, report = Samples.drawn(sky, few, max(AMONG, few // 3), seed=11), {}
    for name, path in tried.items():
        predictor = AvisPredictor.load(path, precision=fastest_precision(), batch_size=32)
        there, here = (embed(predictor, one.pairs) for one in (samples.neighbours, samples.queries))
        for side in SIDES:
            report[f"{name}, {side}"] = measure(samples, there[side], here[side])
        report[f"{name}, joint"] |= (
            cluster_quality(fit_clusters(there["joint"])[0], samples.neighbours.objects.class_code)
            | both_ways(here)["image of a spectrum"]
        )
    return report


def _named(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    return name, Path(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--before", type=Path, help="other weights, measured on the same pairs")
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
        PairSky(load_sky(arguments.library)),
        neighbours=arguments.neighbours,
        queries=arguments.asked,
        before=arguments.before,
        spectra=arguments.spectra,
        tried=dict(arguments.tried),
        few=arguments.few,
    )
    optional = {
        " --before FILE": arguments.before,
        " --spectra DIR": arguments.spectra,
        " --tried NAME=FILE ...": arguments.tried,
    }
    command = (
        f"python -m ojala.flows.evaluation.avis --weights {arguments.weights.name}"
        " --library FILE"
        f"{''.join(text for text, given in optional.items() if given)} --neighbours {arguments.neighbours}"
        f" --asked {arguments.asked} --few {arguments.few} --out DIR"
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_card(arguments.weights, {"command": command, "measures": measured}, arguments.out)
    print(json.dumps(measured, indent=1))
