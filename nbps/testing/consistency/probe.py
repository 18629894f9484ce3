"""The probe: a program of random reads and additions that records what it did, for `nbps.testing.check`.

It runs on any object with the worker's API (``rank``, ``size``, ``current_clock``, ``table(name).get`` and ``inc``,
``clock(wait=)``, ``barrier()``): one of an `nbps.Job`, or of a system of yours. A probe table has a column for each
worker; a worker adds only to its own, in multiples of a unit that would show a torn element (`UNITS`).

Times are those of one monotonic clock. Where workers on machines with clocks of their own ran, set all to 0: `check`
then skips what needs them, which is drift, value bounds, and additions that are seen before they began.
"""

from __future__ import annotations

import functools
import math
import os
import pickle
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import nbps
from nbps.testing.consistency.history import Add, Entry, History, Passed, Read, RowKey, Torn

Array = npt.NDArray[Any]
Program = Callable[[Any], Any]  # called in every worker, with that worker
# What starts `workers` workers with these tables, calls the program in each, and returns what the calls returned, in
# rank order, and the values of the tables after the end.
Run = Callable[[Program, int, Any, Sequence[nbps.Table]], tuple[list[Any], Mapping[str, Array]]]

# What is added for one count: both halves of an element change with every addition, so an element put together of the
# halves of two states is not a multiple. And the largest count for which a multiple is exact.
UNITS: dict[str, tuple[float, int]] = {
    "int64": (2**32 + 1, 2**31 - 1),
    "int32": (2**16 + 1, 2**15 - 1),
    "float64": (1 + 2.0**-26, 2**26 - 1),
    "float32": (1 + 2.0**-12, 2**12 - 1),
}


@dataclass(frozen=True)
class Plan:
    """What a probe does.

    Attributes
    ----------
    clocks : int
    operations : int
        Per clock; each reads a few rows of a random table, adds to a few, and reads again.
    seed : int
        Decides, with the rank, everything but the timing.
    sleep_s : float
        Longest of the naps, which come after half of the operations.
    no_wait : float
        Share of clocks that end with ``clock(wait=False)``.
    fresher : float
        Share of reads that ask for a staleness of their own.
    barriers : float
        Share of clocks with a barrier.
    """

    clocks: int = 10
    operations: int = 2
    seed: int = 0
    sleep_s: float = 0.0
    no_wait: float = 0.25
    fresher: float = 0.25
    barriers: float = 0.1


class ProbeTable(NamedTuple):
    """A probe table as the probe sees it; `exclusive` rows are added to by worker ``row % size`` alone."""

    name: str
    rows: int
    dtype: str
    exclusive: bool
    staleness: float


def probe_tables(
    workers: int,
    rows: int = 3,
    access: Sequence[str] = ("direct", "cached", "exclusive"),
    dtype: str = "int64",
    staleness: float | None = None,
) -> list[nbps.Table]:
    """Return one probe table for each access mode, called as the mode; an exclusive one has a row for each worker."""
    return [
        nbps.Table(
            name=mode,
            rows=max(rows, workers) if mode == "exclusive" else rows,
            width=workers,
            dtype=dtype,
            access=mode,  # type: ignore[arg-type]
            staleness=staleness,
        )
        for mode in access
    ]


def run_on_job(
    program: Program, workers: int, model: Any, tables: Sequence[nbps.Table]
) -> tuple[list[Any], Mapping[str, Array]]:
    """Run `program` in an `nbps.Job`: the `Run` of nbps itself."""
    with nbps.Job(tables, workers=workers, consistency=model, clock_timeout_s=60) as job:
        return job.run(program), {table.name: job.table(table.name).to_numpy() for table in tables}


def run_probe(run: Run, workers: int, model: Any, tables: Sequence[nbps.Table], plan: Plan) -> History:
    """Run the probe by `run`, once, and return what happened.

    Examples
    --------
    >>> import nbps
    >>> from nbps.testing import check; from nbps.testing.consistency import probe
    >>> history = probe.run_probe(probe.run_on_job, 2, nbps.SSP(1), probe.probe_tables(2), probe.Plan(clocks=3))
    >>> check(history)
    []
    """
    results, final = run(prepared(tables, model, plan), workers, model, tables)
    return history_of([entry for result in results for entry in result], final, workers, model, tables)


def prepared(tables: Sequence[nbps.Table], model: Any, plan: Plan, journal: str | None = None) -> Program:
    """Return the probe as a program of one argument, the worker."""
    seen = [
        ProbeTable(
            name=table.name,
            rows=table.rows,
            dtype=table.dtype,
            exclusive=table.access == "exclusive",
            staleness=model.staleness if table.staleness is None else table.staleness,
        )
        for table in tables
    ]
    return functools.partial(probe, tables=seen, plan=plan, journal=journal)


def history_of(
    entries: list[Entry], final: Mapping[str, Array] | None, workers: int, model: Any, tables: Sequence[nbps.Table]
) -> History:
    """Return the history of a run of the probe with its end, if it came to it, and what `model` promises."""
    history = History(workers, entries, staleness=model.staleness)
    if (v0 := getattr(model, "v0", None)) is not None:
        history.value_bound = v0 / min(UNITS[table.dtype][0] for table in tables)
    if final is None:
        return history
    history.final = {}
    for table in tables:
        for row, values in enumerate(final[table.name]):
            counts = decoded(values, table.dtype)
            if None not in counts:
                history.final[table.name, row] = counts  # type: ignore[assignment]
            entries += _torn(-1, math.inf, (table.name, row), values, counts, table.dtype)
    return history


