"""Faults of checkpoints while workers run."""

from __future__ import annotations

from nbps.core import node
from nbps.core.messages import Saved
from nbps.core.node import Node
from nbps.sim import Fault as Crash
from nbps.sim import Simulation
from support.planted.faults import fault


def _checkpoints(**more):
    """Return schedules in which a job that crashes starts again from a checkpoint, and disks are slow."""
    crash = Crash("crash_worker", 0.05, 0.0, 0)
    return {"checkpoint_every": 1, "restart": True, "clocks": 8, "nodes": 2, "faults": (crash,), "disk_s": 0.3, **more}


@fault("rows are copied when they are written", **_checkpoints(disk_s=0.03))
def _(patch):
    def written(self, argument):
        node, save = argument
        original(self, (node, save._replace(rows=node.memory.copy_owned())))

    original = Simulation._written
    patch.setattr(Simulation, "_written", written)


@fault(
    "a checkpoint that waits for room lets workers pass",
    **_checkpoints(disk_s=0.06, clocks=20, workers=2, faults=(Crash("crash_worker", 0.15, 0.0, 0),)),
)
def _(patch):
    def save(self, clock):
        if not original(self, clock):
            waiting.setdefault(id(self), []).append(clock)
        return True

    def saved(self, event):
        original_saved(self, event)
        if late := waiting.pop(id(self), None):
            original(self, late[-1])

    waiting = {}
    original, original_saved = Node._save, Node._on_saved
    patch.setattr(Node, "_save", save)
    for handlers in node._HANDLERS.values():
        patch.setitem(handlers, Saved, saved)


@fault("a checkpoint that waits for room is not tried again", **_checkpoints(faults=()))
def _(patch):
    def saved(self, event):
        self.unsaved -= 1

    for handlers in node._HANDLERS.values():
        patch.setitem(handlers, Saved, saved)


@fault("a run is over before its rows are written", **_checkpoints(faults=(), runs=3))
def _(patch):
    def look_to_leave(self):
        unsaved, self.unsaved = self.unsaved, 0
        original(self)
        self.unsaved = unsaved

    original = Node._look_to_leave
    patch.setattr(Node, "_look_to_leave", look_to_leave)
