"""Export of a run of the published OJALÁ as the file that its authors write.

Their script passes the columns of its input on and appends 53, nine of them a second time. Here the input is
the authors' table where it is given, else the columns of it that follow from the run's photometry.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.errors import OjalaError
from ojala.catalogs_schema.ojala import CLASSES
from ojala.catalogs_schema.ojala_published import PUBLISHED_ORDER
from ojala.catalogs_schema.photometry import KEY_SHIFT
from ojala.models.ojala_published.inputs import INPUTS, NARROW
from ojala.pipeline.inference.adapters.ojala_published import PublishedAdapter
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.record import RECORD, RunRecord, read_record, run_folder
from ojala.pipeline.runs.releases import pointers
from ojala.pipeline.storage.drafts import draft
from ojala.pipeline.storage.files import is_local
from ojala.pipeline.storage.hats import read_leaves

DROPPED = ("MASK_FLAGS_", "FLAGS_", "FLUX_APER_COR_6_0", "MAG_I")
"""Beginnings of names of input columns that the authors' script does not pass on."""

APERTURE = "APER_COR_3_0"
"""Aperture in the names of the ratios where they follow from the photometry."""

_KEYS = {"TILE_ID": "tile_id", "NUMBER": "number", "ALPHA_J2000": "ra", "DELTA_J2000": "dec"}
_ROWS = 10_000


class PublishedCsvError(OjalaError, ValueError):
    """A run that cannot be written as the published file."""


@dataclass(frozen=True, slots=True)
class PublishedCsv:
    """Outcome of an export.

    Attributes
    ----------
    run_id : str
        The run.
    rows, columns : int
        Size of the table.
    bytes : int
        Size of the file.
    """

    run_id: str
    rows: int
    columns: int
    bytes: int


def export_published(
    out: UPath, to: UPath, run_id: str | None = None, table: UPath | None = None
) -> PublishedCsv:
    """Write a run of the published OJALÁ as the authors' CSV.

    Parameters
    ----------
    out : UPath
        Collection.
    to : UPath
        File to write, on this machine; gzipped where its name ends in ``.gz``.
    run_id : str, optional
        Run of the collection; None for the published one.
    table : UPath, optional
        The authors' input table (CSV), whose columns are passed on as they are, in its order of rows. Without
        it the columns are the key, the position, the 60 inputs and ``AUTO_iSDSS`` of the run's photometry.

    Raises
    ------
    PublishedCsvError
        The collection has no such run, the file is there already, or an object of the table is not in the
        run.
    """
    if not is_local(to):
        raise PublishedCsvError(f"{to}: is not on this machine; name a file that is")
    if to.exists():
        raise PublishedCsvError(f"{to} exists: remove it or name another file")
    record, run = _find_run(out, run_id)
    rows = columns = 0
    opened: Any = gzip.open if to.suffix == ".gz" else open
    with draft(Path(to.path)) as path, opened(path, "wt", encoding="utf-8", newline="") as file:
        parts = _from_photometry(record, run) if table is None else _from_table(record, run, table)
        for part in parts:
            part.to_csv(file, index=False, header=not columns, lineterminator="\n")
            rows, columns = rows + len(part), part.shape[1]
    return PublishedCsv(run.name, rows, columns, to.stat().st_size)


def added_columns(product: pa.Table) -> pd.DataFrame:
    """The 53 columns of rows of the product, with the published types: P_* are in double precision."""
    columns = {name: product[name].to_numpy(zero_copy_only=False) for name in set(PUBLISHED_ORDER)}
    columns |= {f"P_{name}": columns[f"P_{name}"].astype(np.float64) for name in CLASSES}
    frame = pd.DataFrame({k: columns[name] for k, name in enumerate(PUBLISHED_ORDER)})
    frame.columns = pd.Index(PUBLISHED_ORDER)
    return frame


