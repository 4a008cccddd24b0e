"""Atlas page: an interactive map of a run's embeddings, drawn on a canvas.

Objects are summed up by pixel, so that a hundred thousand are shown at once. The page and its pictures lie in
one folder and need no network. Spectra and cut-outs are stored for part of the objects; in the explorer of a
release, the page reads those of any object.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from upath import UPath

from ojala.catalogs_schema.avis import AVIS, UNCLUSTERED
from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.cutouts import CUTOUTS, PIXEL_SCALE, SIZE
from ojala.catalogs_schema.ojala import CLASSES
from ojala.models.data import Images
from ojala.pipeline.inference.cutouts import has_cutout, joined_images
from ojala.pipeline.inference.join import KEY
from ojala.pipeline.report.atlas.rows import PARTITION, read_rows, with_pictures
from ojala.pipeline.report.atlas.thumbnails import ACROSS, half_light, morphology, sheet_of
from ojala.pipeline.report.render import render
from ojala.pipeline.runs.resolved import ResolvedRun
from ojala.pipeline.storage.files import write_whole
from ojala.pipeline.storage.healpix import Partition

PAGE, SHEET = "atlas.html", "atlas-cutouts.jpg"
"""Names of the files."""

SHOWN = 100_000
"""Objects on the map."""

PICTURED = 2000
"""Objects with a stored spectrum and cut-out."""

LEAVES_READ = 512
"""Partitions that they are taken from, evenly over the sky."""

PICTURED_LEAVES = 64
"""Partitions that spectra and cut-outs are read of."""

BINS = 400
"""Points of a spectrum."""

GAP = 65535
"""In the place of a point of a spectrum that was not measured."""

CATEGORIES = 14
"""Most words of one kind that have a colour of their own."""

OTHERS = "others"
"""What the other words are called."""

_SUBTYPE = re.compile(r"[OBAFGKMLT](?=\d|$|[IV])|W[DC]|CV|Carbon")


def atlas_section(
    run: ResolvedRun, run_id: str, done: Sequence[Partition]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Write the atlas page next to the report; context and numbers of the section that refers to it."""
    folder = run.folder(run_id)
    shown = write_atlas_page(folder / "report", run_id, folder, run.source, run.auxiliary, done)
    return shown, {name: shown[name] for name in ("rows", "clusters", "unclustered")}


def write_atlas_page(
    folder: UPath, name: str, run: UPath, source: UPath, cutouts: UPath | None, done: Sequence[Partition]
) -> dict[str, Any]:
    """Write the page with its pictures.

    Parameters
    ----------
    folder : UPath
        Folder to write into.
    name : str
        Name of the run.
    run, source : UPath
        Folder of the run, root of the spectra.
    cutouts : UPath or None
        Root of the cut-outs.
    done : sequence of Partition
        Partitions that the run has.

    Returns
    -------
    dict
        For the report: ``page``, empty where there is none, ``why`` in that case, ``rows``, ``clusters`` and
        ``unclustered``.
    """
    chosen = _evenly(list(done), LEAVES_READ)
    rows = read_rows(run / AVIS.name, source, chosen, SHOWN) if chosen else None
    if rows is None or not rows.num_rows:
        why = (
            "The run has no coordinates on a map: it was made without an atlas, or nothing was embedded. "
            f"From its embeddings an atlas is made by: ojala atlas {run} --out FILE"
        )
        return {"page": "", "rows": 0, "clusters": 0, "unclustered": None, "why": why}
    at = _pictured(rows[PARTITION].to_numpy())
    pictured = with_pictures(rows.take(at), source, cutouts, chosen)
    images, place = _images(pictured)
    data = data_of(rows, at, images, place) | {"across": ACROSS, "gap": GAP, "bins": BINS}
    data["spectra"] = spectra_of(pictured) | {"image": [bool(one.any()) for one in images.ivar]}
    write_whole(folder / SHEET, sheet_of(images.flux), durable=False)
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    shown: dict[str, Any] = {"name": name, "rows": rows.num_rows, "data": text}
    shown |= {"sheet": SHEET, "others": OTHERS, "width": f"{SIZE * PIXEL_SCALE:.1f}"}
    write_whole(folder / PAGE, render("atlas.html.j2", shown).encode())
    cluster = rows["cluster"].to_numpy()
    return {
        "page": PAGE,
        "why": "",
        "rows": rows.num_rows,
        "clusters": len(np.unique(cluster[cluster != UNCLUSTERED])),
        "unclustered": float(np.mean(cluster == UNCLUSTERED)),
    }


