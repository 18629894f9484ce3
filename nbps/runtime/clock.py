"""One worker's clock on its node: the driver of `nbps.core.worker.Worker`.

The core says what happens in which order and knows no clock, memory or process; this class carries its actions out with
kernels on the shared board and on the worker's copies, measures the time spent in waits, and keeps the counters.
"""

from __future__ import annotations

import inspect
import math
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nbps.core.rules import FINISHED
from nbps.core.terms import Terms
from nbps.core.worker import (
    ALL,
    Action,
    Await,
    Flush,
    Group,
    Lowest,
    Poll,
    Publish,
    PublishSeen,
    Record,
    Refresh,
    Snapshot,
    Step,
    Worker,
)
from nbps.errors import AbortedError, ClockTimeoutError
from nbps.kernels import board, layout, presence
from nbps.kernels.claims import Aside
from nbps.runtime.aside import PutAside

_WARN_S = 30.0  # a worker that waits this long says for whom
# Looks at the board before sleeping: about 20 us, longer than a clock takes to arrive from a running worker, short
# beside a time slice. With more workers than cores the one waited for may need this very core: no looks at all.
_SPINS = 500
_SHARED = (Group.COMMITTED, Group.ARRIVED)  # groups that shards have slots in
# How long a clock tries to add what is put aside before its worker goes on: a descheduled claimant is back by then.
_SETTLE_S = 0.02


class Copy(Protocol):
    """A private copy of a table, which the clock sends and refreshes."""

    def flush(self) -> tuple[int, float]:
        """Send what changed; return the number of rows and, under a value bound, the largest absolute value sent."""

    def refresh(self) -> None:
        """Take in the shared rows."""


