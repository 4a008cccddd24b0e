"""Two releases differ by rows, classes and redshifts, told by tile and by cause."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.ojala import OJALA
from ojala.pipeline.report.difference import difference_section
from ojala.pipeline.report.render import render
from ojala.pipeline.runs import diff
from ojala.pipeline.runs.diff import find_difference
from ojala.pipeline.runs.receipts import all_receipts
from ojala.pipeline.runs.record import read_record, write_record
from tests.helpers.commands import here

pytestmark = pytest.mark.integration

BY_UCD = {column.ucd: column.name for column in reversed(OJALA.columns)}
CLASS, Z = BY_UCD["src.class"], BY_UCD["src.redshift.phot"]
Z_ERR = BY_UCD["stat.error;src.redshift.phot"]


def rewrite(run: UPath, receipt, change):
    """The leaf of a receipt with other rows, and the receipt with its new hash."""
    path = (run / receipt.leaves[0].path).path
    table = change(pq.ParquetFile(path).read())
    UPath(path).unlink()
    pq.write_table(table, path)
    leaf = receipt.leaves[0].model_copy(update={"sha256": f"{table.num_rows:064d}", "rows": table.num_rows})
    weights = receipt.ingredients.model_copy(update={"weights_sha256": "new"})
    return receipt.model_copy(
        update={"leaves": [leaf, *receipt.leaves[1:]], "ingredients": weights, "rows_out": table.num_rows}
    )


def put(table: pa.Table, name: str, values) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


@pytest.fixture(scope="module")
def pair(finished, tmp_path_factory):
    """A collection of two runs: in the second, a first leaf has other rows, classes and redshifts."""
    out = UPath(tmp_path_factory.mktemp("diff") / "out")
    former, run = out / "runs" / "former", out / "runs" / "run"
    receipts = all_receipts(finished.run)

    def redshifts(table):
        rows = np.arange(table.num_rows)
        table = put(table, CLASS, ["GALAXY"] * len(rows))
        return put(put(table, Z, np.full(len(rows), 0.5)), Z_ERR, np.full(len(rows), 0.1))

    def later(table):
        z = np.full(table.num_rows, 0.55)
        z[[4, 5]] = 0.61, 0.39
        z[6] = np.nan
        classes = ["QSO", "QSO", "STAR", *["GALAXY"] * (table.num_rows - 3)]
        table = put(put(table, CLASS, classes), Z, pa.array(z, from_pandas=True))
        return table.slice(0, table.num_rows - 2)

    old = new = receipts
    for folder, changes in ((former, [redshifts]), (run, [redshifts, later])):
        shutil.copytree(finished.run.path, folder.path)
        write_record(folder, read_record(finished.run).model_copy(update={"run_id": folder.name}))
        first = receipts[0]
        for change in changes:
            first = rewrite(folder, first, change)
        old, new = (new, [first, *receipts[1:]])
    return former, run, old, new


def test_rows_classes_and_redshifts_are_counted_by_tile_and_cause(pair):
    former, run, old, new = pair
    old = [old[0].model_copy(update={"ingredients": all_receipts(run)[0].ingredients}), *old[1:]]
    found = find_difference(former, run, old, new)
    assert found.total.model_dump() == {
        "added": 0,
        "withdrawn": 2,
        "compared": new[0].rows_out,
        "class_changed": 3,
        "redshift_changed": 3,
        "either_changed": 6,
    }
    assert found.by_tile == {7: found.total}
    assert found.by_cause == {"weights": found.total}
    assert found.classes == {"GALAXY to QSO": 2, "GALAXY to STAR": 1}
    assert (found.partitions_same, found.partitions_read) == (len(new) - 1, 1)
    assert found.share == pytest.approx(6 / (found.rows))
    back = find_difference(run, former, new, old)
    assert (back.total.added, back.total.withdrawn) == (2, 0)


def test_columns_that_an_older_contract_does_not_have_are_no_change(pair, monkeypatch):
    former, run, old, new = pair
    sides = iter([{"class": "former_name", "z": "z_former", "z_err": "z_err_former"}])
    columns = diff._columns
    monkeypatch.setattr(diff, "_columns", lambda contract: next(sides, None) or columns(contract))
    older = old[0].ingredients.model_copy(update={"contract_version": "older"})
    old = [old[0].model_copy(update={"ingredients": older}), *old[1:]]
    found = find_difference(former, run, old, new)
    assert (found.total.compared, found.total.withdrawn) == (new[0].rows_out, 2)
    assert found.total.either_changed == 0
    assert "contract" in next(iter(found.by_cause))


def test_the_command_tells_as_text_and_json(pair):
    former, _, _, _ = pair
    words = ["diff", "former", "run", "--out", former.parent.parent]
    text = here(*words)
    assert text.exit_code == 0, text.output
    assert "300 rows in former, 300 in run" in text.output
    assert json.loads(here(*words, "--json").output)["product"] == "ojala"


def test_runs_of_different_products_are_not_compared(pair, tmp_path):
    former, _, _, _ = pair
    other = UPath(tmp_path / "other")
    other.mkdir()
    record = read_record(former).model_copy(update={"run_id": "other", "products": ("specpt",)})
    write_record(other, record)
    with pytest.raises(InputError, match=r"run former is one of ojala, run other of specpt"):
        find_difference(former, other)


def test_the_report_has_a_section_of_it(pair):
    former, run, old, new = pair
    found = find_difference(former, run, old, new)
    page = render("difference.html.j2", {"section": difference_section(found)})
    cells = [row for row in page.split("<tr>") if '<td class="word">7</td>' in row]
    assert [cell.split("</td>")[0] for cell in cells[0].split("<td>")[1:]] == [
        *("0", "2", str(new[0].rows_out), "3", "3")
    ]
    assert "2 withdrawn since release former" in page
