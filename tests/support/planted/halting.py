"""Faults of a halt: a job is told to end, is saved at a clock that nobody knew before, and starts again from there."""

from __future__ import annotations

from nbps.core.halting import Halting
from nbps.core.worker import Group, Publish, Worker
from nbps.sim import Fault as Order
from nbps.sim.board import SimBoard
from support.planted.faults import fault


def _halts(**more):
    """Return schedules in which a node is told to end, and the job starts again from what was saved."""
    order = Order("terminate", 0.04, 0.0, 0)
    return {"nodes": 3, "clocks": 12, "runs": 1, "restart": True, "faults": (order,), "disk_s": 0.0, **more}


@fault("a halt at the clock that workers have come to, not the next", **_halts())
def _(patch):
    original = SimBoard.hold
    patch.setattr(SimBoard, "hold", lambda self, clock: max(1, original(self, clock) - 1))


@fault("workers that have finished do not count for a halt", **_halts())
def _(patch):
    def publish(self, group, index, value):
        original(self, group, index, 0 if group is Group.LAST else value)

    original = SimBoard.publish
    patch.setattr(SimBoard, "publish", publish)


@fault("a worker does not look whether it is held", **_halts())
def _(patch):
    def tick(self, wait=True):
        step, answer = original(self, wait), None
        while True:
            try:
                action = step.send(answer)
            except StopIteration:
                return
            answer = yield action
            if type(action) is Publish:
                answer = None

    original = Worker.tick
    patch.setattr(Worker, "tick", tick)


@fault("a halt at the lowest bound", **_halts())
def _(patch):
    def agree(self):
        if None not in self.bounds:
            self.clock = min(self.bounds)
            self._board.hold(self.clock)

    patch.setattr(Halting, "_agree", agree)
