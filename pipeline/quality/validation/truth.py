"""True values of objects, from spectra or from the input of mocks, and their match with predictions."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.ojala import CLASSES, OJALA
from ojala.catalogs_schema.photometry import KEY_SHIFT
from ojala.catalogs_schema.redshift_pdfs import RedshiftPdfs
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.detect import open_table
from ojala.pipeline.ingest.formats.table import SourceColumn, TableSource, scale_to
from ojala.pipeline.ingest.jpas import parsing
from ojala.pipeline.ingest.jpas.flux_units import FAINTEST

LABELS: tuple[str, ...] = tuple(
    column.name
    for column in OJALA
    if f"{column.name}_err" in OJALA.names and column.name not in ("z", "z_gal", "z_qso")
)
"""Scalar quantities of the catalogue that a truth file may have, besides class and redshift."""


LUMINOSITY = "log_l_halpha_corr"
"""Label that follows from the others where a truth file has all of a galaxy's lines; see `samples`."""

REMARKS = ("sample", "survey", "subclass", "source")
"""Text columns of a truth file that are kept with the predictions. Each ``sample`` has measures of its own:
real objects and mocks should never be one number."""

Pdfs = dict[str, RedshiftPdfs]
"""Redshift PDFs by class, GALAXY and QSO."""

MAGNITUDE = "i_mag"
"""Column of a truth file with iSDSS magnitudes [AB], which then stand for the measured ones."""

LEAST_REDSHIFT = -0.1
"""A lower redshift is no star's velocity, but a number that stands for none."""

MOST_REDSHIFT = 20.0
"""A higher redshift than that of every object known is a number that stands for none, such as 99."""

UNKNOWN_REDSHIFTS = (9.99, 9.999, 9.9999)
"""Further redshifts that stand for none in catalogues of spectra."""

UNKNOWN_LABELS = (-99.0, -99.9, -99.99, -999.0, -999.9, -9999.0, -99999.0)
"""Values of labels, their errors and magnitudes that stand for none; so does a magnitude of 40 or more."""

LEFT_OUT = "left_out"
"""Column of a truth file that marks kinds of objects which were left out of the training on purpose."""


class TruthError(InputError):
    """A truth file that cannot be understood."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Known classes, redshifts and labels.

    Attributes
    ----------
    path : str
        Where they were read from.
    rows : pyarrow.Table
        ``object_id`` (int64, ascending, distinct), ``class`` (text; NONE where not known), ``z`` (float64;
        null where not known), those of `LABELS` that the file has and their errors (float64), those of
        `REMARKS` (text), `MAGNITUDE` (float64) and `LEFT_OUT` (bool).
    ignored : tuple of str
        Columns of the file that have no counterpart in the catalogue.
    """

    path: str
    rows: pa.Table
    ignored: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that are known."""
        return tuple(name for name in self.rows.column_names if name in LABELS)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The remarks that are there."""
        return tuple(name for name in REMARKS if name in self.rows.column_names)


@dataclass(frozen=True, slots=True)
class Matched:
    """Predictions and true values, row by row.

    Attributes
    ----------
    rows : pyarrow.Table
        Columns of the predictions, and those of the truth with the prefix ``true_``.
    labels, remarks : tuple of str
        The labels and the remarks that the truth has.
    truth_rows : int
        Rows of the truth.
    truth_unmatched : int
        Rows of the truth that the catalogue does not have.
    catalogue_unknown : int
        Rows of the catalogue that the truth does not have.
    pdf : dict of str to RedshiftPdfs, or None
        Redshift PDFs of each row by class, where the catalogue has them.
    """

    rows: pa.Table
    labels: tuple[str, ...]
    remarks: tuple[str, ...]
    truth_rows: int
    truth_unmatched: int
    catalogue_unknown: int
    pdf: Pdfs | None = None

    def only(self, chosen: np.ndarray) -> Matched:
        """The same with some of the rows, chosen by a mask of shape (N,)."""
        pdf = None if self.pdf is None else {name: pdf.take(chosen) for name, pdf in self.pdf.items()}
        return replace(self, rows=self.rows.filter(pa.array(chosen)), pdf=pdf)

    @property
    def magnitudes_from(self) -> Literal["truth", "photometry"]:
        """Where `i_mag` is from."""
        return "truth" if f"true_{MAGNITUDE}" in self.rows.column_names else "photometry"

    @property
    def i_mag(self) -> np.ndarray:
        """AB magnitude in iSDSS, NaN where not known, shape (N,)."""
        return self.numbers(f"true_{MAGNITUDE}" if self.magnitudes_from == "truth" else MAGNITUDE)

    @property
    def z_true(self) -> np.ndarray:
        """True redshift, 0 for stars, NaN where not known, shape (N,)."""
        return np.where(self.words("true_class") == "STAR", 0.0, self.numbers("true_z"))

    @property
    def left_out(self) -> np.ndarray | None:
        """Objects of a kind that was left out of training, shape (N,); None without such a column."""
        if f"true_{LEFT_OUT}" not in self.rows.column_names:
            return None
        return np.asarray(self.rows[f"true_{LEFT_OUT}"].to_numpy())

    def numbers(self, name: str) -> np.ndarray:
        """A numeric column as float64, NaN where null, shape (N,)."""
        return np.asarray(self.rows[name].cast(pa.float64()).fill_null(np.nan).to_numpy(), dtype=np.float64)

    def words(self, name: str) -> np.ndarray:
        """A text column, NONE where null, shape (N,)."""
        return np.asarray(self.rows[name].fill_null(NONE).to_pylist(), dtype=object)


