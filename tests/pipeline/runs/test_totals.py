import numpy as np
import pytest

from ojala.pipeline.runs.totals import run_numbers, totals_of
from tests.pipeline.report.small_run import ROWS, SmallRun, failed


def test_rows_and_classes_of_all_partitions_add_up(small_run: SmallRun) -> None:
    account = totals_of(small_run.receipts)
    assert account.rows_in.sum() == account.rows_out.sum() == account.rows_summarised == ROWS
    assert account.classes == {
        name: int((small_run.class_given == name).sum()) for name in ("GALAXY", "STAR", "QSO", "NONE")
    }
    assert account.flags["NO_BANDS"] == account.classes["NONE"]
    assert not account.unequal
    assert not account.failures


def test_partitions_are_put_in_the_order_of_the_sky(small_run: SmallRun) -> None:
    account = totals_of(small_run.receipts[::-1])
    pixels = [partition.pixel for partition in account.partitions]
    assert pixels == sorted(pixels)


def test_a_failed_partition_is_named_with_its_last_error(small_run: SmallRun) -> None:
    lost = failed(small_run.receipts[2])
    account = totals_of([*small_run.receipts[:2], lost, *small_run.receipts[3:]])
    assert account.failures == [(lost.partition, "OSError: disk full")]
    assert (~account.done).sum() == 1
    assert account.rows_summarised == ROWS - lost.rows_in


def test_a_done_partition_with_a_row_too_few_is_named(small_run: SmallRun) -> None:
    short = small_run.receipts[0].model_copy(update={"rows_out": small_run.receipts[0].rows_out - 1})
    assert totals_of([short, *small_run.receipts[1:]]).unequal == [short.partition]


def test_rates_are_those_of_the_partitions_that_the_run_processed_itself(small_run: SmallRun) -> None:
    linked, *own = small_run.receipts
    receipts = [linked.model_copy(update={"run_id": "before"})]
    receipts += [receipt.model_copy(update={"run_id": "this"}) for receipt in own]
    numbers = run_numbers(totals_of(receipts), 0, 10.0, "this")
    assert numbers["rows"]["linked"] == linked.rows_out
    assert numbers["rows"]["computed"] == ROWS - linked.rows_out
    assert numbers["rows_per_second"] == (ROWS - linked.rows_out) / 10.0
    assert numbers["seconds"]["at_work"] == pytest.approx(sum(r.attempts[-1].seconds for r in own))


def test_two_receipts_of_a_partition_are_refused(small_run: SmallRun) -> None:
    again = small_run.receipts[0]
    with pytest.raises(ValueError, match=f"two receipts of partition {again.partition}"):
        totals_of([*small_run.receipts, again])


def test_stages_keep_the_order_in_which_they_ran(small_run: SmallRun) -> None:
    assert list(totals_of(small_run.receipts).stages) == ["read", "predict", "derive", "write"]


def test_each_worker_process_has_its_share(small_run: SmallRun) -> None:
    workers = totals_of(small_run.receipts).workers
    assert {worker.pid for worker in workers} == {4100, 4101}
    assert sum(worker.rows for worker in workers) == ROWS
    assert sum(worker.partitions for worker in workers) == len(small_run.receipts)


def test_redshifts_are_counted_per_class(small_run: SmallRun) -> None:
    redshifts = totals_of(small_run.receipts).redshifts
    assert set(redshifts) == {"GALAXY", "QSO"}
    given = np.isin(small_run.class_given, ["GALAXY"]).sum()
    assert redshifts["GALAXY"].sum() == given


def test_a_run_without_receipts_is_empty() -> None:
    account = totals_of([])
    assert account.rows_summarised == 0
    assert account.workers == []
    assert account.redshifts == {}