def _evenly(values: list[Any], most: int) -> list[Any]:
    """At most as many of the values, evenly over the list."""
    return [values[i] for i in np.unique(np.linspace(0, len(values) - 1, most).astype(int))] if values else []


def _pictured(partition: np.ndarray) -> np.ndarray:
    """Indices of the rows with pictures, evenly over those of some partitions."""
    read = np.flatnonzero(np.isin(partition, _evenly(np.unique(partition).tolist(), PICTURED_LEAVES)))
    return np.array(_evenly(read.tolist(), PICTURED))


def _images(rows: pa.Table) -> tuple[Images, np.ndarray]:
    """Images of all rows, and the objects' places in them (2, N), NaN where there is none."""
    place = np.full((2, rows.num_rows), np.nan)
    if has_cutout(rows).any():
        place[:] = [np.asarray(rows[f"{CUTOUTS.name}.{axis}"].to_numpy(), float) for axis in "xy"]
    return joined_images(rows), place


def data_of(rows: pa.Table, pictured: np.ndarray, images: Images, place: np.ndarray) -> dict[str, Any]:
    """Data of the objects on the map.

    Parameters
    ----------
    rows : pyarrow.Table
        N rows as from `read_rows`.
    pictured : ndarray of int, shape (M,)
        Indices of the rows with pictures.
    images : Images
        Their images.
    place : ndarray, shape (2, M)
        Column and row of each of them in its image.

    Returns
    -------
    dict
        ``count``, ``names``; ``key`` and ``picture``, index into the pictures or -1, as base64 of int64 and
        int32; ``words`` by name: list of ``words`` and ``codes``, base64 of uint16, 0 for none and else the
        index plus 1; ``numbers`` by name: base64 of float32, NaN where not known; ``colours`` as from
        `colours_of`. All bytes are little-endian.
    """
    n = rows.num_rows
    picture, radius, fwhm = np.full(n, -1, "<i4"), np.full(n, np.nan), np.full(n, np.nan)
    picture[pictured] = np.arange(len(pictured))
    radius[pictured] = half_light(images.flux[:, 1], images.ivar[:, 1], *place)
    fwhm[pictured] = images.psf_fwhm[:, 1]
    trusted = rows["spectra.trusted"].to_numpy().astype(bool)
    kind = np.where(trusted, rows["spectra.class"].to_numpy(zero_copy_only=False), NONE)
    stars, subclass = kind == "STAR", rows["spectra.subclass"].to_pylist()
    words: dict[str, list[str | None]] = {
        "type": [_word(word) for word in kind],
        "subtype": [subtype(word) if star else None for word, star in zip(subclass, stars, strict=True)],
        "morphology": [_word(word) for word in morphology(radius, fwhm)],
        "cluster": [None if number == UNCLUSTERED else str(number) for number in rows["cluster"].to_pylist()],
        "flags": [_flag_names(mask) for mask in rows["flags"].to_pylist()],
    }
    numbers = {name: rows[name].to_numpy() for name in _NUMBERS}
    numbers["z"] = np.where(trusted, rows["spectra.z"].to_numpy(), np.nan)
    numbers |= {"radius": radius, "snr": rows["spectra.snr"].to_numpy()}
    surveys, sources = (rows[f"spectra.{name}"].to_pylist() for name in ("survey", "source_id"))
    return {
        "count": n,
        "names": [f"{survey} {source}" for survey, source in zip(surveys, sources, strict=True)],
        "key": _base64(rows[KEY].to_numpy(), "<i8"),
        "picture": _base64(picture, "<i4"),
        "words": {name: _coded(values) for name, values in words.items()},
        "numbers": {name: _base64(values, "<f4") for name, values in numbers.items()},
        "colours": colours_of(words, numbers),
    }


_NUMBERS = (
    *("z_nn", "z_nn_err", "novelty", "cluster_prob"),
    *("map_x", "map_y", "map3_x", "map3_y", "map3_z"),
)


@functools.cache
def _flag_names(mask: int) -> str | None:
    return ", ".join(str(flag.name) for flag in AVIS.flag_meanings if flag & mask) or None