def read_truth(path: UPath) -> Truth:
    """Read a file of known objects.

    Parameters
    ----------
    path : UPath
        Table in one of the formats `ojala.pipeline.ingest.formats.FORMATS` with ``object_id`` (or ``tile_id``
        and ``number``), ``class`` (one of the catalogue's, empty or NONE where not known), ``z`` (empty where
        not known), and any of `LABELS` (in the catalogue's units, or with a unit that converts to them) with
        their ``_err``, of `REMARKS`, `MAGNITUDE` and `LEFT_OUT` (true or false, or 1 or 0). Names are read
        without regard to case.

    Raises
    ------
    TruthError
        If it is malformed; names the file, the column and, where one is at fault, the first row.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch, open_table(path, UPath(scratch)) as source:
            return _truth(path, source)
    except SourceError as fault:
        raise TruthError(fault.in_file(path)) from fault
    except OSError as error:
        raise TruthError(f"{path} cannot be read: {error}") from error


def _truth(path: UPath, source: TableSource) -> Truth:
    columns = source.columns
    for name in ("class", "z"):
        if name not in columns:
            raise SourceError(
                "is missing; a truth file has object_id (or tile_id and number), class and z, this one has "
                f"{', '.join(column.name for column in columns.values())}",
                column=name,
            )
    key_names = ["object_id"] if "object_id" in columns else ["tile_id", "number"]
    for name in key_names:
        if name not in columns:
            raise SourceError("is missing; objects are named by tile_id and number", column=name)
    numeric = {"z", MAGNITUDE, *LABELS, *(f"{name}_err" for name in LABELS)}
    read = [name for name in columns if name in {*key_names, "class", *numeric, *REMARKS, LEFT_OUT}]
    cells = _cells(source, read)
    key = _key(key_names, cells, columns)
    order = np.argsort(key, kind="stable")
    twice = np.flatnonzero(np.diff(key[order]) == 0)
    if len(twice):
        first, second = sorted(order[twice[0] : twice[0] + 2])
        raise SourceError(
            f"rows {first + 1} and {second + 1} are the same object", column=" and ".join(key_names)
        )
    known: dict[str, pa.Array] = {"object_id": pa.array(key)}
    known["class"] = parsing.words(cells["class"], columns["class"].name, (NONE, *CLASSES)).fill_null(NONE)
    for name in read:
        if name in numeric:
            known[name] = _numbers(name, cells[name], columns[name])
        elif name in REMARKS:
            known[name] = _remarks(cells[name], columns[name].name)
        elif name == LEFT_OUT:
            known[name] = _marks(cells[name], columns[name].name)
    ignored = [column.name for name, column in columns.items() if name not in (*read, "tile_id", "number")]
    return Truth(str(path), pa.table(known).take(pa.array(order)), tuple(ignored))


def match_truth(truth: Truth, predictions: pa.Table, catalogue_rows: int, pdf: Pdfs | None = None) -> Matched:
    """Match predictions with true values by object.

    Parameters
    ----------
    truth : Truth
        The true values.
    predictions : pyarrow.Table
        Rows of the catalogue, with ``object_id``; rows that the truth does not know are left out.
    catalogue_rows : int
        Rows of the whole catalogue, of which `predictions` may be a part.
    pdf : dict of str to RedshiftPdfs, optional
        Redshift PDFs of each prediction by class.
    """
    known = truth.rows["object_id"].to_numpy()
    found = predictions["object_id"].to_numpy()
    place = np.searchsorted(known, found)
    hit = np.zeros(len(found), dtype=bool)
    inside = place < len(known)
    hit[inside] = known[place[inside]] == found[inside]
    rows = predictions.filter(pa.array(hit))
    true = truth.rows.take(pa.array(place[hit]))
    for name in true.column_names[1:]:
        rows = rows.append_column(f"true_{name}", true[name])
    predicted = len(np.unique(place[hit]))
    return Matched(
        rows=rows,
        labels=truth.labels,
        remarks=truth.remarks,
        truth_rows=len(known),
        truth_unmatched=len(known) - predicted,
        catalogue_unknown=catalogue_rows - int(hit.sum()),
        pdf=None if pdf is None else {name: part.take(hit) for name, part in pdf.items()},
    )


def _cells(source: TableSource, read: Sequence[str]) -> dict[str, pa.Array]:
    """All cells of the columns that are read."""
    batches = [batch for batch in source.batches(read) if batch.num_rows]
    if not batches:
        raise SourceError("has no rows")
    table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    return {name: pa.concat_arrays(table[name].chunks) for name in read}


def _key(
    names: Sequence[str], cells: Mapping[str, pa.Array], columns: Mapping[str, SourceColumn]
) -> np.ndarray:
    if names == ["object_id"]:
        return parsing.keys(cells["object_id"], columns["object_id"].name)
    tile, number = (
        parsing.whole_numbers(cells[name], columns[name].name, low=0, high=2**31 - 1, required=True).astype(
            np.int64
        )
        for name in names
    )
    return np.asarray(tile << KEY_SHIFT | number)


def _remarks(values: pa.Array, column: str) -> pa.Array:
    """Text, NONE where empty."""
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or values.null_count == len(values)):
        raise SourceError(f"holds {values.type}, expected text", column=column)
    words = values.cast(pa.string()).fill_null(NONE)
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(words), ""), NONE, words)


def _marks(values: pa.Array, column: str) -> pa.Array:
    """True or false; false where empty."""
    if pa.types.is_boolean(values.type):
        return pc.fill_null(values, False)
    if pa.types.is_integer(values.type):
        values = values.cast(pa.string())
    found = parsing.words(values, column, ("TRUE", "FALSE", "1", "0"))
    return pc.fill_null(pc.is_in(found, pa.array(["TRUE", "1"])), False)


def _numbers(name: str, values: pa.Array, column: SourceColumn) -> pa.Array:
    """Numbers in the catalogue's unit, null where not known.

    Raises
    ------
    SourceError
        If a cell is no number, or one that stands for none.
    """
    found = parsing.numbers(values, column.name)
    if name == "z":
        unknown = (found < LEAST_REDSHIFT) | (found > MOST_REDSHIFT) | np.isin(found, UNKNOWN_REDSHIFTS)
    else:
        unknown = np.isin(found, UNKNOWN_LABELS) | ((name == MAGNITUDE) & (found >= FAINTEST))
    unknown &= np.isfinite(found)
    if unknown.any():
        row = int(np.argmax(unknown))
        what = {"z": "redshift", MAGNITUDE: "magnitude"}.get(name, "value")
        raise SourceError(
            f"{found[row]:g} is no {what}; leave it empty where it is not known",
            row=row + 1,
            column=column.name,
        )
    scale = _scale(name, column)
    return pa.array(np.where(np.isfinite(found), found * scale, np.nan), pa.float64(), from_pandas=True)


def _scale(name: str, column: SourceColumn) -> float:
    if name == MAGNITUDE:
        return (
            1.0 if column.unit.strip().lower() in ("", "mag", "mag(ab)", "abmag") else scale_to(column, "mag")
        )
    unit = OJALA[name].unit if name in OJALA.names else ""
    # Logarithms have no unit in the catalogue; tables write dex, or dex of something.
    is_logarithm = not unit and column.unit.strip().lower().startswith(("dex", "log", "[-]"))
    return 1.0 if is_logarithm else scale_to(column, unit)
