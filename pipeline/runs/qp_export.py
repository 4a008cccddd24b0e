"""Redshift PDFs of a run as a qp ensemble, the form in which photometric-redshift tools exchange them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.errors import OjalaError
from ojala.catalogs_schema.ojala import MIN_CLASS_PROBABILITY, OJALA, OJALA_VECTORS, PDF_BINS, PDF_COLUMNS
from ojala.catalogs_schema.redshift_pdfs import Z_EDGES, RedshiftPdfs
from ojala.pipeline.runs.record import RECORD, run_folder
from ojala.pipeline.runs.releases import pointers
from ojala.pipeline.storage.drafts import draft
from ojala.pipeline.storage.files import is_local
from ojala.pipeline.storage.hats import CatalogueError, read_leaves
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.progress import counted

WhichPdf = Literal["galaxy", "quasar", "best"]

DEFAULT_LIMIT = 1_000_000
"""PDFs that are written unless more are asked for: qp reads them all into memory, 14.6 kB each."""

_ROWS = 2048  # PDFs that are made dense and written at a time: 30 MB
_KEYS = ["object_id", "tile_id", "number", "ra", "dec"]
_PROBABILITY = {"GALAXY": "p_galaxy", "QSO": "p_qso"}


class ExportError(OjalaError, ValueError):
    """PDFs that cannot be exported."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Outcome of an export.

    Attributes
    ----------
    run_id : str
        The run whose PDFs they are.
    rows : int
        PDFs in the file.
    without : int
        Rows of the run that have no such PDF: stars, and objects that are hardly of the class.
    bytes : int
        Size of the file.
    """

    run_id: str
    rows: int
    without: int
    bytes: int


def export_qp(
    out: UPath, to: UPath, run_id: str | None = None, which: WhichPdf = "best", limit: int = DEFAULT_LIMIT
) -> Exported:
    """Write the redshift PDFs of a run as a ``qp`` ensemble of histograms, which ``qp.read`` opens.

    The bins are those of the vectors (1,825 of width 0.001 in ln(1 + z)) with their edges in z; the densities
    are per unit z and integrate to 1. The ancillary table has ``object_id, tile_id, number, ra, dec``,
    ``pdf_class`` (of which class the PDF is) and ``p_class``, the object's probability of that class. Rows
    are written as they are read, so that memory is bounded by a partition.

    Parameters
    ----------
    out : UPath
        Collection.
    to : UPath
        File to write, on this machine; its name ends in ``.hdf5``.
    run_id : str, optional
        Run of the collection; None for the published one.
    which : str
        ``galaxy`` and ``quasar``: p(z) under the assumption of the class, of all rows in which it has a
        probability of 0.01 or more; ``best``: that of the most probable class, without stars.
    limit : int
        More PDFs than this are refused.

    Raises
    ------
    ExportError
        qp is not installed, the run has no such PDFs or too many, or the file is there already.
    CatalogueError
        The run is not finished.
    """
    if find_spec("qp") is None:
        raise ExportError("qp is not installed: pip install '.[qp]' in a checkout of ojala")
    if not is_local(to) or to.suffix != ".hdf5":
        raise ExportError(f"{to}: qp reads files of this machine whose names end in .hdf5: name one")
    if to.exists():
        raise ExportError(f"{to} exists: remove it or name another file")
    run = _run(out, run_id)
    leaves = read_leaves(run / OJALA.name)
    counts = [
        int(_chosen(_read(run, OJALA.name, leaf, _MAIN), which)[0].sum())
        for leaf in counted(leaves, "partitions counted")
    ]
    rows, total = sum(counts), sum(leaf.rows for leaf in leaves.values())
    if rows == 0:
        raise ExportError(f"{run}: none of its {total:,} rows has a PDF of {which}")
    if rows > limit:
        raise ExportError(
            f"{run} has {rows:,} PDFs of {which}, more than {limit:,}; qp reads them all into memory, "
            f"{rows * PDF_BINS * 8 / 1e9:,.1f} GB: choose another --class, or raise --limit"
        )
    with draft(Path(to.path)) as path:
        _write(path, _parts(run, leaves, which), rows)
    return Exported(run.name, rows, total - rows, to.stat().st_size)


_MAIN = [*_KEYS, OJALA.name_of("class"), *_PROBABILITY.values()]


def _run(out: UPath, run_id: str | None) -> UPath:
    """Folder of the run, which has vectors."""
    if run_id is None:
        run_id = pointers(out).get(OJALA.name)
        if run_id is None:
            raise ExportError(
                f"{out} has no published run of {OJALA.name}: name one with --run (`ojala releases`)"
            )
    run = run_folder(out, run_id)
    if not (run / RECORD).exists():
        raise ExportError(f"{out} has no run {run_id}: `ojala releases --out {out}` lists its runs")
    if not (run / OJALA_VECTORS.name / "hats.properties").exists():
        raise ExportError(f"{run} has no redshift PDFs: run again with --vectors")
    return run


def _read(run: UPath, product: str, leaf: Partition, columns: list[str]) -> pa.Table:
    path = run / product / leaf.leaf
    with path.open("rb") as file:
        parquet = pq.ParquetFile(file)
        common = {theirs: ours for ours, theirs in OJALA.column_names.items()}
        names = parquet.schema_arrow.names
        stored = [name if name in names else common.get(name, name) for name in columns]
        if missing := set(stored) - set(names):
            raise ExportError(
                f"{path} has no column {min(missing)}: it is of an older contract; run again with --vectors"
            )
        return parquet.read(columns=stored).rename_columns(columns)


def _chosen(main: pa.Table, which: WhichPdf) -> tuple[np.ndarray, np.ndarray]:
    """Rows (N,) whose PDF is wanted, and the class (N,) of which it is."""
    if which == "best":
        words = np.asarray(main[OJALA.name_of("class")].to_pylist(), dtype=object)
        return np.isin(words, list(PDF_COLUMNS)), words
    objects = {"galaxy": "GALAXY", "quasar": "QSO"}[which]
    probability = main[_PROBABILITY[objects]].to_numpy(zero_copy_only=False).astype(np.float64)
    return probability >= MIN_CLASS_PROBABILITY, np.full(len(probability), objects, dtype=object)


def _parts(
    run: UPath, leaves: Iterable[Partition], which: WhichPdf
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Ancillary columns and densities in z of some rows at a time, in the order of the leaves."""
    columns = ["object_id", *(part for name in PDF_COLUMNS.values() for part in (name, f"{name}_bin"))]
    for leaf in counted(leaves, "partitions written"):
        main = _read(run, OJALA.name, leaf, _MAIN)
        vectors = _read(run, OJALA_VECTORS.name, leaf, columns)
        if not vectors["object_id"].equals(main["object_id"]):
            raise CatalogueError(
                f"{run / OJALA_VECTORS.name / leaf.leaf}: its rows are not those of the catalogue"
            )
        pdfs = {objects: RedshiftPdfs.from_table(vectors, name) for objects, name in PDF_COLUMNS.items()}
        chosen, words = _chosen(main, which)
        place = np.flatnonzero(chosen)
        for start in range(0, len(place), _ROWS):
            rows = place[start : start + _ROWS]
            table, density = main.take(pa.array(rows)), np.empty((len(rows), PDF_BINS))
            keys = {name: table[name].to_numpy() for name in _KEYS}
            keys["pdf_class"] = words[rows].astype("S6")
            keys["p_class"] = np.empty(len(rows), np.float32)
            for objects, pdf in pdfs.items():
                own = words[rows] == objects
                density[own] = pdf.take(rows[own]).density()
                keys["p_class"][own] = table[_PROBABILITY[objects]].to_numpy(zero_copy_only=False)[own]
            if (density.sum(axis=1) == 0).any():
                path = run / OJALA_VECTORS.name / leaf.leaf
                raise CatalogueError(f"{path}: it lacks the PDF of a row: verify the collection")
            yield keys, density


def _write(path: Path, parts: Iterator[tuple[dict[str, np.ndarray], np.ndarray]], rows: int) -> None:
    """The groups of qp's HDF5 files: ``meta``, ``data`` and ``ancil``, filled part by part and compressed."""
    import h5py
    import qp

    with h5py.File(path, "w") as file:
        example = qp.Ensemble(qp.hist, {"bins": Z_EDGES, "pdfs": np.ones((1, PDF_BINS))})
        for name, value in example.build_tables(encode=True, ext="hdf5")["meta"].items():
            file.create_dataset(f"meta/{name}", data=value)
        settings = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        pdfs = file.create_dataset(
            "data/pdfs", (rows, PDF_BINS), np.float64, chunks=(min(rows, 64), PDF_BINS), **settings
        )
        start = 0
        for keys, density in parts:
            end = start + len(density)
            pdfs[start:end] = density
            for name, values in keys.items():
                column = file.require_dataset(f"ancil/{name}", (rows,), values.dtype)
                column[start:end] = values
            start = end
