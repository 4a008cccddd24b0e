"""Ablation study: variants of the network trained on the same draws, measured on the same objects.

``python -m tests.benchmarks.ablation --library FILE --out DIR`` trains each of `VARIANTS` with the same
seed, number of draws and schedule, measures it on the same held-out draws, and writes the table
``DIR/ablation.md`` and ``DIR/ablation.json``. Finished variants are not trained again; interrupted ones
resume.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from upath import UPath

from ojala.flows.mocks.library import load_sky
from ojala.flows.mocks.real_objects import PATCH
from ojala.flows.training.ojala import HeldOutSky, ObservedPhotometry
from ojala.models.checkpoint import WeightsError, file_sha256
from ojala.models.data import Sky
from ojala.models.ojala.checkpoint import load
from ojala.models.ojala.network import PRESETS, Ojala, OjalaConfig
from ojala.models.ojala.tokens import N_BANDS, tokenise
from ojala.models.ojala.training import OjalaTraining, train
from ojala.models.settings import from_mapping
from ojala.models.simulation.skies.photometric import CLASS_WEIGHTS
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.storage.files import write_whole


@dataclass(frozen=True)
class Variant:
    """Variant of the network or of its training.

    Attributes
    ----------
    shape : OjalaConfig
        Shape of the network.
    discrepancy : float
        Weight of the mean discrepancy to the photometry of the bundled real objects, without their labels.
    """

    shape: OjalaConfig
    discrepancy: float = 0.0


_BASE = PRESETS["base"]
VARIANTS: dict[str, Variant] = {
    "base": Variant(_BASE),
    "without-chain": Variant(replace(_BASE, chain=False)),
    "without-bands": Variant(replace(_BASE, band_requests=False)),
    "without-errors": Variant(replace(_BASE, reads_errors=False)),
    "gaussian-redshift": Variant(replace(_BASE, redshift_pdf=False)),
    "discrepancy": Variant(_BASE, discrepancy=0.2),
    "deeper": Variant(replace(_BASE, encoder=_BASE.encoder[:1] * 6)),
    "wider": Variant(replace(_BASE, width=192, encoder=((6, 768),) * 4, decoder=((6, 768),) * 2)),
    "narrower": Variant(replace(_BASE, width=64, encoder=((4, 256),) * 4, decoder=((4, 256),) * 2)),
    "published": Variant(PRESETS["published"], discrepancy=0.2),
}
"""`base` is the shape of the bundled weights. The next five change one part each, the three after these the
size; `published` has the published shape, redshift and losses."""

DRAWS = 51_200
"""Draws of each training by default."""

SETTINGS = OjalaTraining(
    warm_up=40,
    ema_decay=0.99,
    seed=1,
    held_out=4096,
    checkpoint_minutes=10.0,
    class_weights=CLASS_WEIGHTS,
)
"""Settings of all trainings."""

COLUMNS: tuple[tuple[str, str, str, str], ...] = (
    ("weighted F1", "class", "f1_weighted", ".4f"),
    ("galaxies: sigma_NMAD", "z_gal", "sigma_nmad", ".4f"),
    ("i < 19", "z_gal 0-19", "sigma_nmad", ".4f"),
    ("i 20-21", "z_gal 20-21", "sigma_nmad", ".4f"),
    ("beyond 0.15", "z_gal", "outliers_15", ".1%"),
    ("quasars: sigma_NMAD", "z_qso", "sigma_nmad", ".4f"),
    ("beyond 0.15", "z_qso", "outliers_15", ".1%"),
    ("log M", "log_mass", "nmad", ".3f"),
    ("log SFR", "log_sfr", "nmad", ".3f"),
    ("EW(Ha) [A]", "ew_halpha", "nmad", ".2f"),
    ("log Teff", "teff", "nmad", ".4f"),
    ("[Fe/H]", "fe_h", "nmad", ".3f"),
)
"""Heading, sample and measure of `ojala.models.evaluation.metrics.catalogue_metrics`, and format."""


def ablate(
    sky: Sky, held_out: Sky, folder: Path, settings: OjalaTraining, names: Iterable[str] = VARIANTS
) -> dict[str, dict[str, Any]]:
    """Train and measure variants.

    Parameters
    ----------
    sky, held_out : Sky
        Samplers of training and of held-out objects.
    folder : Path
        Folder for one folder per variant.
    settings : OjalaTraining
        Settings of all trainings; name, preset and discrepancy are set here.
    names : iterable of str
        Variants to train.

    Returns
    -------
    dict of dict
        For each variant in the folder, also unfinished ones: ``parameters``, ``mflop_per_object`` (of a
        forward pass with all bands and requests), ``draws`` so far, ``seconds`` and ``held_out``, the
        measures.

    Raises
    ------
    ValueError
        The folder holds a training with other settings.
    """
    for name in names:
        variant = VARIANTS[name]
        PRESETS[f"ablation {name}"] = variant.shape
        config = replace(settings, name=name, preset=f"ablation {name}", discrepancy=variant.discrepancy)
        if _is_finished(folder / name / f"{name}.safetensors", config):
            continue
        if settings.compiled:
            torch.compiler.reset()  # its cache is limited to eight networks per function
        unlabelled = _bundled_photometry() if variant.discrepancy else None
        train(config, sky, held_out, folder / name, partial(_show, name), unlabelled)
    trained = {name: folder / name / f"{name}.safetensors" for name in VARIANTS}
    return {name: _figures(weights) for name, weights in trained.items() if weights.exists()}


def _bundled_photometry() -> ObservedPhotometry:
    with tempfile.TemporaryDirectory() as folder:
        ingest_photometry([UPath(PATCH / "real_objects.csv")], UPath(folder) / "photometry")
        return ObservedPhotometry(UPath(folder) / "photometry")


def _is_finished(weights: Path, config: OjalaTraining) -> bool:
    try:
        training: dict[str, Any] = load(weights)[1].training
    except WeightsError:
        return False
    return (from_mapping(OjalaTraining, training["config"]), training["draws"]) == (
        config,
        config.steps * config.batch_size,
    )


def _figures(weights: Path) -> dict[str, Any]:
    model, info = load(weights)
    summary = {name: info.training[name] for name in ("draws", "seconds", "held_out")}
    size = sum(p.numel() for p in model.parameters())
    return {"parameters": size, "mflop_per_object": _flop(model) / 1e6} | summary


def _flop(model: Ojala) -> int:
    """Floating-point operations of a forward pass of one object; a multiply-add counts two."""
    one = np.ones((1, N_BANDS), np.float32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(tokenise(one, 0.1 * one, np.zeros(1, np.float32)))
    return int(counter.get_total_flops())


def _show(name: str, record: dict[str, object]) -> None:
    print(f"{name}: step {record['step']}, {record['seconds']} s", flush=True)


def table(results: dict[str, dict[str, Any]]) -> str:
    """Render the results as a Markdown table."""
    head = ["variant", "parameters", "MFLOP per object", "draws", "s", *(column[0] for column in COLUMNS)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, of in results.items():
        cells = [name, f"{of['parameters']:,}", f"{of['mflop_per_object']:.0f}", f"{of['draws']:,}"]
        cells += [f"{of['seconds']:.0f}"]
        cells += [format(of["held_out"].get(part, {}).get(m, np.nan), form) for _, part, m, form in COLUMNS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--library", type=Path, required=True, help="library of spectra")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings and the table")
    parser.add_argument("--draws", type=int, default=DRAWS, help="of each training")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME")
    options = parser.parse_args(arguments)
    settings = replace(
        SETTINGS,
        steps=max(1, options.draws // SETTINGS.batch_size),
        note=f"Library {file_sha256(options.library)}",
    )
    sky = load_sky(options.library)
    results = ablate(sky, HeldOutSky(sky), options.out, settings, options.only)
    write_whole(UPath(options.out / "ablation.json"), json.dumps(results, indent=1).encode())
    write_whole(UPath(options.out / "ablation.md"), f"{table(results)}\n".encode())
    print(table(results))


if __name__ == "__main__":
    main()
