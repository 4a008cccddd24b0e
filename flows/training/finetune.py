"""Fine-tuning of a head on the frozen network from labels and a TOML file; writes the head and its card.

settings = Path("flows/training/configs/finetune_log_mbh.toml")
head = finetune(settings, weights=..., out=..., labels=mock_labels(load_sky(...)))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from astropy.cosmology import Planck18
from upath import UPath

from ojala.catalogs_schema.bands import MODEL_BANDS, REFERENCE_BAND
from ojala.catalogs_schema.errors import InputError
from ojala.models.data import LabelledPhotometry
from ojala.models.evaluation.card import render
from ojala.models.ojala.checkpoint import WeightsInfo, load
from ojala.models.ojala.heads import (
    FineTuning,
    Head,
    correct_errors,
    fit_head,
    head_measures,
    load_head,
    save_head,
)
from ojala.models.ojala.network import Ojala
from ojala.models.ojala.outputs import embed
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.quantities import CLASSES, Transform
from ojala.models.simulation.skies.photometric import MockSky
from ojala.pipeline.inference.photometry import read_photometry
from ojala.pipeline.storage.files import write_whole
from ojala.pipeline.storage.hats import current_release, read_leaves

HELD_OUT = 0.2
"""Held-out objects, as a fraction of the training objects (mocks) or of all objects (a table).

