"""True values of objects, from spectra or from the input of mocks, and their match with predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.ojala import CLASSES, OJALA
from ojala.catalogs_schema.photometry import KEY_SHIFT
from ojala.catalogs_schema.redshift_pdfs import RedshiftPdfs

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
    truth_unanswered : int
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
    truth_unanswered: int
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
        Parquet or CSV with ``object_id`` (or ``tile_id`` and ``number``), ``class`` (one of the catalogue's,
        empty or NONE where not known), ``z`` (empty where not known), and any of `LABELS` (in the catalogue's
        units) with their ``_err``, of `REMARKS`, `MAGNITUDE` and `LEFT_OUT` (true or false, or 1 or 0).

    Raises
    ------
    TruthError
        If it is malformed; names the file, the column and, where one is at fault, the first row.
    """
    table = _read_table(path)
    doubled = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if doubled:
        raise TruthError(f"{path}: column {doubled[0]} stands there twice")
    for name in ("class", "z"):
        if name not in table.column_names:
            raise TruthError(
                f"{path}: column {name} is missing; a truth file has object_id (or tile_id and number), "
                f"class and z, this one has {', '.join(table.column_names) or 'no columns'}"
            )
    key, key_names = _key(path, table)
    order = np.argsort(key, kind="stable")
    twice = np.flatnonzero(np.diff(key[order]) == 0)
    if len(twice):
        first, second = sorted(order[twice[0] : twice[0] + 2])
        where = " and ".join(key_names)
        raise TruthError(f"{path}: column {where}: rows {first + 1} and {second + 1} are the same object")
    known = {"object_id": pa.array(key), "class": _classes(path, table["class"])}
    numeric = {"z", MAGNITUDE, *LABELS, *(f"{name}_err" for name in LABELS)}
    known |= {name: _numbers(path, name, table[name]) for name in table.column_names if name in numeric}
    strange = pc.fill_null(pc.less(known["z"], LEAST_REDSHIFT), False)
    if pc.any(strange).as_py():
        row = _first(strange)
        raise TruthError(
            f"{path}: column z, row {row}: {known['z'][row - 1].as_py():g} is no redshift; leave it empty "
            "where it is not known"
        )
    known |= {name: _remarks(path, name, table[name]) for name in table.column_names if name in REMARKS}
    if LEFT_OUT in table.column_names:
        known[LEFT_OUT] = _marks(path, LEFT_OUT, table[LEFT_OUT])
    ignored = [name for name in table.column_names if name not in (*known, "tile_id", "number")]
    return Truth(str(path), pa.table(known).take(pa.array(order)), tuple(ignored))


def match_truth(truth: Truth, answers: pa.Table, catalogue_rows: int, pdf: Pdfs | None = None) -> Matched:
    """Match predictions with true values by object.

    Parameters
    ----------
    truth : Truth
        What is known.
    answers : pyarrow.Table
        Rows of the catalogue, with ``object_id``; rows that the truth does not know are left out.
    catalogue_rows : int
        Rows of the whole catalogue, of which `answers` may be a part.
    pdf : dict of str to RedshiftPdfs, optional
        Redshift PDFs of each answer by class.
    """
    known = truth.rows["object_id"].to_numpy()
    found = answers["object_id"].to_numpy()
    place = np.searchsorted(known, found)
    hit = np.zeros(len(found), dtype=bool)
    inside = place < len(known)
    hit[inside] = known[place[inside]] == found[inside]
    rows = answers.filter(pa.array(hit))
    true = truth.rows.take(pa.array(place[hit]))
    for name in true.column_names[1:]:
        rows = rows.append_column(f"true_{name}", true[name])
    answered = len(np.unique(place[hit]))
    return Matched(
        rows=rows,
        labels=truth.labels,
        remarks=truth.remarks,
        truth_rows=len(known),
        truth_unanswered=len(known) - answered,
        catalogue_unknown=catalogue_rows - int(hit.sum()),
        pdf=None if pdf is None else {name: part.take(hit) for name, part in pdf.items()},
    )