class Clock:
    """The clock of worker `rank` of `workers` on the board `words` of this node, whose first worker is number `first`.

    With an agent the board has `shards` slots more, one for each node, and the agent is told what it waits for.

    Attributes
    ----------
    core : Worker
        The protocol; its fields may be read, and its steps only driven from here.
    """

    def __init__(
        self,
        words: npt.NDArray[np.int64],
        workers: int,
        shards: int,
        rank: int,
        first: int,
        terms: Terms,
        oversubscribed: bool,
        timeout_s: float,
        recording: bool,
    ) -> None:
        self.core = Worker(rank, terms)
        self._first_worker = first
        self._copies: list[Copy] = []
        self._aside = PutAside()
        self._barrier = "barrier"  # what the last barrier was called for
        self._owed: Publish | None = None  # a clock that is not published, as of its additions some are put aside
        self._words = words
        self._workers = workers
        self._shards = shards
        self._sources = sources = workers + shards
        self._readers = workers + (shards > 1)  # all other nodes are one
        self._timeout_s = timeout_s
        self._spins = 0 if oversubscribed else _SPINS
        self._first = (
            layout.committed(0),
            layout.refreshed(sources, 0),
            layout.arrived(sources, 0),
            layout.seen(sources, rank, 0),
            layout.HELD,
        )
        # Where this worker publishes, and the slots for the lowest of which others wait: this one alone, unless all
        # wait for all and for no news.
        slots = [first + rank * layout.LINE for first in self._first[: Group.SEEN]]
        last = layout.needed(sources, rank) + layout.LAST
        self._published = dict(zip(Group, [(slot, slot, 1) for slot in slots], strict=False))
        self._published[Group.LAST] = last, last, 1
        if not terms.ordered and terms.v0 is None:
            self._published[Group.COMMITTED] = (slots[0], self._first[0], sources)
        self._committed = np.empty(workers, np.int64)  # the last snapshot: clocks, and ships of other nodes
        self._ships = self._taken = 0 if shards else -1  # as of then, and what this worker has said to have taken in
        self._must_ask = shards > 0 and not terms.pushes  # others ship only what somebody waits for
        start = layout.statistics(sources, rank)
        # Elements of a memoryview are Python's own integers: adding to one takes half the time of NumPy's.
        self._counters = words[start : start + layout.STATS_LINES * layout.LINE].data
        self._share = words[start + layout.TRANSIT_SHARE :][:1].view(np.float64)
        self._recording = recording  # whether reads are counted
        self._sampled = False  # whether one was since the current clock began, or none need be
        self._before = 0  # clocks of earlier runs
        self._resumed_ns = time.perf_counter_ns()  # when the current clock began
        self._waited_ns = 0  # of the time since then
        self._polled: tuple[Poll, int] | None = None  # a wait that news interrupted, and when it began
        self._said: Await | Poll | None = None  # the last wait that was complained about
        self._left: tuple[Step, Action | None] | None = None  # the step that an exception ended, and its last action
        self._carry_out: dict[type, Callable[[Any], Any]] = {
            Flush: self._flush,
            Publish: self._publish,
            Await: self._await,
            Poll: self._poll,
            Lowest: self._lowest,
            Snapshot: self._snapshot,
            PublishSeen: self._publish_seen,
            Refresh: self._refresh,
            Record: self._record if recording else lambda read: None,
        }

    def add_copy(self, copy: Copy, staleness: float) -> int:
        """Have one more copy to send and refresh; return its number."""
        self._copies.append(copy)
        return self.core.add_copy(staleness)

    def add_aside(self, table: str, aside: Aside) -> None:
        """Have one more table of which additions are put aside: no clock is published before they are made."""
        self._aside.watch(table, aside)

    @property
    def now(self) -> int:
        """Units of work that this worker has completed in this run."""
        return self.core.now

    # ----------------------------------------------------------------- steps

    def begin(self, clock: int = 0) -> None:
        """Start a run at `clock`; the job's driver has reset the board."""
        self._sampled = not self._recording
        self._said = None
        self._ships = self._taken = min(self._ships, 0)
        self._before = self._counters[layout.CLOCKS] - clock
        self._drive(self.core.begin(clock))
        self._resumed_ns, self._waited_ns = time.perf_counter_ns(), 0

    def tick(self, wait: bool) -> None:
        """Publish this unit's updates, add one, and with `wait` pass the gate of the next unit."""
        self._drive(self.core.tick(wait))
        self._sampled = not self._recording
        self._counters[layout.CLOCKS] = self._before + self.core.now
        if self.core.terms.v0 is not None:
            self._share[0] = self.core.transit_share
        self._count_compute()

    def read(self, staleness: float | None, copy: int | None) -> None:
        """Wait until a read of `copy`, or of live rows if None, may happen, and count it."""
        self._drive(self.core.read(staleness, copy))

    def fetch(self, states: npt.NDArray[np.uint8], ids: npt.NDArray[np.int64]) -> None:
        """Wait until rows `ids` of a table with these `states` are on this node."""
        if presence.want_rows(self._words, states, ids):
            return
        board.ring(self._words)
        start = time.perf_counter_ns()
        waits = Await(Group.COMMITTED, 0, ALL, 0, "get")
        while (status := presence.await_rows(self._words, states, ids, self._spins)) != board.OPEN:
            self._pay()
            self._check_patience(status, waits, start)
            # Let go of by the agent, between two looks: wanted again.
            if not presence.want_rows(self._words, states, ids):
                board.ring(self._words)
        self._count_wait(start)

    def barrier(self, what: str = "barrier") -> None:
        """Wait until every worker has called this as often; commits nothing. `what` is the call, for messages."""
        self._barrier = what
        self._drive(self.core.barrier(what))

    def finish(self) -> None:
        """End a run: commit what is left, and hold nobody back any more."""
        self._sampled = True  # no clock ends here
        self._drive(self.core.finish())
        self._count_compute()

    def _drive(self, step: Step) -> None:
        self.settle()
        if self._owed is not None:
            self._pay()
        self._go_on(step, None)

    def settle(self) -> None:
        """Complete a step that timed out, if there is one: a caller that caught the error may go on."""
        if self._left is not None:
            left, self._left = self._left, None
            if inspect.getgeneratorstate(left[0]) == inspect.GEN_CLOSED:
                raise AbortedError(f"{self._name(self.core.rank)} was stopped at clock {self.now}: the job is ending")
            self._go_on(*left)

    def _go_on(self, step: Step, action: Action | None) -> None:
        """Carry out `action` and all that follow in `step`."""
        carry_out = self._carry_out
        try:
            answer = None if action is None else carry_out[type(action)](action)
            while True:
                action = step.send(answer)
                answer = carry_out[type(action)](action)
        except StopIteration:
            return
        except BaseException:
            self._left = step, action
            raise

    def _count_compute(self) -> None:
        now = time.perf_counter_ns()
        self._counters[layout.COMPUTE_NS] += now - self._resumed_ns - self._waited_ns
        self._resumed_ns, self._waited_ns = now, 0

    # ----------------------------------------------------------------- actions

    def _flush(self, action: Flush) -> float:
        if not self._sampled:  # reads inside kernels leave no trace: the clock without a `get` is one sample itself
            self._record(Record(min([self.core.visible, *self.core.copy_visible])))
        largest = 0.0
        for copy in self._copies:
            rows, norm = copy.flush()
            self._counters[layout.ROWS_SENT] += rows
            if not norm <= largest:
                largest = norm if norm == norm else math.inf  # NaN is more than any bound
        return largest

    def _publish(self, action: Publish) -> int:
        group = action.group
        if group is Group.COMMITTED:
            if not (self._aside.is_empty or self._settle(action, "clock")):
                self._owed, group = action, Group.LAST  # to be seen by a halt all the same
        elif group is Group.ARRIVED and action.value != FINISHED and not self._aside.is_empty:
            self._settle(action, self._barrier)  # what was added before a barrier is read after it
            self._pay()
        slot, first, count = self._published[group]
        held = board.tick(self._words, first, count, slot, action.value)
        if group is Group.COMMITTED:  # only now: what a signal handler raises before leaves it owed
            self._owed = None
        if self._shards:
            board.ring(self._words)
        return int(held)

    def _settle(self, action: Publish, what: str) -> bool:
        """Add what is put aside, trying for a while; return whether `action`, of the call `what`, may be carried out.

        A claimant may be stopped for good. So a worker does not wait for it here: it goes on, its clock is published
        when it can be, and what stops it is the staleness bound, at the gate, where its own slot is late like the
        other's. Only barriers, to which such a claimant does not come either, and the end of a run have to wait.
        """
        start = time.perf_counter_ns()
        waits = Await(action.group, self.core.rank, 1, action.value, what)
        limit_s = _SETTLE_S if action.group is Group.COMMITTED and action.value != FINISHED else math.inf
        settled = self._aside.settle_within(
            limit_s,
            lambda: self._check_patience(board.ABORTED if self._words[layout.ABORT] else board.TIMED_OUT, waits, start),
        )
        self._count_wait(start)
        return settled

    def _pay(self) -> None:
        """Publish the clock that is owed, if what it waits for can be added now."""
        if self._owed is not None and self._aside.settle():
            self._publish(self._owed)

    def _lowest(self, action: Lowest) -> int:
        count = self._sources if action.group is Group.COMMITTED else self._readers
        return int(board.lowest_other(self._words, self._first[action.group], count, self.core.rank))

    def _snapshot(self, action: Snapshot) -> npt.NDArray[np.int64]:
        if self._shards:
            self._ships = int(self._words[layout.INSTALLS])
        board.snapshot(self._words, self._first[Group.COMMITTED], self._workers, self._committed)
        return self._committed

    def _publish_seen(self, action: PublishSeen) -> None:
        committed = action.committed
        if committed is None:
            committed = np.full(self._workers, FINISHED)
            self._ships = FINISHED if self._shards else -1
        if self._ships != self._taken:
            self._taken = self._ships
            self._words[layout.needed(self._sources, self.core.rank) + layout.SHIPS] = self._taken
            board.ring(self._words)
        first = layout.seen(self._sources, 0, 0)
        board.publish_seen(self._words, first, self._sources, self._workers, self.core.rank, committed)

    def _refresh(self, action: Refresh) -> None:
        self._copies[action.copy].refresh()

    def _record(self, action: Record) -> None:
        self._sampled = True
        differential = min(0, action.visible - self.core.now)
        counters = self._counters
        counters[layout.READS] += 1
        counters[layout.DIFFERENTIAL_SUM] += differential
        counters[layout.DIFFERENTIAL_SQUARES] += differential * differential
        counters[layout.HISTOGRAM + min(-differential, layout.HISTOGRAM_BINS - 1)] += 1

    def _await(self, action: Await) -> None:
        start = time.perf_counter_ns()
        if self._must_ask and action.group is Group.COMMITTED:
            self._ask(action.target)
        word, count = self._slots(action)
        while (status := board.gate(self._words, word, count, action.target, self._spins)) != board.OPEN:
            self._pay()
            self._check_patience(status, action, start)
        self._count_wait(start)

    def _poll(self, action: Poll) -> bool:
        start = time.perf_counter_ns()
        # News does not make a wait shorter: patience ends when the first poll of it is too long ago.
        since = self._polled[1] if self._polled is not None and self._polled[0] == action else start
        self._polled = None
        word, count = self._slots(action)
        committed, seen = self._first[Group.COMMITTED], layout.seen(self._sources, 0, 0)
        reader = (self._sources, self._workers, self.core.rank, self._taken)
        arguments = (word, count, action.target, self._spins, committed, seen, *reader)
        while (status := board.poll(self._words, *arguments)) != board.OPEN:
            self._pay()
            self._check_patience(status, action, since)
            if status == board.NEWS:
                self._polled = action, since
                break
        self._count_wait(start)
        return bool(status == board.OPEN)

    def _slots(self, action: Await | Poll) -> tuple[int, int]:
        """First word and number of the slots that `action` looks at."""
        word = self._first[action.group] + action.first * layout.LINE
        if action.count != ALL:
            return word, action.count
        if action.group is Group.SEEN:
            return word, self._readers
        return word, self._sources if action.group in _SHARED else self._workers

    def _ask(self, clock: int) -> None:
        """Have the agent fetch what is visible at `clock`, unless it did."""
        word = layout.needed(self._sources, self.core.rank)
        if clock > self._words[word]:
            self._words[word] = clock
            board.ring(self._words)

    def _count_wait(self, since_ns: int) -> None:
        waited = time.perf_counter_ns() - since_ns
        self._waited_ns += waited
        self._counters[layout.WAIT_NS] += waited

    def _check_patience(self, status: int, action: Await | Poll, since_ns: int) -> None:
        if status == board.ABORTED:
            raise AbortedError(f"{self._name(self.core.rank)} was stopped at clock {self.now}: the job is ending")
        seconds = (time.perf_counter_ns() - since_ns) / 1e9
        if seconds <= min(_WARN_S, self._timeout_s):
            return
        what, behind = action.what, self._behind(action)
        text = f"{self._name(self.core.rank)} at clock {self.now} has waited {seconds:.0f} s in {what}() for {behind}"
        if seconds > self._timeout_s:
            limit = f"Job(clock_timeout_s={self._timeout_s:g}) sets the limit"
            raise ClockTimeoutError(f"{text}; does it call {what}()? {limit}")
        if action != self._said:
            print(f"nbps: {text}", file=sys.stderr, flush=True)  # noqa: T201
            self._said = action

    def _behind(self, action: Await | Poll) -> str:
        if action.group is Group.HELD:
            return "the job to be saved, and to end"
        word, count = self._slots(action)
        slots = self._words[word : word + count * layout.LINE : layout.LINE]
        slow = [
            f"{self._name(action.first + int(k))} (at {int(slots[k])})" for k in np.flatnonzero(slots < action.target)
        ]
        if action.group in _SHARED and (row := self._aside.story()):
            slow.append(f"and for {row}, to add to it")
        return ", ".join(slow) or "nobody any more"

    def _name(self, source: int) -> str:
        if source < self._workers:
            return f"worker {self._first_worker + source}"
        return f"the rows of node {source - self._workers}"