def _base64(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.asarray(values, kind).tobytes()).decode()


def _coded(values: Sequence[str | None]) -> dict[str, Any]:
    """Words as indices into their list."""
    words = sorted({value for value in values if value is not None})
    codes = {None: 0} | {word: k for k, word in enumerate(words, start=1)}
    return {"words": words, "codes": _base64(np.array([codes[value] for value in values]), "<u2")}


def subtype(word: str) -> str | None:
    """The letter of a stellar class, or WD, WC, CV or Carbon; None where the survey's word has none."""
    match = _SUBTYPE.match(word.removeprefix("d").removeprefix("sd"))
    return match[0] if match else None


def _word(word: str) -> str | None:
    return None if word in ("", NONE) else str(word)


def colours_of(
    of_words: Mapping[str, Sequence[str | None]], of_numbers: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """By what the map can be coloured: what is known of at least one object.

    Words come with their order, the more frequent first, classes in theirs; the rarest are `OTHERS`.
    """
    words = (
        ("type", "type in the survey"),
        ("cluster", "cluster"),
        ("subtype", "stellar subtype in the survey"),
        ("morphology", "morphology on the cut-out"),
    )
    numbers = (
        ("z", "redshift of the survey", "log1p"),
        ("z_nn", "redshift of the nearest neighbours", "log1p"),
        ("radius", "half-light radius on the cut-out in r [arcsec]", "log"),
        ("novelty", "novelty", "linear"),
        ("snr", "signal to noise of the spectrum", "log"),
    )
    found: list[dict[str, Any]] = []
    for name, title in words:
        counts = Counter(word for word in of_words[name] if word is not None)
        order = [word for word, _ in counts.most_common(CATEGORIES)]
        if name == "type":
            order = [word for word in CLASSES if word in counts]
        if order:
            rest = [OTHERS] if len(counts) > len(order) else []
            found.append({"name": name, "title": title, "kind": "words", "words": [*order, *rest]})
    for name, title, kind in numbers:
        if np.isfinite(of_numbers[name]).any():
            found.append({"name": name, "title": title, "kind": kind})
    return found


def spectra_of(rows: pa.Table) -> dict[str, Any]:
    """Spectra on `BINS` bins each, even between the first and the last usable pixel.

    Returns
    -------
    dict
        ``values``: base64 of little-endian 16-bit numbers, N x BINS, from 0 at ``low`` to GAP - 1 at
        ``high``, `GAP` where nothing was measured; ``first`` and ``last``: wavelengths of the ends
        [Angstrom]; ``low`` and ``high``: flux densities.
    """
    coded = np.full((rows.num_rows, BINS), GAP, "<u2")
    limits = np.zeros((4, rows.num_rows))
    columns = (rows[f"spectra.{name}"] for name in ("wavelength", "flux", "ivar"))
    for i, arrays in enumerate(zip(*columns, strict=True)):
        wavelength, flux, ivar = (np.asarray(array.values.to_numpy(), float) for array in arrays)
        used = ivar > 0.0
        if used.sum() < 2:
            continue
        binned, first, last = binned_spectrum(wavelength[used], flux[used], ivar[used])
        known = np.isfinite(binned)
        low, high = np.percentile(binned[known], [0.2, 99.8])
        low, high = min(low, 0.0), max(high, low + 1e-6)
        scaled = np.clip((binned[known] - low) / (high - low), 0.0, 1.0)
        coded[i, known] = np.round(scaled * (GAP - 1)).astype("<u2")
        limits[:, i] = first, last, low, high
    names = ("first", "last", "low", "high")
    return {
        "values": base64.b64encode(coded.tobytes()).decode(),
        **{name: [float(f"{v:.6g}") for v in limit] for name, limit in zip(names, limits, strict=True)},
    }


def binned_spectrum(
    wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """Mean flux by inverse variance in `BINS` bins, NaN in those without a pixel, and the ends of all."""
    first, last = float(wavelength[0]), float(wavelength[-1])
    at = np.minimum(((wavelength - first) / (last - first) * BINS).astype(int), BINS - 1)
    weight = np.bincount(at, ivar, BINS)
    total = np.bincount(at, ivar * flux, BINS)
    return np.where(weight > 0.0, total / np.where(weight > 0.0, weight, 1.0), np.nan), first, last
