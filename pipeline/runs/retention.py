"""Disk usage of the runs of a collection, and removal of runs that are not needed any more."""

from __future__ import annotations

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.pipeline.runs.record import (
    ENDED,
    RecordError,
    RunRecord,
    find_runs,
    read_record,
    run_folder,
    runs_folder,
)
from ojala.pipeline.runs.releases import pointers
from ojala.pipeline.storage.files import is_local, list_files
from ojala.pipeline.storage.hats import RELEASES
from ojala.pipeline.storage.lock import POINTER, hold

_REMOVED = ".removed-"
"""Begin of the name of a run's folder while it is removed."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Disk usage of one run of a collection, or of one release of a photometry catalogue.

    Attributes
    ----------
    name : str
        Name of its folder.
    own : int
        Size of the files that no other one shares, which its removal frees [bytes].
    shared : int
        Size of the files that others have links to [bytes].
    """

    name: str
    own: int
    shared: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What pruning does with a run.

    Attributes
    ----------
    run_id : str
        The run.
    kept : str
        Reason why it is kept; empty where it is removed.
    bytes : int
        Size of its own files.
    """

    run_id: str
    kept: str
    bytes: int


def disk_usage(root: UPath) -> tuple[list[Usage], int]:
    """Measure the runs of a collection, or the releases of a photometry catalogue.

    Parameters
    ----------
    root : UPath
        Folder of either.

    Returns
    -------
    list of Usage
        In the order of their names. On an object store, where there are no links, nothing is shared.
    int
        Size of all of them together, shared files counted once [bytes].

    Raises
    ------
    InputError
        If it is neither.
    """
    folder = next((root / name for name in ("runs", RELEASES) if (root / name).exists()), None)
    if folder is None:
        raise InputError(f"{root} has no runs and no releases: name a collection or a photometry catalogue")
    found = sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))
    return _measure([folder / name for name in found])


def _measure(folders: Sequence[UPath]) -> tuple[list[Usage], int]:
    sizes: dict[object, int] = {}
    files = {folder: dict[object, None]() for folder in folders}
    for folder, own in files.items():
        for identity, size in _files(folder):
            sizes[identity] = size
            own[identity] = None
    count = Counter(identity for own in files.values() for identity in own)
    usages = []
    for folder, own in files.items():
        alone = sum(sizes[identity] for identity in own if count[identity] == 1)
        usages.append(Usage(folder.name, alone, sum(sizes[identity] for identity in own) - alone))
    return usages, sum(sizes.values())


def _files(folder: UPath) -> Iterator[tuple[object, int]]:
    """What identifies each file under a folder, whatever its names, and its size."""
    if not is_local(folder):
        yield from ((f"{folder}/{name}", file.bytes) for name, file in list_files(folder).items())
        return
    for place, _, names in os.walk(folder.path):
        for name in names:
            stat = os.stat(os.path.join(place, name))
            yield (stat.st_dev, stat.st_ino), stat.st_size


def plan_pruning(out: UPath, keep: int) -> list[Decision]:
    """Decide which runs of a collection are not needed any more.

    Kept are the published runs, the newest `keep` ended ones of each product, runs that have not ended and
    can be resumed, and those that they link leaves from. Leaves that a kept run shares with a removed one
    stay: they are links to the same files.

    Parameters
    ----------
    out : UPath
        Collection.
    keep : int
        Ended runs of each main product to keep, at least 1.
    """
    if keep < 1:
        raise InputError(f"--keep {keep}: keep at least 1 run of each product")
    reasons: dict[str, str] = dict.fromkeys(pointers(out).values(), "published")
    ended: dict[str, list[str]] = defaultdict(list)
    records: dict[str, RunRecord] = {}
    for run in find_runs(out):
        try:
            record = records[run.name] = read_record(run)
        except RecordError:
            reasons.setdefault(run.name, "its record cannot be read")
            continue
        if record.status in ENDED:
            ended[record.main].append(run.name)
        else:
            reasons.setdefault(run.name, f"{record.status}, can be resumed")
    for product, runs in ended.items():
        for run_id in runs[-keep:]:
            reasons.setdefault(run_id, f"among the newest {keep} of {product}")
    for run_id, record in records.items():
        if run_id in reasons and record.status not in ENDED and record.base is not None:
            reasons.setdefault(record.base, f"run {run_id} links its leaves")
    usages, _ = _measure(find_runs(out))
    return [Decision(usage.name, reasons.get(usage.name, ""), usage.own) for usage in usages]


def freed_bytes(out: UPath, decisions: Sequence[Decision]) -> int:
    """Bytes that pruning frees: of files that no kept run has."""
    _, before = _measure(find_runs(out))
    _, after = _measure([run_folder(out, one.run_id) for one in decisions if one.kept])
    return before - after


def prune_runs(out: UPath, keep: int) -> list[Decision]:
    """Remove the runs of a collection that `plan_pruning` does not keep.

    Nobody can work on a product of the collection, or publish in it, at the same time.

    Raises
    ------
    LockedError
        If somebody does.
    """
    with ExitStack() as locks:
        locks.enter_context(hold(out, POINTER))
        for product in sorted(_products(out)):
            locks.enter_context(hold(out, product))
        decisions = plan_pruning(out, keep)
        for one in decisions:
            if not one.kept:
                _remove(out, one.run_id)
        _remove_remains(out)
    return decisions


def _products(out: UPath) -> set[str]:
    products = set()
    for run in find_runs(out):
        try:
            products.add(read_record(run).main)
        except RecordError:
            continue
    return products


def _remove(out: UPath, run_id: str) -> None:
    """Remove a run: from one moment on nobody finds it, then its files go."""
    run = run_folder(out, run_id)
    for extension in out.glob(f"*-{run_id}.properties"):
        extension.unlink()
    if is_local(out):
        removed = Path(run.path).with_name(f"{_REMOVED}{run_id}")
        Path(run.path).rename(removed)
        shutil.rmtree(removed)
    else:
        run.fs.rm(run.path, recursive=True)


def _remove_remains(out: UPath) -> None:
    """Remove the remains of runs whose removal was interrupted."""
    if is_local(out) and runs_folder(out).exists():
        for folder in Path(runs_folder(out).path).glob(f"{_REMOVED}*"):
            shutil.rmtree(folder)
