"""Draws from observed spectra as files: sharded, resumable, each file whole."""

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
from ojala.flows.mocks.observed import open_observed_sky, places
from ojala.models.data import LabelledPhotometry
from ojala.models.simulation.skies.observed import ObservedSky
from ojala.models.simulation.skies.photometric import SURVEY_SHARES, TRAINING_SHARES
from ojala.pipeline.ingest.reference.filter_curves import read_curves
from ojala.pipeline.storage.files import sha256_of, write_whole
from ojala.pipeline.storage.hats import LEAVES

SHARD_ROWS = 500_000
"""Draws in a file."""

SETTINGS = "synthesis.json"
"""Where a folder of draws says how they were made."""


@dataclass(frozen=True, slots=True)
class DrawSettings:
    """What decides the draws in a folder.

    Attributes
    ----------
    spectra_sha256 : str
        Hash of the catalogue's list of leaves, which holds the leaves' hashes.
    curves_sha256 : str
        Hash of the transmission curves.
    draws, seed : int
        How many, from which seed.
    held_out : bool
        From which side of the split.
    shard_rows : int
        Draws in a file.
    """

    spectra_sha256: str
    curves_sha256: str
    draws: int
    seed: int
    held_out: bool
    shard_rows: int = SHARD_ROWS


def write_draws(
    root: UPath,
    curves: Path,
    out: UPath,
    *,
    draws: int,
    held_out: bool = False,
    seed: int = 1,
    shard_rows: int = SHARD_ROWS,
    report: Callable[[int], None] = lambda done: None,
) -> int:
    """Draw mock photometry from a spectra catalogue into Parquet files, or go on where that was left.

    ``photometry-00000.parquet`` has the columns of the photometry contract that ``ojala ingest`` wants,
    ``truth-00000.parquet`` by the same key class, redshift, labels, and the spectrum and the object that it
    was drawn from (``spectrum_id``, ``primary_id``). Each file is written whole and depends on the seed and
    its number alone.

    Parameters
    ----------
    root, curves
        As in `open_observed_sky`.
    out : UPath
        Folder of the files.
    draws : int
        Objects to draw.
    held_out : bool
        Draw from what is never trained on, in the mix of a survey; else in the mix of the training.
    seed : int
        Seed of the draws.
    shard_rows : int
        Draws in a file.
    report : callable
        Is given the number of draws that are there after each file.

    Returns
    -------
    int
        Files that were written, those that were there already not counted.

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
        shard_rows=shard_rows,
    )
    _claim(out, settings)
    shards = -(-draws // shard_rows)
    missing = [k for k in range(shards) if not (out / f"truth-{k:05d}.parquet").exists()]
    if not missing:
        return 0
    shares = SURVEY_SHARES if held_out else TRAINING_SHARES
    sky = open_observed_sky(root, curves, held_out=held_out)
    ra, dec = places(root, sky.members.object_id)
    for k in missing:
        rows = min(shard_rows, draws - k * shard_rows)
        drawn, member = sky.draw_members(rows, np.random.default_rng([seed, k]), shares=shares)
        tile = k + 1
        _write(photometry_table(drawn, ra[member], dec[member], tile), out / f"photometry-{k:05d}.parquet")
        # The truth comes last: that it is there says that the shard is.
        _write(_truth(drawn, sky, member, tile), out / f"truth-{k:05d}.parquet")
        report(min(draws, (k + 1) * shard_rows))
    return len(missing)


def _claim(out: UPath, settings: DrawSettings) -> None:
    path = out / SETTINGS
    if path.exists():
        found = json.loads(path.read_text())
        if found != asdict(settings):
            changed = ", ".join(name for name, value in asdict(settings).items() if found.get(name) != value)
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
