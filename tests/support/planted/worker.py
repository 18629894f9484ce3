"""Faults of the protocol of one worker, and of what it stands on."""

from __future__ import annotations

import contextlib

from nbps import VAP
from nbps.core import node, worker
from nbps.core.messages import Refreshed
from nbps.core.node import Node
from nbps.core.rules import FINISHED
from nbps.core.worker import Flush, Group, Publish, Worker
from nbps.sim import Network
from nbps.sim.board import SimBoard
from support.planted.faults import fault


@fault("staleness off by one")
def _(patch):
    patch.setattr(worker, "gate_target", lambda clock, s: max(0, clock - int(s) - 1) if s < clock else 0)


@fault("clock published before the flush")
def _(patch):
    def tick(self, wait=True):
        self.now += 1
        yield Publish(Group.COMMITTED, self.now)
        self.now -= 1
        yield from original(self, wait)

    original = Worker.tick
    patch.setattr(Worker, "tick", tick)


@fault("copy refreshed one clock too late")
def _(patch):
    patch.setattr(worker, "is_too_old", lambda visible, clock, s: visible < clock - s - 1)


def _refresh_then_look(self):
    bounded = self.terms.v0 is not None
    due = [
        n for n, s in enumerate(self.copies) if self.terms.eager or worker.is_too_old(self.copy_visible[n], self.now, s)
    ]
    for copy in due:
        yield worker.Refresh(copy)
    committed = (yield worker.Snapshot()) if bounded else None
    self.visible = yield worker.Lowest(Group.COMMITTED)
    for copy in due:
        self.copy_visible[copy] = self.visible
    if bounded:
        yield worker.PublishSeen(committed)


@fault("visible clock looked at after the refresh")
def _(patch):
    patch.setattr(Worker, "_take_in", _refresh_then_look)


@fault("a read does not pass the gate that clock(wait=False) owes")
def _(patch):
    def read(self, staleness=None, copy=None):
        owed, self.gate_owed = self.gate_owed, False
        yield from original(self, staleness, copy)
        self.gate_owed = owed

    original = Worker.read
    patch.setattr(Worker, "read", read)


@fault("strict BSP does not wait for others to refresh")
def _(patch):
    def commit(self):
        return (yield Flush())

    patch.setattr(Worker, "_commit", commit)


@fault("what was added after the last clock is not committed at the end")
def _(patch):
    def finish(self):
        script = original(self)
        answer = None
        with contextlib.suppress(StopIteration):
            while True:
                action = script.send(answer)
                answer = 0.0 if isinstance(action, Flush) else (yield action)

    original = Worker.finish
    patch.setattr(Worker, "finish", finish)


@fault("barrier passed one meeting early")
def _(patch):
    def barrier(self):
        self.barriers += 1
        yield Publish(Group.ARRIVED, self.barriers)
        yield from self._await(Group.ARRIVED, 0, worker.ALL, self.barriers - 1, "barrier")

    patch.setattr(Worker, "barrier", barrier)


@fault("value bound without the square root of time")
def _(patch):
    patch.setattr(worker, "value_bound", lambda v0, clock: v0)


@fault("value bound forgets clocks that only some have seen")
def _(patch):
    patch.setattr(SimBoard, "seen_of", lambda self, who: max((row[who] for row in self.seen), default=FINISHED))


@fault(
    "a ship that comes in during a refresh counts as refreshed (VAP)",
    consistency=VAP(1.0), cached=True, sparse=False, nodes=2, workers=2, rows=1, preemption=0.3, network=Network(),
    faults=(), runs=1, clocks=8,
)  # fmt: skip
def _(patch):
    def refreshed(self, event):
        original(self, event._replace(installs=self.rounds.installs))

    original = Node._on_refreshed
    patch.setitem(node._HANDLERS[node.State.RUNNING], Refreshed, refreshed)


@fault("a ship is no news to a worker that waits (VAP)", consistency=VAP(1.0), cached=True, sparse=False, faults=())
def _(patch):
    patch.setattr(SimBoard, "has_news", lambda self, who: self.slots[Group.COMMITTED] != self._taken[who].committed)


@fault("checkpoint without the strict gate")
def _(patch):
    patch.setattr(worker, "is_checkpoint", lambda clock, every: False)
