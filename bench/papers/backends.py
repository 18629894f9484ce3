"""Settings in, runs out: on real processes one after the other, in the simulator as many at once as there are cores."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, NamedTuple

from measure import console

from papers import plan, real, simulated
from papers.costs import Costs
from papers.experiments import Deal
from papers.records import RunRecord, Setting

_deals: list[Deal] = []  # in a process that simulates: whence its ratings come


class Backend:
    """Runs settings on real processes, and says so line by line."""

    def __init__(self, deal: Deal, size: plan.Size) -> None:
        self._size = size
        self._deal = deal
        self._turns: dict[Any, int] = {}

    def candidates(self, settings: Mapping[Any, Setting], clocks: int) -> dict[Any, Any]:
        """Return a call without arguments for each setting; its n-th call injects the n-th series of sleeps."""
        return {key: functools.partial(self._run, key, setting, clocks) for key, setting in settings.items()}

    def _run(self, key: Any, setting: Setting, clocks: int) -> RunRecord:
        seed = self._turns[key] = self._turns.get(key, -1) + 1
        began = time.perf_counter()
        size = self._size
        application = self._deal(setting.workers, size.rank)
        snapshots = size.snapshots * clocks // size.clocks
        record = real.run(application, setting, clocks, size.clocks_per_epoch, snapshots, seed)
        whole = time.perf_counter() - began
        text = f"objective {record.final_objective:.4f} after {record.seconds:.2f} s ({whole:.1f} s with start and end)"
        console().print(f"{seed + 1}. {key}: {text}", highlight=False, soft_wrap=True)
        return record


class Task(NamedTuple):
    """One simulated run; see `papers.simulated.run`."""

    setting: Setting
    size: plan.Size
    clocks: int
    seed: int
    cluster: simulated.Cluster


def tasks_of(settings: Mapping[Any, Setting], size: plan.Size, clocks: int, costs: Costs) -> dict[Any, Task]:
    """Return the simulated runs of `settings` on the machines of `size`, which cost what `costs` says of one worker."""
    found = {}
    for key, setting in settings.items():
        single = setting.model == plan.SINGLE
        own = costs.of_single(size.workers) if single else costs.of_workers(setting.workers)
        found[key] = Task(setting, size, clocks, 0, simulated.Cluster(1 if single else size.nodes, own))
    return found


def simulate(deal: Deal, tasks: Mapping[Any, Task], smoke: bool) -> dict[Any, RunRecord]:
    """Carry out simulated runs, in the order given unless in several processes; say so line by line."""
    processes = 1 if smoke else len(os.sched_getaffinity(0))
    _deals[:] = [deal]
    if processes == 1:
        done = {key: _told(key, *_simulate(task)) for key, task in tasks.items()}
    else:
        for workers, rank in {(task.setting.workers, task.size.rank) for task in tasks.values()}:
            deal(workers, rank)  # before the fork: then the processes have it
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(processes, context) as pool:
            keys = {pool.submit(_simulate, task): key for key, task in tasks.items()}
            done = {keys[future]: _told(keys[future], *future.result()) for future in as_completed(keys)}
    return {key: done[key] for key in tasks}


def _simulate(task: Task) -> tuple[RunRecord, float]:
    """Carry out one run; return it and the seconds that it took."""
    began = time.perf_counter()
    setting, size, clocks, seed, cluster = task
    snapshots = max(1, size.snapshots * clocks // size.clocks)
    problem = _deals[0](setting.workers, size.rank)
    record = simulated.run(problem, setting, clocks, size.clocks_per_epoch, snapshots, seed, cluster)
    gc.collect()  # a simulation is one big cycle
    return record, time.perf_counter() - began


def _told(key: Any, record: RunRecord, whole: float) -> RunRecord:
    text = f"objective {record.final_objective:.4f} after {record.seconds:.2f} virtual s ({whole:.1f} s)"
    console().print(f"simulated {key}: {text}", highlight=False, soft_wrap=True)
    return record
