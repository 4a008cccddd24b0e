"""Fit of SpecPT's classifier of galaxies to simulated and real spectra, after the network's training.

``python -m ojala.flows.training.specpt_galaxies --weights FILE --library FILE --spectra DIR --relative FILE
--version 0.2`` adds the classifier to the file of weights and prints what a five-fold cross-validation finds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from ojala.flows.mocks.library import load_sky
from ojala.models.data import Spectra
from ojala.models.quantities import CLASSES
from ojala.models.simulation.skies.spectroscopic import INSTRUMENTS, SpectraSky, Targets
from ojala.models.specpt.checkpoint import load, save
from ojala.models.specpt.galaxies import GalaxyClassifier, fit_classifier, token_features
from ojala.models.specpt.network import SpecPT, input_channels, standardise
from ojala.models.specpt.wavelength_grid import rebin
from ojala.pipeline.ingest.surveys.folder import read_folder
from ojala.pipeline.ingest.surveys.multimodal_universe import estimated_ivar
from ojala.pipeline.ingest.surveys.spectrum import Spectrum

DRAWS: tuple[tuple[Targets, str, int], ...] = (
    ("bgs", "DESI", 64),
    ("elg", "DESI", 64),
    ("faint", "DESI", 48),
    ("all", "DESI", 128),
    ("all", "SDSS", 96),
)
"""Targets, instrument and number of the spectra of a round of draws."""

LONG_EXPOSURES = (2.0, 60.0)
"""Median signal to noise of the targets "all" in every second round."""

ROUNDS = 6

SHARES: Mapping[str, float] = {
    "real GALAXY": 0.10,
    "relative GALAXY": 0.10,
    "mock GALAXY": 0.30,
    "real STAR": 0.15,
    "mock STAR": 0.10,
    "real QSO": 0.15,
    "mock QSO": 0.10,
}
"""Shares of the kinds of spectra in the cross entropy."""

WAVELENGTH = np.geomspace(3600.0, 9800.0, 7081)
"""Wavelengths of `relative_spectra` [Angstrom]."""

OFFSETS = (0.5, 1.0, 2.0)
"""Constants that are added to them, in units of their scatter: medians of faint to bright galaxies."""

Z_TRAINED = 1.28
"""Redshift to which SpecPT is trained; objects of `relative_spectra` below it are taken for galaxies."""

PENALTY = 3.0
FOLDS = 5

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """Features and truth of N spectra.

    Attributes
    ----------
    features : ndarray of float32, shape (N, 2 d)
        See `ojala.models.specpt.galaxies.token_features`.
    kind : ndarray of str, shape (N,)
        Key of `SHARES`.
    group : ndarray of str, shape (N,)
        Group in the report, such as ``SDSS QSO``.
    item : ndarray of str, shape (N,)
        Name of the object; all its rows are in the same fold.
    """

    features: np.ndarray
    kind: np.ndarray
    group: np.ndarray
    item: np.ndarray

    @property
    def is_galaxy(self) -> np.ndarray:
        """Truth; bool, shape (N,)."""
        return np.char.endswith(self.kind, "GALAXY")

    @property
    def weight(self) -> np.ndarray:
        """Weight of each spectrum in the cross entropy, shape (N,)."""
        weight = np.zeros(len(self.kind))
        for kind, share in SHARES.items():
            rows = self.kind == kind
            weight[rows] = share / max(int(rows.sum()), 1)
        return weight

    def rows(self, chosen: np.ndarray) -> Sample:
        """Select rows."""
        return Sample(self.features[chosen], self.kind[chosen], self.group[chosen], self.item[chosen])


@torch.inference_mode()
def features_of(network: SpecPT, spectra: Spectra) -> np.ndarray:
    """Features of spectra; float32, shape (N, 2 d)."""
    found = []
    for begin in range(0, len(spectra), _BATCH):
        rows = spectra.rows(begin, min(begin + _BATCH, len(spectra)))
        flux, ivar, _ = standardise(*rebin(rows, network.grid))
        _, tokens = network.encode(input_channels(torch.from_numpy(flux), torch.from_numpy(ivar)))
        found.append(token_features(tokens).numpy())
    return np.concatenate(found)


def mock_sample(network: SpecPT, sky: SpectraSky, rounds: int = ROUNDS, seed: int = 5) -> Sample:
    """Draw and encode simulated galaxies, stars and quasars of the training's library members."""
    rng = np.random.default_rng(seed)
    features, kinds, groups = [], [], []
    for number in range(rounds):
        for targets, instrument, n in DRAWS:
            objects = sky.draw_objects(n, rng, targets=targets)
            long = LONG_EXPOSURES if number % 2 and targets == "all" else None
            drawn = sky.observe(objects, INSTRUMENTS[instrument], rng, signal_to_noise=long)
            features.append(features_of(network, drawn.spectra))
            classes = [CLASSES[code] for code in drawn.class_code]
            kinds += [f"mock {name}" for name in classes]
            groups += [f"mock {targets} {instrument} {name}" for name in classes]
    items = [f"mock {number}" for number in range(len(kinds))]
    return Sample(np.concatenate(features), np.array(kinds), np.array(groups), np.array(items))


