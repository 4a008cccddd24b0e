"""The plan of a run: which partitions have to be worked on, and why. Planning writes nothing."""

from __future__ import annotations

import datetime
import secrets
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
from pydantic import ValidationError
from upath import UPath

from catalogs_schema.bands import MODEL_BANDS
from catalogs_schema.receipt import Ingredients, Receipt
from pipeline.catalogue import read_leaves
from pipeline.config import RunConfig
from pipeline.leaf import sha256_of
from pipeline.model import ModelSpec
from pipeline.partition import PRODUCTS, receipt_path
from pipeline.record import RunRecord, Status, latest_run, read_record
from pipeline.sky import Partition
from pipeline.versions import code_version

DONE = "done"

_CHANGED = {
    "input_sha256": "stale: input",
    "weights_sha256": "stale: weights",
    "config_sha256": "stale: configuration",
    "code_version": "stale: code",
    "contract_version": "stale: contract",
}
"""Ingredient -> what is said of a partition when it differs."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One partition in a plan.

    Attributes
    ----------
    partition : Partition
        Which.
    rows : int
        Rows of its photometry leaf.
    ingredients : Ingredients
        What its numbers will depend on.
    state : str
        ``done``, ``missing``, ``failed``, ``damaged`` or ``stale: ...``; all but the first are to do.
    """

    partition: Partition
    rows: int
    ingredients: Ingredients
    state: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    Attributes
    ----------
    run_id : str
        The run that the results belong to.
    resumes : bool
        Whether that run exists.
    entries : tuple of Entry
        All partitions of the photometry, in order of the sky.
    """

    run_id: str
    resumes: bool
    entries: tuple[Entry, ...]

    @property
    def to_do(self) -> list[Entry]:
        """The partitions that have to be worked on."""
        return [entry for entry in self.entries if entry.state != DONE]

    @property
    def rows(self) -> int:
        """Rows in all partitions."""
        return sum(entry.rows for entry in self.entries)

    @property
    def rows_to_do(self) -> int:
        """Rows in the partitions that have to be worked on."""
        return sum(entry.rows for entry in self.to_do)

    def states(self) -> dict[str, int]:
        """Partitions per state."""
        return dict(Counter(entry.state for entry in self.entries))


def make_plan(config: RunConfig) -> Plan:
    """Compare what is asked for with what there is.

    An unfinished run is resumed. A finished run that holds all that is asked for is left as it is, and the
    plan has nothing to do; otherwise a new run is planned, since a finished run is never written to.

    Raises
    ------
    CatalogueError
        If there is no photometry catalogue.
    """
    weights_sha256 = config.spec().weights_sha256()
    config_sha256 = config.numbers_sha256()
    contracts = " ".join(f"{name} {PRODUCTS[name].version}" for name in config.products)
    wanted = [
        (
            partition,
            leaf.rows,
            Ingredients(
                input_sha256=leaf.sha256,
                weights_sha256=weights_sha256,
                config_sha256=config_sha256,
                code_version=code_version(),
                contract_version=contracts,
            ),
        )
        for partition, leaf in read_leaves(UPath(config.photometry)).items()
    ]
    out = UPath(config.out)
    run = latest_run(out)
    if run is not None:
        entries = tuple(Entry(p, rows, i, _state(run, p, i)) for p, rows, i in wanted)
        done = all(entry.state == DONE for entry in entries)
        if done or read_record(run).status != Status.COMPLETE:
            return Plan(run.name, True, entries)
    return Plan(_new_run_id(), False, tuple(Entry(p, rows, i, "missing") for p, rows, i in wanted))


def _state(run: UPath, partition: Partition, wanted: Ingredients) -> str:
    path = receipt_path(run, partition)
    if not path.exists():
        return "missing"
    try:
        receipt = Receipt.model_validate_json(path.read_bytes())
    except ValidationError:
        return "damaged"
    if receipt.status == "failed":
        return "failed"
    if receipt.key != wanted.key():
        have = receipt.ingredients.model_dump()
        changed = [text for name, text in _CHANGED.items() if have[name] != wanted.model_dump()[name]]
        return changed[0] if changed else "damaged"
    for leaf in receipt.leaves:
        file = run / leaf.path
        if not file.exists() or sha256_of(file) != leaf.sha256:
            return "damaged"
    return DONE


def _new_run_id() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def rows_per_second(plan: Plan, config: RunConfig) -> float:
    """Rows a second that all workers together can be expected to do.

    Taken from the receipts of the latest run with the same model where there are any, else measured by
    asking the model about one batch twice.
    """
    run = latest_run(UPath(config.out))
    known: RunRecord | None = read_record(run) if run is not None else None
    if known is not None and known.rows_per_worker_second and known.config.get("model") == config.model:
        return known.rows_per_worker_second * config.workers
    return measure_rate(config.spec())


def measure_rate(spec: ModelSpec) -> float:
    """Rows a second of the bare model in this process."""
    model = spec.load()
    flux = np.full((spec.batch_size, len(MODEL_BANDS)), 10.0, np.float32)
    ebv = np.zeros(spec.batch_size, np.float32)
    model.predict(flux, 0.1 * flux, ebv)
    begin = time.perf_counter()
    model.predict(flux, 0.1 * flux, ebv)
    return spec.batch_size / (time.perf_counter() - begin)
