import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
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
        ("number,class,z\n1,STAR,0\n", "column tile_id is missing"),
        ("tile_id,number,z\n1,1,0\n", "column class is missing"),
        ("tile_id,number,class\n1,1,STAR\n", "column z is missing"),
        ("tile_id,number,class,z\n1,1,STAR,0\n1,2,AGN,0\n", "column class, row 2: 'AGN' is none of GALAXY"),
        ("tile_id,number,class,z\n1,1,STAR,0\n1,2,QSO,high\n", "column z holds string.*row 2 is 'high'"),
        ("tile_id,number,class,z\n1,1,STAR,0\n1,1,QSO,1\n", "rows 1 and 2 are the same object"),
        ("tile_id,number,class,z\n1,1,STAR,0\n,2,QSO,1\n", "column tile_id, row 2: is empty"),
        ("tile_id,number,class,z\n1,1.5,STAR,0\n", "column number holds double, expected whole numbers"),
        ("tile_id,number,class,z,z\n1,1,STAR,0,0\n", "column z stands there twice"),
        ("object_id,class,z\n1,5,0\n", "column class holds int64, expected text"),
        ("object_id,class,z\n1,STAR,-0.001\n2,STAR,-99\n", "column z, row 2: -99 is no redshift"),
        ("object_id,class,z,i_mag\n1,STAR,0,faint\n", "column i_mag holds string.*row 1 is 'faint'"),
        ("object_id,class,z,left_out\n1,STAR,0,maybe\n", "column left_out holds string, expected true or"),
    ],
)
def test_a_malformed_file_is_refused_with_file_and_column(tmp_path, text: str, complaint: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TruthError, match=complaint) as refusal:
        read_truth(path)
    assert str(refusal.value).startswith(str(path))


def test_a_missing_file_and_an_unknown_form_are_refused(tmp_path) -> None:
    with pytest.raises(TruthError, match="there is no such file"):
        read_truth(UPath(tmp_path / "none.csv"))
    (tmp_path / "truth.txt").write_text("object_id,class,z\n")
    with pytest.raises(TruthError, match=r"is \.parquet or \.csv"):
        read_truth(UPath(tmp_path / "truth.txt"))
    (tmp_path / "broken.parquet").write_text("not parquet")
    with pytest.raises(TruthError, match=r"broken\.parquet: cannot be read"):
        read_truth(UPath(tmp_path / "broken.parquet"))


def test_rows_on_one_side_alone_are_counted(tmp_path) -> None:
    truth = read_truth(written(tmp_path, "object_id,class,z\n10,STAR,0\n20,QSO,1.5\n30,GALAXY,0.2\n"))
    answers = pa.table({"object_id": [30, 10, 11], "class": ["GALAXY", "QSO", "STAR"]})
    matched = match_truth(truth, answers, catalogue_rows=7)
    assert matched.rows["object_id"].to_pylist() == [30, 10]
    assert matched.rows["true_class"].to_pylist() == ["GALAXY", "STAR"]
    assert matched.numbers("true_z").tolist() == [0.2, 0.0]
    assert (matched.truth_rows, matched.truth_unanswered, matched.catalogue_unknown) == (3, 1, 5)


def test_a_catalogue_without_any_known_object_matches_nothing(tmp_path) -> None:
    truth = read_truth(written(tmp_path, "object_id,class,z\n10,STAR,0\n"))
    matched = match_truth(truth, pa.table({"object_id": pa.array([], pa.int64())}), catalogue_rows=4)
    assert matched.rows.num_rows == 0
    assert (matched.truth_unanswered, matched.catalogue_unknown) == (1, 4)
