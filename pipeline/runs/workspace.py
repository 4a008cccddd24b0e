"""Workspace of a run: prune the folder of a run that begins, and link leaves of its base into it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from upath import UPath

from ojala.pipeline.inference.process import receipt_path
from ojala.pipeline.runs.plan import Plan
from ojala.pipeline.runs.record import RECORD
from ojala.pipeline.storage.files import is_local, link_files, list_files
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.progress import RUN_LOG


def prune(plan: Plan) -> None:
    """Remove files that are not part of the plan from a run's folder.

    Kept: record and log, the leaves of partitions to keep, and the receipts of partitions to keep or to
    process (those hold earlier attempts). Removed: leaves without a receipt or of products that are not
    requested any more, partitions that the input does not have any more, half-written files, and all files
    that are written at the end of a run.
    """
    run, products = plan.folder, plan.resolved.products
    keep = {RECORD, RUN_LOG}
    for entry in plan.entries:
        if entry.action in ("keep", "work"):
            keep.add(_receipt_name(entry.partition))
        if entry.action == "keep":
            keep.update(f"{product}/{entry.partition.leaf}" for product in products)
    strays = [name for name in list_files(run) if name not in keep]
    if not is_local(run):
        if strays:
            run.fs.rm([(run / name).path for name in strays])
        return
    for name in strays:
        Path(run.path, name).unlink()
    for folder, _, _ in os.walk(run.path, topdown=False):
        if folder != run.path and not os.listdir(folder):
            os.rmdir(folder)


def link_from(base: UPath, run: UPath, partitions: Iterable[Partition], products: tuple[str, ...]) -> None:
    """Link leaves and receipts of partitions from another run.

    On a local file system they are hard links: the same file under a second name, which costs nothing and
    stays when the other run is removed. Where that is impossible, and on an object store, they are copied. A
    receipt comes after its leaves, so that the leaves of any receipt are there.
    """
    link_files(base, run, (_names(partition, products) for partition in partitions))


def _names(partition: Partition, products: tuple[str, ...]) -> list[str]:
    return [*(f"{product}/{partition.leaf}" for product in products), _receipt_name(partition)]


def _receipt_name(partition: Partition) -> str:
    return receipt_path(UPath("run"), partition).relative_to("run").as_posix()
