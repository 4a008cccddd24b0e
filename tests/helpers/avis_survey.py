"""A small survey of spectra with cut-outs, random weights and an atlas of nothing, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from upath import UPath

from ojala.catalogs_schema.avis import EMBEDDING_SIZE
from ojala.catalogs_schema.cutouts import BLOCK, CUTOUTS, NOT_MEASURED, PIXEL_SCALE, SIZE, CutoutFlag
from ojala.catalogs_schema.ojala import CLASSES
from ojala.catalogs_schema.spectra import KEY_NAMES
from ojala.flows.mocks.pairs import MockPairs
from ojala.models.avis.atlas import N_QUANTILES, Atlas, write_atlas
from ojala.models.avis.checkpoint import save as save_avis
from ojala.models.avis.network import Avis, AvisConfig
from ojala.models.checkpoint import file_sha256
from ojala.models.data import Images
from ojala.models.spectral_tokenizer.network import TokenizerConfig
from ojala.pipeline.ingest.cutouts import ingest_cutouts
from ojala.pipeline.ingest.images.extract import Cutout, CutoutRows
from ojala.pipeline.ingest.spectra import ingest_spectra
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.storage.hats import finalise_catalogue, read_counts, read_leaves
from ojala.pipeline.storage.parquet import write_leaf
from tests.helpers import image_files, spectra_files
from tests.helpers.mmu_files import plain_row, struct_table

NEAR = (150.0, 150.004, 149.996)
"""Right ascensions of the spectra that lie on the brick."""

FAR = 151.0
"""Of one that does not."""


@dataclass(frozen=True)
class AvisSurvey:
    """Four spectra of SDSS, three of them on a brick, and one of LAMOST, in partitions."""

    spectra: UPath
    cutouts: UPath
    weights: Path
    brick: Path

    def config(self, out: Path, **changes: object) -> RunConfig:
        settings = {"spectra": str(self.spectra), "cutouts": str(self.cutouts), "out": str(out)}
        settings |= {"model": "avis", "weights": str(self.weights), "engine": "serial", "workers": 1}
        return RunConfig.model_validate(settings | changes)


def make_avis_survey(folder: Path) -> AvisSurvey:
    sources = folder / "sources"
    sources.mkdir(parents=True)
    for number, ra in enumerate((*NEAR, FAR)):
        spectra_files.make_sdss(sources / f"spec-{number}.fits", ra=ra, z=0.1 + 0.1 * number)
    spectra_files.make_lamost(sources / "lamost.fits")
    spectra, cutouts = UPath(folder / "spectra"), UPath(folder / "cutouts")
    ingest_spectra([UPath(sources)], spectra, tile_rows=3)
    image_files.make_brick(folder / "brick")
    ingest_cutouts([UPath(folder / "brick")], spectra, cutouts)
    weights = folder / "small.safetensors"
    save_small_weights(weights)
    return AvisSurvey(spectra, cutouts, weights, folder / "brick")


def save_small_weights(path: Path, seed: int = 1) -> None:
    """A network of no use."""
    torch.manual_seed(seed)
    spectrum = TokenizerConfig(width=16, heads=2, encoder=1, decoder=1, patch=16)
    network = Avis(AvisConfig(spectrum, 16, 2, 1, 1, size=EMBEDDING_SIZE))
    save_avis(path, network, name="avis-small", version="0", training={})


def write_toy_atlas(path: Path, weights: Path, n: int = 60, seed: int = 1) -> Atlas:
    """An atlas of two clusters about random directions, with a few objects outside of both."""
    atlas = toy_atlas(file_sha256(weights), n, seed)
    write_atlas(path, atlas)
    return atlas


def toy_atlas(weights_sha256: str, n: int = 60, seed: int = 1) -> Atlas:
    rng = np.random.default_rng(seed)
    cluster = np.arange(n, dtype=np.int32) % 2
    cluster[-3:] = -1
    centre = rng.standard_normal((2, EMBEDDING_SIZE))
    embedding = centre[cluster] + 0.5 * rng.standard_normal((n, EMBEDDING_SIZE))
    embedding[-3:] = rng.standard_normal((3, EMBEDDING_SIZE))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    return Atlas(
        embedding=embedding.astype(np.float16).astype(np.float32),
        cluster=cluster,
        cluster_prob=np.where(cluster < 0, 0.0, 0.9).astype(np.float32),
        map2=(10.0 * cluster[:, None] + rng.standard_normal((n, 2))).astype(np.float32),
        map3=(10.0 * cluster[:, None] + rng.standard_normal((n, 3))).astype(np.float32),
        z=(0.5 + cluster + 0.01 * rng.standard_normal(n)).astype(np.float32),
        gaps=np.linspace(0.2, 1.4, N_QUANTILES).astype(np.float32),
        mean=np.zeros(EMBEDDING_SIZE, np.float32),
        axes=np.eye(EMBEDDING_SIZE, dtype=np.float32),
        weights_sha256=weights_sha256,
    )


def make_mock_catalogues(folder: Path, drawn: MockPairs, seed: int = 1) -> tuple[UPath, UPath]:
    """Catalogues of simulated spectra and their cut-outs on a patch of sky, all spectra trusted."""
    n, rng = len(drawn.pairs), np.random.default_rng(seed)
    names = [CLASSES[code] for code in drawn.objects.class_code]
    position = {"ra": 150.0 + rng.uniform(-1.0, 1.0, n), "dec": 2.0 + rng.uniform(-1.0, 1.0, n)}
    rows = [
        plain_row(
            "SDSS",
            f"mock/{i:05d}",
            *spectrum,
            CLASS=names[i],
            Z=float(drawn.objects.z[i]),
            **{axis: float(values[i]) for axis, values in position.items()},
        )
        for i, spectrum in enumerate(drawn.pairs.spectra)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(struct_table(rows), folder / "mocks.parquet")
    spectra, cutouts = UPath(folder / "spectra"), UPath(folder / "cutouts")
    ingest_spectra([UPath(folder / "mocks.parquet")], spectra, tile_rows=max(20, n // 4))
    leaves = {}
    for partition in read_leaves(spectra):
        keys = pq.read_table((spectra / partition.leaf).path, columns=[*KEY_NAMES, "source_id"])
        made = CutoutRows(keys)
        for row, name in enumerate(keys["source_id"].to_pylist()):
            made.put(row, _cutout(drawn.pairs.images, int(name[-5:])))
        leaves[partition] = write_leaf(cutouts / partition.leaf, made.table(), CUTOUTS, {})
    finalise_catalogue(cutouts, CUTOUTS, leaves, name="cutouts", skymap=read_counts(spectra))
    return spectra, cutouts


def _cutout(images: Images, i: int) -> Cutout:
    measured = images.ivar[i] > 0.0
    lost = sum(np.where(one, 0, bit) for one, bit in zip(measured, NOT_MEASURED, strict=True))
    return Cutout(
        image=np.where(measured, images.flux[i], 0.0),
        ivar=images.ivar[i, :, ::BLOCK, ::BLOCK],
        mask=np.asarray(lost, np.int32),
        psf_fwhm=np.where(measured.any(axis=(1, 2)), images.psf_fwhm[i], np.nan),
        x=(SIZE - 1) / 2,
        y=(SIZE - 1) / 2,
        shift=(0, 0),
        brick="",
        scale=PIXEL_SCALE,
        flags=CutoutFlag(0) if measured.any(axis=(1, 2)).all() else CutoutFlag.BAND_MISSING,
    )
