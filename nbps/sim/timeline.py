"""Virtual time: events in the order of their times, and of their making where these are equal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
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
        self._made = -1  # number of the event made last
        self._heap: list[tuple[float, int, int, Any]] = []  # time, number, kind, argument
        self._due: deque[tuple[int, int, Any]] = deque()  # without the time: events of `now` that were made at `now`

    def schedule(self, at: float, kind: int, argument: Any) -> None:
        """Have an event happen at time `at`."""
        self._made = made = self._made + 1
        if at == self.now:
            self._due.append((made, kind, argument))
        else:
            heappush(self._heap, (at, made, kind, argument))

    def next_kind(self) -> int | None:
        """Return of which kind the next event is; None if there is none."""
        if self._due and not (self._heap and self._heap[0][0] == self.now):
            return self._due[0][1]
        return self._heap[0][2] if self._heap else None

    def step(self) -> bool:
        """Let the next event happen; return whether there was one."""
        due, heap = self._due, self._heap
        if due and not (heap and heap[0][0] == self.now):  # those in the heap were made before
            number, kind, argument = due.popleft()
        elif heap:
            self.now, number, kind, argument = heappop(heap)
        else:
            return False
        self.events += 1
        self.log = hash((self.log, self.now, number, kind))
        self.handlers[kind](argument)
        return True
