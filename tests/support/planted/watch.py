"""Faults of what is read on the board."""

from __future__ import annotations

from nbps.core.messages import Needed
from nbps.core.watch import Watch
from nbps.core.worker import Group
from nbps.sim.board import SimBoard
from support.planted.faults import fault


@fault("a run begins with what was seen of the one before", runs=3)
def _(patch):
    def begin(self, clock):
        if not hasattr(self, "_lowest"):
            original(self, clock)

    original = Watch.begin
    patch.setattr(Watch, "begin", begin)


@fault("a worker that waits for an earlier clock than another is not told of", workers=3, faults=())
def _(patch):
    def news(self, *board):
        highest = max(self._needed)
        events = original(self, *board)
        return [event for event in events if type(event) is not Needed or event.clock > highest]

    original = Watch.news
    patch.setattr(Watch, "news", news)


@fault("a look that finds two changes tells the first")
def _(patch):
    def news(self, *board):
        return original(self, *board)[:1]

    original = Watch.news
    patch.setattr(Watch, "news", news)


@fault("the highest clock of the workers is told for the lowest")
def _(patch):
    def survey(self):
        _, *rest = original(self)
        return max(self.slots[Group.COMMITTED][: self.workers]), *rest

    original = SimBoard.survey
    patch.setattr(SimBoard, "survey", survey)
