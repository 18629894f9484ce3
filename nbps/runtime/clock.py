"""One worker's clock: it publishes what the worker did, waits for the others, and keeps the worker's counters.

The protocol of design section 2 on one box. A worker at clock c may go on when the lowest committed slot is >= c - s.
Copies of cached tables are sent before their clock is published and refreshed after the gate, so what they show is at
least as fresh.

Strict BSP (`ordered`) adds two waits that make sums of floats independent of timing: a worker sends its copies only
after all have taken in the clock before, and after the worker of the rank before has sent its own.
"""

from __future__ import annotations

import sys
import time
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nbps.errors import AbortedError, ClockTimeoutError
from nbps.kernels import board, layout

_WARN_S = 30.0  # a worker that waits this long says for whom
# Looks at the board before sleeping: about 20 us, longer than a clock takes to arrive from a running worker, short
# beside a time slice. With more workers than cores the one waited for may need this very core: no looks at all.
_SPINS = 500


class Copy(Protocol):
    """A private copy of a table, which the clock sends and refreshes."""

    def flush(self) -> int:
        """Send what changed; return the number of rows."""

    def refresh(self, visible: int) -> None:
        """Take in the shared rows, which hold all updates from clocks below `visible`."""

    def refresh_if_due(self, clock: int, visible: int) -> None:
        """Refresh as the consistency model wants it at the start of `clock`."""