Half of them calibrate the errors of the head, the others measure it.
"""

BASELINE_ROWS = 4000
"""Largest number of objects for the baseline, which needs a full prediction of each."""

_REFERENCE = [band.name for band in MODEL_BANDS].index(REFERENCE_BAND)


@dataclass(frozen=True, slots=True)
class Labels:
    """Labelled photometry for training and for testing."""

    train: LabelledPhotometry
    test: LabelledPhotometry


def mock_labels(sky: MockSky, tuning: FineTuning) -> Labels:
    """Draw mock objects of the quantity's class; test objects are from held-out members.

    Raises
    ------
    InputError
        The library's objects have no such label.
    """
    galaxy, star, quasar = (float(name == tuning.object_class) for name in CLASSES)
    train, test = (
        sky.draw(n, np.random.default_rng([tuning.seed, k]), shares=(galaxy, star, quasar), held_out=bool(k))
        for k, n in enumerate((tuning.draws, max(int(HELD_OUT * tuning.draws), 1)))
    )
    if tuning.name not in train.labels or not np.isfinite(train.labels[tuning.name]).any():
        raise InputError(
            f"the library's objects of class {tuning.object_class} have no {tuning.name}: make the library "
            "again, or give a photometry catalogue and a truth file with that column"
        )
    return Labels(train, test)


def table_labels(photometry: UPath, truth: Path, tuning: FineTuning) -> Labels:
    """Read the rows of a photometry catalogue with labels in a truth file; a fifth are test objects.

    Parameters
    ----------
    photometry : UPath
        Made by `ojala ingest`; its current release is read.
    truth : Path
        Parquet or CSV with ``tile_id``, ``number``, the quantity and, if known, its ``_err``.
    tuning : FineTuning
        Settings with the quantity and the seed of the split.

    Raises
    ------
    InputError
        A column is missing, or no row of the catalogue has a label.
    """
    try:
        source = pq.read_table(truth) if truth.suffix == ".parquet" else pyarrow.csv.read_csv(truth)
    except pa.ArrowInvalid as error:
        raise InputError(f"{truth}: no Parquet or CSV table that can be read ({error})") from error
    if missing := [name for name in ("tile_id", "number", tuning.name) if name not in source.column_names]:
        raise InputError(f"{truth}: no column {', '.join(missing)}; it has {', '.join(source.column_names)}")
    wanted = [name for name in (tuning.name, f"{tuning.name}_err") if name in source.column_names]
    key = np.stack([source[name].to_numpy() for name in ("tile_id", "number")], axis=1).astype(np.int64)
    row_of = {(tile, number): row for row, (tile, number) in enumerate(key.tolist())}
    tables, rows = list[pa.Table](), list[int]()
    photometry = current_release(photometry)
    for partition in read_leaves(photometry):
        with (photometry / partition.leaf).open("rb") as file:
            table = pq.read_table(file)
        pairs = zip(table["tile_id"].to_pylist(), table["number"].to_pylist(), strict=True)
        matched = [row_of.get(pair, -1) for pair in pairs]
        tables.append(table.filter(pa.array([row >= 0 for row in matched])))
        rows += [row for row in matched if row >= 0]
    if not rows:
        raise InputError(f"{truth}: none of its objects is in {photometry}; the key is tile_id and number")
    inputs = read_photometry(pa.concat_tables(tables))
    labels = {name: source[name].to_numpy(zero_copy_only=False)[rows].astype(np.float32) for name in wanted}
    code = np.full(len(rows), CLASSES.index(tuning.object_class), np.int64)
    objects = LabelledPhotometry(inputs.flux, inputs.error, inputs.ebv, code, labels)
    held_out = np.random.default_rng(tuning.seed).random(len(rows)) < HELD_OUT
    return Labels(objects.rows(~held_out), objects.rows(held_out))


def finetune(
    tuning: FineTuning,
    labels: Labels,
    *,
    weights: Path,
    out: Path,
    report: Callable[[dict[str, float]], None] = lambda record: None,
) -> Head:
    """Train a head on the frozen network and write it with its card.

    Parameters
    ----------
    tuning : FineTuning
        Settings.
    labels : Labels
        From `mock_labels` or `table_labels`.
    weights : Path
        Weights of the network.
    out : Path
        File for the head (safetensors); its card has the same name with ``.md``. A head of a catalogue's
        quantity in ``<weights>-<name>.safetensors`` next to the weights is always used with them; other heads
        are given to a run.
    report : callable
        Receives the mean loss of each epoch.

    Returns
    -------
    Head
        Head as stored.
    """
    model, info = load(weights)
    name = tuning.name
    unknown = np.full(len(labels.train), np.nan, np.float32)
    head = fit_head(
        embed(model, labels.train).embedding,
        labels.train.labels[name],
        labels.train.labels.get(f"{name}_err", unknown),
        tuning,
        info.sha256,
        report,
    )
    embedding, value = embed(model, labels.test).embedding, labels.test.labels[name]
    half = len(value) // 2
    correct_errors(head, embedding[:half], value[:half])
    baseline = _from_luminosity(model, info, tuning, labels)
    measures = head_measures(head, embedding[half:], value[half:], baseline[half:])
    head = replace(head, measures=measures)
    save_head(out, head)
    head = load_head(out, info.sha256)
    write_whole(UPath(out.with_suffix(".md")), head_card(head, info).encode())
    return head


def _from_luminosity(model: Ojala, info: WeightsInfo, tuning: FineTuning, labels: Labels) -> np.ndarray:
    """Baseline for ``labels.test``: a straight line in the log of the luminosity in iSDSS.

    Redshifts are those of the network; for stars the line is in the log of the flux.
    """
    predictor = OjalaPredictor(model, info, device="cpu", precision="fp32", batch_size=128)

    def log_luminosity(objects: LabelledPhotometry) -> np.ndarray:
        log_flux = np.log10(np.maximum(np.nan_to_num(objects.flux[:, _REFERENCE], nan=0.0), 1e-3))
        if tuning.object_class == "STAR":
            return np.asarray(log_flux)
        predictions = predictor.predict(objects.flux, objects.error, objects.ebv)
        z = np.maximum(predictions["z_qso" if tuning.object_class == "QSO" else "z_gal"], 1e-3)
        return np.asarray(log_flux + 2.0 * np.log10(Planck18.luminosity_distance(z).to_value("Mpc")))

    few = labels.train.rows(slice(BASELINE_ROWS))
    log10 = Transform(tuning.transform) is Transform.LOG10
    value = np.log10(few.labels[tuning.name]) if log10 else few.labels[tuning.name]
    known = np.isfinite(value)
    line = np.polynomial.Polynomial.fit(log_luminosity(few)[known], value[known].astype(np.float64), 1)
    predicted = line(log_luminosity(labels.test))
    return np.asarray(10.0**predicted if log10 else predicted)


def head_card(head: Head, info: WeightsInfo) -> str:
    """Render the card of a head as Markdown."""
    return render(
        "ojala/head.md.j2",
        name=info.name,
        version=info.version,
        tuning=head.tuning,
        base_sha256=head.base_sha256,
        measures=head.measures,
    )
