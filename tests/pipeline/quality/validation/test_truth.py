import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from upath import UPath

from ojala.catalogs_schema.photometry import KEY_SHIFT
from ojala.pipeline.quality.validation.truth import TruthError, match_truth, read_truth


def written(tmp_path, text: str) -> UPath:
    path = UPath(tmp_path / "truth.csv")
    path.write_text(text)
    return path


def test_csv_with_the_survey_key_is_read(tmp_path) -> None:
    truth = read_truth(
        written(tmp_path, "tile_id,number,class,z,teff,plate\n9,2,STAR,,5800,17\n9,1,GALAXY,0.31,,18\n")
    )
    assert truth.rows["object_id"].to_pylist() == [9 << KEY_SHIFT | 1, 9 << KEY_SHIFT | 2]
    assert truth.rows["class"].to_pylist() == ["GALAXY", "STAR"]
    assert truth.rows["z"].to_pylist() == [0.31, None]
    assert truth.rows["teff"].to_pylist() == [None, 5800.0]
    assert truth.labels == ("teff",)
    assert truth.ignored == ("plate",)


def test_errors_of_labels_magnitudes_and_left_out_kinds_are_read(tmp_path) -> None:
    truth = read_truth(
        written(
            tmp_path,
            "object_id,class,z,ew_halpha,ew_halpha_err,i_mag,left_out\n1,GALAXY,0.1,12.5,0.5,19.2,true\n2,STAR,,,,20.1,\n",
        )
    )
    assert truth.labels == ("ew_halpha",)
    assert truth.rows["ew_halpha_err"].to_pylist() == [0.5, None]
    assert truth.rows["i_mag"].to_pylist() == [19.2, 20.1]
    assert truth.rows["left_out"].to_pylist() == [True, False]
    assert truth.ignored == ()


def test_parquet_with_object_id_is_read(tmp_path) -> None:
    path = UPath(tmp_path / "truth.parquet")
    table = {"object_id": [5, 3], "class": ["QSO", None], "z": [2.1, np.nan], "survey": ["DESI", ""]}
    pq.write_table(pa.table(table), str(path))
    truth = read_truth(path)
    assert truth.rows.to_pydict() == {
        "object_id": [3, 5],
        "class": ["NONE", "QSO"],
        "z": [None, 2.1],
        "survey": ["NONE", "DESI"],
    }
    assert truth.remarks == ("survey",)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("number,class,z\n1,STAR,0\n", "column tile_id: is missing"),
        ("tile_id,number,z\n1,1,0\n", "column class: is missing"),
        ("tile_id,number,class\n1,1,STAR\n", "column z: is missing"),
        (
            "tile_id,number,class,z\n1,1,STAR,0\n1,2,AGN,0\n",
            "row 2, column class: 'AGN' is none of NONE",
        ),
        ("tile_id,number,class,z\n1,1,STAR,0\n1,2,QSO,high\n", "row 2, column z: 'high' is no number"),
        (
            "tile_id,number,class,z\n1,1,STAR,0\n1,1,QSO,1\n",
            "number: rows 1 and 2 are the same object",
        ),
        ("tile_id,number,class,z\n1,1,STAR,0\n,2,QSO,1\n", "row 2, column tile_id: is missing"),
        ("tile_id,number,class,z\n1,1.5,STAR,0\n", "row 1, column number: '1.5' is no whole number"),
        ("tile_id,number,class,z,z\n1,1,STAR,0,0\n", "column z: comes twice"),
        ("object_id,class,z\n1,5,0\n", "row 1, column class: '5' is none of NONE"),
        ("object_id,class,z\n1,STAR,-0.001\n2,STAR,-99\n", "row 2, column z: -99 is no redshift"),
        ("object_id,class,z,i_mag\n1,STAR,0,faint\n", "row 1, column i_mag: 'faint' is no number"),
        ("object_id,class,z,left_out\n1,STAR,0,maybe\n", "row 1, column left_out: 'maybe' is none of TRUE"),
    ],
)
def test_a_malformed_file_is_refused_with_file_and_column(tmp_path, text: str, complaint: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TruthError, match=complaint) as refusal:
        read_truth(path)
    assert str(refusal.value).startswith(str(path))


def test_a_missing_file_and_an_unknown_form_are_refused(tmp_path) -> None:
    with pytest.raises(TruthError, match="does not exist"):
        read_truth(UPath(tmp_path / "none.csv"))
    (tmp_path / "truth.txt").write_text("object_id,class,z\n")
    with pytest.raises(TruthError, match="has no rows"):
        read_truth(UPath(tmp_path / "truth.txt"))
    (tmp_path / "broken.parquet").write_text("not parquet")
    with pytest.raises(TruthError, match=r"broken\.parquet, column class: is missing"):
        read_truth(UPath(tmp_path / "broken.parquet"))


