"""A node's replica of the rows that another node owns: what was sent there, and what came back.

Local workers add to the replica as they add to any row. When the node's clock rises, the deltas go to the owner as
one numbered batch; what the owner ships back replaces what it had shipped before. A batch is kept until a ship says
that its values contain it. That the owner has *received* the batch is not enough: an older ship may still be on its
way.
"""

from __future__ import annotations

from nbps.core.links import Links
from nbps.core.memory import Board, Memory, Rows
from nbps.core.messages import Confirm, Pull, Push, Ship, Subscribe, Unsubscribe
from nbps.core.rules import FINISHED, is_checkpoint
from nbps.core.settings import Settings
from nbps.errors import LocalProtocolError, RemoteProtocolError


class Replica:
    """The replica of the rows of `owner`.

    Attributes
    ----------
    number : int
        Number of the last batch sent to the owner.
    unapplied : list of (int, Rows)
        Batches that no ship has confirmed to contain, in order.
    unapplied_bytes : int
        What they take together.
    clock : int
        Every update of every worker from clocks < clock is in the replica; never falls.
    needed : set of int
        SSP: clocks above `clock` that workers wait for.
    asked : int or None
        SSP: clock asked for and not given: the lowest needed one. A worker that waits for a later one may hold up the
        worker that waits for this one, or be held up by it.
    ships : int
        Number of the last ship that is in the replica.
    requests : int
        Number of the last request for rows.
    push_due : bool
        A batch waits for room on the link.
    halting : bool
        The rows may be saved at any of the next clocks: nothing is left for a later batch.
    """

    def __init__(
        self,
        owner: int,
        settings: Settings,
        memory: Memory,
        board: Board,
        links: Links,
    ) -> None:
        self.owner = owner
        self.number = 0
        self.unapplied: list[tuple[int, Rows]] = []
        self.unapplied_bytes = 0
        self.clock = settings.clock
        self.asked: int | None = None
        self.needed: set[int] = set()
        self.ships = self.requests = 0
        self.push_due = False
        self.halting = False
        self._memory = memory
        self._board = board
        self._post = links.post
        self._has_room = links.has_room
        self._due = links.due
        self._window = settings.window
        self._window_bytes = settings.window_bytes
        self._checkpoint_every = settings.terms.checkpoint_every

    def push(self, clock: int) -> None:
        """Send what local workers, at `clock`, have added, or remember to do so when there is room."""
        # What is not sent now stays in the replica: the next batch brings it.
        self.push_due = not self.can_push()
        if self.push_due:
            self._due.add(self.owner)
            return
        self.number += 1
        exact = self.halting or clock == FINISHED or is_checkpoint(clock, self._checkpoint_every)
        rows = self._memory.collect(self.owner, exact)
        if rows is not None:
            self._keep(rows)
        self._post(self.owner, Push(self.number, clock, rows))

    def push_early(self, clock: int, bytes_limit: int) -> None:
        """Send some of what local workers added since they committed `clock`, if nothing else waits for room."""
        half_full = 2 * len(self.unapplied) >= self._window or 2 * self.unapplied_bytes >= self._window_bytes
        if self.push_due or half_full or not self._has_room(self.owner):
            return
        rows = self._memory.important(self.owner, bytes_limit)
        if rows is not None:
            self.number += 1
            self._keep(rows)
            self._post(self.owner, Push(self.number, clock, rows))

    def can_push(self) -> bool:
        """Whether a batch may be sent; sees to it that it may be, some time."""
        if len(self.unapplied) >= self._window or self.unapplied_bytes >= self._window_bytes:
            self._ask(0)
            return False
        return self._has_room(self.owner)

    def _keep(self, rows: Rows) -> None:
        self.unapplied.append((self.number, rows))
        self.unapplied_bytes += self._memory.bytes_of(rows)

    def need(self, clock: int) -> None:
        """Ask for `clock`, for which a worker waits."""
        if clock > self.clock:
            self.needed.add(clock)
            self._ask(clock)

    def touch(self, rows: Rows) -> None:
        """Ask for rows that are not kept fresh."""
        self.requests += 1
        self._memory.want(self.owner, rows, self.requests)
        self._post(self.owner, Subscribe(self.requests, rows))

    def evict(self, rows: Rows) -> None:
        """Keep rows fresh no longer."""
        self._post(self.owner, Unsubscribe(rows))

    def install(self, ship: Ship) -> None:
        """Take in what the owner shipped, then say so on the board."""
        self._check(ship)
        number, clock, applied, answered, rows = ship
        unapplied = self.unapplied
        if rows is not None:
            has_newer = unapplied and unapplied[-1][0] > applied
            newer = [batch for batch_number, batch in unapplied if batch_number > applied] if has_newer else []
            self._memory.install(self.owner, rows, newer, answered)
        self.ships = number
        while unapplied and unapplied[0][0] <= applied:
            self.unapplied_bytes -= self._memory.bytes_of(unapplied.pop(0)[1])
        if clock > self.clock:
            self.clock = clock
            self._board.publish_shard(self.owner, clock)
        if self.asked is not None and clock >= self.asked:
            self.asked = None
            self.needed = {clock for clock in self.needed if clock > self.clock}
            if self.needed:
                self._ask(min(self.needed))

    def _check(self, ship: Ship) -> None:
        """Raise `RemoteProtocolError` if the owner cannot have shipped this."""
        number, clock, applied, answered, _ = ship
        possible = number == self.ships + 1 and clock >= self.clock
        if not (possible and applied <= self.number and answered <= self.requests):
            raise RemoteProtocolError(
                f"node {self.owner} shipped number {number} of clock {clock}, with batches up to {applied} and answers "
                f"up to {answered}; expected number {self.ships + 1} of clock {self.clock} or later, up to "
                f"{self.number} and {self.requests}"
            )

    def confirm(self, number: int) -> None:
        """Tell the owner that all local workers have taken in its ships up to `number` (VAP)."""
        self._post(self.owner, Confirm(number))

    def _ask(self, clock: int) -> None:
        if self.asked is None or clock < self.asked:
            self.asked = clock
            self._post(self.owner, Pull(clock))

    def validate(self) -> None:
        """Raise `LocalProtocolError` if a field breaks its invariant."""
        numbers = [number for number, _ in self.unapplied]
        if numbers != sorted(set(numbers)) or (numbers and not 0 < numbers[-1] <= self.number):
            raise LocalProtocolError(f"replica of node {self.owner} keeps batches {numbers} of {self.number}")
        if len(numbers) > self._window:
            raise LocalProtocolError(
                f"replica of node {self.owner} keeps {len(numbers)} batches; the limit is {self._window}"
            )
        sizes = [self._memory.bytes_of(rows) for _, rows in self.unapplied]
        if sum(sizes) != self.unapplied_bytes or sum(sizes[:-1]) >= self._window_bytes:
            raise LocalProtocolError(
                f"replica of node {self.owner} keeps batches of {sizes} bytes, counted as {self.unapplied_bytes}; only "
                f"the last may go beyond {self._window_bytes}"
            )
