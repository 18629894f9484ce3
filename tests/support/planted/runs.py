"""Faults of the sequence of runs."""

from __future__ import annotations

from nbps.core.messages import Begin, Received
from nbps.core.node import Node
from nbps.core.runs import Phase, Runs
from nbps.sim import Network
from support.planted.faults import fault, patch_events


@fault("what comes before a run begins is taken at once", nodes=3, runs=3, faults=())
def _(patch):
    def received(self, event, now):
        if event.frame.run == self.run:
            return self._pass_on(event, now)
        return original(self, event, now)

    original = Runs._on_received
    patch_events(patch, Received, received)


@fault("what comes before a run begins is acknowledged and forgotten", runs=3)
def _(patch):
    def begin(self, event, now):
        for peer, frames in self._early.items():
            self.node.links[peer].received = max(frames, default=0)
            frames.clear()
        return original(self, event, now)

    original = Runs._on_begin
    patch_events(patch, Begin, begin)


@fault("the run before does not answer any more", nodes=3, runs=3, network=Network(loss=0.2), faults=())
def _(patch):
    def go_on(self, now):
        out = original(self, now)
        self._previous = None
        return out

    original = Runs._go_on
    patch.setattr(Runs, "_go_on", go_on)


@fault("frames of the run before are taken for those of this one", runs=3)
def _(patch):
    def received(self, event, now):
        frame = event.frame
        if frame.run == self.run - 1 and self.phase is Phase.RUNNING:
            event = event._replace(frame=frame._replace(run=self.run))
        return original(self, event, now)

    original = Runs._on_received
    patch_events(patch, Received, received)


@fault("a run is over before the last values are sent", runs=3)
def _(patch):
    def look_to_leave(self):
        due, self.shard.ship_due = self.shard.ship_due, [False] * self.settings.nodes
        original(self)
        self.shard.ship_due = due

    original = Node._look_to_leave
    patch.setattr(Node, "_look_to_leave", look_to_leave)
