"""What is read on a node's board, as events for its node.

A driver looks at the board whenever it likes, however much has happened since it looked last: only the difference
counts.
"""

from __future__ import annotations

from collections.abc import Callable

from nbps.core.memory import Rows
from nbps.core.messages import BarrierReached, Committed, Event, Needed, Refreshed
from nbps.core.rules import FINISHED


class Watch:
    """What the board of `workers` workers said when it was looked at last; `bounded` is whether the model is VAP.

    `summands` returns what the workers add up at a barrier, to which all of them have come.
    """

    def __init__(
        self, workers: int, bounded: bool, summands: Callable[[int], Rows | None] = lambda barrier: None
    ) -> None:
        self._summands = summands
        self._workers = workers
        self._bounded = bounded
        self.begin(0)

    def begin(self, clock: int) -> None:
        """Forget the run before: the board has been reset to `clock`."""
        self._lowest = clock
        self._arrived = 0
        self._committed = [clock] * self._workers
        self._needed = [0] * self._workers
        self._ships = [0] * self._workers

    def news(self, lowest: int, arrived: int, committed: list[int], needed: list[int], ships: list[int]) -> list[Event]:
        """Return what is new on the board.

        Parameters
        ----------
        lowest, arrived : int
            The lowest clock that a worker has committed, and the barrier that all of them have come to.
        committed, needed, ships : list of int
            For each worker the clock that it has committed, the highest visible clock that it has waited for, and how
            many ships it has taken in, `FINISHED` when it will take in no more; the first and the last for VAP alone.
        """
        events: list[Event] = []
        if self._bounded:
            if committed != self._committed:
                self._committed = list(committed)
                events.append(Committed(lowest, tuple(committed)))
        elif lowest > self._lowest:
            self._lowest = lowest
            events.append(Committed(lowest))
        if arrived > self._arrived:
            self._arrived = arrived
            events.append(BarrierReached(arrived, self._summands(arrived)))
        if needed != self._needed:
            events += [Needed(clock) for clock, before in zip(needed, self._needed, strict=True) if clock > before]
            self._needed = list(needed)
        if self._bounded and ships != self._ships:
            for worker, (count, before) in enumerate(zip(ships, self._ships, strict=True)):
                if count != before:
                    events.append(Refreshed(worker, count, last=count == FINISHED))
            self._ships = list(ships)
        return events
