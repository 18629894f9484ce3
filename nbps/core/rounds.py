"""VAP: what a node has sent in rounds, and what its readers have taken in.

Under a value bound a node sends all that its workers committed to every owner as one *round*, and a worker goes on when
rounds that hold much of it have been seen by everybody. Owners report a round as seen when every node has confirmed
the ships that hold it; a node confirms a ship when all its workers that have copies have refreshed them since.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from nbps.core.memory import Board
from nbps.core.messages import Refreshed
from nbps.core.replica import Replica
from nbps.core.settings import Settings
from nbps.errors import RemoteProtocolError


class Rounds:
    """The rounds of a node, and the ships that its readers, local workers with copies, are yet to take in.

    Attributes
    ----------
    number : int
        Of the last round; it is also that of its batch to every owner.
    opened : deque of (int, tuple of int)
        Rounds that not everybody has seen, at most `window`: number, and the clocks that the workers had committed.
    due : tuple of int or None
        Committed clocks of a round that waits for room.
    seen_by : list of int
        Number of the last round that everybody has taken in, by owner; never falls.
    installs : int
        Number of ships that are in the rows.
    """

    def __init__(self, settings: Settings, replicas: Mapping[int, Replica], board: Board) -> None:
        self.number = 0
        self.opened: deque[tuple[int, tuple[int, ...]]] = deque()
        self.due: tuple[int, ...] | None = None
        self.seen_by = [0] * settings.nodes
        self.installs = 0
        self._window = settings.window
        self._replicas = replicas
        self._board = board
        self._readers = set(range(settings.readers))  # those that still refresh copies
        self._unread: deque[tuple[int, int, int, set[int]]] = deque()  # install, owner, ship, yet to refresh

    def open(self, each: tuple[int, ...]) -> bool:
        """Open a round of what the workers committed by clocks `each`, or remember to; return whether it is open."""
        ready = [replica.can_push() for replica in self._replicas.values()]  # each one sees to it that it will be
        ready.append(len(self.opened) < self._window)  # owners and readers keep something for each round too
        if not all(ready):
            self.due = each
            return False
        self.due = None
        self.number += 1
        self.opened.append((self.number, each))
        return True

    def seen(self, owner: int, number: int) -> None:
        """Take note that everybody has taken in this node's batches up to `number` to rows of `owner`."""
        if number > self.number:
            raise RemoteProtocolError(f"node {owner} says that round {number} was seen; the last is {self.number}")
        self.seen_by[owner] = max(self.seen_by[owner], number)
        lowest, clocks = min(self.seen_by), None
        while self.opened and self.opened[0][0] <= lowest:
            _, clocks = self.opened.popleft()
        if clocks is not None:
            self._board.publish_seen(clocks)

    def installed(self, owner: int, ship: int) -> None:
        """Take note that a ship of `owner` is in the rows; its readers are yet to take it in."""
        self.installs += 1
        self._board.publish_installs(self.installs)
        if self._readers:
            self._unread.append((self.installs, owner, ship, set(self._readers)))
        else:
            self._replicas[owner].confirm(ship)

    def refreshed(self, event: Refreshed) -> None:
        """Confirm what all readers have taken in now."""
        if event.last:
            self._readers.discard(event.worker)
        for install, _, _, waiting in self._unread:
            if event.last or install <= event.installs:
                waiting.discard(event.worker)
        while self._unread and not self._unread[0][3]:
            _, owner, ship, _ = self._unread.popleft()
            self._replicas[owner].confirm(ship)
