"""The protocol of one worker, the same on one box and on many.

Every step of a worker (`begin`, `tick`, `read`, `barrier`, `finish`) is a generator of actions. Its driver carries out
one action after the other and sends the answer back; it may let other workers go on between any two. The worker sees
the world through its node's *board*: for each group a slot per worker, and in group `Group.COMMITTED` also one for
every shard. Whether a slot is a worker in this process, in another, or a shard on another machine makes no difference.

The promise (Ho et al., section 2): at clock c every read holds each update of every worker from clocks < c - s, and all
of the reader's own. It is kept by an order that no step changes:

    flush what was added  ->  publish the clock  ->  wait for min(board) >= c - s  ->  refresh what is too old  ->  read

Strict BSP (`Terms.ordered`) waits twice more: a worker flushes only after all have refreshed for the clock before, so
that a copy shows nothing of the running clock, and after the worker of the rank before has flushed, so that sums of
floats do not depend on timing.

VAP (Dai et al., section 2) bounds values instead of clocks: a worker that committed t clocks goes on when what it
committed and not everybody has taken in is at most v0 / sqrt(t) in the maximum norm. Norms of several clocks are added,
which is never less than the norm of their sum. While it waits, for whatever, it takes in what others commit: they may
be waiting for just that.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Generator
from typing import Any, NamedTuple

from nbps.core.rules import FINISHED, gate_target, is_checkpoint, is_too_old, value_bound
from nbps.core.terms import Terms
from nbps.errors import LocalProtocolError


class Group(enum.IntEnum):
    """Groups of slots of the board."""

    COMMITTED = 0  # slot k = c: every update of source k from clocks < c is visible on this node
    REFRESHED = 1  # slot k = c: worker k has taken in what it reads in clock c (strict BSP)
    ARRIVED = 2  # slot k = n: worker k has come to its n-th barrier
    SEEN = 3  # a row for each reader; slot k = c: the reader has taken in all of worker k from clocks < c (VAP)
    HELD = 4  # one slot: a worker that has completed c clocks or more waits; 0 if none shall (`nbps.core.halting`)
    LAST = 5  # slot k = c: worker k finished when it had completed c clocks


TRANSIT_LIMIT = 64  # clocks in transit that a worker tells apart; each costs an addition in every clock
ALL = -1  # as `count`: every slot of the group; of `Group.SEEN` what each reader says about this worker


class Flush(NamedTuple):
    """Send what this worker added to its copies. Answer: largest absolute value sent, 0.0 if nothing was."""


class Publish(NamedTuple):
    """Set this worker's slot of `group`; everything done before is visible to those that see the new value.

    Answer, for `Group.COMMITTED`: the slot of `Group.HELD`, looked at after that.
    """

    group: Group
    value: int


class Await(NamedTuple):
    """Wait until `count` slots of `group`, from slot `first` on, are >= `target`."""

    group: Group
    first: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    target: int
    what: str  # the call that waits, for messages


class Poll(NamedTuple):
    """Like `Await`; answer True then, or False as soon as the rows hold what this worker has not taken in.

    That is: a `Snapshot` would say something else than the one that it published last. On several nodes ships count
    too (`Board.publish_installs`): one that leaves the slots as they are may be all that its sender waits for.
    """

    group: Group
    first: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    target: int
    what: str


class Lowest(NamedTuple):
    """Answer: the lowest slot of `group`, without this worker's own: it sees its own updates whatever the slot says."""

    group: Group


class Snapshot(NamedTuple):
    """Answer: what the board says is in the rows, for `PublishSeen` once all that has been taken in."""


class PublishSeen(NamedTuple):
    """Say in this worker's row of `Group.SEEN` that it has taken in what `committed`, a `Snapshot`, stood for."""

    committed: Any


class Refresh(NamedTuple):
    """Take the shared rows into copy number `copy`, keeping what was not flushed."""

    copy: int


class Record(NamedTuple):
    """Count a read that sees every update from clocks < `visible`."""

    visible: int


Action = Flush | Publish | Await | Poll | Lowest | Snapshot | PublishSeen | Refresh | Record
Step = Generator[Action, Any, None]


class State(enum.Enum):
    """Where a worker stands between actions."""

    NEW = "new"
    RUNNING = "running"
    IN_STEP = "in a step"  # an action was handed out and the step has not ended; also one that was stopped in it
    FINISHED = "finished"


# Made once: a member looked up in its enum, or an action without fields made anew, costs as much as the rest of a line.
_COMMITTED, _REFRESHED, _ARRIVED, _SEEN, _HELD, _LAST = Group
_FLUSH, _SNAPSHOT, _LOWEST, _LOWEST_SEEN = Flush(), Snapshot(), Lowest(_COMMITTED), Lowest(_SEEN)
_IN_STEP = State.IN_STEP
_LEGAL = {  # step -> states in which it may begin; it ends in the state given
    "begin": ((State.NEW, State.FINISHED), State.RUNNING),
    "tick": ((State.RUNNING,), State.RUNNING),
    "read": ((State.RUNNING,), State.RUNNING),
    "barrier": ((State.RUNNING,), State.RUNNING),
    "finish": ((State.RUNNING,), State.FINISHED),
}


