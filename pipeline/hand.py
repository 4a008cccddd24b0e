"""A worker as the run sees it: what it was given, what it is at, and since when.

A worker does as many orders at once as it has threads, in the order in which it got them, and has one more
that waits, so that no thread waits for the scheduler. This is bookkeeping alone, without clocks and Dask, so
that every case can be played through in a test; `pipeline.crew` acts on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dask.typing import Key

from pipeline.attempts import Order

WAITING = 1
"""Orders that a worker has beyond those that it is at."""


@dataclass(slots=True)
class Hand:
    """The orders of one worker.

    Attributes
    ----------
    host : str
        Machine that it runs on.
    threads : int
        Orders that it is at, at once.
    orders : dict of Key to Order
        What it has to do, in the order in which it begins.
    begun : dict of Key to float
        When it began with those that it is at [s].
    """

    host: str
    threads: int = 1
    orders: dict[Key, Order] = field(default_factory=dict)
    begun: dict[Key, float] = field(default_factory=dict)

    @property
    def has_room(self) -> bool:
        """Whether it may get another order; a suspect is alone with its worker."""
        suspected = any(order.suspect for order in self.orders.values())
        return not suspected and len(self.orders) < self.threads + WAITING

    def give(self, key: Key, order: Order, now: float) -> None:
        """Note that it got an order."""
        self.orders[key] = order
        self._begin(now)

    def end(self, key: Key, now: float) -> tuple[Order, float]:
        """Note that an order came to its end; gives it, and how long it took [s]."""
        began = self.begun.pop(key, now)
        order = self.orders.pop(key)
        self._begin(now)
        return order, now - began

    def due(self, seconds: float) -> float | None:
        """When one of its orders will have taken too long; None without any."""
        return min(self.begun.values()) + seconds if self.begun else None

    @property
    def at_work(self) -> list[Order]:
        """The orders that it is at, the one that it has been at for the longest first."""
        return [self.orders[key] for key in self.begun]

    @property
    def waiting(self) -> list[Order]:
        """The orders that it has not begun."""
        return [order for key, order in self.orders.items() if key not in self.begun]

    def _begin(self, now: float) -> None:
        """Its free threads begin with what waits, first come, first served."""
        for key in self.orders:
            if len(self.begun) >= self.threads:
                break
            self.begun.setdefault(key, now)