def test_rows_on_one_side_alone_are_counted(tmp_path) -> None:
    truth = read_truth(written(tmp_path, "object_id,class,z\n10,STAR,0\n20,QSO,1.5\n30,GALAXY,0.2\n"))
    predictions = pa.table({"object_id": [30, 10, 11], "class": ["GALAXY", "QSO", "STAR"]})
    matched = match_truth(truth, predictions, catalogue_rows=7)
    assert matched.rows["object_id"].to_pylist() == [30, 10]
    assert matched.rows["true_class"].to_pylist() == ["GALAXY", "STAR"]
    assert matched.numbers("true_z").tolist() == [0.2, 0.0]
    assert (matched.truth_rows, matched.truth_unmatched, matched.catalogue_unknown) == (3, 1, 5)


def test_a_catalogue_without_any_known_object_matches_nothing(tmp_path) -> None:
    truth = read_truth(written(tmp_path, "object_id,class,z\n10,STAR,0\n"))
    matched = match_truth(truth, pa.table({"object_id": pa.array([], pa.int64())}), catalogue_rows=4)
    assert matched.rows.num_rows == 0
    assert (matched.truth_unmatched, matched.catalogue_unknown) == (1, 4)


def test_names_of_any_case_and_classes_of_a_category_are_read_from_every_form(tmp_path) -> None:
    columns = {"TILE_ID": [9, 9], "NUMBER": [1, 2], "CLASS": ["GALAXY", "QSO"], "Z": [0.1, 2.5]}
    table = pa.table(columns)
    at = table.column_names.index("CLASS")
    table = table.set_column(at, "CLASS", table["CLASS"].dictionary_encode())
    pq.write_table(table, tmp_path / "truth.parquet")
    Table(columns).write(tmp_path / "truth.fits")
    Table(columns).write(tmp_path / "truth.ecsv")
    Table(columns).write(tmp_path / "truth.vot", format="votable")
    for form in ("parquet", "fits", "ecsv", "vot"):
        rows = read_truth(UPath(tmp_path / f"truth.{form}")).rows
        assert rows["object_id"].to_pylist() == [9 << KEY_SHIFT | 1, 9 << KEY_SHIFT | 2], form
        assert rows["class"].to_pylist() == ["GALAXY", "QSO"], form
        assert rows["z"].to_pylist() == [0.1, 2.5], form


def test_units_of_labels_are_those_that_the_file_states(tmp_path) -> None:
    table = Table(
        {"object_id": [1], "class": ["GALAXY"], "z": [0.1], "ew_halpha": [1.25], "log_mass": [10.0]}
    )
    table["ew_halpha"].unit, table["log_mass"].unit = "nm", "dex(solMass)"
    for form in ("parquet", "ecsv"):
        path = UPath(tmp_path / f"truth.{form}")
        table.write(path.path, overwrite=True)
        rows = read_truth(path).rows
        assert rows["ew_halpha"].to_pylist() == [12.5], form
        assert rows["log_mass"].to_pylist() == [10.0], form
    table["z"].unit = "km/s"
    table.write(path.path, overwrite=True)
    with pytest.raises(TruthError, match="column z: has the unit 'km / s', expected a number without unit"):
        read_truth(path)


@pytest.mark.parametrize("value", ["99", "99.99", "9.99", "9.999", "-9.99", "-99", "999", "-9999"])
def test_a_redshift_that_stands_for_none_is_refused(tmp_path, value: str) -> None:
    with pytest.raises(TruthError, match=r"row 2, column z: .* is no redshift; leave it empty"):
        read_truth(written(tmp_path, f"object_id,class,z\n1,QSO,6.4\n2,GALAXY,{value}\n"))


@pytest.mark.parametrize(("name", "value"), [("log_mass", "-99"), ("teff", "-9999.0"), ("i_mag", "99.9")])
def test_a_label_that_stands_for_none_is_refused(tmp_path, name: str, value: str) -> None:
    with pytest.raises(TruthError, match=rf"row 1, column {name}: .* leave it empty"):
        read_truth(written(tmp_path, f"object_id,class,z,{name}\n1,STAR,,{value}\n"))


def test_keys_are_exact_or_refused(tmp_path) -> None:
    key = 2**53 + 1
    truth = read_truth(written(tmp_path, f"object_id,class,z\n{key},QSO,1\n5,QSO,1\n"))
    assert truth.rows["object_id"].to_pylist() == [5, key]
    with pytest.raises(TruthError, match=r"row 1, column object_id: .* has lost its last digits"):
        read_truth(written(tmp_path, "object_id,class,z\n3.962851775060487e+16,QSO,1\n"))
    path = UPath(tmp_path / "truth.parquet")
    pq.write_table(pa.table({"object_id": [float(key)], "class": ["QSO"], "z": [1.0]}), path.path)
    with pytest.raises(TruthError, match=r"row 1, column object_id: .* has lost its last digits"):
        read_truth(path)
    with pytest.raises(TruthError, match=r"row 1, column tile_id: '2147483648' is outside 0\.\.2147483647"):
        read_truth(written(tmp_path, "tile_id,number,class,z\n2147483648,1,QSO,1\n"))
