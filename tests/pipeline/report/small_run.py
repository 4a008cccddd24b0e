"""A small run with known predictions: a patch of sky whose leaves and receipts are real files."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import healpy
import numpy as np
import pyarrow as pa
from upath import UPath

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.ojala import CLASSES, OJALA, Flag
from ojala.catalogs_schema.photometry import KEY_SHIFT, PHOTOMETRY
from ojala.catalogs_schema.receipt import REDSHIFT_EDGES, Attempt, Fingerprint, Leaf, Receipt, Summary
from ojala.pipeline.report import write_report
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.record import RunRecord, Status, run_folder
from ojala.pipeline.runs.resolved import ResolvedRun
from ojala.pipeline.storage.hats import SKYMAP_ORDER, finalise_catalogue
from ojala.pipeline.storage.healpix import Partition, pixel_at, spatial_index
from ojala.pipeline.storage.parquet import LeafRecord, write_leaf

ROWS = 1200
TILE = 9611

RUN_ID = "20261120T134500-1a2b3c"


def record_of(out: UPath, photometry: UPath, truth: UPath | None = None) -> RunRecord:
    """Record of the run in a collection."""
    config = RunConfig(
        photometry=str(photometry),
        out=str(out),
        truth=str(truth) if truth else None,
        engine="local",
        workers=2,
        batch_size=512,
        precision="fp32",
    )
    return RunRecord(
        run_id=RUN_ID,
        status=Status.COMPLETE,
        started="2026-11-20T13:45:00+00:00",
        ended="2026-11-20T13:45:20+00:00",
        config=config.to_record(),
        products=("ojala",),
        code_version="0.1.0+1a2b3c4d5e6f",
        packages={"numpy": "2.4.6", "torch": "2.13.0"},
        model="ojala 0.1.0",
        weights_sha256="9f" * 32,
        partitions=1,
        rows_in=ROWS,
    )


def report(out: UPath, photometry: UPath, receipts: list[Receipt], truth: UPath | None) -> UPath:
    """Write the report of the run in a collection, and return its folder."""
    record = record_of(out, photometry, truth)
    write_report(ResolvedRun.from_record(record), record, receipts, None)
    return run_folder(out, RUN_ID) / "report"


@dataclass(frozen=True)
class SmallRun:
    """Collection, folder and receipts of the run, and the true values of its objects."""

    out: UPath
    run: UPath
    photometry: UPath
    receipts: list[Receipt]
    truth: UPath
    true_class: np.ndarray
    class_given: np.ndarray
    true_z: np.ndarray
    z_given: np.ndarray


@dataclass(frozen=True)
class Reported:
    """What a report wrote."""

    text: str
    numbers: dict[str, Any]
    objects: str


def make_run(folder: Path) -> SmallRun:
    """Make the run in a folder."""
    rng = np.random.default_rng(4)
    ra = 245.5 + rng.uniform(-1.1, 1.1, ROWS) / np.cos(np.radians(43.9))
    dec = 43.9 + rng.uniform(-0.8, 0.8, ROWS)
    index = spatial_index(ra, dec)
    number = np.arange(1, ROWS + 1)
    magnitude = np.clip(23.5 - rng.exponential(1.5, ROWS), 15.0, None)
    code = rng.choice(3, ROWS, p=[0.62, 0.26, 0.12])
    true_class = np.array(CLASSES, dtype=object)[code]
    true_z = np.where(
        code == 0, rng.gamma(3.0, 0.15, ROWS), np.where(code == 2, rng.uniform(0.4, 3.8, ROWS), 0.0)
    )
    blur = 0.003 * 10 ** (0.25 * np.clip(magnitude - 19.0, 0.0, None))
    z = np.clip(true_z + rng.standard_t(3, ROWS) * blur * (1 + true_z), 0.0, 5.0)
    lost = rng.random(ROWS) < 0.04
    z = np.where(lost, rng.uniform(0.0, 2.0, ROWS), z)
    given = np.where(rng.random(ROWS) < 0.03 * (magnitude - 14), rng.choice(3, ROWS), code)
    sure = rng.uniform(0.55, 1.0, ROWS)
    probability = np.full((ROWS, 3), 0.0) + ((1.0 - sure) / 2.0)[:, None]
    probability[np.arange(ROWS), given] = sure
    class_given = np.array(CLASSES, dtype=object)[given]
    empty = number % 100 == 0
    class_given[empty] = "NONE"
    log_mass = np.where(code == 0, rng.normal(10.2, 0.7, ROWS), np.nan)

    keys = {
        "_healpix_29": index,
        "object_id": np.int64(TILE) << KEY_SHIFT | number,
        "tile_id": np.full(ROWS, TILE, dtype=np.int32),
        "number": number.astype(np.int32),
        "ra": ra,
        "dec": dec,
    }
    flux = 10 ** (-0.4 * (magnitude - 23.9))
    error = blur[:, None]
    flags = np.where(empty, int(Flag.NO_BANDS), np.where(sure < 0.7, int(Flag.CLASS_UNCERTAIN), 0)).astype(
        np.int32
    )
    predictions = keys | {
        "ojala_class": class_given,
        **{f"p_{name.lower()}": np.where(empty, np.nan, probability[:, i]) for i, name in enumerate(CLASSES)},
        "z": np.where(empty | (class_given == "STAR"), np.nan, z),
        "z_err": np.where(empty | (class_given == "STAR"), np.nan, blur * (1 + z)),
        **{
            name: np.where(empty | (class_given == "STAR"), np.nan, np.clip(z + k * blur * (1 + z), 0.0, 5.1))
            for name, k in (("z_q02", -2.4), ("z_q16", -1.2), ("z_q50", 0.0), ("z_q84", 1.2), ("z_q98", 2.4))
        },
        "z_odds": np.where(empty | (class_given == "STAR"), np.nan, np.exp(-10.0 * blur)),
        "z_gal": np.where(empty, np.nan, z),
        "z_gal_err": np.where(empty, np.nan, error[:, 0] * (1 + z)),
        "z_qso": np.where(empty, np.nan, z),
        "z_qso_err": np.where(empty, np.nan, error[:, 0] * (1 + z)),
        "log_mass": np.clip(log_mass + rng.normal(0.0, 0.15, ROWS), 4.5, 13.0),
        "log_mass_err": np.where(np.isfinite(log_mass), 0.15, np.nan),
        "bpt_class": np.full(ROWS, "NONE", dtype=object),
        "whan_class": np.full(ROWS, "NONE", dtype=object),
        "worst_band": np.full(ROWS, "NONE", dtype=object),
        "n_bands": np.where(empty, 0, 60).astype(np.int16),
        "ojala_flags": flags,
    }
    measured = keys | {
        "morph_type": np.full(ROWS, "NONE", dtype=object),
        **{band.flux_column: np.where(empty, np.nan, flux) for band in MODEL_BANDS},
    }
    out, photometry = UPath(folder / "out"), UPath(folder / "photometry")
    run = run_folder(out, RUN_ID)
    receipts, leaves = [], {}
    seen = rng.random(len(MODEL_BANDS)) * 0.4 + 0.6
    for pixel in np.unique(pixel_at(index, 6)):
        partition = Partition(6, int(pixel))
        members = np.flatnonzero(pixel_at(index, 6) == pixel)
        members = members[np.argsort(index[members])]
        source = write_leaf(
            photometry / partition.leaf, _table(measured, members, PHOTOMETRY), PHOTOMETRY, {}
        )
        leaves[partition] = LeafRecord(partition.leaf, source.rows, source.bytes, source.sha256)
        table = _table(predictions, members, OJALA)
        written = write_leaf(run / "ojala" / partition.leaf, table, OJALA, {})
        receipts.append(_receipt(partition, written, table, seen, len(receipts)))
    counts = np.bincount(pixel_at(index, SKYMAP_ORDER), minlength=healpy.order2npix(SKYMAP_ORDER))
    finalise_catalogue(photometry, PHOTOMETRY, leaves, name="photometry", skymap=counts)

    truth = UPath(folder / "truth.csv")
    with truth.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tile_id", "number", "class", "z", "sample", "log_mass", "plate"])
        for i in np.flatnonzero(number % 2 == 0):
            mass = f"{log_mass[i]:.4f}" if np.isfinite(log_mass[i]) else ""
            survey = "SDSS" if number[i] % 3 else "mock"
            writer.writerow([TILE, number[i], true_class[i], f"{true_z[i]:.6f}", survey, mass, 2663])
        writer.writerow([TILE, 9999, "STAR", "0.0", "SDSS", "", 2663])
    return SmallRun(
        out, run, photometry, receipts, truth, true_class, class_given, true_z, predictions["z_gal"]
    )


def failed(receipt: Receipt, error: str = "OSError: disk full") -> Receipt:
    """The same partition, had it failed."""
    attempt = Attempt(host="node-2", pid=7, started="2026-11-20T13:45:04+00:00", seconds=0.5, error=error)
    return receipt.model_copy(
        update={"status": "failed", "rows_out": 0, "leaves": [], "summary": None, "attempts": [attempt]}
    )


def _table(columns: dict[str, np.ndarray], members: np.ndarray, contract: Contract) -> pa.Table:
    """Some rows in a contract's columns; null where a number is NaN or a column is not given."""
    arrays = {}
    for column in contract:
        if column.name in columns:
            values = columns[column.name][members]
            arrays[column.name] = pa.array(values, column.type, from_pandas=True)
        else:
            arrays[column.name] = pa.nulls(len(members), column.type)
    return pa.table(arrays)


