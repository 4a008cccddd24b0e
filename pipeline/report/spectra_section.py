"""The section of a page on answers to spectra: beside the surveys' own redshifts, and as a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.contract import NONE, Contract
from ojala.catalogs_schema.ojala import CLASSES
from ojala.catalogs_schema.specpt import SPECPT_SPECTRA
from ojala.models.evaluation.metrics import redshift_metrics
from ojala.pipeline.report.spectra_figures import embedding_drawing, reconstruction_drawing, survey_drawing
from ojala.pipeline.storage.healpix import Partition

SAMPLE = 4000
"""Rows that are shown."""

LEAVES_READ = 64
"""Leaves that they are taken from, evenly over the sky."""

EXAMPLES = 4
"""Spectra that are drawn with their reconstructions."""

_KEY = "object_id"
_PLACE = ("map_x", "map_y")


@dataclass(frozen=True, slots=True)
class SpectralRows:
    """Some rows of a product, with what the surveys say of the same spectra.

    Attributes
    ----------
    z, survey_z : ndarray of float, shape (N,)
        Redshifts; NaN where there is none, or the survey had doubts.
    survey_class, answered_class : ndarray of str, shape (N,)
        Classes, `NONE` where there is none.
    embedding : ndarray of float32, shape (N, W), or None
        The embedding, where the product has one.
    place : ndarray of float, shape (N, 2), or None
        Places on the atlas' map, where the product has them.
    """

    z: np.ndarray
    survey_z: np.ndarray
    survey_class: np.ndarray
    answered_class: np.ndarray
    embedding: np.ndarray | None
    place: np.ndarray | None = None


def spectra_section(
    run: UPath, source: UPath, done: Sequence[Partition], products: Sequence[Contract]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the template shows of answers to spectra, and the numbers in it.

    Parameters
    ----------
    run, source : UPath
        Folder of the run, root of the spectra catalogue.
    done : sequence of Partition
        Partitions that the run has.
    products : sequence of Contract
        What the run has written, the main product first.
    """
    at = np.unique(np.linspace(0, len(done) - 1, LEAVES_READ).astype(int))
    chosen = [done[i] for i in at] if done else []
    main = products[0]
    rows = _rows(run / main.name, source, chosen, main) if chosen else None
    if rows is None:
        return {}, {}
    scores = _scores(rows)
    context = {
        "rows": len(rows.z),
        "scores": scores,
        "survey_drawing": survey_drawing(rows.z, rows.survey_z, rows.survey_class),
        "embedding_drawing": embedding_drawing(rows.embedding, rows.survey_class, rows.survey_z, rows.place),
        "reconstruction_drawing": reconstruction_drawing(run / SPECPT_SPECTRA.name, source, chosen, EXAMPLES)
        if SPECPT_SPECTRA in products
        else None,
    }
    return context, {"sample": len(rows.z), "redshifts": scores}


def _rows(product: UPath, source: UPath, chosen: Sequence[Partition], contract: Contract) -> SpectralRows:
    redshift = "z" if "z" in contract.names else "z_nn"
    names = (redshift, "class", "embedding", *_PLACE)
    wanted = [name for name in names if name in contract.names]
    answers = pa.concat_tables(_read(product / partition.leaf, [_KEY, *wanted]) for partition in chosen)
    known = pa.concat_tables(
        _read(source / partition.leaf, [_KEY, "z", "class", "trusted"]) for partition in chosen
    )
    take = np.linspace(0, answers.num_rows - 1, min(SAMPLE, answers.num_rows)).astype(int)
    answers, known = answers.take(take), known.take(take)
    trusted = known["trusted"].to_numpy(zero_copy_only=False)
    survey_z = np.asarray(known["z"].to_numpy(zero_copy_only=False), float)
    none = np.full(len(take), NONE, dtype=object)
    embedding = None
    if "embedding" in wanted:
        width = contract["embedding"].type.list_size
        flat = answers["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        embedding = np.asarray(flat, np.float32).reshape(-1, width)
    place = None
    if _PLACE[0] in wanted:
        place = np.stack([np.asarray(answers[name].to_numpy(), float) for name in _PLACE], axis=1)
    return SpectralRows(
        z=np.asarray(answers[redshift].to_numpy(zero_copy_only=False), float),
        survey_z=np.where(trusted, survey_z, np.nan),
        survey_class=np.where(trusted, known["class"].to_numpy(zero_copy_only=False), none),
        answered_class=answers["class"].to_numpy(zero_copy_only=False) if "class" in wanted else none,
        embedding=embedding,
        place=place,
    )


def _scores(rows: SpectralRows) -> dict[str, dict[str, float]]:
    """By class of the survey: measures of redshifts (not of stars), and the share whose class is the same."""
    scores: dict[str, dict[str, float]] = {}
    for name in CLASSES:
        of_class = rows.survey_class == name
        if not of_class.any():
            continue
        said = rows.answered_class[of_class]
        same = float(np.mean(said == name)) if (said != NONE).any() else np.nan
        # Stars have velocities, which no one compares with answers about galaxies and quasars.
        nothing = np.full(of_class.sum(), np.nan)
        z = nothing if name == "STAR" else rows.z[of_class]
        scores[name] = {
            "spectra": float(of_class.sum()),
            "same_class": same,
            **redshift_metrics(z, rows.survey_z[of_class]),
        }
    return scores


def _read(path: UPath, columns: list[str]) -> pa.Table:
    with path.open("rb") as file:
        return pq.read_table(file, columns=columns)
