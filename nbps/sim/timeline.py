"""Virtual time: events in the order of their times, and of their making where these are equal."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any


class Timeline:
    """A queue of events.

    Attributes
    ----------
    now : float
        Virtual seconds.
    log : int
        Hash of everything that has happened.
    events : int
        Number of events.
    handlers : tuple of callable
        What handles the argument of an event, by its kind.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.log = 0
        self.events = 0
        self.handlers: tuple[Callable[[Any], None], ...] = ()
        self.heap: list[tuple[float, int, int, Any]] = []  # time, number, kind, argument
        self._order = itertools.count()

    def schedule(self, at: float, kind: int, argument: Any) -> None:
        """Have an event happen at time `at`."""
        heapq.heappush(self.heap, (at, next(self._order), kind, argument))

    def step(self) -> None:
        """Let the next event happen."""
        self.now, order, kind, argument = heapq.heappop(self.heap)
        self.events += 1
        self.log = hash((self.log, self.now, order, kind))
        self.handlers[kind](argument)
