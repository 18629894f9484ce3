"""The probe rows of the first paper on the simulator, and what is checked about them.

Every worker adds to a column of its own, so a row shows exactly whose updates it holds. `RecordedProbe` writes down
every read and addition for `nbps.testing.check`. `CountedProbe` is for ten thousand workers: a column for each node, a
fixed pattern of additions, and every read compared at once with what it must and may hold.
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nbps.core.rules import FINISHED
from nbps.sim.node import SimNode
from nbps.sim.scenario import Scenario
from nbps.sim.worker import Compute, SimWorker
from nbps.testing.consistency.history import Add, Entry, History, Passed, Read, Violation, check

if TYPE_CHECKING:
    from nbps.sim.simulation import Simulation

TABLE = "probe"
_COMPARED_READS = 128  # at once: what they hold is still in the cache


class RecordedProbe:
    """Reads before and after additions to random rows, all recorded.

    Every run has a history of its own, of what is above the rows as the runs before left them. Between two runs the
    rows of a node hold exactly that.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.initial: npt.NDArray[Any] = np.zeros((scenario.rows * scenario.nodes, scenario.size), np.int64)
        self.violations: list[Violation] = []
        self.reads = self.adds = 0
        self._columns = np.eye(scenario.size, dtype=np.int64)
        self._entries: list[list[Entry]] = [[] for _ in range(scenario.runs)]  # by run
        self._before = [self.initial.copy()] + [self.initial] * scenario.runs  # rows at the start of a run
        self._begun = 0  # the last run
        self._barriers = [[0] * scenario.size for _ in range(scenario.runs)]
        self._simulation: Simulation | None = None

    def attach(self, simulation: Simulation) -> None:
        """Watch `simulation`, in which this program runs."""
        self._simulation = simulation
        simulation.on_restart = self._restarted
        simulation.on_rest = self._rested

    def __call__(self, worker: SimWorker) -> Generator[Any, Any, None]:
        """Run as the program of `worker`."""
        scenario, draw = self.scenario, worker.random
        rows = scenario.rows * scenario.nodes
        self._passed(worker)
        # Some have less to do than others, and leave them at barriers.
        clocks = scenario.clocks - draw.choice([0, 0, 0, 1, 2])
        while (clock := worker.current_clock) < clocks:
            seconds = scenario.speed.draw(worker.rank, clock, draw)
            for share in (0.3, 0.7):
                for _ in range(draw.choice([0, 0, 1, 3])):
                    yield from self._read(worker, draw.randrange(rows))
                for _ in range(draw.randint(0, 1)):
                    row = draw.randrange(rows)
                    self._add(worker, row)
                    if draw.random() < 0.2:
                        yield from self._read(worker, row)
                yield from worker.compute(share * seconds)
                if scenario.barrier_every and clock % scenario.barrier_every == 1 and share > 0.5:
                    yield from self._meet(worker)
            for _ in range(draw.randint(0, 2)):
                self._add(worker, draw.randrange(rows))
            yield from worker.clock(scenario.wait or draw.random() < 0.3)
            if not worker.core.gate_owed:
                self._passed(worker)
            if scenario.sparse and draw.random() < 0.5:
                self._evict(worker, draw.randrange(rows))
            if scenario.barrier_every and worker.current_clock % scenario.barrier_every == 0:
                yield from self._meet(worker)
        if draw.random() < 0.3:
            self._add(worker, draw.randrange(rows))  # committed by the end of the program
        self._barriers[worker.run][worker.rank] = FINISHED  # one that has ended is missed at no barrier

    @property
    def _now(self) -> float:
        assert self._simulation is not None
        return self._simulation.now

    def _passed(self, worker: SimWorker) -> None:
        self._entries[worker.run].append(Passed(worker.rank, worker.current_clock, self._now))

    def _add(self, worker: SimWorker, row: int) -> None:
        self.adds += 1
        self._entries[worker.run].append(Add(worker.rank, worker.current_clock, TABLE, row, 1, self._now))
        worker.inc(row, self._columns[worker.rank])

    def _meet(self, worker: SimWorker) -> Generator[Any, Any, None]:
        barriers = self._barriers[worker.run]
        barriers[worker.rank] += 1
        yield from worker.barrier()
        meeting = barriers[worker.rank]
        if min(barriers) < meeting:
            text = f"worker {worker.rank} passed barrier {meeting}; workers have come to {barriers}"
            self.violations.append(Violation("barrier", text, None))

    def _read(self, worker: SimWorker, row: int) -> Generator[Any, Any, None]:
        bound = worker.core.terms.staleness
        asked = 0 if bound > 0 and bound != float("inf") and worker.random.random() < 0.1 else None
        values = yield from worker.get(row, asked)
        self.reads += 1
        staleness = bound if asked is None else asked
        seen = tuple((values - self._before[worker.run][row]).tolist())
        assert self._simulation is not None
        self._simulation.log = hash((self._simulation.log, seen))
        self._entries[worker.run].append(
            Read(worker.rank, worker.current_clock, TABLE, row, seen, staleness, self._now, worker.visible, self._now)
        )

    def _evict(self, worker: SimWorker, row: int) -> None:
        memory = worker.node.memory
        if row not in memory.owned and memory.readable(row):
            assert self._simulation is not None
            self._simulation.evict(worker.node, row)

    def _rows_after(self, run: int) -> npt.NDArray[Any]:
        """Return the rows as run number `run` has left them: all that was added."""
        rows = self._before[run].copy()
        for entry in self._entries[run]:
            if isinstance(entry, Add):
                rows[entry.row, entry.worker] += entry.count
        return rows

    def _rested(self, node: SimNode) -> None:
        """Check that a node on which a run is over, or that begins the next, holds what was added until then."""
        if node.run == self._begun:
            self._begun += 1
            self._before[self._begun] = self._rows_after(node.run)
        expected, found = self._before[node.run + 1], node.memory.values
        if (found != expected).any():
            row = int((found != expected).any(axis=1).argmax())
            text = f"after run {node.run}: row {row} on node {node.rank} holds {found[row]}; expected {expected[row]}"
            self.violations.append(Violation("rest", text, None))

    def _restarted(self, run: int, clock: int) -> None:
        """Check what was before; of it, only what was added in runs before, and in clocks < `clock`, is still there."""
        self._check(final=None)
        entries = self._entries[run]
        self._entries[run] = [entry for entry in entries if isinstance(entry, Add) and entry.clock < clock]
        self._begun = run
        for later in range(run, self.scenario.runs):
            self._barriers[later] = [0] * self.scenario.size
            if later > run:
                self._entries[later] = []

    def finish(self) -> None:
        """Check the history of runs that have ended."""
        simulation = self._simulation
        assert simulation is not None
        last, rows = self.scenario.runs - 1, None
        if simulation.ended is None:
            found = simulation.final() - self._before[last]
            rows = {(TABLE, row): tuple(int(n) for n in values) for row, values in enumerate(found)}
        ends, may_end = simulation.restarts + (simulation.ended is not None), self.scenario.may_end
        if ends > may_end:
            text = f"the job ended {ends} times before its workers; expected at most {may_end}: {simulation.ended}"
            self.violations.append(Violation("liveness", text, None))
        self._check(rows)

    def _check(self, final: dict[tuple[str, int], tuple[int, ...]] | None) -> None:
        """Check the history of every run; that of the last one knows the rows after it, if they are known."""
        terms = self.scenario.terms
        for run, entries in enumerate(self._entries):
            rows = final if run + 1 == self.scenario.runs else None
            self.violations += check(History(self.scenario.size, entries, rows, terms.staleness, terms.v0))
            if terms.ordered:
                self.violations += _inexact(entries)


