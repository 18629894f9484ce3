"""The runs of one machine, one after the other: each has a `Node` of its own.

Between two runs the next one's node already lives: it tells others that this machine does. What they say about the next
run waits until the driver begins it, for the rows shall stay as the last run left them. Such frames are kept, and not
acknowledged. The node of the run before still answers, so that nobody waits for a farewell that was lost.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Collection
from typing import Any

from nbps.core.links import lost_by
from nbps.core.memory import Board, Memory
from nbps.core.messages import (
    Action,
    BarrierReached,
    Begin,
    Committed,
    Done,
    Event,
    Evicted,
    Frame,
    LinkDown,
    LinkUp,
    Needed,
    Received,
    Refreshed,
    Refuse,
    Saved,
    Send,
    Spare,
    Stop,
    Terminate,
    Tick,
    Touched,
    WorkerLost,
)
from nbps.core.node import Node, State
from nbps.core.settings import Settings
from nbps.errors import LocalProtocolError, RemoteProtocolError

_EARLY_LIMIT = 1 << 14  # frames of one peer: far more than a window, and than workers that wait for rows


class Phase(enum.Enum):
    """Where the run stands."""

    WAITING = "waiting to begin"
    RUNNING = "running"
    OVER = "over, as the job is"  # there is no run after it


# Reading a member of an enum costs as much as comparing with it.
_WAITING, _GOES_ON = Phase.WAITING, State.RUNNING


class Runs:
    """The runs of node `settings.rank`, from number `settings.run` on; that one starts at `settings.clock`.

    Attributes
    ----------
    node : Node
        Of the run that is waiting, running or over.
    phase : Phase
    """

    def __init__(
        self, settings: Settings, memory: Memory, board: Board, now: float, connected: Collection[int] | None = None
    ) -> None:
        self.node = Node(settings, memory, board, now, connected)
        self._enter(Phase.WAITING)
        self._memory = memory
        self._board = board
        self._previous: Node | None = None
        self._early: dict[int, dict[int, Frame]] = {peer: {} for peer in self.node.links}  # by peer and number

    @property
    def run(self) -> int:
        """Number of the run that is waiting, running or over."""
        return self.node.settings.run

    @property
    def clock(self) -> int:
        """Lowest clock of the node's workers; where the run starts, as long as it waits."""
        return self.node.clock

    @property
    def has_left(self) -> bool:
        """Whether nobody needs this machine any more."""
        return self.node.state is State.LEFT

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event at time `now`, as `Node.handle` does; `Begin` begins the run that waits, `Done` is its end.

        Raises
        ------
        LocalProtocolError
            If the event cannot happen, or not in this phase.
        """
        handler = self._handlers.get(type(event))
        if handler is None:
            raise LocalProtocolError(
                f"run {self.run} of {self.node} is {self.phase.value}; it does not know the event {event}\n"
                f"{self.node.story()}"
            )
        return handler(self, event, now)

    def silent(self, for_s: float, now: float) -> set[int]:
        """Return the nodes that were not heard for longer than `for_s` seconds."""
        return {peer for peer, link in self.node.links.items() if now - link.heard_at > for_s}

    def last_words(self, reason: str, now: float) -> list[Send]:
        """Return what tells the other nodes that this one cannot go on, in whatever state it is: it may be broken."""
        return self.node.links.last_words(reason, now)

    def signs_of_life(self, now: float) -> list[Send]:
        """Return what shows other nodes that this one lives, where that is due, in the middle of an event."""
        return self.node.links.signs_of_life(now)

    def validate(self) -> None:
        """Raise `LocalProtocolError` if an invariant does not hold."""
        self.node.validate()
        if self.phase is Phase.RUNNING and self.node.state is not State.RUNNING:
            raise LocalProtocolError(f"run {self.run} is {self.phase.value}, but {self.node} is not")

    # ----------------------------------------------------------------- what the driver says

    def _pass_on(self, event: Event, now: float) -> list[Action]:
        """Tell the node, and look whether that ended the run or the job."""
        node = self.node
        out = node.handle(event, now)
        if node.state is not _GOES_ON and self.phase is not Phase.OVER:
            if node.state is State.LEFT:
                out[-1] = Done(self.run)  # instead of `Leave`, its last word
                out += self._go_on(now)
            else:
                self._enter(Phase.OVER)
        return out

    def _on_begin(self, event: Begin, now: float) -> list[Action]:
        self._enter(Phase.RUNNING)
        return self._take_early(now)

    def _on_terminate(self, event: Terminate, now: float) -> list[Action]:
        """Halt a run; between two of them, and when the job is over, there is nothing to halt."""
        return self._pass_on(event, now) if self.phase is Phase.RUNNING else []

    def _on_link(self, event: LinkUp | LinkDown, now: float) -> list[Action]:
        if type(event) is LinkDown:
            self._early[event.peer].clear()  # all of it will come again
        out = [] if self._previous is None else self._previous.handle(event, now)
        return out + self._pass_on(event, now)

    def _on_received(self, event: Received, now: float) -> list[Action]:
        source, frame = event
        run = self.node.settings.run
        if frame.run == run and (self.phase is not _WAITING or frame.message is None):
            return self._pass_on(event, now)
        self.node.links[source].hear(now)
        if frame.run >= run:
            return self._keep(source, frame, now)
        if self._previous is not None and frame.run == run - 1:
            return self._previous.handle(event, now)
        return []

    # ----------------------------------------------------------------- parts

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._handlers = _HANDLERS[phase]

    def _go_on(self, now: float) -> list[Action]:
        """Have a node for the next run: that of this one has left."""
        left, settings = self.node, self.node.settings
        self._enter(Phase.WAITING)
        self._previous = left
        following = dataclasses.replace(settings, run=settings.run + 1, clock=0)
        connected = {peer for peer, link in left.links.items() if link.up}
        self.node = Node(following, self._memory, self._board, now, connected)
        return self._heed_stop(now)

    def _keep(self, source: int, frame: Frame, now: float) -> list[Action]:
        """Keep a frame of a run that has not begun here."""
        early = self._early[source]
        if frame.run > self.run + 1 or len(early) == _EARLY_LIMIT:
            return [
                Refuse(
                    source,
                    f"node {source} says something of run {frame.run}, with {len(early):,} frames before it that wait; "
                    f"expected at most run {self.run + 1}, and {_EARLY_LIMIT:,} frames",
                )
            ]
        if frame.message is not None and self.phase is not Phase.OVER:
            early[frame.number] = frame
            if self.phase is Phase.WAITING and type(frame.message) is Stop:
                return self._heed_stop(now)
        return []

    def _take_early(self, now: float) -> list[Action]:
        out: list[Action] = []
        for source, frames in self._early.items():
            self._early[source] = {}
            for number in sorted(frames):
                out += self._on_received(Received(source, frames[number]), now)
        return out

    def _heed_stop(self, now: float) -> list[Action]:
        """Heed the end of a run that has not begun here; what came before it shall not change the rows any more."""
        stops = [
            (source, frame.message)
            for source, frames in self._early.items()
            for frame in frames.values()
            if isinstance(frame.message, Stop) and frame.run == self.run
        ]
        out: list[Action] = []
        for source, stop in stops:
            try:
                lost = lost_by(source, stop, self.node.settings.nodes)
            except RemoteProtocolError as error:
                out.append(Refuse(source, str(error)))
                continue
            reason = f"node {source} ended the job: {stop.reason}"
            out += self._pass_on(WorkerLost(reason, lost, bool(stop.unsaved)), now)
            out += self._take_early(now)  # a node that said so waits to hear that it was heard
            break
        return out


_ALWAYS: dict[type, Callable[[Runs, Any, float], list[Action]]] = {
    Received: Runs._on_received,
    LinkUp: Runs._on_link,
    LinkDown: Runs._on_link,
    Tick: Runs._pass_on,
    WorkerLost: Runs._pass_on,
    Terminate: Runs._on_terminate,
}
_WORK = (Committed, Needed, Touched, Evicted, Spare, BarrierReached, Refreshed, Saved)
_HANDLERS: dict[Phase, dict[type, Callable[[Runs, Any, float], list[Action]]]] = {
    Phase.WAITING: {**_ALWAYS, Begin: Runs._on_begin},
    Phase.RUNNING: {**_ALWAYS, **dict.fromkeys(_WORK, Runs._pass_on)},
    Phase.OVER: {**_ALWAYS, Saved: Runs._pass_on},
}
