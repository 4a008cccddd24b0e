"""Cells of a table as numbers: whole numbers, numbers and arrays of numbers, from text or typed columns.

Each function takes one Arrow column, gives float64 with NaN for what is missing, and raises a
:class:`SourceError` with the first row that it cannot understand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ojala.pipeline.ingest.errors import SourceError

MISSING_WORDS = pa.array(["", "null", "nan", "none", "n/a"])
"""Texts that stand for a missing value, in lower case."""

_SHOWN = 40


def numbers(values: pa.Array, column: str) -> np.ndarray:
    """Numbers, shape (N,), NaN where missing.

    Raises
    ------
    SourceError
        If a cell is no number.
    """
    found, fault = _numbers_before_fault(values, column)
    if fault is not None:
        raise fault
    return found


def whole_numbers(
    values: pa.Array, column: str, *, low: int, high: int, required: bool = False
) -> np.ndarray:
    """Whole numbers in ``low..high``, shape (N,), NaN where missing.

    Raises
    ------
    SourceError
        If a cell is no whole number, out of range or, where one is required, missing.
    """
    found, fault = _numbers_before_fault(values, column)
    missing = np.isnan(found)
    with np.errstate(invalid="ignore"):
        broken = ~missing & (found != np.floor(found))
        outside = ~missing & ~broken & ((found < low) | (found > high))
    problems = {"{} is no whole number": broken, f"{{}} is outside {low}..{high}": outside}
    _refuse(problems | ({"is missing": missing} if required else {}), column, values)
    if fault is not None:
        raise fault
    return found


def angles(values: pa.Array, column: str, *, low: float, high: float, scale: float = 1.0) -> np.ndarray:
    """Coordinates in ``low..high`` [deg], from numbers in units of `scale` degrees, shape (N,).

    Raises
    ------
    SourceError
        If a cell is missing, no finite number or outside the sky.
    """
    found, fault = _numbers_before_fault(values, column)
    found = found * scale if scale != 1.0 else found
    missing = np.isnan(found)
    outside = ~missing & ~((found >= low) & (found <= high))
    sky = f"{{}} is outside the sky ({low:g} to {high:g} deg)"
    _refuse({"is missing": missing, sky: outside}, column, values)
    if fault is not None:
        raise fault
    return found


def arrays(values: pa.Array, column: str, width: int) -> np.ndarray:
    """Arrays of `width` numbers, shape (N, width); a missing or empty array is all NaN.

    Text is split at white space.

    Raises
    ------
    SourceError
        If a cell holds another number of values, or something that is no number.
    """
    flat, lengths = _flattened(values, column, (width,))
    found = np.full((len(values), width), np.nan)
    found[lengths > 0] = flat.reshape(-1, width)
    return found


def pick(values: pa.Array, column: str, width: int, slot: int | None) -> np.ndarray:
    """The number at `slot` of arrays of `width`, or the number itself of single ones, shape (N,).

    Raises
    ------
    SourceError
        As :func:`arrays` does.
    """
    if not _is_text(values.type) and not _is_list(values.type):
        return numbers(values, column)
    flat, lengths = _flattened(values, column, (1, width))
    found = np.full(len(values), np.nan)
    wanted = lengths == 1 if slot is None else lengths > 0
    starts = np.cumsum(lengths) - lengths
    found[wanted] = flat[(starts + np.where(lengths == 1, 0, slot or 0))[wanted]]
    return found


def keys(values: pa.Array, column: str, *, low: int = 0) -> np.ndarray:
    """Integer keys from `low` to 2**63 - 1, exact, shape (N,).

    Raises
    ------
    SourceError
        If a cell is missing, no whole number or out of range, or a floating-point number of 2**53 or more,
        whose last digits may be lost.
    """
    if _is_text(values.type):
        values = _words(values)
        exact = pc.fill_null(pc.match_substring_regex(values, r"^[+-]?\d{1,37}$"), True)
        if pc.all(exact).as_py():
            found = values.cast(pa.decimal128(38, 0)) if len(values) else values
        else:
            found = pa.array(numbers(values, column), from_pandas=True)
    elif pa.types.is_null(values.type):
        found = values.cast(pa.int64())
    else:
        found = values
    if pa.types.is_floating(found.type):
        floats = numbers(found, column)
        broken = np.isfinite(floats) & (floats != np.floor(floats))
        missing, lost = np.isnan(floats), ~broken & (np.abs(floats) >= 2.0**53)
        rounded = "{} has lost its last digits: keys of 2**53 or more have to be written as whole numbers"
        outside = ~missing & (floats < low)
        problems = {"is missing": missing, "{} is no whole number": broken, rounded: lost}
        _refuse(problems | {f"{{}} is less than {low}": outside}, column, values)
        return floats.astype(np.int64)
    if not (pa.types.is_integer(found.type) or pa.types.is_decimal(found.type)):
        raise SourceError(f"holds {values.type}, expected whole numbers", column=column)
    missing = pc.is_null(found).to_numpy(zero_copy_only=False)
    bounds = pc.or_(pc.less(found, low), pc.greater(found, pa.scalar(2**63 - 1, pa.uint64())))
    outside = pc.fill_null(bounds, False).to_numpy(zero_copy_only=False)
    _refuse({"is missing": missing, f"{{}} is outside {low}..2**63 - 1": outside}, column, values)
    return np.asarray(found.cast(pa.int64()).to_numpy(zero_copy_only=False), np.int64)


def _flattened(values: pa.Array, column: str, widths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of a column of arrays one after the other, and how many each cell holds."""
    if _is_text(values.type):
        values = pc.ascii_split_whitespace(_without_brackets(_words(values)))
    elif pa.types.is_null(values.type):
        return np.empty(0), np.zeros(len(values), dtype=np.int64)
    elif not _is_list(values.type):
        raise SourceError(f"holds single values, expected arrays of {widths[-1]}", column=column)
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    wrong = (lengths > 0) & ~np.isin(lengths, widths)
    first_wrong = int(np.argmax(wrong)) if wrong.any() else len(values)
    try:
        # What stands before an array of the wrong length is looked at first.
        flat = numbers(pc.list_flatten(values[:first_wrong]), column)
    except SourceError as fault:
        if fault.row is None:
            raise
        ends = np.cumsum(lengths)
        row = int(np.searchsorted(ends, fault.row - 1, side="right"))
        place = fault.row - int(ends[row] - lengths[row])
        raise SourceError(f"value {place}: {fault.problem}", row=row + 1, column=column) from None
    if first_wrong < len(values):
        raise SourceError(
            f"holds {lengths[first_wrong]} values, expected {widths[-1]}, one per filter",
            row=first_wrong + 1,
            column=column,
        )
    return flat, lengths


