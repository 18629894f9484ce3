"""One machine of a job among several: events in, actions out.

A node owns one shard of the rows, keeps a replica of every other shard, and has a link to every other node. Its driver
tells it what happened (`handle`), lends it the rows and the board, and carries out the actions that it returns, in
order. Workers know nothing of it: they wait on slots of the board, some of which the node writes.

- When the lowest clock of its workers rises, the node pushes what they added to each owner (`replica`).
- When the lowest clock of all nodes rises, an owner ships what changed (`shard`): at once (ESSP) or when asked (SSP).
- The slot of a shard on the board rises only after its rows have been taken in, so the wait of one box, for
  ``min(board) >= c - s``, keeps the promise across machines.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nbps.core.link import Link
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
    Leave,
    Leaving,
    LinkDown,
    LinkUp,
    Message,
    Needed,
    Pull,
    Push,
    Received,
    Refreshed,
    Send,
    Ship,
    Spare,
    Stop,
    Subscribe,
    Tick,
    Touched,
    Unsubscribe,
    Visible,
    WorkerLost,
)
from nbps.core.replica import Replica
from nbps.core.rules import FINISHED
from nbps.core.shard import Shard
from nbps.core.terms import Terms
from nbps.errors import ProtocolError

_STORY = 16  # events that an error tells


@dataclass(frozen=True)
class Settings:
    """What a node must know.

    Attributes
    ----------
    rank, nodes : int
    terms : Terms
    readers : int
        Local workers with private copies, whose refreshing counts under VAP.
    run : int
        How often the job was restarted; nodes of different ones do not talk.
    clock : int
        Where the job starts: 0, or the clock of the checkpoint that the rows come from.
    window : int
        Messages to one peer that may be unacknowledged before pushes and ships to it wait, batches that may be
        unapplied, and rounds that not everybody has taken in (VAP). What waits is not lost: later batches bring it.
    window_bytes : int
        Unapplied batches for one peer may have so many bytes before the next waits; one of any size may be on its way.
    retry_s : float
        Everything unacknowledged is sent again after so long without progress; infinite where connections lose nothing
        as long as they stand.
    ack_s : float
        What was received is acknowledged after so long, if nothing else was sent meanwhile, or when it is half a
        window.
    heartbeat_s : float
        A node sends at least so often on every link.
    failure_timeout_s : float
        A node not heard for so long is lost, and the job ends; infinite to wait for it.
    """

    rank: int
    nodes: int
    terms: Terms
    readers: int = 0
    run: int = 0
    clock: int = 0
    window: int = 64
    window_bytes: int = 128 << 20
    retry_s: float = 0.5
    ack_s: float = 0.125
    heartbeat_s: float = 1.0
    failure_timeout_s: float = 30.0


class State(enum.Enum):
    """Where a node stands."""

    RUNNING = "running"
    ENDED = "ended"  # the job failed; only what was said about it is sent again until it has arrived
    LEFT = "left"  # nobody needs this node any more

    __hash__ = object.__hash__  # looked up for each event; that of Enum is a function in Python


class Node:
    """Node `settings.rank`.

    Attributes
    ----------
    clock : int
        Lowest clock of its workers, as pushed last; never falls.
    round : int
        VAP: number of the last round of batches, one to every owner.
    installs : int
        VAP: number of ships that are in the rows.
    seen_by : list of int
        VAP: number of the last round that everybody has taken in, by owner.
    """

    def __init__(self, settings: Settings, memory: Memory, board: Board, now: float) -> None:
        self.settings = settings
        self.state = State.RUNNING
        self.clock = settings.clock
        self.arrived = 0
        self.round = 0
        self.installs = 0
        self.seen_by = [0] * settings.nodes
        self._now = now
        self._ticked_at = now
        self._out: list[Action] = []
        self._story: deque[tuple[float, Any]] = deque(maxlen=_STORY)
        self._board = board
        self._bounded = settings.terms.v0 is not None
        self._round_due: tuple[int, ...] | None = None  # a round waits for room: committed clocks
        self._rounds: deque[tuple[int, tuple[int, ...]]] = deque()  # not seen yet: number, committed clocks
        self._readers = set(range(settings.readers))  # local workers that still refresh copies
        self._unread: deque[tuple[int, int, int, set[int]]] = deque()  # install, owner, ship, who is yet to refresh
        self._leaving = False  # said so: every addition to the rows owned here has arrived
        self._gone: set[int] = set()  # nodes that said so; their silence is no failure
        self._ended_at = 0.0
        self._others = [node for node in range(settings.nodes) if node != settings.rank]
        self.links = {node: Link(node, settings.run, now) for node in self._others}
        self.replicas = {
            node: Replica(
                node,
                memory,
                board,
                self._post,
                self._has_room,
                settings.window,
                settings.window_bytes,
                settings.clock,
                settings.terms.checkpoint_every,
            )
            for node in self._others
        }
        self.shard = Shard(
            settings.rank, settings.nodes, settings.terms, memory, board,
            self._post, self._has_room, self._on_seen, settings.clock,
        )  # fmt: skip
        self._on_message: dict[type, Callable[[int, Any], None]] = {
            Push: self.shard.push,
            Ship: self._on_ship,
            Pull: self.shard.pull,
            Subscribe: self.shard.subscribe,
            Unsubscribe: self.shard.unsubscribe,
            Arrived: self._on_arrived,
            Confirm: self.shard.confirm,
            Visible: self._on_visible,
            Leaving: self._on_leaving,
            Stop: self._on_stop,
        }

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event at time `now`, in seconds from any origin; return what is to be done, in order.

        Raises
        ------
        ProtocolError
            If the event cannot happen; tells the node's last events.
        """
        self._now = now
        self._out = []
        self._story.append((now, event))
        handler = _HANDLERS[self.state].get(type(event))
        try:
            if handler is not None:
                handler(self, event)
            if self.shard.clock == FINISHED and self.state is State.RUNNING:
                self._look_to_leave()
        except ProtocolError as error:
            raise ProtocolError(f"{error}\n{self.story()}") from error
        return self._out

    def story(self) -> str:
        """Say what the node was told last."""
        lines = [f"  {now:.6f} {event}" for now, event in self._story]
        return "\n".join([f"node {self.settings.rank} ({self.state.value}, clock {self.clock}) was told last:", *lines])

    # ----------------------------------------------------------------- what the driver says

    def _on_committed(self, event: Committed) -> None:
        if event.clock < self.clock:
            raise ProtocolError(f"node {self.settings.rank} went back from clock {self.clock} to {event.clock}")
        if self._bounded:
            self.clock = event.clock
            self._start_round(event.each or ())
        elif event.clock > self.clock:
            self.clock = event.clock
            for replica in self.replicas.values():
                replica.push(event.clock)
            self.shard.commit(event.clock, 0)
        if event.clock == FINISHED and not self.settings.terms.pushes:
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
        self.arrived = event.count
        self._board.publish_arrived(self.settings.rank, event.count, None)
        for node in self._others:
            self._post(node, Arrived(event.count, event.summands))

    def _on_refreshed(self, event: Refreshed) -> None:
        if event.last:
            self._readers.discard(event.worker)
        for install, _, _, waiting in self._unread:
            if event.last or install <= event.installs:
                waiting.discard(event.worker)
        while self._unread and not self._unread[0][3]:
            _, owner, number, _ = self._unread.popleft()
            self.replicas[owner].confirm(number)

    def _on_received(self, event: Received) -> None:
        link = self.links[event.source]
        message = link.accept(event.frame, self._now)
        if message is not None:
            self._on_message[type(message)](event.source, message)
        if len(link.kept) < self.settings.window:
            self._use_room(event.source)
        if link.up and link.received - link.told >= max(1, self.settings.window // 2):
            self._out.append(Send(event.source, link.answer(self._now)))

    def _on_link_up(self, event: LinkUp) -> None:
        link = self.links[event.peer]
        link.up = True
        for frame in link.again(self._now):
            self._out.append(Send(event.peer, frame))

    def _on_link_down(self, event: LinkDown) -> None:
        self.links[event.peer].up = False

    def _on_tick(self, event: Tick) -> None:
        settings, now = self.settings, self._now
        deaf_s, self._ticked_at = now - self._ticked_at, now
        for peer, link in self.links.items():
            if deaf_s > settings.heartbeat_s:
                link.heard_at += deaf_s  # this node did not run, or was busy: others may well have spoken
            if now - link.heard_at > settings.failure_timeout_s:
                if peer not in self._gone:
                    self._end(f"node {peer} was not heard for {now - link.heard_at:.1f} s; the job ends", lost=peer)
                    return
                link.forget()
            if not link.up:
                continue
            self._send_again(peer, link)
            owed = link.owed_at is not None and now - link.owed_at >= settings.ack_s
            if owed or now - link.sent_at >= settings.heartbeat_s:
                self._out.append(Send(peer, link.answer(now)))

    def _on_received_after_end(self, event: Received) -> None:
        link = self.links[event.source]
        link.accept(event.frame, self._now)  # what it acknowledges counts, what it says does not
        if link.up and link.owed_at is not None:
            self._out.append(Send(event.source, link.answer(self._now)))  # it may wait for just that to end as well

    def _on_tick_after_end(self, event: Tick) -> None:
        for peer, link in self.links.items():
            if link.up:
                self._send_again(peer, link)
        all_know = not any(link.kept for link in self.links.values())
        if all_know or self._now - self._ended_at > self.settings.failure_timeout_s:
            self._leave()

    def _on_worker_lost(self, event: WorkerLost) -> None:
        self._end(event.reason, event.lost)

    # ----------------------------------------------------------------- what other nodes say

    def _on_ship(self, source: int, message: Ship) -> None:
        self.replicas[source].install(message)
        if self._bounded:
            self.installs += 1
            self._board.publish_installs(self.installs)
            if self._readers:
                self._unread.append((self.installs, source, message.number, set(self._readers)))
            else:
                self.replicas[source].confirm(message.number)

    def _on_arrived(self, source: int, message: Arrived) -> None:
        self._board.publish_arrived(source, message.count, message.summands)

    def _on_visible(self, source: int, message: Visible) -> None:
        self._on_seen(source, message.number)

    def _on_leaving(self, source: int, message: Leaving) -> None:
        self._gone.add(source)
        link = self.links[source]
        if link.up:  # it leaves when it knows that this has arrived
            self._out.append(Send(source, link.answer(self._now)))

    def _on_stop(self, source: int, message: Stop) -> None:
        lost = message.lost - 1 if message.lost else None
        if lost is not None and lost >= self.settings.nodes:
            raise ProtocolError(f"node {source} says that node {lost} is lost, of {self.settings.nodes}")
        self._end(f"node {source} ended the job: {message.reason}", lost, tell=False)

    # ----------------------------------------------------------------- parts

    def _start_round(self, each: tuple[int, ...]) -> None:
        """VAP: send everything committed so far to every owner, as one round that is seen as a whole."""
        ready = [replica.can_push() for replica in self.replicas.values()]  # each one sees to it that it will be
        ready.append(len(self._rounds) < self.settings.window)  # owners and readers keep something for each round too
        if not all(ready):
            self._round_due = each
            return
        self._round_due = None
        self.round += 1
        self._rounds.append((self.round, each))
        for replica in self.replicas.values():
            replica.push(self.clock)
        self.shard.commit(self.clock, self.round)

    def _on_seen(self, owner: int, number: int) -> None:
        """VAP: everybody has taken in this node's batches up to `number` to rows of `owner`."""
        self.seen_by[owner] = number
        seen, clocks = min(self.seen_by), None
        while self._rounds and self._rounds[0][0] <= seen:
            _, clocks = self._rounds.popleft()
        if clocks is not None:
            self._board.publish_seen(clocks)

    def _use_room(self, peer: int) -> None:
        """Send to `peer` what waited for room."""
        if self._bounded:
            if self._round_due is not None:
                self._start_round(self._round_due)
        elif self.replicas[peer].push_due:
            self.replicas[peer].push(self.clock)
        if self.shard.ship_due[peer]:
            self.shard.ship(peer)

    def _has_room(self, peer: int) -> bool:
        return len(self.links[peer].kept) < self.settings.window

    def _post(self, peer: int, message: Message) -> None:
        link = self.links[peer]
        frame = link.send(message, self._now)
        if link.up:
            self._out.append(Send(peer, frame))

    def _send_again(self, peer: int, link: Link) -> None:
        if link.kept and self._now - link.moved_at >= self.settings.retry_s:
            for frame in link.again(self._now):
                self._out.append(Send(peer, frame))

    def _look_to_leave(self) -> None:
        """Say that nothing is missing here, for good; leave when all have said so and know it of this node.

        Who leaves too early would be taken for lost; a last acknowledgement that is lost costs its receiver a wait for
        `failure_timeout_s`, no error.
        """
        if any(replica.asked is not None for replica in self.replicas.values()):
            return  # who is asked must not leave before it has answered
        if not self._leaving:
            self._leaving = True
            for node in self._others:
                self._post(node, Leaving())
        if len(self._gone) == len(self._others) and not any(link.kept for link in self.links.values()):
            self._leave()

    def _leave(self) -> None:
        for peer, link in self.links.items():
            if link.up and link.owed_at is not None:
                self._out.append(Send(peer, link.answer(self._now)))
        self.state = State.LEFT
        self._out.append(Leave())

    def _end(self, reason: str, lost: int | None = None, tell: bool = True) -> None:
        if tell:
            for node in self._others:
                self._post(node, Stop(0 if lost is None else lost + 1, reason))
            if lost in self.links:
                self.links[lost].forget()  # nobody waits for it to hear
        self.state = State.ENDED
        self._ended_at = self._now
        self._out.append(End(reason, lost))

    def validate(self) -> None:
        """Raise `ProtocolError` if an invariant of the node or of one of its parts does not hold."""
        for link in self.links.values():
            link.validate()
        for replica in self.replicas.values():
            replica.validate()
        self.shard.validate()
        if self.shard.clocks[self.settings.rank] != self.clock and self._round_due is None:
            raise ProtocolError(f"the shard of node {self.settings.rank} does not know its clock {self.clock}")
        if len(self._rounds) > self.settings.window:
            raise ProtocolError(f"node {self.settings.rank} has {len(self._rounds)} rounds that not everybody has seen")
        if self.clock > FINISHED:
            raise ProtocolError(f"node {self.settings.rank} has clock {self.clock}")


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
    },
    State.ENDED: {
        Received: Node._on_received_after_end,
        LinkUp: Node._on_link_up,
        LinkDown: Node._on_link_down,
        Tick: Node._on_tick_after_end,
    },
    State.LEFT: {  # as long as its driver lets it answer, nobody waits for a farewell that was lost
        Received: Node._on_received_after_end,
        LinkUp: Node._on_link_up,
        LinkDown: Node._on_link_down,
    },
}
