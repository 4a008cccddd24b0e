"""Releases: publish a run of a collection, roll back, and list the runs.

Publishing and rolling back replace one file, ``collection.properties``, in one step; they write all other
files before, and no file refers to those until then. The history of publications is a file that only grows.
Readers that do not know HATS find the published leaves at ``published/PRODUCT``, or by ``published.json``.
A release may have a name, which belongs to its run for ever: ``releases/NAME`` is a link to the run.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from ojala.catalogs_schema.errors import OjalaError
from ojala.pipeline.runs.published_paths import link_name, prepare_links, write_published
from ojala.pipeline.runs.record import (
    ENDED,
    REPORT,
    RecordError,
    RunRecord,
    Status,
    find_runs,
    read_record,
    run_folder,
)
from ojala.pipeline.runs.report_state import mark_report
from ojala.pipeline.runs.supplemental import input_references, product_collection, run_of
from ojala.pipeline.storage.files import remove_unfinished, utc_now, write_whole
from ojala.pipeline.storage.hats import catalogue_name, survey_of, write_collection
from ojala.pipeline.storage.lock import POINTER, hold, living_holder
from ojala.pipeline.storage.properties import COLLECTION, JOINED, read_extensions, read_properties

HISTORY = "publications.jsonl"
"""One line per publication and rollback, in the collection's folder."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

PATIENCE = 60.0
"""Seconds to wait for another process that publishes in the collection."""


class ReleaseError(OjalaError, ValueError):
    """A run that cannot be published, rolled back or reprocessed."""


