"""A simulated worker, as a simulated program sees it.

A program is a generator function of one argument, the worker. It reads like the real one, with ``yield from`` before
everything that may wait or take time::

    def program(worker):
        while worker.current_clock < 10:
            row = yield from worker.get(0)
            yield from worker.compute(0.01)
            worker.inc(0, delta)
            yield from worker.clock()
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nbps.core.worker import Worker
from nbps.sim.memory import SimCopy
from nbps.sim.node import SimNode

Program = Callable[["SimWorker"], Generator[Any, Any, None]]


class Compute(NamedTuple):
    """Work for so many virtual seconds."""

    seconds: float


class Fetch(NamedTuple):
    """Have a row kept fresh on this node, and wait until it can be read."""

    row: int


class SimWorker:
    """Worker `rank` of all, number `local` of its node.

    Attributes
    ----------
    rank, size, local : int
    node : SimNode
    run : int
        Which of the job's runs it works in.
    core : nbps.core.worker.Worker
        The protocol that it runs, the same object as on a real machine.
    random : random.Random
        Its own, from the scenario's seed.
    wait_s, compute_s : float
        Virtual seconds spent in waits and computing.
    differentials : dict of int to int
        Reads for each clock differential, as the core reports them.
    """

    __slots__ = (
        "added", "alive", "compute_s", "copy", "core", "differentials", "done", "finished_at", "is_bounded", "life",
        "local", "node", "parked_at", "random", "rank", "run", "size", "stopped_until", "visible", "wait_s",
    )  # fmt: skip

    def __init__(self, rank: int, local: int, size: int, node: SimNode, core: Worker, seed: int, cached: bool) -> None:
        self.rank = rank
        self.local = local
        self.size = size
        self.node = node
        self.run = node.run
        self.core = core
        self.is_bounded = core.terms.v0 is not None
        self.random = random.Random(f"{seed}/{rank}")
        self.copy: SimCopy | None = None
        self.wait_s = self.compute_s = 0.0
        self.parked_at = self.finished_at = 0.0
        self.stopped_until = 0.0
        self.alive = True
        self.done = False
        self.life: Any = None  # the program, with all that it is in the middle of; None before its first step
        self.differentials: dict[int, int] = {}
        self.visible = 0
        self.added: dict[int, Any] = {}  # under VAP, what was added to live rows since the last commit
        if cached:
            self.copy = node.memory.private_copy()
            core.add_copy(core.terms.staleness)

    @property
    def current_clock(self) -> int:
        """Units of work completed."""
        return self.core.now

    def get(self, row: int, staleness: float | None = None) -> Generator[Any, Any, npt.NDArray[Any]]:
        """Return the values of a row, shape (width,): an array to look at before the next ``yield``."""
        memory = self.node.memory
        if self.copy is not None:
            yield from self.core.read(staleness, 0)
            copied: npt.NDArray[Any] = self.copy.values[row]
            return copied
        yield from self.core.read(staleness)
        while not memory.readable(row):
            yield Fetch(row)
        live: npt.NDArray[Any] = memory.values[row]
        return live

    def inc(self, row: int, delta: npt.NDArray[Any]) -> None:
        """Add `delta`, shape (width,), to a row."""
        if self.copy is not None:
            self.copy.add(row, delta)
            return
        if self.is_bounded:
            before = self.added.get(row)
            self.added[row] = delta.copy() if before is None else before + delta
        self.node.memory.add(row, delta)

    def clock(self, wait: bool = True) -> Generator[Any, Any, None]:
        """Commit, and pass the gate of the next clock with `wait`."""
        return self.core.tick(wait)

    def barrier(self) -> Generator[Any, Any, None]:
        """Wait until every worker has come to as many barriers."""
        return self.core.barrier()

    def compute(self, seconds: float) -> Generator[Any, Any, None]:
        """Work for so many virtual seconds."""
        yield Compute(seconds)

    def flush(self) -> float:
        """Send what the copy has; return the maximum norm of what was committed."""
        if self.copy is not None:
            return self.copy.flush()
        if not self.added:
            return 0.0
        norm = max(float(np.abs(delta).max()) for delta in self.added.values())
        self.added.clear()
        return norm

    def record(self, visible: int) -> None:
        """Count a read."""
        now = self.core.now
        self.visible = visible = visible if visible < now else now  # of its own it has seen no more
        differential, counts = visible - now, self.differentials
        counts[differential] = counts.get(differential, 0) + 1