def _find_run(out: UPath, run_id: str | None) -> tuple[RunRecord, UPath]:
    if run_id is None:
        published = pointers(out)
        run_id = published.get(PublishedAdapter.main.name)
        if run_id is None:
            raise PublishedCsvError(
                f"{out} has no published run of {PublishedAdapter.main.name}: name a run with --run (`ojala "
                f"releases --out {out}` lists them), or make one with `ojala run --model "
                f"{PublishedAdapter.name}`"
            )
    run = run_folder(out, run_id)
    if not (run / RECORD).exists():
        raise PublishedCsvError(f"{out} has no run {run_id}: `ojala releases --out {out}` lists its runs")
    record = read_record(run)
    if not isinstance(record.adapter, PublishedAdapter):
        raise PublishedCsvError(
            f"{run} is a run of {record.adapter.name}, whose columns are not the published ones: name a run "
            f"of {PublishedAdapter.name}"
        )
    return record, run


def _read(path: UPath) -> pa.Table:
    with path.open("rb") as file:
        return pq.ParquetFile(file).read()


def _from_photometry(record: RunRecord, run: UPath) -> Iterator[pd.DataFrame]:
    """Rows of each leaf, with the authors' columns that follow from the photometry."""
    source = UPath(record.source)
    options = RunConfig.from_record(record.config).spec().chosen_options
    inputs = [f"{APERTURE}_{name}" if name in NARROW else name for name in INPUTS]
    for leaf in read_leaves(run / record.main):
        product, photometry = _read(run / record.main / leaf.leaf), _read(source / leaf.leaf)
        if not product["object_id"].equals(photometry["object_id"]):
            raise PublishedCsvError(
                f"{source / leaf.leaf}: its objects are not those of the run: give the table with --input"
            )
        values, kron = record.adapter.read_inputs(photometry).script_columns(options)
        frame = pd.DataFrame({name: product[ours].to_numpy() for name, ours in _KEYS.items()})
        passed = pd.concat([frame, pd.DataFrame(values, columns=inputs)], axis=1)
        yield pd.concat([passed.assign(AUTO_iSDSS=kron), added_columns(product)], axis=1)


def _from_table(record: RunRecord, run: UPath, table: UPath) -> Iterator[pd.DataFrame]:
    """Rows of the authors' table, some at a time, as text, so that what is passed on stays as it is."""
    leaves = read_leaves(run / record.main)
    product = pa.concat_tables([_read(run / record.main / leaf.leaf) for leaf in leaves])
    product = product.sort_by("object_id")
    there = product["object_id"].to_numpy()
    compression: Any = "gzip" if table.suffix == ".gz" else None
    first = 1
    with table.open("rb") as raw:
        reader = pd.read_csv(raw, dtype=str, keep_default_na=False, chunksize=_ROWS, compression=compression)
        for chunk in reader:
            key = _keys(table, chunk, first)
            place = np.searchsorted(there, key).clip(0, max(len(there) - 1, 0))
            lost = there[place] != key if len(there) else np.ones(len(key), bool)
            if lost.any():
                row = int(np.argmax(lost))
                raise PublishedCsvError(
                    f"{table}, row {first + row}: object ({chunk['TILE_ID'].iloc[row]}, "
                    f"{chunk['NUMBER'].iloc[row]}) is not in run {run.name}: ingest and run this table"
                )
            passed = chunk[[name for name in chunk.columns if not name.startswith(DROPPED)]]
            added = added_columns(product.take(pa.array(place)))
            yield pd.concat([passed.reset_index(drop=True), added], axis=1)
            first += len(chunk)


def _keys(table: UPath, chunk: pd.DataFrame, first: int) -> np.ndarray:
    """``object_id`` of the rows of the authors' table, the first of which is row ``first``."""
    if missing := {"TILE_ID", "NUMBER"} - set(chunk.columns):
        raise PublishedCsvError(f"{table}: column {min(missing)} is missing; it is part of the key")
    numbers = [pd.to_numeric(chunk[name], errors="coerce") for name in ("TILE_ID", "NUMBER")]
    strange = np.asarray(numbers[0].isna() | numbers[1].isna())
    if strange.any():
        row = first + int(np.argmax(strange))
        raise PublishedCsvError(f"{table}, row {row}: TILE_ID or NUMBER is no number: mend the table")
    tile, number = (column.to_numpy().astype(np.int64) for column in numbers)
    return np.asarray(tile << KEY_SHIFT | number)
