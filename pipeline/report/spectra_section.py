"""Sections of the report on spectra: comparison with the surveys' redshifts, and reconstructions."""

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
from ojala.pipeline.inference.products.table import with_common_names
from ojala.pipeline.report.spectra_figures import embedding_drawing, reconstruction_drawing, survey_drawing
from ojala.pipeline.runs.resolved import ResolvedRun
from ojala.pipeline.storage.healpix import Partition

SAMPLE = 4000
"""Rows that are shown."""

LEAVES_READ = 64
"""Leaves that they are taken from, evenly over the sky."""

EXAMPLES = 4
"""Spectra that are drawn with their reconstructions."""

_KEY = "object_id"
_POSITION = ("map_x", "map_y")


@dataclass(frozen=True, slots=True)
class SpectralRows:
    """Sample of rows of a product, with the surveys' values of the same spectra.

    Attributes
    ----------
    z, survey_z : ndarray of float, shape (N,)
        Redshifts; NaN where there is none, or the survey does not trust its own.
    survey_class, predicted_class : ndarray of str, shape (N,)
        Classes, `NONE` where there is none.
    embedding : ndarray of float32, shape (N, W), or None
        The embedding, where the product has one.
    position : ndarray of float, shape (N, 2), or None
        Positions on the map of the atlas, where the product has them.
    """

    z: np.ndarray
    survey_z: np.ndarray
    survey_class: np.ndarray
    predicted_class: np.ndarray
    embedding: np.ndarray | None
    position: np.ndarray | None = None


def survey_section(
    run: ResolvedRun, run_id: str, done: Sequence[Partition]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Context of the template and numbers of the comparison with the surveys.

    Parameters
    ----------
    run : ResolvedRun
        Resolved configuration of a run over spectra.
    run_id : str
        The run.
    done : sequence of Partition
        Partitions that the run has, one at least.
    """
    main = run.contracts[0]
    rows = _rows(run.folder(run_id) / main.name, run.source, _spread(done), main)
    scores = _scores(rows)
    context = {
        "rows": len(rows.z),
        "scores": scores,
        "survey_drawing": survey_drawing(rows.z, rows.survey_z, rows.survey_class),
        "embedding_drawing": embedding_drawing(
            rows.embedding, rows.survey_class, rows.survey_z, rows.position
        ),
    }
    return context, {"sample": len(rows.z), "redshifts": scores}


def reconstruction_section(
    run: ResolvedRun, run_id: str, done: Sequence[Partition]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Context of the template of spectra with their reconstructions; None where the run wrote none."""
    if SPECPT_SPECTRA not in run.contracts:
        return None, {}
    product = run.folder(run_id) / SPECPT_SPECTRA.name
    return {"drawing": reconstruction_drawing(product, run.source, _spread(done), EXAMPLES)}, {}


def _spread(done: Sequence[Partition]) -> list[Partition]:
    """Partitions to read, evenly over the sky."""
    return [done[i] for i in np.unique(np.linspace(0, len(done) - 1, LEAVES_READ).astype(int))]


def _rows(product: UPath, source: UPath, chosen: Sequence[Partition], contract: Contract) -> SpectralRows:
    redshift = "z" if contract.name_of("z") in contract.names else "z_nn"
    names = (redshift, "class", "embedding", *_POSITION)
    wanted = [name for name in map(contract.name_of, names) if name in contract.names]
    predicted = pa.concat_tables(_read(product / partition.leaf, [_KEY, *wanted]) for partition in chosen)
    predicted = with_common_names(predicted, contract.column_names)
    survey = pa.concat_tables(
        _read(source / partition.leaf, [_KEY, "z", "class", "trusted"]) for partition in chosen
    )
    take = np.linspace(0, predicted.num_rows - 1, min(SAMPLE, predicted.num_rows)).astype(int)
    predicted, survey = predicted.take(take), survey.take(take)
    trusted = survey["trusted"].to_numpy(zero_copy_only=False)
    survey_z = np.asarray(survey["z"].to_numpy(zero_copy_only=False), float)
    none = np.full(len(take), NONE, dtype=object)
    embedding = None
    if "embedding" in predicted.column_names:
        width = contract[contract.name_of("embedding")].type.list_size
        flat = predicted["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        embedding = np.asarray(flat, np.float32).reshape(-1, width)
    position = None
    if _POSITION[0] in predicted.column_names:
        position = np.stack([np.asarray(predicted[name].to_numpy(), float) for name in _POSITION], axis=1)
    return SpectralRows(
        z=np.asarray(predicted[redshift].to_numpy(zero_copy_only=False), float),
        survey_z=np.where(trusted, survey_z, np.nan),
        survey_class=np.where(trusted, survey["class"].to_numpy(zero_copy_only=False), none),
        predicted_class=predicted["class"].to_numpy(zero_copy_only=False)
        if "class" in predicted.column_names
        else none,
        embedding=embedding,
        position=position,
    )


def _scores(rows: SpectralRows) -> dict[str, dict[str, float]]:
    """By class of the survey: measures of redshifts (not of stars), and the share whose class is the same."""
    scores: dict[str, dict[str, float]] = {}
    for name in CLASSES:
        of_class = rows.survey_class == name
        if not of_class.any():
            continue
        predicted = rows.predicted_class[of_class]
        same = float(np.mean(predicted == name)) if (predicted != NONE).any() else np.nan
        # The velocities of stars are not comparable with redshifts of galaxies and quasars.
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