def _receipt(partition: Partition, written: LeafRecord, table: pa.Table, seen: np.ndarray, i: int) -> Receipt:
    words, flags = np.array(table["ojala_class"].to_pylist()), table["ojala_flags"].to_numpy()
    z = table["z"].to_numpy()
    expected = {n: float(np.nansum(table[f"p_{n.lower()}"].to_numpy(zero_copy_only=False))) for n in CLASSES}
    seconds = {"read": 0.05 + 0.01 * i, "predict": 0.002 * written.rows + 0.1, "derive": 0.03, "write": 0.09}
    return Receipt(
        partition=partition.name,
        status="done",
        key="0" * 64,
        ingredients=Fingerprint(
            input_sha256="1" * 64,
            weights_sha256="2" * 64,
            config_sha256="3" * 64,
            code_version="0.1.0",
            contract_version="1.0.0",
        ),
        model="ojala 0.1.0",
        rows_in=written.rows,
        rows_out=written.rows,
        leaves=[
            Leaf(product="ojala", path=partition.leaf, rows=written.rows, bytes=1, sha256=written.sha256)
        ],
        summary=Summary(
            classes={n if n != "NONE" else "none": int((words == n).sum()) for n in (*CLASSES, "NONE")},
            expected=expected,
            flagged=int((flags != 0).sum()),
            flags={flag.name or "": int(((flags & flag) != 0).sum()) for flag in Flag},
            redshifts={
                n: np.histogram(z[(words == n) & np.isfinite(z)], REDSHIFT_EDGES)[0].tolist()
                for n in ("GALAXY", "QSO")
            },
            bands=[int(written.rows * part) for part in seen],
        ),
        attempts=[
            Attempt(
                host="node-1",
                pid=4100 + i % 2,
                started="2026-11-20T13:45:03+00:00",
                seconds=sum(seconds.values()),
            )
        ],
        device="cpu",
        seconds=seconds,
        peak_rss=(700 + 40 * i) * 2**20,
    )
