"""The backend of real processes: a run is one `nbps.Job` on this machine.

What all workers change is in ``cached`` tables: a worker reads its own copy, so that staleness is real. ``Hogwild`` and
``single`` have it in ``exclusive`` tables.

The objective is computed after the run. A thread of the driver looks at how far the workers are, each millisecond, and
copies the shared tables at equal distances of work; what it takes from the workers' cores it takes from all models.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import nbps
from nbps.consistency import consistency_named
from papers.application import Application, Values
from papers.records import Curve, Differential, Floats, RunRecord, Setting, Straggler, Trace

_POLL_S = 0.001
_PROGRESS = "progress"
_PLAIN = ("Hogwild", "single")  # models without a copy and without a gate


def run(
    application: Application, setting: Setting, clocks: int, clocks_per_epoch: int, snapshots: int, seed: int
) -> RunRecord:
    """Train once.

    Parameters
    ----------
    application : Application
        Dealt out to as many workers as `setting` has.
    setting : Setting
    clocks : int
        For each worker.
    clocks_per_epoch : int
        A clock is this fraction of a worker's data.
    snapshots : int
        Points of the objective's curve.
    seed : int
        Of the injected sleeps, and of what the application draws; first values are always the same.
    """
    tables = application.tables("exclusive" if setting.model in _PLAIN else "cached")
    # Beside those of the papers: how many clocks each worker has completed, for the driver's snapshots.
    tables.append(nbps.Table(_PROGRESS, setting.workers, 1, dtype="int64", access="exclusive"))
    with nbps.Job(tables, setting.workers, consistency=_consistency(setting), preload=application.preload) as job:
        job.run(_prepare, application, setting.step, clocks_per_epoch, seed)
        before = job.report()
        with _snapshots(job, application.observed, clocks, snapshots) as taken:
            results = job.run(_train, application.shared, setting.straggler, clocks, setting.pace_s, seed)
        after = job.report()
        application.check({table.name: job.table(table.name).to_numpy() for table in tables})
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
        _curve(application, taken, trace, began),
        Differential.from_counts(counts),
    )


def _consistency(setting: Setting) -> Any:
    return consistency_named("ASP" if setting.model in _PLAIN else setting.model, setting.bound)


def _prepare(worker: Any, application: Application, step: float, clocks_per_epoch: int, seed: int) -> None:
    worker.state["share"] = application.share(worker, step, clocks_per_epoch, seed)


def _train(
    worker: Any, shared: str, straggler: Straggler, clocks: int, pace_s: float, seed: int
) -> tuple[float, Floats]:
    """Train in one worker; return when it began and the rows of `Trace`, ends as they are on the system's clock."""
    share, table, progress = worker.state["share"], worker.table(shared), worker.table(_PROGRESS)
    sleeps = straggler.sleeps(worker.rank, worker.size, clocks, seed)
    times = np.zeros((5, clocks))
    began = time.perf_counter()
    for clock in range(clocks):
        start, start_cpu = time.perf_counter(), time.thread_time()
        table.get(0)  # one read in each clock for the report: inside the loop it cannot see any
        share.advance(clock)
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
def _snapshots(
    job: nbps.Job, observed: tuple[str, ...], clocks: int, count: int
) -> Iterator[list[tuple[float, Values]]]:
    """While the body runs, copy tables `count` times, and once before and after, each with the time."""
    taken: list[tuple[float, Values]] = []
    over = threading.Event()

    def take() -> None:
        taken.append((time.perf_counter(), {name: job.table(name).to_numpy() for name in observed}))

    def watch() -> None:
        due = clocks / count
        while not over.wait(_POLL_S):
            done = float(job.table(_PROGRESS).to_numpy().mean())
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


def _curve(application: Application, taken: list[tuple[float, Values]], trace: Trace, began: float) -> Curve:
    """Evaluate the snapshots."""
    ends = np.sort(trace.end_s, axis=None)
    seconds = np.clip([at - began for at, _ in taken], 0.0, ends[-1])
    clocks = np.searchsorted(ends, seconds, side="right") / trace.end_s.shape[0]
    objective = np.array([application.objective(values) for _, values in taken])
    # The last snapshot inside the run may have been taken after its end.
    inside = np.append(np.flatnonzero(seconds[:-1] < ends[-1]), seconds.size - 1)
    return Curve(seconds[inside], clocks[inside], objective[inside], application.rising)
