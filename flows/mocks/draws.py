"""Mock photometry from observed spectra, in sharded files; resumable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.flows.mocks.library import photometry_table, truth_table
from ojala.flows.mocks.observed import open_observed_sky, positions_of
from ojala.models.data import LabelledPhotometry
from ojala.models.simulation.skies.observed import FOLDS, ObservedSky
from ojala.models.simulation.skies.photometric import SURVEY_SHARES, TRAINING_SHARES
from ojala.pipeline.ingest.reference.filter_curves import read_curves
from ojala.pipeline.storage.files import sha256_of, write_whole
from ojala.pipeline.storage.hats import LEAVES
from ojala.pipeline.storage.progress import counted

SHARD_ROWS = 500_000
"""Draws per file."""

SETTINGS = "synthesis.json"
"""File with the settings of the draws in a folder."""


@dataclass(frozen=True, slots=True)
class DrawSettings:
    """Settings of the draws in a folder.

    Attributes
    ----------
    spectra_sha256 : str
        SHA-256 of the catalogue's list of leaves, which contains the hashes of the leaves.
    curves_sha256 : str
        SHA-256 of the transmission curves.
    draws, seed : int
        Number of draws and their seed.
    held_out : bool
        Side of the split.
    fold : int, optional
        Fold of the objects; default: all.
    shard_rows : int
        Draws per file.
    """

    spectra_sha256: str
    curves_sha256: str
    draws: int
    seed: int
    held_out: bool
    fold: int | None = None
    shard_rows: int = SHARD_ROWS


def write_draws(
    root: UPath,
    curves: Path,
    out: UPath,
    *,
    draws: int,
    held_out: bool = False,
    fold: int | None = None,
    seed: int = 1,
    shard_rows: int = SHARD_ROWS,
    report: Callable[[int], None] = lambda done: None,
) -> int:
    """Draw mock photometry from a spectra catalogue into Parquet files, or resume.

    ``photometry-00000.parquet`` has the columns of the photometry contract for ``ojala ingest``,
    ``truth-00000.parquet`` the same keys with class, redshift, labels, and the keys of the spectrum and of
    its object (``spectrum_id``, ``primary_id``). Files are written atomically and depend on seed and number
    alone.

    Parameters
    ----------
    root, curves
        As in `open_observed_sky`.
    out : UPath
        Folder for the files.
    draws : int
        Number of objects.
    held_out : bool
        Draw held-out objects in the mix of a survey; else training objects in the mix of trainings.
    fold : int, optional
        Draw from this fold of the objects alone; see `ojala.models.simulation.skies.observed.fold_of`.
    seed : int
        Seed of the draws.
    shard_rows : int
        Draws per file.
    report : callable
        Receives the number of finished draws after each file.

    Returns
    -------
    int
        Number of files written by this call.

    Raises
    ------
    InputError
        If the folder holds draws of other settings.
    """
    settings = DrawSettings(
        spectra_sha256=sha256_of(root / LEAVES),
        curves_sha256=_hash_of_curves(curves),
        draws=draws,
        seed=seed,
        held_out=held_out,
        fold=fold,
        shard_rows=shard_rows,
    )
    _claim(out, settings)
    shards = -(-draws // shard_rows)
    missing = [k for k in range(shards) if not (out / f"truth-{k:05d}.parquet").exists()]
    if not missing:
        return 0
    shares = SURVEY_SHARES if held_out else TRAINING_SHARES
    folds = range(FOLDS) if fold is None else (fold,)
    sky = open_observed_sky(root, curves, held_out=held_out, folds=folds)
    ra, dec = positions_of(root, sky.members.object_id)
    for k in counted(missing, "files of draws written"):
        rows = min(shard_rows, draws - k * shard_rows)
        drawn, member = sky.draw_members(rows, np.random.default_rng([seed, k]), shares=shares)
        tile = k + 1
        _write(photometry_table(drawn, ra[member], dec[member], tile), out / f"photometry-{k:05d}.parquet")
        # The truth is written last: its existence marks a finished shard.
        _write(_truth(drawn, sky, member, tile), out / f"truth-{k:05d}.parquet")
        report(min(draws, (k + 1) * shard_rows))
    return len(missing)


def _claim(out: UPath, settings: DrawSettings) -> None:
    path = out / SETTINGS
    if path.exists():
        stored = {"fold": None} | json.loads(path.read_text())
        if stored != asdict(settings):
            changed = ", ".join(name for name, value in asdict(settings).items() if stored.get(name) != value)
            raise InputError(f"{out} holds draws with another {changed}; name another folder")
        return
    write_whole(path, (json.dumps(asdict(settings), indent=1) + "\n").encode())


def _hash_of_curves(curves: Path) -> str:
    digest = hashlib.sha256()
    for band, (wavelength, transmission) in read_curves(curves).items():
        digest.update(band.encode() + wavelength.tobytes() + transmission.tobytes())
    return digest.hexdigest()


def _truth(drawn: LabelledPhotometry, sky: ObservedSky, member: np.ndarray, tile: int) -> pa.Table:
    table = truth_table(drawn, tile)
    table = table.append_column("spectrum_id", pa.array(sky.members.object_id[member]))
    return table.append_column("primary_id", pa.array(sky.members.primary_id[member]))


def _write(table: pa.Table, path: UPath) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=["class", "tile_id"])
    write_whole(path, memoryview(sink.getvalue()))
