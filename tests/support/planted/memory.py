"""Faults of the rows of a node and of private copies."""

from __future__ import annotations

from nbps.sim.memory import SimCopy, SimMemory
from support.planted.faults import fault


@fault("mark cleared after the row was read")
def _(patch):
    def collect(self, owner, exact):
        batch = []
        for row in self.rows_of(owner):
            if self.marked[row]:
                delta = self.values[row] - self.base[row]
                self.pause()
                self.marked[row] = 0
                if delta.any():
                    self.base[row] += delta
                    batch.append((row, delta))
        return batch or None

    patch.setattr(SimMemory, "collect", collect)


@fault("row marked before the addition")
def _(patch):
    def add(self, row, delta):
        self.marked[row] = 1
        self.pause()
        self.values[row] += delta
        self.copied.pop(row, None)

    patch.setattr(SimMemory, "add", add)


@fault("base not moved by what was sent")
def _(patch):
    def collect(self, owner, exact):
        before = self.base.copy()
        batch = original(self, owner, exact)
        self.base[:] = before
        return batch

    original = SimMemory.collect
    patch.setattr(SimMemory, "collect", collect)


@fault("rows changed by other nodes are not shipped")
def _(patch):
    def apply(self, source, rows):
        before = list(self.version)
        original(self, source, rows)
        self.version = before

    original = SimMemory.apply
    patch.setattr(SimMemory, "apply", apply)


@fault("values that come in replace additions not sent yet")
def _(patch):
    def install(self, owner, rows, unapplied, answered):
        original(self, owner, rows, unapplied, answered)
        for row, _ in rows:
            self.values[row] = self.base[row]

    original = SimMemory.install
    patch.setattr(SimMemory, "install", install)


@fault("a refresh replaces additions not flushed yet")
def _(patch):
    def refresh(self):
        self.values = self.parent.values.copy()
        self.base = self.parent.values.copy()

    patch.setattr(SimCopy, "refresh", refresh)


@fault("an evicted row is still read")
def _(patch):
    patch.setattr(SimMemory, "forget", lambda self, rows: None)


@fault("an addition is lost when two come at once")
def _(patch):
    def add(self, row, delta):
        total = self.values[row] + delta
        self.pause()
        self.values[row] = total
        self.copied.pop(row, None)
        self.marked[row] = 1

    patch.setattr(SimMemory, "add", add)
