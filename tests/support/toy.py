"""A toy parameter server of a third party: threads, a lock, private copies; and the same with one bug planted."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np


class ToyServer:
    """Tables whose rows are copied at clocks, for all access modes; `bug` names what is wrong."""

    def __init__(self, tables, workers, staleness, bug=None):
        self.tables = {table.name: np.zeros((table.rows, table.width), table.dtype) for table in tables}
        self.staleness = {
            table.name: staleness if table.staleness is None else table.staleness for table in tables
        }  # fmt: skip
        self.gate = staleness
        self.bug = bug
        self.changed = threading.Condition()
        self.committed = [0] * workers
        self.arrived = 0
        self.workers = [ToyWorker(self, rank, workers) for rank in range(workers)]

    def wait(self, clock):
        """Wait, with the lock held, until all have committed `clock` clocks."""
        self.changed.wait_for(lambda: min(self.committed) >= clock)


class ToyWorker:
    """One thread's side of it: the worker API of nbps."""

    def __init__(self, server, rank, size):
        self.server, self.rank, self.size = server, rank, size
        self.current_clock = 0
        self.meetings = 0
        self.owed = False
        self.copies = {name: ToyTable(self, name, values) for name, values in server.tables.items()}

    def table(self, name):
        return self.copies[name]

    def clock(self, wait=True):
        server = self.server
        with server.changed:
            self.enter()
            for table in self.copies.values():
                table.flush()
            self.current_clock += 1
            server.committed[self.rank] = self.current_clock
            server.changed.notify_all()
            self.owed = True
            if wait:
                self.enter()

    def enter(self):
        """Pass the gate of the current clock, if it was not yet; with the lock held."""
        server = self.server
        if self.owed:
            early = 2 if server.bug == "drift" else 0
            server.wait(self.current_clock - server.gate - early)
            self.owed = False
            for table in self.copies.values():
                table.refresh()

    def barrier(self):
        server = self.server
        with server.changed:
            self.meetings += 1
            server.arrived += 1
            server.changed.notify_all()
            server.changed.wait_for(lambda: server.arrived >= self.meetings * self.size)

    def run(self, program):
        try:
            return program(self)
        finally:
            with self.server.changed:
                for table in self.copies.values():
                    table.flush()
                self.server.committed[self.rank] = 2**62
                if sys.exc_info()[0] is not None:
                    self.server.arrived = 2**62  # who failed comes to no barrier any more
                self.server.changed.notify_all()


class ToyTable:
    """A copy of a table."""

    def __init__(self, worker, name, parent):
        self.worker, self.name, self.parent = worker, name, parent
        self.values, self.base = parent.copy(), parent.copy()
        self.oldest = parent.copy()
        self.reads = 0

    def get(self, ids, staleness=None):
        worker, server = self.worker, self.worker.server
        if server.bug == "drift" and worker.rank == 0:
            time.sleep(0.005)
        with server.changed:
            worker.enter()
            bound = min(server.staleness[self.name], np.inf if staleness is None else staleness)
            server.wait(worker.current_clock - bound)
            if bound < server.gate:
                self.refresh()
        self.reads += 1
        if server.bug == "P3" and self.reads % 2 == 0:
            old, column = self.values.copy(), worker.rank
            old[:] = self.oldest
            old[:, column] = self.values[:, column]
            return old[ids]
        if server.bug == "P5" and self.values.itemsize == 8:
            halves = self.values.copy().view(np.uint32).reshape(*self.values.shape, 2)
            halves[..., 0] = self.oldest.copy().view(np.uint32).reshape(*self.values.shape, 2)[..., 0]
            return halves.view(self.values.dtype)[..., 0][ids]
        return self.values[ids]

    def inc(self, ids, deltas):
        if self.worker.server.bug == "P2":  # straight to the parent: not seen before the next refresh
            with self.worker.server.changed:
                np.add.at(self.parent, ids, deltas)
        else:
            np.add.at(self.values, ids, deltas)

    def flush(self):
        difference = self.values - self.base
        self.base += difference
        if self.worker.server.bug == "P4 lost" and self.worker.current_clock == 2:
            return
        self.parent += difference * (2 if self.worker.server.bug == "P4 doubled" else 1)

    def refresh(self):
        if self.worker.server.bug == "P1" and self.worker.rank == 0:
            return
        self.values += self.parent - self.base
        self.base[:] = self.parent


def run(program, workers, model, tables, bug=None):
    """Run `program` on a toy server."""
    server = ToyServer(tables, workers, model.staleness, bug)
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(lambda worker: worker.run(program), server.workers))
    return results, server.tables