def _inexact(entries: list[Entry]) -> Iterator[Violation]:
    """Yield reads of strict BSP at clock c that show of another worker anything but its additions of clocks < c."""
    clocks: dict[tuple[int, int], list[int]] = {}
    for entry in entries:
        if isinstance(entry, Add):
            clocks.setdefault((entry.row, entry.worker), []).append(entry.clock)
    for entry in entries:
        if isinstance(entry, Read):
            for worker, value in enumerate(entry.values):
                expected = sum(clock < entry.clock for clock in clocks.get((entry.row, worker), ()))
                if worker != entry.worker and value != expected:
                    where = f"worker {entry.worker} at clock {entry.clock}: row {entry.row}"
                    text = f"{where} shows {value} of worker {worker}; expected exactly {expected}"
                    yield Violation("BSP", text, entry)


class CountedProbe:
    """Worker w adds 1 to column `node` of row ``(w + c) % rows`` in clock c, and reads another row.

    What was read is compared some reads later, many at once, which takes half the time.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        rows = scenario.rows * scenario.nodes
        self.initial: npt.NDArray[Any] = np.zeros((rows, scenario.nodes), np.int64)
        self.violations: list[Violation] = []
        self.reads = self.adds = 0
        self._rows = rows
        self._ones = np.eye(scenario.nodes, dtype=np.int64)  # what workers of each node add
        self._added = np.zeros_like(self.initial)  # up to now
        # promised[c]: what every row holds at least once every worker has committed c clocks.
        each = np.zeros((scenario.clocks + 1, rows, scenario.nodes), np.int64)
        for rank in range(scenario.size):
            clocks = np.arange(scenario.clocks)
            each[clocks + 1, (rank + clocks) % rows, rank // scenario.workers] += 1  # no clock twice
        self._promised = np.cumsum(each, axis=0)
        self._read: list[tuple[int, int, int, int, int]] = []  # reads to compare: worker, clock, run, row, promised
        self._found: list[bytes] = []  # the values that they show
        self._most: list[bytes] = []  # what was added up to then

    def attach(self, simulation: Simulation) -> None:
        """Watch `simulation`, in which this program runs."""
        self._simulation = simulation

    def __call__(self, worker: SimWorker) -> Generator[Any, Any, None]:
        """Run as the program of `worker`."""
        scenario, rank, run, node = self.scenario, worker.rank, worker.run, worker.node.rank
        one, staleness, added, rows = self._ones[node], scenario.terms.staleness, self._added, self._rows
        # Drawn at once: later each draw would have to bring this worker's generator back into the cache.
        seconds = array("d", (scenario.speed.draw(rank, clock, worker.random) for clock in range(scenario.clocks)))
        for clock in range(scenario.clocks):
            row = (7 * rank + 3 * clock) % rows
            values = yield from worker.get(row)
            self._found.append(values.tobytes())
            self._most.append(added[row].tobytes())
            self._read.append((rank, clock, run, row, clock - int(staleness) if staleness < clock else 0))
            if len(self._read) == _COMPARED_READS:
                self._compare()
            yield Compute(seconds[clock])
            row = (rank + clock) % rows
            added[row, node] += 1
            self.adds += 1
            worker.inc(row, one)
            yield from worker.clock(scenario.wait)

    def _compare(self) -> None:
        """Compare what was read with what it must and may hold."""
        if not self._read:
            return
        _, _, runs, rows, least = np.array(self._read).T
        found, most = (
            np.frombuffer(b"".join(them), np.int64).reshape(len(rows), -1) for them in (self._found, self._most)
        )
        fewest = self._promised[least, rows] + runs[:, None] * self._promised[-1, rows]  # every run adds the same
        for n in np.flatnonzero(((found < fewest) | (found > most)).any(axis=1)):
            rank, clock, _, row, _ = self._read[n]
            expected = f"at least {fewest[n]} and at most {most[n]}"
            text = f"worker {rank} at clock {clock}: row {row} holds {found[n]}; expected {expected}"
            self.violations.append(Violation("P1", text, None))
        self.reads += len(self._read)
        self._read, self._found, self._most = [], [], []

    def finish(self) -> None:
        """Compare what is left, and check the sums of a run that has ended."""
        self._compare()
        final = self._simulation.final()
        if self._simulation.ended is None and (final != self._added).any():
            text = f"the rows sum up to {final.sum()}; expected {self._added.sum()}, each addition once"
            self.violations.append(Violation("P4", text, None))