def real_sample(network: SpecPT, objects: Sequence[Spectrum]) -> Sample:
    """Encode real objects of known class."""
    spectra = Spectra.from_arrays([(s.wavelength, s.flux, s.ivar) for s in objects])
    kinds = np.array([f"real {s.object_class}" for s in objects])
    groups = np.array([f"{s.survey} {s.object_class}" for s in objects])
    return Sample(features_of(network, spectra), kinds, groups, np.array([s.source for s in objects]))


def relative_spectra(path: Path, offset: float) -> tuple[np.ndarray, Spectra]:
    """Read real spectra of DESI whose offset and scale are lost, with an offset.

    Parameters
    ----------
    path : Path
        Parquet file with ``z`` and ``flux``, which is (flux - median) / sigma on `WAVELENGTH`.
    offset : float
        Constant to add; errors are estimated from the scatter between pixels.

    Returns
    -------
    z : ndarray, shape (N,)
        Redshifts.
    spectra : Spectra
        The N spectra.
    """
    table = pq.read_table(path, columns=["z", "flux"])
    fluxes = [np.asarray(flux, np.float64) for flux in table["flux"].to_pylist()]
    rows = [(WAVELENGTH, flux + offset, estimated_ivar(flux)) for flux in fluxes]
    return table["z"].to_numpy(), Spectra.from_arrays(rows)


def relative_sample(network: SpecPT, path: Path) -> Sample:
    """Encode the galaxies of `relative_spectra` with each of `OFFSETS`."""
    parts = []
    for offset in OFFSETS:
        z, spectra = relative_spectra(path, offset)
        chosen = np.flatnonzero(z < Z_TRAINED)
        features = features_of(network, spectra)[chosen]
        kinds = np.full(len(chosen), "relative GALAXY")
        items = np.array([f"relative {row}" for row in chosen])
        parts.append(Sample(features, kinds, np.full(len(chosen), f"DESI relative {offset:g} GALAXY"), items))
    return joined(parts)


def joined(samples: Sequence[Sample]) -> Sample:
    """All rows of several samples."""
    names = ("features", "kind", "group", "item")
    return Sample(*(np.concatenate([getattr(sample, name) for sample in samples]) for name in names))


def fit(sample: Sample, penalty: float = PENALTY) -> GalaxyClassifier:
    """Fit the classifier."""
    arrays = (sample.features, sample.is_galaxy, sample.weight)
    features, is_galaxy, weight = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    return fit_classifier(features, is_galaxy, weight, penalty)


def probabilities(classifier: GalaxyClassifier, features: np.ndarray) -> np.ndarray:
    """Probability of a galaxy, shape (N,)."""
    x = torch.from_numpy(features)
    return (x @ classifier.weight + classifier.bias).sigmoid().numpy()


def cross_validated(sample: Sample, seed: int = 1) -> dict[str, dict[str, float]]:
    """By group, the number of spectra and the part that is taken for no galaxy by a fit without them."""
    _, item = np.unique(sample.item, return_inverse=True)
    fold = np.random.default_rng(seed).integers(0, FOLDS, item.max() + 1)[item]
    p = np.empty(len(fold))
    for k in range(FOLDS):
        p[fold == k] = probabilities(fit(sample.rows(fold != k)), sample.features[fold == k])
    found = {}
    for group in sorted(set(sample.group.tolist())):
        rows = sample.group == group
        found[group] = {"rows": float(rows.sum()), "no galaxy": float((p[rows] < 0.5).mean())}
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="weights that get the classifier")
    parser.add_argument("--library", type=Path, required=True, help="library of spectra")
    parser.add_argument("--spectra", type=Path, required=True, help="folder with real spectra")
    parser.add_argument(
        "--relative", type=Path, required=True, help="spectra of DESI without offset and scale"
    )
    parser.add_argument("--version", required=True, help="version of the weights with the classifier")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    network, info = load(asked.weights)
    mocks = mock_sample(network, SpectraSky(load_sky(asked.library).population))
    real = real_sample(network, read_folder(asked.spectra))
    sample = joined([real, relative_sample(network, asked.relative), mocks])
    report = cross_validated(sample)
    training = info.training | {"galaxies": {"penalty": PENALTY, "folds": FOLDS, "cross_validation": report}}
    save(
        asked.weights,
        network,
        name=info.name,
        version=asked.version,
        training=training,
        galaxies=fit(sample),
    )
    print(json.dumps(report, indent=1))
