"""Pairs of mock spectra and images, drawn on the fly or stored in a folder.

``python -m ojala.flows.mocks.pairs --library FILE --out DIR --shards 96`` stores pairs in shards of 2,048 for
a training, their instruments in turn those of `INSTRUMENT_CYCLE`; existing shards stay. A shard holds pixels
alone, no class or redshift.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.files import atomic_file, remove_unfinished
from ojala.flows.mocks.library import load_sky
from ojala.flows.mocks.spectra import SIGNAL_TO_NOISE
from ojala.models.data import Images, Pairs, Spectra
from ojala.models.simulation.skies.imaging import ImageSky, MockImages
from ojala.models.simulation.skies.photometric import MockSky
from ojala.models.simulation.skies.spectroscopic import Objects, SpectraSky
from ojala.models.simulation.spectroscopy.instruments import INSTRUMENTS

SHARD = 2048
"""Pairs in a shard."""

INSTRUMENT_CYCLE = ("DESI", "DESI", "DESI", "SDSS", "DESI", "DESI", "LAMOST", "SDSS")
"""Instruments of the spectra in successive shards or steps."""

_BLOCK = 256  # pairs that are drawn at a time


@dataclass(frozen=True, slots=True)
class MockPairs:
    """Pairs with the truth.

    Attributes
    ----------
    pairs : Pairs
        The pairs.
    objects : Objects
        Their objects, with class, redshift and labels.
    images : MockImages
        The same images with total fluxes and sizes.
    """

    pairs: Pairs
    objects: Objects
    images: MockImages


class PairSky:
    """Sampler of objects of a mock sky, each observed with a spectrograph and a camera.

    Parameters
    ----------
    sky : MockSky
        The sky, as from `ojala.flows.mocks.library.load_sky`.
    """

    def __init__(self, sky: MockSky) -> None:
        self._spectra, self._images = SpectraSky(sky.population), ImageSky(sky.photometer)

    def draw(
        self, n: int, rng: np.random.Generator, *, instrument: str = "DESI", held_out: bool = False
    ) -> MockPairs:
        """Draw ``n`` objects, held out or not, and observe each as an instrument and the Legacy Survey do."""
        objects = self._spectra.draw_objects(n, rng, held_out=held_out)
        signal = SIGNAL_TO_NOISE[instrument]
        drawn = self._spectra.observe(objects, INSTRUMENTS[instrument], rng, signal_to_noise=signal)
        images = self._images.observe(objects, rng)
        relative = np.full(n, INSTRUMENTS[instrument].relative)
        return MockPairs(Pairs(drawn.spectra, images.images, relative), objects, images)


class StoredPairs:
    """Pairs in a folder, in random order: every pair once in each epoch.

    Parameters
    ----------
    folder : Path
        Folder that `store_pairs` has filled.

    Raises
    ------
    InputError
        There is no shard.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.glob("pairs-*.npz"))
        if not self._paths:
            raise InputError(f"{folder} holds no pairs; fill it with python -m ojala.flows.mocks.pairs")
        self._loaded, self._shard = -1, dict[str, np.ndarray]()

    def __len__(self) -> int:
        return SHARD * len(self._paths)

    def batch(self, step: int, n: int, seed: int) -> Pairs:
        """Pairs of a step, determined by the seed; ``n`` must divide `SHARD`.

        Raises
        ------
        InputError
            It does not.
        """
        if SHARD % n:
            raise InputError(f"batch_size must divide the {SHARD:,} pairs of a shard, {n} does not")
        per_shard = SHARD // n
        epoch, position = divmod(step, per_shard * len(self._paths))
        which, part = divmod(position, per_shard)
        shard = int(np.random.default_rng([seed, epoch]).permutation(len(self._paths))[which])
        if shard != self._loaded:
            with np.load(self._paths[shard]) as arrays:
                self._shard = {name: arrays[name] for name in arrays.files}
            self._loaded = shard
        order = np.random.default_rng([seed, epoch, shard]).permutation(SHARD)
        return _unpack(self._shard, order[n * part : n * (part + 1)])


def store_pairs(
    sky: PairSky, folder: Path, shards: int, seed: int, report: Callable[[int], None] = lambda done: None
) -> None:
    """Draw training pairs and store them in a folder.

    Parameters
    ----------
    sky : PairSky
        Source of the pairs.
    folder : Path
        Folder for ``pairs-00000.npz`` and so on, 115 MB each; files are written atomically.
    shards : int
        Number of files.
    seed : int
        Seed; with the number of a shard it determines the content.
    report : callable
        Receives the number of each written shard.
    """
    for k in range(shards):
        path, instrument = folder / f"pairs-{k:05d}.npz", INSTRUMENT_CYCLE[k % len(INSTRUMENT_CYCLE)]
        if path.exists():
            continue
        remove_unfinished(folder, path.name)
        seeds = ([seed, k, part] for part in range(SHARD // _BLOCK))
        parts = [sky.draw(_BLOCK, np.random.default_rng(one), instrument=instrument).pairs for one in seeds]
        with atomic_file(path) as file:
            np.savez(file, **_packed(parts))
        report(k)


def _packed(parts: list[Pairs]) -> dict[str, Any]:
    """Arrays of a shard: fluxes and errors in half precision, an infinite error for a lost pixel.

    Rounding is far below the noise of all but the brightest objects. An image has one error per band.
    """
    size = parts[0].spectra.sizes[0]
    with np.errstate(divide="ignore", over="ignore"):
        return {
            "wavelength": parts[0].spectra.wavelength[:size],
            "flux": np.concatenate([p.spectra.flux.reshape(-1, size).astype(np.float16) for p in parts]),
            "error": np.concatenate(
                [(p.spectra.ivar.reshape(-1, size) ** -0.5).astype(np.float16) for p in parts]
            ),
            "image": np.concatenate([p.images.flux.astype(np.float16) for p in parts]),
            "image_ivar": np.concatenate([p.images.ivar[:, :, 0, 0] for p in parts]),
            "psf_fwhm": np.concatenate([p.images.psf_fwhm for p in parts]),
            "relative_flux": np.concatenate([p.relative_flux for p in parts if p.relative_flux is not None]),
        }


def _unpack(shard: dict[str, np.ndarray], rows: np.ndarray) -> Pairs:
    n, size = len(rows), len(shard["wavelength"])
    flux, error = (shard[name][rows].astype(np.float32).ravel() for name in ("flux", "error"))
    lost = ~(np.isfinite(flux) & np.isfinite(error) & (error > 0.0))
    error[lost] = np.inf
    flux[lost] = 0.0
    offsets = np.arange(n + 1, dtype=np.int64) * size
    spectra = Spectra(offsets, np.tile(shard["wavelength"], n), flux, error**-2)
    image = np.nan_to_num(shard["image"][rows].astype(np.float32), posinf=6e4)
    ivar = np.broadcast_to(shard["image_ivar"][rows][:, :, None, None], image.shape)
    return Pairs(spectra, Images(image, ivar, shard["psf_fwhm"][rows]), shard["relative_flux"][rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--library", type=Path, required=True, help="library of spectra")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pairs")
    parser.add_argument("--shards", type=int, default=96, help="of 2,048 pairs each")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    store_pairs(
        PairSky(load_sky(arguments.library)),
        arguments.out,
        arguments.shards,
        arguments.seed,
        lambda done: print(f"shard {done}", flush=True),
    )
