"""Cells as numbers, from every type that a column of a file can have."""

import numpy as np
import pyarrow as pa
import pytest

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.jpas import parsing


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None, 3], pa.int16()),
        pa.array([1, None, 3], pa.uint64()),
        pa.array([1.0, np.nan, 3.0], pa.float32()),
        pa.array([1, None, 3], pa.decimal128(5, 2)),
        pa.array(["1", "", "3"]),
        pa.array([" 1.0 ", "null", "3e0"], pa.large_string()),
        pa.array(["1", "NaN", "3"], pa.string_view()),
        pa.array([b"1", b"N/A", b"3"]),
        pa.array(["1", None, "3"]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_numbers_of_any_type_are_read(column):
    np.testing.assert_array_equal(parsing.numbers(column, "x"), [1.0, np.nan, 3.0])


@pytest.mark.parametrize("word", ["x", "1 2", "0x10", "1_000", "1,5", "--", "\u0661"])
def test_text_that_is_no_number_is_named_with_its_row(word):
    texts = ["1"] * 5000
    texts[3210] = word
    texts[4321] = "later"
    with pytest.raises(SourceError, match=r"^row 3211, column x: .* is no number$"):
        parsing.numbers(pa.array(texts), "x")


def test_bytes_that_are_no_text_are_no_number():
    with pytest.raises(SourceError, match=r"row 2, column x: b'\\xff' is no number"):
        parsing.numbers(pa.array([b"1", b"\xff"]), "x")


@pytest.mark.parametrize("kind", [pa.bool_(), pa.timestamp("s"), pa.struct([("a", pa.int32())])])
def test_columns_that_hold_no_numbers_are_refused(kind):
    with pytest.raises(SourceError, match=r"column x: holds .* expected numbers"):
        parsing.numbers(pa.nulls(2, kind), "x")


def test_whole_numbers_keep_to_their_range():
    assert parsing.whole_numbers(pa.array(["7", "7.0"]), "x", low=0, high=9).tolist() == [7, 7]
    for column, problem in [
        ([1.5], "1.5 is no whole number"),
        ([float("inf")], "inf is outside 0..9"),
        ([10], "10 is outside 0..9"),
        ([-1], "-1 is outside 0..9"),
    ]:
        with pytest.raises(SourceError, match=problem):
            parsing.whole_numbers(pa.array(column), "x", low=0, high=9)


def test_the_first_row_at_fault_is_named_whatever_its_fault():
    column = pa.array([1.0, float("inf"), np.nan])
    with pytest.raises(SourceError, match="row 2, column ra: inf is outside the sky"):
        parsing.angles(column, "ra", low=0.0, high=360.0)
    with pytest.raises(SourceError, match=r"row 2, column x: '1\.5' is no whole number"):
        parsing.whole_numbers(pa.array(["3", "1.5", "10", None, "x"]), "x", low=0, high=9, required=True)


ARRAYS = {
    "text": pa.array(["1 2  3", "", " 4\t5 nan "]),
    "list": pa.array([[1, 2, 3], None, [4, 5, np.nan]]),
    "large list": pa.array([[1, 2, 3], [], [4, 5, None]], pa.large_list(pa.float32())),
    "fixed list": pa.array([[1, 2, 3], None, [4, 5, None]], pa.list_(pa.float64(), 3)),
    "list of text": pa.array([["1", "2", "3"], None, ["4", "5", ""]]),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_are_read_and_missing_ones_are_missing_everywhere(kind):
    wanted = [[1, 2, 3], [np.nan] * 3, [4, 5, np.nan]]
    np.testing.assert_array_equal(parsing.arrays(ARRAYS[kind], "x", 3), wanted)
    np.testing.assert_array_equal(parsing.arrays(ARRAYS[kind][2:], "x", 3), wanted[2:])


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_the_wrong_length_are_named(kind):
    with pytest.raises(SourceError, match="row 1, column x: holds 3 values, expected 57"):
        parsing.arrays(ARRAYS[kind], "x", 57)


def test_the_first_fault_of_a_column_of_arrays_is_named():
    column = pa.array(["1 2", "", "3 x", "4"])
    with pytest.raises(SourceError, match="row 3, column x: value 2: 'x' is no number"):
        parsing.arrays(column, "x", 2)
    column = pa.array(["1 2", "4", "3 x"])
    with pytest.raises(SourceError, match="row 2, column x: holds 1 values, expected 2"):
        parsing.arrays(column, "x", 2)


def test_one_value_is_picked_from_arrays_or_stands_alone():
    column = pa.array(["7", "1 2 3", "", "4 5 6"])
    np.testing.assert_array_equal(parsing.pick(column, "x", 3, 2), [7, 3, np.nan, 6])
    np.testing.assert_array_equal(parsing.pick(column, "x", 3, None), [7, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(parsing.pick(pa.array([1, 2]), "x", 3, 2), [1, 2])


def test_words_are_trimmed_and_told_without_regard_to_case():
    found = parsing.words(pa.array(["psf ", "", None, "REX"]).dictionary_encode(), "x", ["PSF", "REX"])
    assert found.to_pylist() == ["PSF", None, None, "REX"]
    with pytest.raises(SourceError, match="row 1, column x: 'blob' is none of PSF"):
        parsing.words(pa.array(["blob"]), "x", ["PSF"])