def decoded(values: Array, dtype: str) -> tuple[int | None, ...]:
    """Return how many units each element of a row is, None for a torn one."""
    unit, limit = UNITS[dtype]
    found: list[int | None] = []
    for value in values.tolist():
        count = int(value // unit) if math.isfinite(value) else -1
        found.append(count if 0 <= count <= limit and count * unit == value else None)
    return tuple(found)


def _torn(
    worker: int, time_s: float, key: RowKey, values: Array, counts: tuple[int | None, ...], dtype: str, clock: int = -1
) -> list[Entry]:
    return [
        Torn(worker, clock, *key, column, value, UNITS[dtype][0], time_s)
        for column, (value, count) in enumerate(zip(values.tolist(), counts, strict=True))
        if count is None
    ]


def probe(worker: Any, tables: Sequence[ProbeTable], plan: Plan, journal: str | None = None) -> list[Entry]:
    """Carry out `plan` in one worker and return what it did.

    With `journal`, a folder, every entry is also written to a file there, called ``rank.pid``, before anything else
    happens: it survives a kill -9.
    """
    if journal is None:
        return _Probe(worker, tables, plan, None).run()
    with (Path(journal) / f"{worker.rank}.{os.getpid()}").open("wb", buffering=0) as file:
        return _Probe(worker, tables, plan, file.write).run()


class _Probe:
    """The probe of one worker."""

    def __init__(
        self, worker: Any, tables: Sequence[ProbeTable], plan: Plan, write: Callable[[bytes], object] | None
    ) -> None:
        self.worker = worker
        self.tables = tables
        self.plan = plan
        self.entries: list[Entry] = []
        self.random = random.Random(f"{plan.seed}/{worker.rank}")
        self.shared = random.Random(f"{plan.seed}")  # the same draws in all workers
        self.added: dict[RowKey, int] = {}
        self.owed = False  # the gate of the current clock was not passed
        self._write = write

    def run(self) -> list[Entry]:
        """Run the probe in this worker; return what it recorded."""
        worker, plan, draw = self.worker, self.plan, self.random
        self._record(Passed(worker.rank, worker.current_clock, time.monotonic()))
        for _ in range(plan.clocks):
            for _ in range(plan.operations):
                table = draw.choice(self.tables)
                self._read(table)
                self._add(table)
                self._nap()
                self._read(draw.choice([table, draw.choice(self.tables)]))
            # All meet in the same clock: who waited there for one that waits for its commit would wait for good.
            if self.shared.random() < plan.barriers:
                worker.barrier()
            self.owed = draw.random() < plan.no_wait
            worker.clock(wait=not self.owed)
            if not self.owed:
                self._record(Passed(worker.rank, worker.current_clock, time.monotonic()))
        self._add(draw.choice(self.tables))  # the end of a worker commits it
        return self.entries

    def _record(self, entry: Entry) -> None:
        self.entries.append(entry)
        if self._write is not None:
            self._write(pickle.dumps(entry))

    def _nap(self) -> None:
        if self.plan.sleep_s and self.random.random() < 0.5:
            time.sleep(self.random.random() * self.plan.sleep_s)

    def _read(self, table: ProbeTable) -> None:
        worker, draw = self.worker, self.random
        ids: Any = [draw.randrange(table.rows) for _ in range(draw.randint(1, 3))]
        options, bound = {}, table.staleness
        if draw.random() < self.plan.fresher:
            asked = draw.randint(0, 3)
            options, bound = {"staleness": asked}, min(bound, asked)
        began = time.monotonic()
        if len(ids) == 1:
            rows = worker.table(table.name).get(ids[0], **options)[None]
        else:
            rows = worker.table(table.name).get(ids, **options)
        ended = time.monotonic()
        if self.owed:
            self._record(Passed(worker.rank, worker.current_clock, ended))
            self.owed = False
        for row, values in zip(ids, rows, strict=True):
            counts = decoded(values, table.dtype)
            clock = worker.current_clock
            for torn in _torn(worker.rank, ended, (table.name, row), values, counts, table.dtype, clock):
                self._record(torn)
            if None not in counts:
                self._record(
                    Read(worker.rank, clock, table.name, row, counts, bound, ended, began=began)  # type: ignore[arg-type]
                )

    def _add(self, table: ProbeTable) -> None:
        worker, draw = self.worker, self.random
        first, step = (worker.rank, worker.size) if table.exclusive else (0, 1)
        mine = range(first, table.rows, step)
        unit, limit = UNITS[table.dtype]
        ids, deltas = [], []
        for _ in range(draw.randint(1, 3)):
            row, count = draw.choice(mine), draw.randint(1, 4)
            so_far = self.added.get((table.name, row), 0)
            if so_far + count > limit:
                continue  # its multiples would not be exact any more
            self.added[table.name, row] = so_far + count
            delta = np.zeros(worker.size, table.dtype)
            delta[worker.rank] = count * unit
            ids.append(row)
            deltas.append(delta)
            self._record(Add(worker.rank, worker.current_clock, table.name, row, count, time.monotonic()))
        if ids:
            worker.table(table.name).inc(ids, np.array(deltas))
