"""Figures of predictions from spectra."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from upath import UPath

from ojala.catalogs_schema.ojala import CLASSES
from ojala.catalogs_schema.specpt import RECONSTRUCTED_FIRST, RECONSTRUCTED_SIZE, RECONSTRUCTED_STEP
from ojala.pipeline.report.svg import BLUE, CLASS_COLOURS, CLASS_MARKERS, FAINT, INK, Drawing, draw, scatter
from ojala.pipeline.storage.healpix import Partition

MAP_LEAST = 30
"""Fewer rows make no map."""

_SEED = 20261120
_RECONSTRUCTED = RECONSTRUCTED_FIRST * np.exp(RECONSTRUCTED_STEP * (np.arange(RECONSTRUCTED_SIZE) + 0.5))


def survey_drawing(z: np.ndarray, survey_z: np.ndarray, survey_class: np.ndarray) -> Drawing | None:
    """Redshifts against those of the survey, with their difference; None where none can be compared."""
    both = np.isfinite(z) & np.isfinite(survey_z) & (survey_class != "STAR")
    if not both.any():
        return None
    dz = (z - survey_z) / (1.0 + survey_z)
    top = float(max(z[both].max(), survey_z[both].max())) * 1.05 + 0.02
    limit = float(np.clip(1.5 * np.percentile(np.abs(dz[both]), 90.0), 0.002, 0.3))

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        left.plot([0, top], [0, top], color=INK, linewidth=0.8)
        right.axhline(0.0, color=INK, linewidth=0.8)
        for name in CLASSES:
            rows = both & (survey_class == name)
            if rows.any():
                style: dict[str, Any] = {"s": 8, "alpha": 0.5, "linewidths": 0, "color": CLASS_COLOURS[name]}
                scatter(left, survey_z[rows], z[rows], marker=CLASS_MARKERS[name], label=name, **style)
                scatter(
                    right,
                    survey_z[rows],
                    np.clip(dz[rows], -limit, limit),
                    marker=CLASS_MARKERS[name],
                    **style,
                )
        left.set(xlim=(0, top), ylim=(0, top), xlabel="redshift of the survey", ylabel="redshift")
        right.set(xlim=(0, top), ylim=(-1.05 * limit, 1.05 * limit), xlabel="redshift of the survey")
        right.set_ylabel("(z - z survey) / (1 + z survey)")
        left.legend(loc="upper left")

    beyond = int((np.abs(dz[both]) > 0.15).sum())
    return draw(
        "survey-z",
        paint,
        (10.6, 4.2),
        f"Redshifts against the survey's: {both.sum():,} objects, {beyond:,} differ by more than 0.15",
        "Against redshifts of which the survey had no doubt. Larger differences are drawn on the frame.",
    )


def embedding_drawing(
    embedding: np.ndarray | None,
    survey_class: np.ndarray,
    survey_z: np.ndarray,
    atlas: np.ndarray | None = None,
) -> Drawing | None:
    """A map of the embedding, by class and by redshift; None where there is no embedding or few rows.

    ``atlas`` are places on an atlas' map, NaN where there is none; without them a map is made.
    """
    if embedding is None:
        return None
    if atlas is not None and np.isfinite(atlas).any():
        embedding = atlas
    known = np.isfinite(embedding).all(axis=1)
    if known.sum() < MAP_LEAST:
        return None
    place, how = (embedding[known], "Places in the atlas") if embedding is atlas else map_of(embedding[known])
    classes, z = survey_class[known], survey_z[known]

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        style: dict[str, Any] = {"s": 7, "alpha": 0.6, "linewidths": 0}
        for name in CLASSES:
            rows = classes == name
            if rows.any():
                colour, marker = CLASS_COLOURS[name], CLASS_MARKERS[name]
                scatter(
                    left, place[rows, 0], place[rows, 1], color=colour, marker=marker, label=name, **style
                )
        rest = ~np.isin(classes, CLASSES)
        if rest.any():
            scatter(left, place[rest, 0], place[rest, 1], color=FAINT, label="not known", **style)
        left.legend(loc="best")
        far = np.isfinite(z) & (classes != "STAR")
        scatter(right, place[~far, 0], place[~far, 1], color=FAINT, **style)
        if far.any():
            drawn = right.scatter(
                place[far, 0], place[far, 1], c=np.log1p(z[far]), cmap="cividis", rasterized=True, **style
            )
            bar = figure.colorbar(drawn, ax=right, label="redshift of the survey")
            ticks = [
                t for t in (0.0, 0.1, 0.3, 0.6, 1.0, 2.0, 3.0, 4.0) if np.log1p(t) <= np.log1p(z[far]).max()
            ]
            bar.set_ticks(np.log1p(ticks).tolist(), labels=[f"{t:g}" for t in ticks])
        for axes in (left, right):
            axes.set(xticks=[], yticks=[])

    return draw(
        "embedding",
        paint,
        (10.6, 4.4),
        f"A map of the embeddings of {known.sum():,} spectra ({how}), by class and by redshift",
        f"{how} of the embeddings, which were made without looking at class or redshift. Grey: stars, and "
        "what the survey was not sure of.",
    )


def map_of(embedding: np.ndarray) -> tuple[np.ndarray, str]:
    """Two coordinates for each row and how they were found: PaCMAP (extra `atlas`) or principal components.

    Parameters
    ----------
    embedding : ndarray of float32, shape (N, W)
        All finite.
    """
    try:
        from pacmap import PaCMAP
    except ModuleNotFoundError:
        centred = embedding - embedding.mean(axis=0)
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        return np.asarray(centred @ axes[:2].T), "two principal components"
    logging.getLogger("pacmap").setLevel(logging.ERROR)  # it warns that a seed was set
    found = PaCMAP(n_components=2, random_state=_SEED).fit_transform(embedding.astype(np.float32), init="pca")
    return np.asarray(found), "PaCMAP"


def reconstruction_drawing(
    product: UPath, source: UPath, chosen: Sequence[Partition], examples: int
) -> Drawing | None:
    """Spectra with their reconstructions, from well to badly observed; None where none was reconstructed.

    Parameters
    ----------
    product, source : UPath
        Roots of the product `SPECPT_SPECTRA` and of the spectra.
    chosen : sequence of Partition
        Partitions to take them from.
    examples : int
        How many.
    """
    pairs: list[tuple[float, dict[str, Any], np.ndarray]] = []
    for partition in chosen:
        pairs += _pairs(product / partition.leaf, source / partition.leaf)
        if len(pairs) >= 10 * examples:
            break
    if not pairs:
        return None
    pairs.sort(key=lambda pair: -pair[0])
    shown = [pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, examples).astype(int))]

    def paint(figure: Figure) -> None:
        panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (snr, row, model) in zip(panels, shown, strict=True):
            seen, flux = np.array(row["wavelength"]), np.array(row["flux"])
            used = np.array(row["ivar"]) > 0
            axes.plot(seen[used], flux[used], color=FAINT, linewidth=0.5, rasterized=True)
            axes.plot(_RECONSTRUCTED, model, color=BLUE, linewidth=0.9)
            low, high = np.percentile(model[np.isfinite(model)], [0.5, 99.5])
            noise = 3.0 * np.median(np.abs(flux[used] - np.median(flux[used]))) if used.any() else 1.0
            axes.set(ylim=(min(low, 0.0) - noise, high + 1.5 * noise), ylabel="flux")
            axes.set_title(f"{row['source_id']}: {row['class']}, S/N {snr:.1f}", fontsize=9)
        panels[-1].set_xlabel("wavelength [Å]")

    return draw(
        "reconstructions",
        paint,
        (10.6, 1.9 * len(shown) + 0.4),
        f"{len(shown)} spectra with their reconstructions, from well to badly observed",
        "Grey: as observed. Blue: what the network makes of it.",
    )


def _pairs(product: UPath, source: UPath) -> list[tuple[float, dict[str, Any], np.ndarray]]:
    """Signal to noise, row and reconstruction of each spectrum of a leaf that was reconstructed."""
    with product.open("rb") as file:
        made = pq.read_table(file, columns=["flux_median", "reconstruction"])
    with source.open("rb") as file:
        table = pq.read_table(file, columns=["wavelength", "flux", "ivar", "snr", "class", "source_id"])
    flat = made["reconstruction"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    median = np.asarray(made["flux_median"].to_numpy(zero_copy_only=False), np.float32)
    models = np.asarray(flat, np.float32).reshape(table.num_rows, -1) * median[:, None]
    there = np.flatnonzero(np.isfinite(models).any(axis=1))
    rows = table.take(there).to_pylist()
    return [(float(row["snr"]), row, models[i]) for row, i in zip(rows, there.tolist(), strict=True)]