def _without_brackets(texts: pa.Array) -> pa.Array:
    """Arrays as JSON writes them (``[1.0, null]``), divided by blanks like those of the archive."""
    first = next((text for text in texts[:1].to_pylist() if text is not None), "")
    if not first.startswith("["):
        return texts
    return pc.ascii_trim_whitespace(pc.replace_substring_regex(texts, r"[\[\],]", " "))


def words(values: pa.Array, column: str, allowed: Sequence[str]) -> pa.Array:
    """Words out of those allowed, in upper case; null where missing.

    Raises
    ------
    SourceError
        If a cell holds another word.
    """
    if pa.types.is_null(values.type):
        return values.cast(pa.string())
    if not _is_text(values.type):
        raise SourceError(f"holds {values.type}, expected text", column=column)
    trimmed = _words(values)
    found = pc.ascii_upper(trimmed)
    strange = pc.and_(pc.is_valid(found), pc.invert(pc.is_in(found, pa.array(allowed))))
    problem = f"{{}} is none of {', '.join(allowed)}"
    _refuse({problem: strange.to_numpy(zero_copy_only=False)}, column, trimmed)
    return found


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary)
    return any(test(kind) for test in (*tests, pa.types.is_large_binary))


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _words(values: pa.Array) -> pa.Array:
    # Not checked for UTF-8: a byte that is no text makes a cell that is no number, and is reported so.
    plain = values.cast(pa.binary(), safe=False) if not pa.types.is_string(values.type) else values
    trimmed = pc.ascii_trim_whitespace(plain.cast(pa.string(), safe=False))
    missing = pc.is_in(pc.ascii_lower(trimmed), MISSING_WORDS)
    return pc.if_else(missing, pa.scalar(None, pa.string()), trimmed)


def _numbers_before_fault(values: pa.Array, column: str) -> tuple[np.ndarray, SourceError | None]:
    """Numbers up to the first text that is none, and the fault that this text is."""
    fault = None
    if _is_text(values.type):
        texts = _words(values)
        row = _first_unreadable(texts)
        if row is not None:
            fault = SourceError(f"{_shown(texts[row])} is no number", row=row + 1, column=column)
        values = texts[:row].cast(pa.float64())
    elif pa.types.is_null(values.type):
        values = values.cast(pa.float64())
    elif not (
        pa.types.is_integer(values.type)
        or pa.types.is_floating(values.type)
        or pa.types.is_decimal(values.type)
    ):
        raise SourceError(f"holds {values.type}, expected numbers", column=column)
    if values.type != pa.float64():
        values = values.cast(pa.float64(), safe=False)
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64), fault


def _first_unreadable(texts: pa.Array) -> int | None:
    """Place of the first text that is no number, found by halving; None where all are numbers."""

    def readable(first: int, last: int) -> bool:
        try:
            texts[first:last].cast(pa.float64())
        except pa.ArrowInvalid:
            return False
        return True

    first, last = 0, len(texts)
    if readable(first, last):
        return None
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (middle, last) if readable(first, middle) else (first, middle)
    return first


def _refuse(problems: Mapping[str, np.ndarray], column: str, values: pa.Array) -> None:
    """Raise for the first row that has any of the problems."""
    rows = {int(np.argmax(bad)): problem for problem, bad in problems.items() if bad.any()}
    if rows:
        row = min(rows)
        raise SourceError(rows[row].replace("{}", _shown(values[row])), row=row + 1, column=column)


def _shown(cell: pa.Scalar) -> str:
    try:
        text = repr(cell.as_py())
    except UnicodeDecodeError:
        text = repr(bytes(cell.as_buffer()))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
