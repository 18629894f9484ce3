"""Two or three workers of a job as threads of the explorer: the real protocol and kernels, on a few words of memory."""

from __future__ import annotations

import math

import numpy as np

from nbps.core import worker as core
from nbps.core.rules import FINISHED
from nbps.kernels import board, copies
from nbps.kernels.rows import TableKernel
from nbps.testing.consistency.interleave import Machine

# The board without padding: what the kernels call a line is one word.
HEADER = {"LINE": 1, "ABORT": 0, "SEQUENCE": 1, "WAITERS": 2, "TIMEOUT": 3, "HELD": 4}
HEADER_WORDS = 5
USES = {
    board.lowest: ["LINE"],
    board.tick: ["LINE", "SEQUENCE", "WAITERS", "HELD"],
    board.gate: ["LINE", "SEQUENCE", "WAITERS", "ABORT", "TIMEOUT"],
    board.poll: ["LINE", "SEQUENCE", "WAITERS", "ABORT", "TIMEOUT"],
    board.snapshot: ["LINE"],
    board.publish_seen: ["LINE", "SEQUENCE", "WAITERS"],
}


class SmallJob:
    """Workers that, in each clock, read their copy of a row, add 1 to their column and call clock()."""

    def __init__(self, order, workers, clocks, terms, planted=None, core_worker=core.Worker, refreshed=-1):
        self.machine = Machine(order)
        self.workers, self.clocks, self.terms = workers, clocks, terms
        self.parent = self.machine.array(1, workers)
        self.words = self.machine.array(HEADER_WORDS + 3 * workers + workers * workers)
        self.kernels = {
            kernel: self.machine.plain(
                kernel, **{name: HEADER[name] for name in names}, **(planted or {}).get(kernel.__name__, {})
            )
            for kernel, names in USES.items()
        }
        self.flush = self.machine.plain(copies.flush)
        self.refresh = self.machine.plain(copies.refresh)
        self.core_worker = core_worker
        self.entered = self.machine.array(workers)  # under a value bound, the clock that each was let into last
        for rank in range(workers):  # as `nbps.runtime.board.Board.reset` leaves the board
            self.machine._initial[self.words.cell(self.slot(core.Group.REFRESHED, rank))] = refreshed
            self.machine._initial[self.words.cell(self.slot(core.Group.SEEN, rank * workers + rank))] = FINISHED
            self.machine.thread(lambda rank=rank: SmallWorker(self, rank).run())

    def slot(self, group, number):
        """Word of a slot."""
        return HEADER_WORDS + group * self.workers + number

    def explore(self):
        """Follow every schedule."""
        return self.machine.explore(self.check)

    def check(self, cells, returned):
        """Say what is wrong with the sums, or with what workers read at each of their clocks."""
        if cells[: self.workers] != (self.clocks,) * self.workers:
            return f"the table holds {cells[: self.workers]}"
        for rank, seen in enumerate(returned):
            for clock, (entered, values) in enumerate(seen):
                if values[rank] != clock:
                    return f"worker {rank} does not see its own at clock {clock}: {values}"
                if min(values) < clock - self.terms.staleness:
                    return f"worker {rank} sees too old a state at clock {clock}: {values}"
                missing = [let_in - value for let_in, value in zip(entered, values, strict=True)]
                bounds = [self.terms.v0 / math.sqrt(let_in) if let_in else math.inf for let_in in entered]
                if any(one > bound for one, bound in zip(missing, bounds, strict=True)):
                    return f"worker {rank} sees {values}, but {entered} clocks were entered"
                if self.terms.ordered and any(value != clock for value in values):
                    return f"worker {rank} sees what was not committed before clock {clock}: {values}"
        return None


