"""A worker and its tables, as the user's function sees them inside a worker process."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.consistency import BSP, ESSP, SSP
from nbps.errors import AbortedError, ClockTimeoutError, TableError
from nbps.kernels import board as kernels
from nbps.kernels import layout
from nbps.runtime.segments import attach
from nbps.worker_spec import TableSpec, WorkerSpec
from nbps.worker_table import CachedTable, LiveTable, WorkerTable

_WARN_S = 30.0  # a worker that waits this long says for whom
# Looks at the board before sleeping: about 20 us, longer than a clock takes to arrive from a running worker, short
# beside a time slice. With more workers than cores the one waited for may need this very core: no looks at all.
_SPINS = 500


class Worker:
    """One training process of a job: the first argument of the function given to `Job.run`.

    Attributes
    ----------
    rank, size : int
        This worker's number, 0 to size - 1, and the number of workers.
    node : int
        The machine it runs on; 0 on a single box.
    random : numpy.random.Generator
        Random numbers of this worker's own, from the job's seed and the rank.
    state : dict
        Whatever the function wants to find again in the next `Job.run` of this job.
    """

    def __init__(self, spec: WorkerSpec, rank: int) -> None:
        self.rank = rank
        self.size = spec.workers
        self.node = 0
        self.random = np.random.default_rng([spec.seed, rank])
        self.state: dict[str, Any] = {}
        self._spec = spec
        self._spins = 0 if spec.oversubscribed else _SPINS
        self._board: npt.NDArray[np.int64] = attach(spec.board).view(np.int64)
        start = layout.statistics(self.size, rank)
        self._counters = self._board[start : start + layout.STATS_LINES * layout.LINE]
        self._committed = layout.committed(0)
        self._refreshed = layout.refreshed(self.size, 0)
        self._arrived = layout.arrived(self.size, 0)
        self._staleness = min([spec.consistency.staleness, *(table.staleness for table in spec.tables)])
        self._tables: dict[str, WorkerTable] = {}
        self._cached: list[CachedTable] = []
        for table in spec.tables:
            self._attach_table(table)
        # Strict BSP: copies are sent in rank order, and only after all have taken in the clock before.
        self._in_order = isinstance(spec.consistency, BSP) and bool(self._cached)
        self._clock = 0
        self._barriers = 0
        self._pending = False  # clock() was called and its gate has not been passed yet
        self._visible = 0  # every update from clocks below it was visible when the current clock began
        self._read_since_clock = False
        self._resumed_ns = time.perf_counter_ns()  # when the current clock began
        self._waited_ns = 0  # of the time since then

    def _attach_table(self, spec: TableSpec) -> None:
        values = spec.layout.view()
        if spec.access == "cached":
            lazy = isinstance(self._spec.consistency, SSP) and not isinstance(self._spec.consistency, ESSP)
            first = spec.layout.rows * self.rank // self.size
            table = CachedTable(self, spec.name, values, spec.staleness, spec.check_finite, lazy=lazy, first=first)
            self._cached.append(table)
            self._tables[spec.name] = table
        else:
            self._tables[spec.name] = LiveTable(
                self, spec.name, values, spec.staleness, spec.check_finite, atomic=spec.access == "direct"
            )

    # ----------------------------------------------------------------------- the user's side

    @property
    def current_clock(self) -> int:
        """Units of work that this worker has completed in this run."""
        return self._clock

    def table(self, name: str) -> WorkerTable:
        """Return the table called `name`.

        Raises
        ------
        TableError
            If the job has no such table.
        """
        try:
            return self._tables[name]
        except KeyError:
            known = ", ".join(map(repr, self._tables)) or "none"
            raise TableError(f"unknown table {name!r}; this job's tables: {known}") from None

    def clock(self, wait: bool = True) -> None:
        """Commit and publish this unit's updates, advance the clock, and wait until the next unit may begin.

        Parameters
        ----------
        wait : bool
            With False the wait happens in the next ``get`` (or the next ``clock``), as in the first paper. Kernels
            read live memory and cannot be stopped inside, so programs that read only in kernels keep True.

        Raises
        ------
        ClockTimeoutError
            After the job's ``clock_timeout_s``; names the workers that are behind.
        """
        self._open()
        if not self._read_since_clock:
            self.record(self._visible)
        self._send()
        self._clock += 1
        self._counters[layout.CLOCKS] += 1
        self._publish(self._committed, self._clock)
        self._pending = True
        self._read_since_clock = False
        if wait:
            self._open()
        now = time.perf_counter_ns()
        self._counters[layout.COMPUTE_NS] += now - self._resumed_ns - self._waited_ns
        self._resumed_ns, self._waited_ns = now, 0

    def barrier(self) -> None:
        """Wait until every worker has called ``barrier`` as often as this one; commits nothing."""
        self._barriers += 1
        self._publish(self._arrived, self._barriers)
        self._wait(self._arrived, self.size, self._barriers, "barrier")

    # ----------------------------------------------------------------------- the tables' side

    def lowest_clock(self) -> int:
        """Return the visible clock: every update from clocks below it is in the shared tables."""
        return int(kernels.lowest(self._board, self._committed, self.size))

    def wait_for(self, staleness: float | None) -> None:
        """Wait until the shared tables satisfy `staleness` (the job's if None)."""
        self._open()
        if staleness is not None and staleness < min(self._staleness, self._clock):
            self._wait(self._committed, self.size, self._clock - int(staleness), "get")

    def record(self, visible: int) -> None:
        """Count one read that saw all updates from clocks below `visible`."""
        self._read_since_clock = True
        differential = min(0, visible - self._clock)
        counters = self._counters
        counters[layout.READS] += 1
        counters[layout.DIFFERENTIAL_SUM] += differential
        counters[layout.DIFFERENTIAL_SQUARES] += differential * differential
        counters[layout.HISTOGRAM + min(-differential, layout.HISTOGRAM_BINS - 1)] += 1

    # ----------------------------------------------------------------------- the job's side

    def begin(self) -> None:
        """Start a run at clock 0; the driver has reset the board."""
        self._clock = 0
        self._barriers = 0
        self._pending = False
        self._visible = 0
        self._read_since_clock = False
        for table in self._cached:
            table.refresh(visible=0)
        if self._in_order:
            self._publish(self._refreshed, 0)
        self._resumed_ns, self._waited_ns = time.perf_counter_ns(), 0

    def finish(self) -> None:
        """End a run: commit what is left, and hold nobody back any more."""
        self._open()
        self._send()
        for group in (self._committed, self._refreshed, self._arrived):
            self._publish(group, layout.FINISHED)
        self._counters[layout.COMPUTE_NS] += time.perf_counter_ns() - self._resumed_ns - self._waited_ns

    def _open(self) -> None:
        """Wait at the gate of the current clock, if that has not happened yet, and take in what others sent."""
        if not self._pending:
            return
        if self._staleness < self._clock:
            self._wait(self._committed, self.size, self._clock - int(self._staleness), "clock")
        self._pending = False
        self._visible = self.lowest_clock()
        for table in self._cached:
            table.refresh_if_due(self._clock, self._visible)
        if self._in_order:
            self._publish(self._refreshed, self._clock)

    def _send(self) -> None:
        """Add this worker's uncommitted updates of cached tables to the shared ones."""
        if self._in_order:
            self._wait(self._refreshed, self.size, self._clock, "clock")
            if self.rank > 0:
                self._wait(layout.committed(self.rank - 1), 1, self._clock + 1, "clock")
        for table in self._cached:
            self._counters[layout.ROWS_SENT] += table.flush()

    def _publish(self, group: int, value: int) -> None:
        """Set this worker's slot of the group of slots that starts at word `group`."""
        slot = group + self.rank * layout.LINE
        if group == self._committed and not self._in_order:
            kernels.tick(self._board, group, self.size, slot, value)
        else:  # others wait for this very slot, not for the lowest
            kernels.tick(self._board, slot, 1, slot, value)

    def _wait(self, first: int, count: int, target: int, what: str) -> None:
        start = time.perf_counter_ns()
        warned = False
        while (status := kernels.gate(self._board, first, count, target, self._spins)) != kernels.OPEN:
            if status == kernels.ABORTED:
                raise AbortedError(f"worker {self.rank} was stopped at clock {self._clock}: the job is ending")
            seconds = (time.perf_counter_ns() - start) / 1e9
            if seconds > min(_WARN_S, self._spec.clock_timeout_s):
                behind = self._behind(first, count, target)
                text = f"worker {self.rank} at clock {self._clock} has waited {seconds:.0f} s in {what}() for {behind}"
                if seconds > self._spec.clock_timeout_s:
                    limit = f"Job(clock_timeout_s={self._spec.clock_timeout_s:g}) sets the limit"
                    raise ClockTimeoutError(f"{text}; does it call clock()? {limit}")
                if not warned:
                    print(f"nbps: {text}", file=sys.stderr, flush=True)  # noqa: T201
                    warned = True
        waited = time.perf_counter_ns() - start
        self._waited_ns += waited
        self._counters[layout.WAIT_NS] += waited

    def _behind(self, first: int, count: int, target: int) -> str:
        slots = self._board[first : first + count * layout.LINE : layout.LINE]
        base = (first - self._committed) // layout.LINE % self.size
        slow = [f"worker {base + k} (at {int(slots[k])})" for k in np.flatnonzero(slots < target)]
        return ", ".join(slow) or "nobody any more"
