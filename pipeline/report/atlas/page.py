"""Atlas page: an interactive map of a run's embeddings, drawn by plotly (extra `atlas`).

The page, its pictures and plotly's script lie in one folder and need no network.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
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
from ojala.pipeline.report.atlas.rows import read_rows
from ojala.pipeline.report.atlas.thumbnails import ACROSS, half_light, morphology, sheet_of
from ojala.pipeline.report.render import render
from ojala.pipeline.runs.resolved import ResolvedRun
from ojala.pipeline.storage.files import write_whole
from ojala.pipeline.storage.healpix import Partition

PAGE, SHEET, SCRIPT = "atlas.html", "atlas-cutouts.jpg", "plotly.min.js"
"""Names of the files."""

SHOWN = 2000
"""Objects on the page."""

LEAVES_READ = 64
"""Leaves that they are taken from, evenly over the sky."""

BINS = 400
"""Points of a spectrum."""

GAP = 65535
"""In the place of a point of a spectrum that was not measured."""

CATEGORIES = 14
"""Most words of one kind that have a colour of their own."""

OTHERS = "others"
"""What the other words are called."""

_SUBTYPE = re.compile(r"[OBAFGKMLT](?=\d|$|[IV])|W[DC]|CV|Carbon")


def plotly_script() -> Path | None:
    """Plotly's script; None where plotly is not installed."""
    found = find_spec("plotly")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "package_data" / "plotly.min.js"


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
    """Write the page with its pictures and scripts.

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
    nothing: dict[str, Any] = {"page": "", "rows": 0, "clusters": 0, "unclustered": None}
    script = plotly_script()
    if script is None:
        why = (
            "The page that shows the atlas needs plotly: install the extra atlas (pip install "
            f"'.[atlas]' in a checkout of ojala), then give: ojala atlas-page {run} --out FOLDER"
        )
        return nothing | {"why": why}
    at = np.unique(np.linspace(0, len(done) - 1, LEAVES_READ).astype(int))
    chosen = [done[i] for i in at] if done else []
    rows = read_rows(run / AVIS.name, source, cutouts, chosen, SHOWN) if chosen else None
    if rows is None or not rows.num_rows:
        why = (
            "The run has no places on a map: it was made without an atlas, or nothing was embedded. From its "
            f"embeddings an atlas is made by: ojala atlas {run} --out FILE"
        )
        return nothing | {"why": why}
    images, place = _images(rows)
    objects = objects_of(rows, images, place)
    data: dict[str, Any] = {"objects": objects, "spectra": spectra_of(rows), "colours": colours_of(objects)}
    data |= {"across": ACROSS, "gap": GAP, "bins": BINS}
    write_whole(folder / SCRIPT, script.read_bytes(), durable=False)
    write_whole(folder / SHEET, sheet_of(images.flux), durable=False)
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    shown: dict[str, Any] = {"name": name, "rows": rows.num_rows, "data": text}
    shown |= {"script": SCRIPT, "sheet": SHEET, "others": OTHERS, "width": f"{SIZE * PIXEL_SCALE:.1f}"}
    write_whole(folder / PAGE, render("atlas.html.j2", shown).encode())
    cluster = rows["cluster"].to_numpy()
    return {
        "page": PAGE,
        "why": "",
        "rows": rows.num_rows,
        "clusters": len(np.unique(cluster[cluster != UNCLUSTERED])),
        "unclustered": float(np.mean(cluster == UNCLUSTERED)),
    }


def _images(rows: pa.Table) -> tuple[Images, np.ndarray]:
    """Images of all rows, and the objects' places in them (2, N), NaN where there is none."""
    place = np.full((2, rows.num_rows), np.nan)
    if has_cutout(rows).any():
        place[:] = [np.asarray(rows[f"{CUTOUTS.name}.{axis}"].to_numpy(), float) for axis in "xy"]
    return joined_images(rows), place


def objects_of(rows: pa.Table, images: Images, place: np.ndarray) -> dict[str, list[Any]]:
    """Values of each object on the page, by name; None where one is not known.

    Parameters
    ----------
    rows : pyarrow.Table
        As from `read_rows`.
    images : Images
        Their images.
    place : ndarray, shape (2, N)
        Column and row of each object in its image.
    """
    trusted = rows["spectra.trusted"].to_numpy()
    kind = np.where(trusted, rows["spectra.class"].to_numpy(zero_copy_only=False), NONE)
    z = np.where(trusted, rows["spectra.z"].to_numpy(), np.nan)
    radius = half_light(images.flux[:, 1], images.ivar[:, 1], *place)
    flags = rows["flags"].to_numpy()
    found: dict[str, list[Any]] = {
        "id": [
            f"{survey} {name}"
            for survey, name in zip(
                rows["spectra.survey"].to_pylist(), rows["spectra.source_id"].to_pylist(), strict=True
            )
        ],
        "type": [_word(word) for word in kind],
        "subtype": [
            subtype(word) if of == "STAR" else None
            for word, of in zip(rows["spectra.subclass"].to_pylist(), kind, strict=True)
        ],
        "morphology": [_word(word) for word in morphology(radius, images.psf_fwhm[:, 1])],
        "cluster": [None if number == UNCLUSTERED else str(number) for number in rows["cluster"].to_pylist()],
        "z": _rounded(z, 5),
        "radius": _rounded(radius, 2),
        "snr": _rounded(rows["spectra.snr"].to_numpy(), 2),
        "flags": [", ".join(str(flag.name) for flag in AVIS.remarks if flag & int(mask)) for mask in flags],
        "image": [bool(one.any()) for one in images.ivar],
    }
    for name in ("z_nn", "z_nn_err", "novelty", "cluster_prob"):
        found[name] = _rounded(rows[name].to_numpy(), 4)
    for name in ("map_x", "map_y", "map3_x", "map3_y", "map3_z"):
        found[name] = _rounded(rows[name].to_numpy(), 3)
    return found


def subtype(word: str) -> str | None:
    """The letter of a stellar class, or WD, WC, CV or Carbon; None where the survey's word has none."""
    match = _SUBTYPE.match(word.removeprefix("d").removeprefix("sd"))
    return match[0] if match else None


def _word(word: str) -> str | None:
    return None if word in ("", NONE) else str(word)


def _rounded(values: np.ndarray, digits: int) -> list[float | None]:
    return [round(float(v), digits) if np.isfinite(v) else None for v in np.asarray(values, float)]


def colours_of(objects: dict[str, list[Any]]) -> list[dict[str, Any]]:
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
        counts = Counter(word for word in objects[name] if word is not None)
        order = [word for word, _ in counts.most_common(CATEGORIES)]
        if name == "type":
            order = [word for word in CLASSES if word in counts]
        if order:
            rest = [OTHERS] if len(counts) > len(order) else []
            found.append({"name": name, "title": title, "kind": "words", "words": [*order, *rest]})
    for name, title, kind in numbers:
        if any(value is not None for value in objects[name]):
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