class SmallWorker:
    """Carries out the actions of `nbps.core.worker.Worker`, made anew for each replay."""

    def __init__(self, job, rank):
        self.job, self.rank = job, rank
        self.core = job.core_worker(rank, job.terms)
        self.core.add_copy(job.terms.staleness)
        self.values = np.zeros((1, job.workers), np.int64)
        self.base = self.values.copy()

    def run(self):
        seen = []
        self.drive(self.core.begin())
        for _ in range(self.job.clocks):
            seen.append(self.read())
            self.values[0, self.rank] += 1
            self.drive(self.core.tick())
            if self.job.terms.v0 is not None:
                self.job.entered[self.rank] = self.core.now
        seen.append(self.read())
        self.drive(self.core.finish())
        return tuple(seen)

    def read(self):
        """Return the clocks that others had entered before, and the values."""
        entered = [0] * self.job.workers
        for rank in range(self.job.workers):
            if self.job.terms.v0 is not None and rank != self.rank:
                entered[rank] = self.job.entered[rank]
        self.drive(self.core.read(None, 0))
        return tuple(entered), tuple(self.values[0].tolist())

    def drive(self, step):
        answer = None
        while True:
            try:
                action = step.send(answer)
            except StopIteration:
                return
            answer = getattr(self, type(action).__name__)(action)

    def call(self, kernel, *arguments):
        return self.job.kernels[kernel](self.job.words, *arguments)

    def exchange(self, kernel, *scratch):
        """Run a kernel on the copy; of its accesses only what it left in the copy matters later."""

        def run():
            values, base = self.values.copy(), self.base.copy()
            answer = kernel(values, base, TableKernel(self.job.parent, 1), *scratch)
            return tuple(values[0].tolist()), tuple(base[0].tolist()), answer

        self.values[0], self.base[0], answer = self.job.machine.call(run)
        return answer

    def Flush(self, action):  # noqa: N802
        workers = self.job.workers
        return self.exchange(self.job.flush, 0, np.zeros(workers, np.int64), np.zeros(workers))[1]

    def Refresh(self, action):  # noqa: N802
        self.exchange(self.job.refresh)

    def Publish(self, action):  # noqa: N802
        if action.group is core.Group.LAST:
            return 0  # for a halt, which no agent is here to begin
        job, slot = self.job, self.job.slot(action.group, self.rank)
        alone = job.terms.ordered or job.terms.v0 is not None or action.group is not core.Group.COMMITTED
        first, count = (slot, 1) if alone else (job.slot(action.group, 0), job.workers)
        return self.call(board.tick, first, count, slot, action.value)

    def slots(self, action):
        if action.group is core.Group.SEEN:
            return self.job.slot(action.group, self.rank * self.job.workers), self.job.workers
        count = self.job.workers if action.count == core.ALL else action.count
        return self.job.slot(action.group, action.first), count

    def Await(self, action):  # noqa: N802
        while self.call(board.gate, *self.slots(action), action.target, 0) != board.OPEN:
            pass

    def Poll(self, action):  # noqa: N802
        workers = self.job.workers
        slots = self.job.slot(core.Group.COMMITTED, 0), self.job.slot(core.Group.SEEN, 0)
        rest = (*slots, workers, workers, self.rank, -1)
        while (status := self.call(board.poll, *self.slots(action), action.target, 0, *rest)) == board.TIMED_OUT:
            pass
        return status == board.OPEN

    def Lowest(self, action):  # noqa: N802
        first, count = self.slots(core.Await(action.group, 0, core.ALL, 0, ""))
        return self.call(board.lowest, first, count)

    def Snapshot(self, action):  # noqa: N802
        def run():
            committed = np.zeros(self.job.workers, np.int64)
            self.call(board.snapshot, self.job.slot(core.Group.COMMITTED, 0), self.job.workers, committed)
            return tuple(committed.tolist())

        return self.job.machine.call(run)

    def PublishSeen(self, action):  # noqa: N802
        committed = (FINISHED,) * self.job.workers if action.committed is None else action.committed
        workers = self.job.workers
        self.call(board.publish_seen, self.job.slot(core.Group.SEEN, 0), workers, workers, self.rank, committed)

    def Record(self, action):  # noqa: N802
        pass
