"""Faults of links."""

from __future__ import annotations

from nbps.core.link import Link
from nbps.core.messages import Received
from nbps.core.runs import Runs
from support.planted.faults import fault, patch_events


@fault("a repeated message is taken again")
def _(patch):
    def accept(self, frame, now):
        before = self.received
        if 0 < frame.number <= before and frame.run == self.run:
            return frame.message
        return original(self, frame, now)

    original = Link.accept
    patch.setattr(Link, "accept", accept)


@fault("a gap in the messages is not noticed")
def _(patch):
    def accept(self, frame, now):
        if frame.number > self.received + 1 and frame.run == self.run:
            self.received = frame.number - 1
        return original(self, frame, now)

    original = Link.accept
    patch.setattr(Link, "accept", accept)


@fault("nothing is sent again")
def _(patch):
    patch.setattr(Link, "again", lambda self, now: [])


@fault("frames of the job before its restart are taken")
def _(patch):
    def received(self, event, now):
        frame = event.frame
        of_this_life = frame.run >= self.run - 1
        return original(self, event if of_this_life else event._replace(frame=frame._replace(run=self.run)), now)

    original = Runs._on_received
    patch_events(patch, Received, received)