def _read_table(path: UPath) -> pa.Table:
    try:
        with path.open("rb") as file:
            if path.suffix == ".parquet":
                return pq.read_table(file)
            if path.suffix == ".csv":
                return pyarrow.csv.read_csv(file)
    except FileNotFoundError:
        raise TruthError(f"{path}: there is no such file") from None
    except pa.ArrowInvalid as error:
        raise TruthError(f"{path}: cannot be read: {error}") from error
    raise TruthError(f"{path}: a truth file is .parquet or .csv")


def _key(path: UPath, table: pa.Table) -> tuple[np.ndarray, list[str]]:
    if "object_id" in table.column_names:
        return _integers(path, "object_id", table["object_id"]), ["object_id"]
    for name in ("tile_id", "number"):
        if name not in table.column_names:
            raise TruthError(f"{path}: column {name} is missing; objects are named by tile_id and number")
    tile = _integers(path, "tile_id", table["tile_id"])
    number = _integers(path, "number", table["number"])
    return tile << KEY_SHIFT | number, ["tile_id", "number"]


def _integers(path: UPath, name: str, values: pa.ChunkedArray) -> np.ndarray:
    if not pa.types.is_integer(values.type):
        raise TruthError(f"{path}: column {name} holds {values.type}, expected whole numbers")
    if values.null_count:
        raise TruthError(f"{path}: column {name}, row {_first(pc.is_null(values))}: is empty")
    return np.asarray(values.cast(pa.int64()).to_numpy())


def _remarks(path: UPath, name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text, NONE where empty."""
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type) or _is_empty(values)):
        raise TruthError(f"{path}: column {name} holds {values.type}, expected text")
    words = values.cast(pa.string()).fill_null(NONE)
    return pc.if_else(pc.equal(words, ""), NONE, words)


def _classes(path: UPath, values: pa.ChunkedArray) -> pa.ChunkedArray:
    words = _remarks(path, "class", values)
    strange = pc.invert(pc.is_in(words, pa.array([NONE, *CLASSES])))
    if pc.any(strange).as_py():
        row = _first(strange)
        raise TruthError(
            f"{path}: column class, row {row}: {words[row - 1].as_py()!r} is none of "
            f"{', '.join(CLASSES)} or {NONE}"
        )
    return words


def _marks(path: UPath, name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """True or false; false where empty."""
    kind = values.type
    if pa.types.is_integer(kind):
        strange = pc.fill_null(pc.invert(pc.is_in(values, pa.array([0, 1], kind))), False)
        if pc.any(strange).as_py():
            row = _first(strange)
            raise TruthError(
                f"{path}: column {name}, row {row}: {values[row - 1].as_py()} is neither 0 nor 1"
            )
    elif not (pa.types.is_boolean(kind) or _is_empty(values)):
        raise TruthError(f"{path}: column {name} holds {kind}, expected true or false{_example(values)}")
    return pc.fill_null(values.cast(pa.bool_()), False)


def _numbers(path: UPath, name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or _is_empty(values)):
        raise TruthError(f"{path}: column {name} holds {kind}, expected numbers{_example(values)}")
    numbers = values.cast(pa.float64())
    return pc.if_else(pc.is_finite(numbers), numbers, pa.scalar(None, pa.float64()))


def _is_empty(values: pa.ChunkedArray) -> bool:
    return int(values.null_count) == len(values)


def _example(values: pa.ChunkedArray) -> str:
    """The first text that is no number, with its row, for the message of an error."""
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return ""
    for row, word in enumerate(values.to_pylist()):
        try:
            float(word or "nan")
        except ValueError:
            return f"; row {row + 1} is {word!r}"
    return ""


def _first(mask: pa.ChunkedArray) -> int:
    """Number of the first true row, counted from 1 as a reader of the file counts."""
    return int(pc.index(mask, pa.scalar(True)).as_py()) + 1
