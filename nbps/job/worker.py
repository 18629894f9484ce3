"""A worker and its tables, as the user's function sees them inside a worker process."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbps.errors import TableError
from nbps.job.worker_spec import WorkerSpec
from nbps.kernels import rows
from nbps.memory.segments import attach
from nbps.runtime.clock import Clock
from nbps.tables.placed import TableSpec
from nbps.tables.worker import CachedTable, LiveTable, WorkerTable


class Worker:
    """One training process of a job: the first argument of the function given to `Job.run`.

    Attributes
    ----------
    rank, size : int
        This worker's number, 0 to size - 1, and the number of workers, on all nodes.
    node : int
        The node it runs on; 0 on a single box.
    random : numpy.random.Generator
        Random numbers of this worker's own, from the job's seed and the rank.
    state : dict
        Whatever the function wants to find again in the next `Job.run` of this job.
    """

    def __init__(self, spec: WorkerSpec, local: int) -> None:
        self.rank = spec.first + local
        self.size = spec.size
        self.node = spec.node
        self.random = np.random.default_rng([spec.seed, self.rank])
        self.state: dict[str, Any] = {}
        self._clock = Clock(
            attach(spec.board).view(np.int64),
            spec.workers,
            spec.shards,
            local,
            first=spec.first,
            terms=spec.terms(),
            oversubscribed=spec.oversubscribed,
            timeout_s=spec.clock_timeout_s,
            recording=spec.record_staleness,
        )
        # Workers that send the same rows in the same order collide on every one: each starts elsewhere.
        share = local / spec.workers
        self._tables = {table.name: self._attach(table, share) for table in spec.tables}

    def _attach(self, table: TableSpec, share: float) -> WorkerTable:
        values = table.layout.view()
        marks = rows.NOBODY_LOOKS if table.marks is None else attach(table.marks)
        if table.access != "cached":
            return LiveTable(self._clock, table, values, marks)
        return CachedTable(self._clock, table, values, marks, first=int(table.layout.rows * share))

    @property
    def current_clock(self) -> int:
        """Units of work that this worker has completed in this run."""
        return self._clock.now

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
        self._clock.tick(wait)

    def barrier(self) -> None:
        """Wait until every worker has called ``barrier`` as often as this one; commits nothing.

        *Consistency.* Copies of ``cached`` tables stay as they are, except under `VAP`, where a worker that waits takes
        in what others commit.

        Raises
        ------
        ClockTimeoutError
            After the job's ``clock_timeout_s``; names the workers that are missing.
        """
        self._clock.barrier()

    def _begin(self, clock: int) -> None:
        self._clock.begin(clock)

    def _finish(self) -> None:
        self._clock.finish()
