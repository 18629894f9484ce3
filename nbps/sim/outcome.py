"""What a simulated run showed."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nbps.errors import ProtocolError
from nbps.sim.probe import CountedProbe, RecordedProbe
from nbps.sim.scenario import Scenario
from nbps.sim.simulation import Simulation, StuckError
from nbps.testing.consistency.history import Violation

RECORDED_WORKERS = 64  # with more, a row for each worker in every read would be too much


@dataclass(frozen=True)
class Outcome:
    """What a simulated run showed.

    Attributes
    ----------
    violations : tuple of Violation
        Promises that were broken; empty if all is well.
    log : str
        Hash of everything that happened; the same scenario gives the same one.
    ended : str or None
        Why the job ended before its workers finished.
    virtual_s, real_s : float
        Simulated seconds, and seconds that simulating them took.
    clocks_per_s : float
        Clocks of all workers, per virtual second.
    wait_share : float
        Share of the workers' time spent waiting.
    differentials : dict of int to int
        Reads for each clock differential, as reported.
    """

    scenario: Scenario
    violations: tuple[Violation, ...]
    log: str
    ended: str | None
    restarts: int
    events: int
    reads: int
    adds: int
    frames: int
    bytes: int
    frames_lost: int
    virtual_s: float
    real_s: float
    clocks_per_s: float
    wait_share: float
    differentials: dict[int, int]
    value_share: float

    @property
    def mean_differential(self) -> float:
        """Mean of the clock differential over all reads; NaN without any."""
        reads = sum(self.differentials.values())
        return sum(d * n for d, n in self.differentials.items()) / reads if reads else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        shown = {name: value for name, value in vars(self).items() if name not in ("scenario", "violations")}
        shown["differentials"] = {str(d): n for d, n in sorted(self.differentials.items())}
        shown["mean_differential"] = self.mean_differential if self.differentials else None
        return {"scenario": repr(self.scenario), **shown, "violations": [str(v) for v in self.violations]}


def simulate(scenario: Scenario, validate: bool = False) -> Outcome:
    """Run the probe of `scenario` and check what it read.

    Parameters
    ----------
    validate : bool
        Check the invariants of every object of the core after every step; slow.
    """
    start = time.perf_counter()
    with _no_collector():
        probe = RecordedProbe(scenario) if scenario.size <= RECORDED_WORKERS else CountedProbe(scenario)
        simulation = Simulation(scenario, probe, probe.initial, validate)
        probe.attach(simulation)
        try:
            simulation.run()
            probe.finish()
        except (ProtocolError, StuckError) as error:
            kind = "liveness" if isinstance(error, StuckError) else "invariant"
            probe.violations.append(Violation(kind, str(error), None))
    return _outcome(simulation, probe, time.perf_counter() - start)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Keep the garbage collector from looking through millions of frames that are on their way: a fifth of the time."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _outcome(simulation: Simulation, probe: RecordedProbe | CountedProbe, real_s: float) -> Outcome:
    differentials: Counter[int] = Counter()
    workers = simulation.retired + simulation.workers
    for worker in workers:
        differentials.update(worker.differentials)
    compute, wait = (sum(getattr(w, name) for w in workers) for name in ("compute_s", "wait_s"))
    finished = max((worker.finished_at for worker in workers), default=0.0)
    clocks = sum(worker.core.now for worker in workers)
    connections = simulation.connections
    return Outcome(
        scenario=simulation.scenario,
        violations=tuple(probe.violations),
        log=f"{simulation.log % 2**64:016x}",
        ended=simulation.ended,
        restarts=simulation.restarts,
        events=simulation.events,
        reads=probe.reads,
        adds=probe.adds,
        frames=connections.frames,
        bytes=connections.bytes,
        frames_lost=connections.lost,
        virtual_s=finished or simulation.now,
        real_s=real_s,
        clocks_per_s=clocks / finished if finished else 0.0,
        wait_share=wait / (wait + compute) if wait + compute else 0.0,
        differentials=dict(differentials),
        value_share=max((worker.core.transit_share for worker in workers), default=0.0),
    )
