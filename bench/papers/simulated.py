"""The backend of simulated machines: a run of factorization is one `nbps.sim.Simulation`, in virtual time.

Workers are those of `nbps.core`, as on real machines, and really learn: each goes over its ratings with the compiled
loop of the real backend, on its private copy of the items' factors. Seconds are drawn (`Costs`), those of a flush and
of a refresh pass inside ``clock()``, where others may wait for them. What nodes compute to exchange rows takes no time.
"""

from __future__ import annotations

import gc
import itertools
import math
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import nbps
from nbps.consistency import consistency_named
from nbps.core.worker import Flush, Refresh
from nbps.kernels import TableKernel
from nbps.sim import Network, Scenario, Simulation, SimWorker
from nbps.sim.worker import Compute
from papers.costs import Costs
from papers.factorization import DECAY, INIT_SD, Factorization, descend, objective
from papers.records import Curve, Differential, Floats, RunRecord, Setting, Trace
from papers.rows import ArrayMemory


@dataclass(frozen=True)
class Cluster:
    """The machines of a simulated run: `nodes` that have equally many workers, and the network between them."""

    nodes: int
    costs: Costs
    network: Network = field(default_factory=Network)


class _Simulation(Simulation):
    memory_class = ArrayMemory


class _Training:
    """The program of all workers of a run, and what they leave behind."""

    def __init__(
        self,
        problem: Factorization,
        setting: Setting,
        clocks: int,
        clocks_per_epoch: int,
        snapshots: int,
        seed: int,
    ) -> None:
        self.setting = setting
        self.trace = np.zeros((5, setting.workers, clocks))
        self.points: list[tuple[float, float, float]] = []
        self.simulation: Simulation | None = None
        self._problem = problem
        self._clocks, self._clocks_per_epoch, self._seed = clocks, clocks_per_epoch, seed
        self._sample = problem.sample
        self._users = _factors("users", problem.shape[0], problem.rank)
        self._done = 0
        self._due = self._every = clocks * setting.workers / snapshots
        self.costs: Costs | None = None

    def start(self, cluster: Cluster) -> None:
        """Make the simulation in which this program runs."""
        setting, rank = self.setting, self._problem.rank
        rows = math.ceil(self._problem.shape[1] / cluster.nodes)  # of a node; the last rows are nobody's
        items = np.zeros((rows * cluster.nodes, rank), np.float32)
        items[: self._problem.shape[1]] = _factors("items", self._problem.shape[1], rank)
        model = "ASP" if setting.model == "single" else setting.model
        scenario = Scenario(
            nodes=cluster.nodes,
            workers=setting.workers // cluster.nodes,
            clocks=self._clocks,
            consistency=consistency_named(model, setting.bound),
            seed=self._seed,
            rows=rows,
            cached=True,
            network=cluster.network,
        )
        self.costs = cluster.costs
        self.simulation = _Simulation(scenario, self, items)

    def __call__(self, worker: SimWorker) -> Generator[Any, Any, None]:
        """Run as the program of `worker`."""
        rank, setting, simulation, costs = worker.rank, self.setting, self.simulation, self.costs
        assert simulation is not None
        assert costs is not None
        assert worker.copy is not None
        parts = self._parts(rank)
        computing = costs.computing(rank, self._clocks, self._seed)
        sleeps = setting.straggler.sleeps(rank, setting.workers, self._clocks, self._seed)
        users, items = TableKernel(self._users, 0), TableKernel(worker.copy.values, 0)
        step, decay = np.float32(setting.step), np.float32(DECAY)
        yield Compute(float(costs.start_s[rank]))
        for clock in range(self._clocks):
            start = simulation.now
            yield from worker.get(0)  # one read in each clock, as in the real backend
            yield from worker.compute(float(computing[clock]))
            descend(users, items, *parts[clock % self._clocks_per_epoch], step, decay)
            computed = simulation.now
            if sleeps[clock] > 0:
                yield from worker.compute(float(sleeps[clock]))
            ready = simulation.now
            yield from self._commit(worker)
            end = simulation.now
            self.trace[:, rank, clock] = end, computed - start, computed - start, ready - computed, end - ready
            self._count()

    def _parts(self, rank: int) -> list[list[Any]]:
        """Cut the ratings of worker `rank` into those of each clock of an epoch."""
        problem = self._problem
        first, last = problem.bounds[rank], problem.bounds[rank + 1]
        cuts = np.linspace(first, last, self._clocks_per_epoch + 1).astype(int)
        columns = (problem.users, problem.items, problem.values)
        return [[column[a:b] for column in columns] for a, b in itertools.pairwise(cuts)]

    def _commit(self, worker: SimWorker) -> Generator[Any, Any, None]:
        """``clock()``, in which flush and refresh take time."""
        assert self.costs is not None
        seconds = {Flush: self.costs.flush_s, Refresh: self.costs.refresh_s}
        step, answer = worker.core.tick(), None
        while True:
            try:
                action = step.send(answer)
            except StopIteration:
                return
            answer = yield action
            cost = seconds.get(type(action), 0.0)
            if cost > 0:
                yield Compute(cost)

    def _count(self) -> None:
        """Count a clock; take a point of the objective's curve when one is due."""
        self._done += 1
        if self._done >= self._due:
            self._due += self._every
            self.snapshot()

    def snapshot(self) -> None:
        """Evaluate the objective on the users' factors and the owners' rows."""
        assert self.simulation is not None
        items = self.simulation.final()[: self._problem.shape[1]]
        value = objective(self._users, items, *self._sample, DECAY)
        self.points.append((self.simulation.now, self._done / self.setting.workers, value))


def run(
    problem: Factorization,
    setting: Setting,
    clocks: int,
    clocks_per_epoch: int,
    snapshots: int,
    seed: int,
    cluster: Cluster,
) -> RunRecord:
    """Train once in virtual time; arguments as of `papers.real.run`, and the machines."""
    training = _Training(problem, setting, clocks, clocks_per_epoch, snapshots, seed)
    training.start(cluster)
    simulation = training.simulation
    assert simulation is not None
    training.snapshot()
    # Nothing that the simulator lets go of needs the collector while it runs; looking for it takes a fifth of the time.
    gc.disable()
    try:
        simulation.run()
    finally:
        gc.enable()
    training.snapshot()
    counts: Counter[int] = Counter()
    for worker in simulation.workers:
        counts.update(worker.differentials)
    trace = Trace(*training.trace)
    waits = np.array([worker.wait_s for worker in simulation.workers])
    return RunRecord(
        "simulated", setting, trace, waits, _curve(training, trace), Differential.from_counts(dict(counts))
    )


def _curve(training: _Training, trace: Trace) -> Curve:
    seconds, clocks, values = (np.array(column) for column in zip(*training.points, strict=True))
    seconds[-1] = trace.end_s.max()  # nodes exchange on for a while after the last clock
    return Curve(seconds, clocks, values)


def _factors(table: str, rows: int, rank: int) -> Floats:
    """Return the initial factors that a real job has."""
    values = np.empty((rows, rank), np.float32)
    nbps.init.normal(0.0, INIT_SD)(values, nbps.init.generator(0, table))
    return values
