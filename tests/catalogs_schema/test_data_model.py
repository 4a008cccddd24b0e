from pathlib import Path

from ojala import catalogs_schema
from ojala.catalogs_schema import data_model
from ojala.catalogs_schema.ojala import FLAG_MEANINGS, OJALA, PUBLISHED_NAMES, Flag, names

PAGE = Path(catalogs_schema.__file__).with_name("DATA_MODEL.md")


def test_the_page_is_not_stale():
    assert PAGE.read_text() == data_model.page(), "run `make data-model`"


def test_every_flag_has_one_bit_of_its_own_and_a_meaning():
    assert set(FLAG_MEANINGS) == set(Flag)
    assert [flag.value for flag in Flag] == [1 << bit for bit in range(len(Flag))]


def test_a_mask_is_spelled_out_in_names():
    assert names(Flag.NO_BANDS | Flag.NO_EBV) == ["NO_BANDS", "NO_EBV"]
    assert names(0) == []


def test_published_names_point_at_columns_that_exist():
    assert set(PUBLISHED_NAMES.values()) <= set(OJALA.names)
