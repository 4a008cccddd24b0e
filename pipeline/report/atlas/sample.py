"""The sample that an atlas is fitted on: embeddings of a finished run, with the survey's redshifts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.avis import AVIS, EMBEDDING_SIZE, AvisFlag
from ojala.models.avis.atlas import SIDES, Sides
from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.inference.join import KEY, join_auxiliary
from ojala.pipeline.report.atlas.rows import read_avis
from ojala.pipeline.runs.record import RecordError, RunRecord, read_record
from ojala.pipeline.storage.hats import read_leaves


@dataclass(frozen=True, slots=True)
class AtlasSample:
    """Embeddings of S objects.

    Attributes
    ----------
    embedding : ndarray of float32, shape (S, EMBEDDING_SIZE)
        Joint embeddings.
    z : ndarray of float32, shape (S,)
        Redshifts of the survey; NaN where it has none, or had doubts.
    sides : str
        What was seen of the objects, one of `ojala.models.avis.atlas.SIDES`.
    weights_sha256 : str
        SHA-256 of the weights that made them.
    run_id : str
        The run that they are from.
    """

    embedding: np.ndarray
    z: np.ndarray
    sides: Sides
    weights_sha256: str
    run_id: str


def finished_run(run: UPath) -> RunRecord:
    """The record of a run of AVIS that has its catalogue.

    Raises
    ------
    RecordError
        If it is another model's, or not finished, or mixes weights.
    """
    record = read_record(run)
    if "atlas" not in ADAPTERS.of_product(record.main).accepts:
        raise RecordError(f"{run} is a run of {record.main}: an atlas is made of a run of AVIS")
    if not (run / record.main / "hats.properties").exists():
        raise RecordError(f"{run} is {record.status} and has no catalogue: finish it first")
    if "weights_sha256" in record.mixed_versions:
        raise RecordError(f"{run} mixes embeddings of several weights: run the whole catalogue with one")
    return record


def draw_sample(run: UPath, most: int, seed: int) -> AtlasSample:
    """Draw objects with a joint embedding, evenly from all of a run, each object once.

    Objects are those of which the same was seen: spectrum and image, or what is more frequent. Of repeated
    visits only the best spectrum counts.

    Parameters
    ----------
    run : UPath
        Folder of the run.
    most : int
        Most objects.
    seed : int
        Seed of the draw.

    Raises
    ------
    RecordError
        See `finished_run`.
    """
    record = finished_run(run)
    source, leaves = UPath(record.source), read_leaves(run / AVIS.name)
    rng, seen, chance = np.random.default_rng(seed), [], []
    for partition in leaves:
        rows = read_avis(run / AVIS.name / partition.leaf, [KEY, "primary_id", "flags"])
        flags = rows["flags"].to_numpy()
        fits = ((flags & AvisFlag.NOT_EMBEDDED) == 0) & (
            rows[KEY].to_numpy() == rows["primary_id"].to_numpy()
        )
        lacks = [(flags & flag) != 0 for flag in (AvisFlag.NO_SPECTRUM, AvisFlag.NO_IMAGE)]
        seen.append(np.where(fits, np.select([lacks[0], lacks[1]], [2, 1], 0), -1))
        chance.append(rng.random(len(flags)))
    kinds = np.concatenate([np.empty(0, np.int64), *seen])
    kind = int(np.bincount(kinds[kinds >= 0], minlength=len(SIDES)).argmax())
    every = np.sort(np.concatenate([np.empty(0), *chance])[kinds == kind])
    limit = every[most - 1] if len(every) > most else np.inf
    embedding, z = [np.empty((0, EMBEDDING_SIZE), np.float32)], [np.empty(0, np.float32)]
    for partition, of_leaf, drawn in zip(leaves, seen, chance, strict=True):
        take = np.flatnonzero((of_leaf == kind) & (drawn <= limit))
        if not len(take):
            continue
        rows = read_avis(run / AVIS.name / partition.leaf, [KEY, "embedding"]).take(take)
        rows = join_auxiliary(rows, _read(source / partition.leaf, [KEY, "z", "trusted"]), "spectra")
        flat = rows["embedding"].combine_chunks().flatten().to_numpy()
        embedding.append(flat.reshape(-1, EMBEDDING_SIZE))
        trusted = rows["spectra.trusted"].to_numpy(zero_copy_only=False).astype(bool)
        z.append(np.where(trusted, rows["spectra.z"].to_numpy(), np.nan).astype(np.float32))
    together = np.concatenate(embedding), np.concatenate(z)
    return AtlasSample(*together, SIDES[kind], record.weights_sha256, record.run_id)


def _read(path: UPath, columns: list[str]) -> pa.Table:
    with path.open("rb") as file:
        return pq.read_table(file, columns=columns)