class Worker:
    """Worker number `rank` of its node's board.

    Attributes
    ----------
    now : int
        Units of work completed; never falls within a run.
    visible : int
        The board's lowest committed slot, as looked at last.
    copies : list of float
        Staleness of each private copy (access mode ``cached``).
    copy_visible : list of int
        The same for what each copy holds.
    gate_owed : bool
        The clock was advanced and its gate has not been passed: no read may happen.
    held : int
        At this clock and later ones the worker is held; `FINISHED` if nobody is.
    transit : deque of (int, float)
        VAP: what not everybody has seen: clocks committed with it, which rise, and its norm; at most `TRANSIT_LIMIT`.
    transit_share : float
        VAP: largest share of the bound that was in transit when this worker was let on; never above 1.
    """

    def __init__(self, rank: int, terms: Terms) -> None:
        self.rank = rank
        self.terms = terms
        self.state = State.NEW
        self.now = 0
        self.visible = 0
        self.copies: list[float] = []
        self.copy_visible: list[int] = []
        self.gate_owed = False
        self.held = FINISHED
        self.barriers = 0
        self.transit: deque[tuple[int, float]] = deque()
        self.transit_share = 0.0

    def add_copy(self, staleness: float) -> int:
        """Have one more copy to keep fresh; return its number."""
        self.copies.append(staleness)
        self.copy_visible.append(0)
        return len(self.copies) - 1

    # ----------------------------------------------------------------- steps

    def begin(self, clock: int = 0) -> Step:
        """Start a run at `clock`; the board says so already."""
        end = self._enter("begin")
        self.now = self.visible = clock
        self.barriers = 0
        self.gate_owed = False
        self.held = FINISHED
        self.transit.clear()
        for copy in range(len(self.copies)):
            yield Refresh(copy)
            self.copy_visible[copy] = clock
        if self.terms.ordered:
            yield Publish(_REFRESHED, clock)
        self.state = end

    def tick(self, wait: bool = True) -> Step:
        """Commit this unit of work and, with `wait`, pass the gate of the next."""
        end = self._enter("tick")
        if self.gate_owed:
            yield from self._pass_gate()
        norm = yield from self._commit()
        self.now += 1
        if self.terms.v0 is not None and norm > 0:
            if len(self.transit) == TRANSIT_LIMIT:
                norm += self.transit.pop()[1]  # seen with the later clock: counted for longer, never for less
            self.transit.append((self.now, norm))
        self.held = (yield Publish(_COMMITTED, self.now)) or FINISHED
        self.gate_owed = True
        # What is saved at a checkpoint must not hold additions of a worker that goes on without waiting.
        if wait or self.now >= self.held or is_checkpoint(self.now, self.terms.checkpoint_every):
            yield from self._pass_gate()
        self.state = end

    def read(self, staleness: float | None = None, copy: int | None = None) -> Step:
        """Wait until a read may happen; after it `copy`, or live rows if None, may be read.

        `staleness` asks for a fresher state than the gate's.
        """
        end = self._enter("read")
        if self.gate_owed:
            yield from self._pass_gate()
        if staleness is not None:
            target = gate_target(self.now, staleness)
            if target > gate_target(self.now, self.terms.staleness):
                yield from self._await(_COMMITTED, 0, ALL, target, "get")
        if copy is None:
            visible = yield _LOWEST
        else:
            if staleness is not None and is_too_old(self.copy_visible[copy], self.now, staleness):
                self.visible = yield _LOWEST
                yield Refresh(copy)
                self.copy_visible[copy] = self.visible
            visible = self.copy_visible[copy]
        yield Record(visible)
        self.state = end

    def barrier(self, what: str = "barrier") -> Step:
        """Wait until every worker has come to as many barriers as this one; `what` is the call, for messages."""
        end = self._enter("barrier")
        self.barriers += 1
        yield Publish(_ARRIVED, self.barriers)
        yield from self._await(_ARRIVED, 0, ALL, self.barriers, what)
        self.state = end

    def finish(self) -> Step:
        """Commit what is left and hold nobody back any more."""
        end = self._enter("finish")
        yield Publish(_ARRIVED, FINISHED)  # first: a worker in a barrier may be the one that the rest waits for
        if self.gate_owed:
            yield from self._pass_gate()
        yield from self._commit()
        yield Publish(_LAST, self.now)
        for group in (_COMMITTED, _REFRESHED):
            yield Publish(group, FINISHED)
        if self.terms.v0 is not None:
            yield PublishSeen(None)
        self.state = end

    # ----------------------------------------------------------------- parts of steps

    def _commit(self) -> Generator[Action, Any, float]:
        if self.terms.ordered:
            yield Await(_REFRESHED, 0, ALL, self.now, "clock")
            if self.rank > 0:
                yield Await(_COMMITTED, self.rank - 1, 1, self.now + 1, "clock")
        return float((yield _FLUSH))

    def _pass_gate(self) -> Step:
        if self.now >= self.held:
            yield from self._await(_HELD, 0, 1, self.now + 1, "clock")
        exact = is_checkpoint(self.now, self.terms.checkpoint_every)
        target = gate_target(self.now, 0 if exact else self.terms.staleness)
        if target > 0:
            yield from self._await(_COMMITTED, 0, ALL, target, "clock")
        if self.terms.v0 is not None:
            yield from self._await_value_bound(self.terms.v0)
        self.gate_owed = False
        yield from self._take_in()
        if self.visible < target:
            raise LocalProtocolError(self._broken(f"the visible clock, {self.visible}, satisfies the gate, {target}"))
        if self.terms.ordered:
            yield Publish(_REFRESHED, self.now)

    def _take_in(self) -> Step:
        """Refresh the copies that are due, and say so to those whose values are bounded by it."""
        bounded = self.terms.v0 is not None
        committed = (yield _SNAPSHOT) if bounded else None
        before, self.visible = self.visible, (yield _LOWEST)
        if self.visible < before:
            raise LocalProtocolError(self._broken(f"clocks of others, {self.visible} after {before}, never fall"))
        for copy, staleness in enumerate(self.copies):
            if self.terms.eager or is_too_old(self.copy_visible[copy], self.now, staleness):
                yield Refresh(copy)
                self.copy_visible[copy] = self.visible
        if bounded:
            yield PublishSeen(committed)

    def _await(self, group: Group, first: int, count: int, target: int, what: str) -> Step:
        if self.terms.v0 is None:
            yield Await(group, first, count, target, what)
            return
        while not (yield Poll(group, first, count, target, what)):
            yield from self._take_in()

    def _await_value_bound(self, v0: float) -> Step:
        """Wait until what is in transit is at most v0 / sqrt(now)."""
        bound = value_bound(v0, self.now)
        while (left := self._in_transit((yield _LOWEST_SEEN))) > bound:
            for clock, norm in self.transit:  # noqa: B007
                left -= norm
                if left <= bound:
                    break
            yield from self._await(_SEEN, 0, ALL, clock, "clock")
        if left > 0:  # a bound may be too small for a float to tell it from 0
            self.transit_share = max(self.transit_share, left / bound)

    def _in_transit(self, seen: int) -> float:
        """Return the norm in transit when everybody has taken in this worker's clocks < `seen`."""
        while self.transit and self.transit[0][0] <= seen:
            self.transit.popleft()
        return sum(norm for _, norm in self.transit)

    # ----------------------------------------------------------------- rules about itself

    def _enter(self, step: str) -> State:
        before, after = _LEGAL[step]
        if self.state not in before:
            raise LocalProtocolError(
                f"worker {self.rank} at clock {self.now} is {self.state.value}; expected it to be "
                f"{' or '.join(sorted(state.value for state in before))} for {step}(); one thread at a time may use it"
            )
        self.state = _IN_STEP
        return after

    def _broken(self, rule: str) -> str:
        return f"worker {self.rank} at clock {self.now} ({self.state.value}) breaks: {rule}"

    def validate(self) -> None:
        """Raise `LocalProtocolError` if a field breaks its invariant; for tests and the simulator."""
        terms, ready = self.terms, self.state is State.RUNNING and not self.gate_owed
        transit = [clock for clock, _ in self.transit]
        checks = {
            "clocks are >= 0": min([self.now, self.visible, *self.copy_visible]) >= 0,
            "no copy holds more than the board said": max(self.copy_visible, default=0) <= self.visible,
            "the visible clock satisfies the gate": not ready or self.visible >= gate_target(self.now, terms.staleness),
            "no copy is older than its staleness": not ready
            or not any(is_too_old(v, self.now, s) for v, s in zip(self.copy_visible, self.copies, strict=True)),
            "clocks in transit rise": transit == sorted(set(transit)),
            "few clocks are in transit": len(transit) <= TRANSIT_LIMIT,
            "nothing is in transit without a value bound": terms.v0 is not None or not transit,
            "what was let on in transit keeps the value bound": self.transit_share <= 1,
            "strict BSP has staleness 0": not terms.ordered or terms.staleness == 0,
        }
        for rule, holds in checks.items():
            if not holds:
                raise LocalProtocolError(self._broken(rule))
