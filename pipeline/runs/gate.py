"""Quality gates as such: their registry, their findings, and the evidence that they look at.

A gate is one function with `gate` above it, which holds its limits. The settings `GateLimits`, the option
``--force-gate`` and the table in the report follow from `GATES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
from upath import UPath

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.runs.diff import Difference, find_difference
from ojala.pipeline.runs.record import RunRecord
from ojala.pipeline.runs.totals import RunTotals, totals_of

MAX_NAMED = 5
"""Partitions or columns that a gate names."""

Outcome = Literal["pass", "warn", "fail"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class RunEvidence:
    """Files and numbers that gates look at.

    Attributes
    ----------
    run : UPath
        Folder of the run.
    record : RunRecord
        Its record.
    receipts : sequence of Receipt
        Its receipts.
    rows : mapping of str to int
        Rows of the input by partition.
    inputs : mapping of str to str
        SHA-256 of the input by partition, as its catalogue lists it now.
    published : tuple of UPath and sequence of Receipt, or None
        Folder and receipts of the release that readers have now.
    """

    run: UPath
    record: RunRecord
    receipts: Sequence[Receipt]
    rows: Mapping[str, int]
    inputs: Mapping[str, str]
    published: tuple[UPath, Sequence[Receipt]] | None = None

    @cached_property
    def done(self) -> list[Receipt]:
        """Receipts of the partitions that are there."""
        return [receipt for receipt in self.receipts if receipt.status == "done"]

    @cached_property
    def totals(self) -> RunTotals:
        """Sums over these partitions."""
        return totals_of(self.done)

    @cached_property
    def reprocessed(self) -> list[tuple[Receipt, Receipt]]:
        """New and published receipts of partitions whose leaves are not the same files."""
        before = self.published[1] if self.published else ()
        old = {receipt.partition: receipt for receipt in before if receipt.status == "done"}
        pairs = [(new, old[new.partition]) for new in self.done if new.partition in old]
        return [pair for pair in pairs if _hashes(pair[0]) != _hashes(pair[1])]

    @cached_property
    def changed(self) -> tuple[RunTotals, RunTotals]:
        """Sums over the reprocessed partitions, in the run and in the published release."""
        new, old = zip(*self.reprocessed, strict=True)
        return totals_of(new), totals_of(old)

    @cached_property
    def difference(self) -> Difference | None:
        """Difference to the published release, row by row; None where there is none."""
        if self.published is None:
            return None
        release, receipts = self.published
        return find_difference(release, self.run, receipts, self.receipts)


def _hashes(receipt: Receipt) -> list[str]:
    return [leaf.sha256 for leaf in receipt.leaves]


@dataclass(frozen=True, slots=True)
class Finding:
    """Finding of one gate.

    Attributes
    ----------
    text : str
        One sentence.
    outcome : str
        Outcome of a gate without limits.
    value : float
        Number that a gate with limits compares with them.
    rows : int
        Rows on which ``value`` rests.
    numbers : dict of str to float
        Measured numbers.
    """

    text: str
    outcome: Outcome = "pass"
    value: float = 0.0
    rows: int = 0
    numbers: Mapping[str, float] | None = None


Check = Callable[[RunEvidence], Finding]


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate and its default limits.

    Attributes
    ----------
    check : callable
        Function from the evidence to a finding; its name is the gate's, its first line the description.
    measure : str
        Meaning of the value that is compared with the limits; empty for a gate without.
    warn, fail : float
        Default limits: values above them warn and fail.
    compares : bool
        Whether it compares with the published release.
    exact : bool
        Whether its value is counted and no estimate, so that a few rows weigh as much as many.
    former : str
        Name of the limits in the configuration of earlier versions.
    """

    check: Check
    measure: str = ""
    warn: float = 0.0
    fail: float = 0.0
    compares: bool = False
    exact: bool = False
    former: str = ""

    @property
    def name(self) -> str:
        """Name of the gate."""
        return self.check.__name__


GATES: dict[str, Gate] = {}
"""All gates by name, in the order of their evaluation."""


def gate(
    measure: str = "",
    warn: float = 0.0,
    fail: float = 0.0,
    *,
    compares: bool = False,
    exact: bool = False,
    former: str = "",
) -> Callable[[Check], Check]:
    """Register a function as a gate; the arguments are those of `Gate`."""

    def register(check: Check) -> Check:
        GATES[check.__name__] = Gate(check, measure, warn, fail, compares, exact, former)
        return check

    return register


def sample(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many items, evenly spaced."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, most).astype(int))] if items else []


def some_of(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
