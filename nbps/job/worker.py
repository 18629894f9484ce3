"""A worker and its tables, as the user's function sees them inside a worker process."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.errors import TableError
from nbps.job.worker_spec import WorkerSpec
from nbps.kernels import layout, rows
from nbps.memory.segments import attach
from nbps.runtime.clock import Clock
from nbps.runtime.sums import Sums
from nbps.tables.placed import PlacedTable
from nbps.tables.shared import SharedRows
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
        Random numbers of this worker's own, from the job's seed and the rank. The global generators, ``numpy.random``
        and ``random``, are seeded from these too, when the job starts: each worker draws its own numbers from them, the
        same ones in every job with this seed.
    state : dict
        Whatever the function wants to find again in the next `Job.run` of this job.
    """

    def __init__(self, spec: WorkerSpec, local: int, before: Worker | None = None) -> None:
        self.rank = spec.first + local
        self.size = sum(spec.sizes)
        self.node = spec.node
        self.random = np.random.default_rng([spec.seed, self.rank])
        # What the function keeps stays when the process is attached anew, and so does what its kernels point to.
        self.state: dict[str, Any] = {} if before is None else before.state
        known: dict[str, WorkerTable] = {} if before is None else before._tables
        words = attach(spec.board).view(np.int64)
        self._clock = Clock(
            words,
            spec.workers,
            spec.shards,
            local,
            first=spec.first,
            terms=spec.terms(),
            oversubscribed=spec.oversubscribed,
            timeout_s=spec.clock_timeout_s,
            recording=spec.record_staleness,
        )
        start = layout.sums(spec.workers + spec.shards, bounded=spec.terms().v0 is not None)
        self._sums = Sums(self._clock, words[start:], spec.sizes, spec.node, local)
        # Workers that send the same rows in the same order collide on every one: each starts elsewhere.
        share = local / spec.workers
        attached = functools.cache(attach)  # all tables have the same claims
        self._tables: dict[str, WorkerTable] = {
            table.definition.name: self._attach(table, known.get(table.definition.name), spec, local, share, attached)
            for table in spec.tables
        }

    def _attach(
        self,
        table: PlacedTable,
        before: WorkerTable | None,
        spec: WorkerSpec,
        local: int,
        share: float,
        attached: Callable[[str], Any],
    ) -> WorkerTable:
        access = table.definition.access
        if before is None:
            shared = SharedRows(
                table.layout.view(),
                rows.NOBODY_LOOKS if table.marks is None else attach(table.marks),
                None if table.claims is None else attached(table.claims),
                is_atomic=access != "exclusive",
                source=local,
                sources=spec.claimants,
            )
        else:
            shared = before._shared
        if access != "cached":
            return LiveTable(self._clock, table, shared)
        staleness = table.definition.staleness_under(spec.consistency)
        assert before is None or isinstance(before, CachedTable)
        return CachedTable(self._clock, table, shared, staleness, int(table.layout.rows * share), before)

    def __repr__(self) -> str:
        return f"<Worker {self.rank} of {self.size}, at clock {self.current_clock}>"

    @property
    def tables(self) -> Mapping[str, WorkerTable]:
        """All tables of the job, by name."""
        return MappingProxyType(self._tables)

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
        in what others commit. What workers of this node have added to ``direct`` tables before it is read after it.

        Raises
        ------
        ClockTimeoutError
            After the job's ``clock_timeout_s``; names the workers that are missing.
        """
        self._clock.barrier()

    def sum(self, value: npt.ArrayLike) -> Any:
        """Return the sum of what all workers of all nodes give; the same bits for all of them.

        A barrier: every worker calls it equally often. For losses, counts, norms, a decision that all must take alike.

        Parameters
        ----------
        value : number or array_like
            Of one shape on all workers. Bools and integers are added as int64, and wrap as these do; floats as float64,
            in the order of ranks.

        Returns
        -------
        int, float or ndarray
            An array of int64 or float64 if `value` is one; floats if that of any worker are.

        Raises
        ------
        LocalProtocolError
            If another worker came with another shape, or calls ``barrier`` instead, or has returned.
        ClockTimeoutError
            After the job's ``clock_timeout_s``; names the workers that are missing.

        Notes
        -----
        *Consistency.* As with ``barrier``: nothing is committed, no clock passes, tables stay as they are.

        *Cost.* That of a barrier and 10 to 20 microseconds of Python; 100,000 elements take about 5 ms with 2 workers
        on one box, 13 ms over 2 nodes: what is as large and added up often goes into a table.
        """
        return self._sums.add(value)

    def _begin(self, clock: int) -> None:
        self._clock.begin(clock)

    def _finish(self) -> None:
        self._sums.finish()
        self._clock.finish()
