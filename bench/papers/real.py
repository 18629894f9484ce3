"""The backend of real processes: a run is one `nbps.Job` on this machine.

Item factors are in a ``cached`` table: a worker reads its own copy, so that staleness is real. User factors are in an
``exclusive`` table, each row with one writer. ``Hogwild`` and ``single`` have the items in an ``exclusive`` table too.

The objective is computed after the run. A thread of the driver looks at how far the workers are, each millisecond, and
copies the shared tables at equal distances of work; what it takes from the workers' cores it takes from all models.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import nbps
from nbps.consistency import consistency_named
from nbps.kernels import TableKernel
from papers.application import DECAY, INIT_SD, Problem, descend, objective
from papers.records import Curve, Differential, Floats, RunRecord, Setting, Straggler, Trace

_POLL_S = 0.001
_PLAIN = ("Hogwild", "single")  # models without a copy and without a gate


def run(
    problem: Problem, setting: Setting, rank: int, clocks: int, clocks_per_epoch: int, snapshots: int, seed: int
) -> RunRecord:
    """Train once.

    Parameters
    ----------
    problem : Problem
        Dealt out to as many workers as `setting` has.
    setting : Setting
    rank : int
        Columns of the factors.
    clocks : int
        For each worker.
    clocks_per_epoch : int
        A clock is this fraction of a worker's ratings.
    snapshots : int
        Points of the objective's curve.
    seed : int
        Of the injected sleeps; the initial factors are always the same.
    """
    rows = dict(zip(("users", "items"), problem.shape, strict=True))
    access = {"users": "exclusive", "items": "exclusive" if setting.model in _PLAIN else "cached"}
    init = nbps.init.normal(0.0, INIT_SD)
    tables = [nbps.Table(name, rows[name], rank, access=access[name], init=init) for name in rows]
    # Beside the papers' two tables: how many clocks each worker has completed, for the driver's snapshots.
    tables.append(nbps.Table("progress", setting.workers, 1, dtype="int64", access="exclusive"))
    with nbps.Job(tables, setting.workers, consistency=_consistency(setting), preload=_compile) as job:
        job.run(_prepare, problem.users, problem.items, problem.values, problem.bounds)
        before = job.report()
        with _snapshots(job, clocks, snapshots) as taken:
            results = job.run(_train, setting.step, setting.straggler, clocks, clocks_per_epoch, setting.pace_s, seed)
        after = job.report()
    starts, raw = zip(*results, strict=True)
    began = min(starts)
    times = np.stack(raw)  # workers, 5, clocks
    trace = Trace(times[:, 0] - began, *(times[:, part] for part in range(1, 5)))
    waits = zip(after.workers, before.workers, strict=True)
    counts = after.clock_differential.counts
    return RunRecord(
        "real",
        setting,
        trace,
        np.array([now.wait_seconds - then.wait_seconds for now, then in waits]),
        _curve(problem, taken, trace, began),
        Differential.from_counts(counts),
    )


def _consistency(setting: Setting) -> Any:
    return consistency_named("ASP" if setting.model in _PLAIN else setting.model, setting.bound)


def _compile() -> None:
    """Compile the loop for the arrays that workers will give it."""
    table = TableKernel(np.zeros((1, 2), np.float32), 0)
    codes = np.zeros(0, np.int32)
    descend(table, table, codes, codes, np.zeros(0, np.float32), np.float32(0), np.float32(0))


def _prepare(worker: Any, users: Any, items: Any, values: Any, bounds: Any) -> None:
    """Copy this worker's ratings into memory of its own, and touch what the first clock will touch."""
    own = slice(bounds[worker.rank], bounds[worker.rank + 1])
    worker.state["ratings"] = users[own].copy(), items[own].copy(), values[own].copy()
    # A step of size 0 without decay changes nothing.
    descend(_kernel(worker, "users"), _kernel(worker, "items"), *worker.state["ratings"], np.float32(0), np.float32(0))


def _kernel(worker: Any, table: str) -> TableKernel:
    return worker.table(table).kernel


def _train(
    worker: Any, step: float, straggler: Straggler, clocks: int, clocks_per_epoch: int, pace_s: float, seed: int
) -> tuple[float, Floats]:
    """Train in one worker; return when it began and the rows of `Trace`, ends as they are on the system's clock."""
    ratings = worker.state["ratings"]
    cuts = np.linspace(0, ratings[0].size, clocks_per_epoch + 1).astype(int)
    parts = [[column[a:b] for column in ratings] for a, b in itertools.pairwise(cuts)]
    sleeps = straggler.sleeps(worker.rank, worker.size, clocks, seed)
    items, users, progress = worker.table("items"), worker.table("users"), worker.table("progress")
    times = np.zeros((5, clocks))
    began = time.perf_counter()
    for clock in range(clocks):
        start, start_cpu = time.perf_counter(), time.thread_time()
        items.get(0)  # one read in each clock for the report: inside the loop it cannot see any
        descend(users.kernel, items.kernel, *parts[clock % clocks_per_epoch], np.float32(step), np.float32(DECAY))
        cpu = time.thread_time() - start_cpu
        rest = pace_s - (time.perf_counter() - start)
        if rest > 0:
            time.sleep(rest)
        computed = ready = time.perf_counter()
        if sleeps[clock] > 0:
            time.sleep(sleeps[clock])
            ready = time.perf_counter()
        worker.clock()
        end = time.perf_counter()
        progress.kernel.values[worker.rank, 0] = clock + 1
        times[:, clock] = end, computed - start, cpu, ready - computed, end - ready
    return began, times


@contextmanager
def _snapshots(job: nbps.Job, clocks: int, count: int) -> Iterator[list[tuple[float, Any, Any]]]:
    """While the body runs, copy the factors `count` times, and once before and after: (time, users, items)."""
    taken: list[tuple[float, Any, Any]] = []
    over = threading.Event()

    def take() -> None:
        taken.append((time.perf_counter(), job.table("users").to_numpy(), job.table("items").to_numpy()))

    def watch() -> None:
        due = clocks / count
        while not over.wait(_POLL_S):
            done = float(job.table("progress").to_numpy().mean())
            if done >= due:
                take()
                due = (math.floor(done * count / clocks) + 1) * clocks / count

    take()
    watcher = threading.Thread(target=watch, name="snapshots")
    watcher.start()
    try:
        yield taken
    finally:
        over.set()
        watcher.join()
    take()


def _curve(problem: Problem, taken: list[tuple[float, Any, Any]], trace: Trace, began: float) -> Curve:
    """Evaluate the snapshots."""
    sample = problem.sample()
    ends = np.sort(trace.end_s, axis=None)
    seconds = np.clip([at - began for at, _, _ in taken], 0.0, ends[-1])
    clocks = np.searchsorted(ends, seconds, side="right") / trace.end_s.shape[0]
    values = np.array([objective(P, Q, *sample, DECAY) for _, P, Q in taken])
    # The last snapshot inside the run may have been taken after its end.
    inside = np.append(np.flatnonzero(seconds[:-1] < ends[-1]), seconds.size - 1)
    return Curve(seconds[inside], clocks[inside], values[inside])
