"""The rows that a node owns: whose additions have arrived, and which nodes must be told.

The owner's live rows are the authority. Local workers add to them directly, batches of other nodes are added as they
come. The *shard clock* is the lowest clock among all nodes: every addition from clocks below it is in the rows. When it
rises, what changed is shipped: to all subscribers at once (ESSP), or to those that asked (SSP).

Strict BSP adds batches in the order of the nodes once all have come, so that sums of floats are the same in every run.
VAP ships after every batch and reports back when everybody has taken it in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from nbps.core.halting import Halting
from nbps.core.links import Links
from nbps.core.memory import Board, Memory, Rows
from nbps.core.messages import Confirm, Pull, Push, Ship, Subscribe, Unsubscribe, Visible
from nbps.core.rules import FINISHED, is_checkpoint
from nbps.core.settings import Settings
from nbps.errors import LocalProtocolError, RemoteProtocolError


class InTransit(NamedTuple):
    """A batch that not everybody has taken in: seen when every node has confirmed these ships."""

    source: int
    number: int
    ships: list[int]  # for each node the ship that holds it


class Shard:
    """The shard of node `rank`; `save` has a copy of the rows written, or says that there is no room for one.

    Attributes
    ----------
    clocks : list of int
        Clock of each node as it was heard; never falls.
    clock : int
        Their minimum, or the one before while `save_due`.
    behind : int
        Nodes whose clock is still `clock`.
    save_due : bool
        All nodes have come to a checkpoint, and there is no room for another copy of the rows yet.
    applied : list of int
        Number of the last batch of each node that is in the rows.
    waiting : list of deque of Rows or None
        Strict BSP: batches of each node that wait for those of others from the same clock, in order.
    added : int
        Strict BSP: clocks whose batches are in the rows.
    wanted : list of int or None
        SSP: lowest clock that each node has asked for and not been given; above `clock`.
    ship_due : list of bool
        A ship to this node waits for room on its link.
    answered : list of int
        Last request of each node that the next ship answers.
    ships, confirmed : list of int
        VAP: ships to each node, and how many of them it has taken in; confirmed <= ships.
    transit : deque of InTransit
        VAP: batches not seen by everybody, in order; of each node at most the rounds that `Node` lets it have open.
    """

    def __init__(
        self,
        settings: Settings,
        memory: Memory,
        board: Board,
        links: Links,
        seen: Callable[[int, int], None],
        save: Callable[[int], bool],
        halting: Halting,
    ) -> None:
        rank, nodes, clock = settings.rank, settings.nodes, settings.clock
        self.rank = rank
        self.terms = terms = settings.terms
        self.clock = clock
        self.clocks = halting.clocks
        self.behind = nodes
        self.save_due = False
        self.applied = [0] * nodes
        self.waiting: list[deque[Rows | None]] = [deque() for _ in range(nodes)]
        self.added = clock
        self.wanted: list[int | None] = [None] * nodes
        self.ship_due = [False] * nodes
        self.answered = [0] * nodes
        self.ships = [0] * nodes
        self.confirmed = [0] * nodes
        self.transit: deque[InTransit] = deque()
        self._others = [node for node in range(nodes) if node != rank]
        self._memory = memory
        self._board = board
        self._post = links.post
        self._has_room = links.has_room
        self._due = links.due
        self._seen = seen
        self._save = save
        self._halting = halting
        self._bounded = terms.v0 is not None
        self._pushes, self._replies = terms.pushes, terms.replies

    def commit(self, clock: int, number: int) -> None:
        """Take note that this node's own workers have committed `clock`; their additions are in the rows."""
        if self._bounded:
            self._ship_round(self.rank, number)
        self._hear(self.rank, clock)

    def push(self, source: int, batch: Push) -> None:
        """Take a batch of another node."""
        number, clock, rows = batch
        expected = self.applied[source] + len(self.waiting[source]) + 1
        if number != expected or clock < self.clocks[source]:
            raise RemoteProtocolError(
                f"node {source} sent batch {number} of clock {clock} to shard {self.rank}; expected number {expected} "
                f"of clock {self.clocks[source]} or later"
            )
        if self.terms.ordered:
            if rows is not None:
                self._memory.check(rows)  # now, as long as it is known which connection it came on
            self.waiting[source].append(rows)
        else:
            if rows is not None:
                self._memory.apply(source, rows)
            self.applied[source] = number
            if self._bounded:
                self._ship_round(source, number)
        self._hear(source, clock)
        if self._replies:
            self.ship(source)

    def pull(self, source: int, pull: Pull) -> None:
        """Ship to `source` now or as soon as the clock has come."""
        if self.clock >= pull.clock:
            self.ship(source)
        else:
            self.wanted[source] = pull.clock

    def subscribe(self, source: int, order: Subscribe) -> None:
        """Ship rows to `source`, now and whenever they change."""
        if order.request != self.answered[source] + 1:
            raise RemoteProtocolError(
                f"node {source} sent request {order.request} for rows; expected number {self.answered[source] + 1}"
            )
        self._memory.subscribe(source, order.rows)
        self.answered[source] = order.request
        self.ship(source)

    def unsubscribe(self, source: int, order: Unsubscribe) -> None:
        """Ship rows to `source` no more."""
        self._memory.unsubscribe(source, order.rows)

    def confirm(self, source: int, confirmation: Confirm) -> None:
        """Take note that `source` has taken in ships (VAP)."""
        if confirmation.number > self.ships[source]:
            raise RemoteProtocolError(
                f"node {source} confirms ship {confirmation.number}; expected at most {self.ships[source]}, the last"
            )
        self.confirmed[source] = max(self.confirmed[source], confirmation.number)
        self._pop_seen()

    def ship(self, node: int) -> None:
        """Ship to `node` what changed, or remember to do so when its link has room again."""
        if not self._has_room(node):
            self.ship_due[node] = True
            self._due.add(node)
            return
        self.ship_due[node] = False
        wanted = self.wanted[node]
        if wanted is not None and wanted <= self.clock:
            self.wanted[node] = None
        self.ships[node] += 1
        # The rows are read after the clock: what is in them is never older than what is said about them.
        clock, applied, answered = self.clock, self.applied[node], self.answered[node]
        rows = self._memory.gather(node, clock == FINISHED)
        self._post(node, Ship(self.ships[node], clock, applied, answered, rows))

    def _hear(self, source: int, clock: int) -> None:
        before, self.clocks[source] = self.clocks[source], clock
        if before == self.clock < clock:
            self.behind -= 1
            if not self.behind:
                self._advance(min(self.clocks))

    def go_on(self) -> None:
        """Go to a clock that waits: for room for a copy, or to know whether it is that of a halt."""
        if self.save_due:
            self._advance(min(self.clocks))

    def _advance(self, clock: int) -> None:
        """Go to the clock that all nodes have come to, unless its rows are to be saved and there is no room for them.

        Nobody passes a checkpoint before all owners have said that they are there, so the rows hold nothing of later
        clocks, now or when there is room.
        """
        if self.terms.ordered:
            self._apply_waiting(clock)
        halting = self._halting
        saved = clock == halting.clock or is_checkpoint(clock, self.terms.checkpoint_every)
        self.save_due = halting.may_be_at(clock) or (saved and not self._save(clock))
        if self.save_due:
            return
        if clock <= self.clock:  # looked at in production, too: a comparison a clock
            raise LocalProtocolError(f"shard {self.rank} goes from clock {self.clock} to {clock}; clocks rise")
        self.clock = clock
        self.behind = self.clocks.count(clock)
        self._board.publish_shard(self.rank, clock)
        pushes = self._pushes
        for node in self._others:
            wanted = self.wanted[node]
            if pushes or (wanted is not None and wanted <= clock):
                self.ship(node)

    def _apply_waiting(self, clock: int) -> None:
        while self.added < clock and any(self.waiting):
            self.added += 1
            for node, waiting in enumerate(self.waiting):
                if waiting:
                    rows = waiting.popleft()
                    if rows is not None:
                        self._memory.apply(node, rows)
                    self.applied[node] += 1
        if clock != FINISHED:
            self.added = clock

    def _ship_round(self, source: int, number: int) -> None:
        for node in self._others:
            self.ship(node)
        ships = [n + due for n, due in zip(self.ships, self.ship_due, strict=True)]
        self.transit.append(InTransit(source, number, ships))
        self._pop_seen()

    def _pop_seen(self) -> None:
        # Workers of this node, with copies of the rows owned here, are not asked about a batch of `source`. They need
        # not be: its round is seen when all owners say so, `source` itself among them, and the ship that `source` sends
        # here for the round comes after the batch, on the same link. A node that has taken in that ship has the batch.
        while self.transit:
            source, number, ships = self.transit[0]
            if any(self.confirmed[node] < ships[node] for node in self._others if node != source):
                return
            self.transit.popleft()
            if source == self.rank:
                self._seen(source, number)
            else:
                self._post(source, Visible(number))

    def validate(self) -> None:
        """Raise `LocalProtocolError` if a field breaks its invariant."""
        checks = {
            "the clock is the lowest of all nodes": self.save_due or self.clock == min(self.clocks),
            "nodes at the clock are counted": self.behind == self.clocks.count(self.clock),
            "the clock is below one that waits to be saved": not self.save_due or self.clock < min(self.clocks),
            "what is wanted has not come yet": all(
                w is None or w > self.clock or due for w, due in zip(self.wanted, self.ship_due, strict=True)
            ),
            "batches wait in strict BSP only": self.terms.ordered or not any(self.waiting),
            "no batch waits for nothing": not any(self.waiting) or self.added >= min(self.clock, FINISHED - 1),
            "confirmed ships were sent": all(c <= s for c, s in zip(self.confirmed, self.ships, strict=True)),
        }
        for rule, holds in checks.items():
            if not holds:
                raise LocalProtocolError(
                    f"shard {self.rank} at clock {self.clock} (nodes at {self.clocks}) breaks: {rule}"
                )