class Clock:
    """The clock of worker `rank` of `workers` on the board `words`.

    Attributes
    ----------
    now : int
        Units of work that this worker has completed in this run.
    staleness : float
        Bound of the gate; infinite for none.
    ordered : bool
        Strict BSP.
    copies : list of Copy
        Copies to send and refresh.
    """

    def __init__(
        self,
        words: npt.NDArray[np.int64],
        workers: int,
        rank: int,
        staleness: float,
        ordered: bool,
        oversubscribed: bool,
        timeout_s: float,
    ) -> None:
        self.now = 0
        self.staleness = staleness
        self.copies: list[Copy] = []
        self.ordered = ordered
        self._words = words
        self._workers = workers
        self._rank = rank
        self._timeout_s = timeout_s
        self._spins = 0 if oversubscribed else _SPINS
        self._committed = layout.committed(0)
        self._refreshed = layout.refreshed(workers, 0)
        self._arrived = layout.arrived(workers, 0)
        start = layout.statistics(workers, rank)
        self._counters = words[start : start + layout.STATS_LINES * layout.LINE]
        self._barriers = 0
        self._gate_ahead = False  # the clock was advanced and its gate has not been passed yet
        self._visible = 0  # every update from clocks below it was visible when the current clock began
        self._read_since_tick = False
        self._resumed_ns = time.perf_counter_ns()  # when the current clock began
        self._waited_ns = 0  # of the time since then

    def begin(self) -> None:
        """Start a run at clock 0; the driver has reset the board."""
        self.now = self._barriers = self._visible = 0
        self._gate_ahead = self._read_since_tick = False
        for copy in self.copies:
            copy.refresh(visible=0)
        if self.ordered:
            self._publish(self._refreshed, 0)
        self._resumed_ns, self._waited_ns = time.perf_counter_ns(), 0

    def advance(self, wait: bool) -> None:
        """Publish this unit's updates, add one, and with `wait` pass the gate of the next unit."""
        self.pass_gate()
        if not self._read_since_tick:
            self.record(self._visible)
        self._send()
        self.now += 1
        self._counters[layout.CLOCKS] += 1
        self._publish(self._committed, self.now)
        self._gate_ahead = True
        self._read_since_tick = False
        if wait:
            self.pass_gate()
        now = time.perf_counter_ns()
        self._counters[layout.COMPUTE_NS] += now - self._resumed_ns - self._waited_ns
        self._resumed_ns, self._waited_ns = now, 0

    def pass_gate(self) -> None:
        """Wait at the gate of the current clock, if that has not happened yet, and take in what others sent."""
        if not self._gate_ahead:
            return
        if self.staleness < self.now:
            self._wait(self._committed, self._workers, self.now - int(self.staleness), "clock")
        self._gate_ahead = False
        self._visible = self.lowest()
        for copy in self.copies:
            copy.refresh_if_due(self.now, self._visible)
        if self.ordered:
            self._publish(self._refreshed, self.now)

    def wait_for(self, staleness: float | None) -> None:
        """Wait until the shared tables satisfy `staleness` (the gate's if None)."""
        self.pass_gate()
        if staleness is not None and staleness < min(self.staleness, self.now):
            self._wait(self._committed, self._workers, self.now - int(staleness), "get")

    def barrier(self) -> None:
        """Wait until every worker has called this as often; commits nothing."""
        self._barriers += 1
        self._publish(self._arrived, self._barriers)
        self._wait(self._arrived, self._workers, self._barriers, "barrier")

    def finish(self) -> None:
        """End a run: commit what is left, and hold nobody back any more."""
        self.pass_gate()
        self._send()
        for group in (self._committed, self._refreshed, self._arrived):
            self._publish(group, layout.FINISHED)
        self._counters[layout.COMPUTE_NS] += time.perf_counter_ns() - self._resumed_ns - self._waited_ns

    def lowest(self) -> int:
        """Return the visible clock: every update from clocks below it is in the shared tables."""
        return int(board.lowest(self._words, self._committed, self._workers))

    def record(self, visible: int) -> None:
        """Count one read that saw all updates from clocks below `visible`."""
        self._read_since_tick = True
        differential = min(0, visible - self.now)
        counters = self._counters
        counters[layout.READS] += 1
        counters[layout.DIFFERENTIAL_SUM] += differential
        counters[layout.DIFFERENTIAL_SQUARES] += differential * differential
        counters[layout.HISTOGRAM + min(-differential, layout.HISTOGRAM_BINS - 1)] += 1

    def _send(self) -> None:
        """Add this worker's uncommitted updates of its copies to the shared tables."""
        if self.ordered:
            self._wait(self._refreshed, self._workers, self.now, "clock")
            if self._rank > 0:
                self._wait(layout.committed(self._rank - 1), 1, self.now + 1, "clock")
        for copy in self.copies:
            self._counters[layout.ROWS_SENT] += copy.flush()

    def _publish(self, group: int, value: int) -> None:
        """Set this worker's slot of the group of slots that starts at word `group`."""
        slot = group + self._rank * layout.LINE
        if group == self._committed and not self.ordered:
            board.tick(self._words, group, self._workers, slot, value)
        else:  # others wait for this very slot, not for the lowest
            board.tick(self._words, slot, 1, slot, value)

    def _wait(self, first: int, count: int, target: int, what: str) -> None:
        start = time.perf_counter_ns()
        warned = False
        while (status := board.gate(self._words, first, count, target, self._spins)) != board.OPEN:
            if status == board.ABORTED:
                raise AbortedError(f"worker {self._rank} was stopped at clock {self.now}: the job is ending")
            seconds = (time.perf_counter_ns() - start) / 1e9
            if seconds > min(_WARN_S, self._timeout_s):
                behind = self._behind(first, count, target)
                text = f"worker {self._rank} at clock {self.now} has waited {seconds:.0f} s in {what}() for {behind}"
                if seconds > self._timeout_s:
                    limit = f"Job(clock_timeout_s={self._timeout_s:g}) sets the limit"
                    raise ClockTimeoutError(f"{text}; does it call {what}()? {limit}")
                if not warned:
                    print(f"nbps: {text}", file=sys.stderr, flush=True)  # noqa: T201
                    warned = True
        waited = time.perf_counter_ns() - start
        self._waited_ns += waited
        self._counters[layout.WAIT_NS] += waited

    def _behind(self, first: int, count: int, target: int) -> str:
        slots = self._words[first : first + count * layout.LINE : layout.LINE]
        base = (first - self._committed) // layout.LINE % self._workers
        slow = [f"worker {base + k} (at {int(slots[k])})" for k in np.flatnonzero(slots < target)]
        return ", ".join(slow) or "nobody any more"