class Publication(BaseModel):
    """One publication or rollback."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    action: Literal["publish", "rollback"] = Field(description="publication or rollback")
    product: str = Field(description="main product")
    run_id: str = Field(description="run that is published since")
    before: str | None = Field(default=None, description="run that was published before")
    when: str = Field(description="UTC time")
    host: str = Field(description="machine")
    name: str | None = Field(default=None, description="name of the release, if it was given one")
    partial: bool = Field(default=False, description="whether a part of the sky is missing")
    gates: dict[str, str] = Field(default={}, description="outcome of each quality gate")
    forced: tuple[str, ...] = Field(default=(), description="gates that failed and were overruled")


@dataclass(frozen=True, slots=True)
class Release:
    """Line of the list of runs, see `releases`.

    Attributes
    ----------
    run_id : str
        The run.
    product : str
        Its main product; empty where its record cannot be read.
    name : str or None
        Name of the release, if it has one.
    status : str
        State; ``damaged`` where its record cannot be read; ``at work`` while a process works on it,
        ``interrupted`` where none does and it has not ended.
    published : str
        ``published``, ``was published`` or ``no``.
    date : str
        UTC time of its end, or of its start.
    rows, partitions, bytes : int
        Size; partitions are those that are there.
    missing : int
        Partitions of the input that are missing.
    weights : str
        SHA-256 of the weights; ``mixed`` where there are several.
    region, base : str or None
        Reprocessed region, and the run that the rest is linked from.
    """

    run_id: str
    product: str
    name: str | None
    status: str
    published: str
    date: str
    rows: int
    partitions: int
    bytes: int
    missing: int
    weights: str
    region: str | None
    base: str | None


def read_history(out: UPath) -> list[Publication]:
    """Read all publications and rollbacks of a collection, the first one first.

    Raises
    ------
    ReleaseError
        If the file is damaged; says where.
    """
    path = out / HISTORY
    if not path.exists():
        return []
    history = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            history.append(Publication.model_validate_json(line))
        except ValidationError as problem:
            raise ReleaseError(
                f"{path}, line {number} cannot be read: {problem.errors()[0]['msg']}"
            ) from problem
    return history


def names_of(history: Sequence[Publication]) -> dict[str, str]:
    """Names of releases by run, of the runs that have one."""
    return {line.run_id: line.name for line in history if line.name is not None}


def check_name(out: UPath, run_id: str, name: str) -> None:
    """Raise where a run cannot have a name: a name that papers cite stays with its run.

    Raises
    ------
    ReleaseError
        If it is none, belongs to another run, or the run has another.
    """
    if not _NAME.fullmatch(name):
        raise ReleaseError(
            f"{name!r} is no name of a release: letters, digits, '.', '_' and '-' make one, such as DR1"
        )
    names = names_of(read_history(out))
    owner = next((run for run, known in names.items() if known.lower() == name.lower()), run_id)
    if owner != run_id:
        raise ReleaseError(
            f"{names[owner]} is the name of run {owner} and cannot be given to another: choose a new one"
        )
    if names.get(run_id, name) != name:
        raise ReleaseError(f"run {run_id} has the name {names[run_id]}, which cannot be changed")


def pointers(out: UPath) -> dict[str, str]:
    """Published run of each product of a collection, by product."""
    published = {}
    for product, name in _extensions(out).items():
        if not (out / name).exists():
            continue
        published[product] = run_of(read_properties(out / name, JOINED)[JOINED])
    return published


def _extensions(out: UPath) -> dict[str, str]:
    path = out / COLLECTION
    return read_extensions(path) if path.exists() else {}


def was_published(out: UPath, run_id: str) -> bool:
    """Whether a run is or was published; it is never written to then."""
    return run_id in pointers(out).values() or any(line.run_id == run_id for line in read_history(out))


def published_run(out: UPath, product: str) -> UPath:
    """Published run of a product; where none is, the last that ended.

    Raises
    ------
    ReleaseError
        If there is neither.
    """
    run_id = pointers(out).get(product)
    if run_id is not None:
        return run_folder(out, run_id)
    for run in reversed(find_runs(out)):
        try:
            record = read_record(run)
        except RecordError:
            continue
        if record.main == product and record.status in ENDED:
            return run
    raise ReleaseError(f"{out} has no finished run of {product}: `ojala run` makes one")


def was_rolled_back(out: UPath, run_id: str) -> bool:
    """Whether a rollback replaced a run that was not published again since."""
    last = None
    for line in read_history(out):
        if line.run_id == run_id or line.before == run_id:
            last = line
    return last is not None and last.action == "rollback" and last.before == run_id


def check_ended(record: RunRecord) -> None:
    """Raise where a run cannot be published.

    Raises
    ------
    ReleaseError
        If it has not ended with catalogues, or was not assessed.
    """
    if record.status not in ENDED:
        raise ReleaseError(
            f"run {record.run_id} is not complete and cannot be published: "
            + (
                f"{len(record.failed):,} partitions are missing; do them with the command that began it, or "
                "publish without them with --partial"
                if record.status == Status.INCOMPLETE
                else "it has not ended; give the command that began it again"
            )
        )
    if failed := {step: text for step, text in record.problems.items() if step != REPORT}:
        raise ReleaseError(
            f"run {record.run_id} cannot be published, its assessment is not complete: "
            + "; ".join(f"{step}: {text}" for step, text in failed.items())
            + "; give the command that began it again"
        )


def set_published(
    out: UPath,
    record: RunRecord,
    *,
    action: Literal["publish", "rollback"] = "publish",
    gates: Mapping[str, str] = {},
    forced: Sequence[str] = (),
    name: str | None = None,
) -> None:
    """Point a collection at a run that has ended, for the products of the run.

    Products of other models stay as they are; those of the release that is replaced go with it. A run that is
    published already is given a name, if there is one to give; nothing else is done.

    Raises
    ------
    ReleaseError
        If the run has not ended, cannot have the name, or other products belong to another input catalogue.
    LockedError
        If another process is publishing and does not end.
    """
    run = run_folder(out, record.run_id)
    check_ended(record)
    source = UPath(record.source)
    with hold(out, POINTER, wait=PATIENCE):
        remove_unfinished(out, below=False)
        if name is not None:
            check_name(out, record.run_id, name)
        now = pointers(out)
        before = now.get(record.main)
        earlier = read_history(out)
        name = names_of(earlier).get(record.run_id) if name is None else name
        if before == record.run_id and name == names_of(earlier).get(record.run_id):
            link_name(out, record.run_id, name)
            write_published(out, pointers(out), names_of(read_history(out)))
            return
        keep = {
            product: name
            for product, name in _extensions(out).items()
            if product not in record.products and (before is None or now.get(product) != before)
        }
        _check_same_input(out, source, keep)
        publication = Publication(
            action=action,
            product=record.main,
            run_id=record.run_id,
            before=before,
            when=utc_now(),
            host=platform.node(),
            name=name,
            partial=record.status == Status.PARTIAL,
            gates=dict(gates),
            forced=tuple(forced),
        )
        history = [*earlier, publication]
        runs = {product: now[product] for product in keep} | dict.fromkeys(record.products, record.run_id)
        links = prepare_links(out, runs)  # while nothing is changed yet, as a full disk has no room for them
        # The history first: a run that it names is never written to, whatever happens from here on.
        write_whole(out / HISTORY, "".join(f"{line.model_dump_json()}\n" for line in history).encode())
        margin, index = input_references(out, record)
        write_collection(
            out,
            source,
            {product: product_collection(run, product) for product in record.products},
            name=catalogue_name(source),
            label=record.run_id,
            margin=margin,
            index=index,
            keep=keep,
            facts={"ojala_release": name} if name else {},
        )
        link_name(out, record.run_id, name)
        write_published(out, runs, names_of(read_history(out)), links)
        title = f"release {name}" if name else f"run {record.run_id}"
        mark_report(run, f"Published as {title}, {publication.when}.")
        if before is not None and before != record.run_id:
            mark_report(
                run_folder(out, before), f"Not published any more: {title} is since {publication.when}."
            )


def _check_same_input(out: UPath, source: UPath, keep: Mapping[str, str]) -> None:
    """Refuse a collection of products that were made from different catalogues."""
    for product in keep:
        other = read_record(run_folder(out, pointers(out)[product])).source
        if survey_of(UPath(other).absolute()) != survey_of(source.absolute()):
            raise ReleaseError(
                f"{out} publishes {product}, made from {other}; a run over {source} belongs into a "
                "collection of its own"
            )


def run_before(out: UPath, product: str) -> str:
    """Run to which a rollback leads: the one published before the present one.

    Raises
    ------
    ReleaseError
        If there is none.
    """
    now = pointers(out).get(product)
    if now is None:
        raise ReleaseError(f"{out} publishes no {product}: there is nothing to roll back")
    stack: list[str] = []
    for line in read_history(out):
        if line.product == product and line.action == "rollback" and line.run_id in stack:
            _pop_above(stack, line.run_id)
        elif line.product == product:
            stack.append(line.run_id)
    # A crash between history and collection.properties leaves a last line that never took effect.
    if now in stack:
        _pop_above(stack, now)
    else:
        stack.append(now)
    earlier = [run_id for run_id in stack if run_id != now]
    if not earlier:
        raise ReleaseError(
            f"before {now}, no run of {product} was published in {out}: nothing to roll back to"
        )
    return earlier[-1]


def _pop_above(stack: list[str], run_id: str) -> None:
    """Take away everything above the last place of a run."""
    while stack[-1] != run_id:
        stack.pop()


def only_product(out: UPath) -> str:
    """Main product of the only model whose run a collection publishes.

    Raises
    ------
    ReleaseError
        If there is none, or several.
    """
    mains = sorted({read_record(run_folder(out, run_id)).main for run_id in pointers(out).values()})
    if len(mains) != 1:
        raise ReleaseError(
            f"{out} publishes {', '.join(mains)}: name one with --product"
            if mains
            else f"{out} publishes nothing: there is nothing to roll back"
        )
    return mains[0]


def rollback(out: UPath, product: str) -> RunRecord:
    """Point a collection at the run that was published before, and return its record.

    Raises
    ------
    ReleaseError
        If there is none, or it has lost a catalogue.
    """
    run = run_folder(out, run_before(out, product))
    record = read_record(run)
    for name in record.products:
        if not (run / name / "hats.properties").exists():
            raise ReleaseError(
                f"run {record.run_id} has lost its catalogue {name}: it cannot be published again"
            )
    set_published(out, record, action="rollback")
    return record


def _status(record: RunRecord) -> str:
    return "interrupted" if record.status == Status.RUNNING else str(record.status)


def releases(out: UPath) -> list[Release]:
    """List all runs of a collection, the oldest first."""
    now, history = set(pointers(out).values()), read_history(out)
    ever, names = {line.run_id for line in history}, names_of(history)
    found = []
    for run in find_runs(out):
        mark = "published" if run.name in now else "was published" if run.name in ever else "no"
        try:
            record = read_record(run)
        except RecordError:
            name = names.get(run.name)
            found.append(Release(run.name, "", name, "damaged", mark, "", 0, 0, 0, 0, "", None, None))
            continue
        holder = living_holder(out, record.main)
        at_work = holder is not None and holder.run_id == run.name
        weights = record.mixed_versions.get("weights_sha256", {})
        found.append(
            Release(
                run_id=run.name,
                product=record.main,
                name=names.get(run.name),
                status="at work" if at_work else _status(record),
                published=mark,
                date=record.ended or record.started,
                rows=record.rows_out,
                partitions=record.partitions - len(record.failed),
                bytes=record.bytes,
                missing=len(record.failed),
                weights="mixed" if len(weights) > 1 else record.weights_sha256,
                region=record.region,
                base=record.base,
            )
        )
    return found
