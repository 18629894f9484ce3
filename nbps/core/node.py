"""One machine of a job among several: events in, actions out.

A node owns one shard of the rows, keeps a replica of every other shard, and has a link to every other node. Its driver
tells it what happened (`handle`), lends it the rows and the board, and carries out the actions that it returns, in
order. Workers know nothing of it: they wait on slots of the board, some of which the node writes.

- When the lowest clock of its workers rises, the node pushes what they added to each owner (`replica`).
- When the lowest clock of all nodes rises, an owner ships what changed (`shard`): at once (ESSP) or when asked (SSP).
- At a checkpoint it has a copy of its rows written first, and waits if there is no room for another copy.
- The slot of a shard on the board rises only after its rows have been taken in, so the wait of one box, for
  ``min(board) >= c - s``, keeps the promise across machines.

A node lives for one run (`nbps.core.runs`). What another node sent wrong costs that one its connection (`Refuse`),
never the job; what this node is told wrong is an error.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from nbps.core.halting import Halting
from nbps.core.links import Links, lost_by
from nbps.core.memory import Board, Memory
from nbps.core.messages import (
    Action,
    Arrived,
    BarrierReached,
    Committed,
    Confirm,
    End,
    Event,
    Evicted,
    Halt,
    Leave,
    Leaving,
    LinkDown,
    LinkUp,
    Needed,
    Pull,
    Push,
    Received,
    Refreshed,
    Refuse,
    Save,
    Saved,
    Ship,
    Spare,
    Stop,
    Subscribe,
    Terminate,
    Tick,
    Touched,
    Unsubscribe,
    Visible,
    WorkerLost,
)
from nbps.core.replica import Replica
from nbps.core.rounds import Rounds
from nbps.core.rules import FINISHED
from nbps.core.settings import Settings
from nbps.core.shard import Shard
from nbps.errors import LocalProtocolError, RemoteProtocolError

_STORY = 16  # events that an error tells


class State(enum.Enum):
    """Where a node stands."""

    RUNNING = "running"
    ENDED = "ended"  # the job failed; only what was said about it is sent again until it has arrived
    LEFT = "left"  # nobody needs this node any more


_RUNNING = State.RUNNING  # reading a member of an enum costs as much as comparing with it


class Node:
    """Node `settings.rank`; it has connections to the nodes in `connected`, by default to all.

    Attributes
    ----------
    clock, unsaved : int
        Lowest clock of its workers, as pushed last: never falls. Copies of rows to write: at most `Settings.copies`.
    gone : set of int
        Nodes that have said that they leave, with every addition to their rows: their silence is not a failure.
    rounds : Rounds
        VAP: what was sent and not seen by everybody, and what came and was not taken in.
    """

    def __init__(
        self, settings: Settings, memory: Memory, board: Board, now: float, connected: Collection[int] | None = None
    ) -> None:
        self.settings = settings
        self._enter(State.RUNNING)
        self.clock = settings.clock
        self.unsaved = 0
        self.told: deque[Any] = deque(maxlen=2 * _STORY)  # times of the last events, and these, in turn
        self._memory = memory
        self._board = board
        self._bounded = settings.terms.v0 is not None
        self._leaving = False  # said so: every addition to the rows owned here has arrived
        self.gone: set[int] = set()
        self._ended_at = 0.0
        self.links = links = Links(settings, now, connected)
        self.replicas = {node: Replica(node, settings, memory, board, links) for node in links}
        self.rounds = Rounds(settings, self.replicas, board)
        clocks = [settings.clock] * settings.nodes
        self.halting = Halting(settings.rank, clocks, self.replicas, board, links.post_to_all)
        self.shard = Shard(settings, memory, board, links, self.rounds.seen, self._save, self.halting)
        self._on_message: dict[type, Callable[[int, Any], None]] = {
            Push: self.shard.push,
            Ship: self._on_ship,
            Pull: self.shard.pull,
            Subscribe: self.shard.subscribe,
            Unsubscribe: self.shard.unsubscribe,
            Arrived: self._on_arrived,
            Confirm: self.shard.confirm,
            Visible: lambda source, message: self.rounds.seen(source, message.number),
            Leaving: self._on_leaving,
            Stop: self._on_stop,
            Halt: self._on_halt,
        }

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event at time `now`, in seconds from any origin; return what is to be done, in order.

        Raises
        ------
        LocalProtocolError
            If the event cannot happen, or not in this state; tells the node's last events.
        """
        links = self.links
        links.now = now
        out: list[Action] = []
        links.out = out
        self.told += (now, event)  # no tuple is kept for each
        handler = self._handlers.get(type(event))
        try:
            if handler is None:
                raise LocalProtocolError(f"{self} does not know the event {event}")
            handler(self, event)
            if self.shard.clock == FINISHED and self.state is _RUNNING:
                self._look_to_leave()
        except LocalProtocolError as error:
            raise LocalProtocolError(f"{error}\n{self.story()}") from error
        return out

    def story(self) -> str:
        """Say what the node was told last."""
        told = list(self.told)
        lines = [f"  {now:.6f} {event}" for now, event in zip(told[::2], told[1::2], strict=True)]
        return "\n".join([f"{self} was told last:", *lines])

    def __str__(self) -> str:
        """Say which node, and where it stands."""
        return f"node {self.settings.rank} ({self.state.value}, clock {self.clock})"

    # ----------------------------------------------------------------- what the driver says

    def _on_committed(self, event: Committed) -> None:
        clock, each = event
        if clock < self.clock:
            raise LocalProtocolError(f"node {self.settings.rank} went back from clock {self.clock} to {clock}")
        if self._bounded:
            self.clock = clock
            self._start_round(each or ())
        elif clock > self.clock:
            self.clock = clock
            for replica in self.replicas.values():
                replica.push(clock)
            self.shard.commit(clock, 0)
        if clock == FINISHED and not self.settings.terms.pushes:
            for replica in self.replicas.values():
                replica.need(FINISHED)  # a run ends with the same rows everywhere

    def _on_needed(self, event: Needed) -> None:
        if not self.settings.terms.pushes:
            for replica in self.replicas.values():
                replica.need(event.clock)

    def _on_touched(self, event: Touched) -> None:
        self.replicas[event.owner].touch(event.rows)

    def _on_evicted(self, event: Evicted) -> None:
        self.replicas[event.owner].evict(event.rows)

    def _on_spare(self, event: Spare) -> None:
        # Strict BSP and VAP count batches: one for each clock.
        if not (self.settings.terms.ordered or self._bounded or self.clock == FINISHED):
            self.replicas[event.owner].push_early(self.clock, event.bytes_limit)

    def _on_barrier(self, event: BarrierReached) -> None:
        self._board.publish_arrived(self.settings.rank, event.count, None)
        self.links.post_to_all(Arrived(event.count, event.summands))

    def _on_refreshed(self, event: Refreshed) -> None:
        self.rounds.refreshed(event)

    def _on_saved(self, event: Saved) -> None:
        self.unsaved -= 1
        if self.state is State.RUNNING:
            self.shard.go_on()
            if self.settings.rank == 0 and self.shard.clock == self.halting.clock and not self.unsaved:
                self._end(self.halting.story(), min(self.halting.asked))  # node 0 completes checkpoints

    def _on_terminate(self, event: Terminate) -> None:
        if self.shard.clock != FINISHED:  # else the run is as good as over
            self.halting.begin(asked=True)
            self.shard.go_on()

    def _on_received(self, event: Received) -> None:
        source, frame = event
        links = self.links
        link = links[source]
        message = None
        try:
            message = link.accept(frame, links.now)
            if message is not None:
                self._on_message[type(message)](source, message)
        except RemoteProtocolError as error:
            if message is not None:
                link.give_back()  # it changed nothing, and may come again as it should be
            links.out.append(Refuse(source, str(error)))
            return
        if (self._bounded or source in links.due) and links.has_room(source):
            self._use_room(source)
        if link.received - link.told >= links.half_window:
            links.answer(link)

    def _on_link_up(self, event: LinkUp) -> None:
        self.links.connect(event.peer)

    def _on_link_down(self, event: LinkDown) -> None:
        self.links.disconnect(event.peer)

    def _on_tick(self, event: Tick) -> None:
        for link, silent_s in self.links.silent():
            if link.peer not in self.gone:
                self._end(f"node {link.peer} was not heard for {silent_s:.1f} s; the job ends", lost=link.peer)
                return
            link.forget()
        self.links.keep_alive()

    def _on_received_after_end(self, event: Received) -> None:
        link = self.links[event.source]
        try:
            link.accept(event.frame, self.links.now)  # what it acknowledges counts, what it says does not
        except RemoteProtocolError as error:
            self.links.out.append(Refuse(event.source, str(error)))
            return
        if link.owed_at is not None:
            self.links.answer(link)  # it may wait for just that to end as well

    def _on_tick_after_end(self, event: Tick) -> None:
        self.links.retry()
        if self.links.all_acknowledged or self.links.now - self._ended_at > self.settings.failure_timeout_s:
            self._leave()

    def _on_worker_lost(self, event: WorkerLost) -> None:
        self._end(*event)

    def _on_nothing_new(self, event: WorkerLost | Tick) -> None:
        """Go on: the first reason is the one that counts, and a node that has left waits for nothing."""

    # ----------------------------------------------------------------- what other nodes say

    def _on_ship(self, source: int, message: Ship) -> None:
        self.replicas[source].install(message)
        if self._bounded:
            self.rounds.installed(source, message.number)

    def _on_arrived(self, source: int, message: Arrived) -> None:
        self._board.publish_arrived(source, message.count, message.summands)

    def _on_leaving(self, source: int, message: Leaving) -> None:
        self.gone.add(source)
        self.links.answer(self.links[source])  # it leaves when it knows that this has arrived

    def _on_stop(self, source: int, message: Stop) -> None:
        lost = lost_by(source, message, self.settings.nodes)
        self._end(f"node {source} ended the job: {message.reason}", lost, bool(message.unsaved), tell=False)

    def _on_halt(self, source: int, message: Halt) -> None:
        self.halting.hear(source, message)
        self.shard.go_on()

    # ----------------------------------------------------------------- parts

    def _enter(self, state: State) -> None:
        self.state = state
        self._handlers = _HANDLERS[state]

    def _start_round(self, each: tuple[int, ...]) -> None:
        """VAP: send everything committed so far to every owner, as one round that is seen as a whole."""
        if self.rounds.open(each):
            for replica in self.replicas.values():
                replica.push(self.clock)
            self.shard.commit(self.clock, self.rounds.number)

    def _save(self, clock: int) -> bool:
        """Have a copy of the owned rows written; return whether there is room for one."""
        if self.unsaved == self.settings.copies:
            return False
        self.unsaved += 1
        self.links.out.append(Save(self.settings.run, clock, self._memory.copy_owned()))
        return True

    def _use_room(self, peer: int) -> None:
        """Send to `peer` what waited for room."""
        self.links.due.discard(peer)
        if self._bounded:
            if self.rounds.due is not None:
                self._start_round(self.rounds.due)
        elif self.replicas[peer].push_due:
            self.replicas[peer].push(self.clock)
        if self.shard.ship_due[peer]:
            self.shard.ship(peer)

    def _look_to_leave(self) -> None:
        """Say that nothing is missing here, for good; leave when all have said so and know it of this node.

        A node that leaves too early would be taken for lost; a last acknowledgement that is lost costs its receiver a
        wait for `failure_timeout_s`, no error.
        """
        if self._leaving and len(self.gone) < len(self.links):
            return  # the usual case of many nodes, found without looking at each
        if any(replica.asked is not None for replica in self.replicas.values()):
            return  # a node that is asked must not leave before it has answered
        if any(self.shard.ship_due):
            return  # nor those to which the last values have not been sent
        if not self._leaving:
            self._leaving = True
            self.links.post_to_all(Leaving())
        if len(self.gone) == len(self.links) and self.links.all_acknowledged and not self.unsaved:
            self._leave()

    def _leave(self) -> None:
        self.links.answer_owed()
        self._enter(State.LEFT)
        self.links.out.append(Leave())

    def _end(self, reason: str, lost: int | None = None, unsaved: bool = False, tell: bool = True) -> None:
        if tell:
            self.links.post_to_all(Stop(0 if lost is None else lost + 1, int(unsaved), reason))
            if lost is not None and lost in self.links:
                self.links[lost].forget()  # nobody waits for it to hear
        self._enter(State.ENDED)
        self._ended_at = self.links.now
        self.links.out.append(End(reason, lost, unsaved))

    def validate(self) -> None:
        """Raise `LocalProtocolError` if an invariant of the node or of one of its parts does not hold."""
        for link in self.links.values():
            link.validate()
        for replica in self.replicas.values():
            replica.validate()
        self.shard.validate()
        checks = {
            "the shard knows the clock of its own workers": self.rounds.due is not None
            or self.shard.clocks[self.settings.rank] == self.clock,
            "few rounds are open": len(self.rounds.opened) <= self.settings.window,
            "few copies wait to be written": 0 <= self.unsaved <= self.settings.copies,
            "the clock is possible": self.clock <= FINISHED,
        }
        for rule, holds in checks.items():
            if not holds:
                raise LocalProtocolError(f"{self} breaks: {rule}")


_AFTER_END: dict[type, Callable[[Node, Any], None]] = {  # a node that has left answers: a farewell may have been lost
    Received: Node._on_received_after_end,
    LinkUp: Node._on_link_up,
    LinkDown: Node._on_link_down,
    WorkerLost: Node._on_nothing_new,
    Saved: Node._on_saved,
}
_HANDLERS: dict[State, dict[type, Callable[[Node, Any], None]]] = {
    State.RUNNING: {
        Committed: Node._on_committed,
        Needed: Node._on_needed,
        Touched: Node._on_touched,
        Evicted: Node._on_evicted,
        Spare: Node._on_spare,
        BarrierReached: Node._on_barrier,
        Refreshed: Node._on_refreshed,
        Received: Node._on_received,
        LinkUp: Node._on_link_up,
        LinkDown: Node._on_link_down,
        Tick: Node._on_tick,
        WorkerLost: Node._on_worker_lost,
        Terminate: Node._on_terminate,
        Saved: Node._on_saved,
    },
    State.ENDED: {**_AFTER_END, Tick: Node._on_tick_after_end},
    State.LEFT: {**_AFTER_END, Tick: Node._on_nothing_new},
}
