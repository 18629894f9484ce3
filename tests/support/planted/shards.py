"""Faults of shards."""

from __future__ import annotations

from nbps.core import shard
from nbps.core.rules import FINISHED
from nbps.core.shard import Shard
from nbps.core.worker import Group
from nbps.sim.board import SimBoard
from support.planted.faults import fault


@fault("shard clock is the highest of the nodes")
def _(patch):
    def hear(self, source, clock):
        before, self.clocks[source] = self.clocks[source], clock
        if before == self.clock < max(self.clocks):
            self._advance(max(self.clocks))

    patch.setattr(Shard, "_hear", hear)
    patch.setattr(shard, "min", max, raising=False)


@fault("own slot of a shard rises with its own workers", nodes=3, faults=(), runs=1, clocks=8)
def _(patch):
    def commit(self, clock, number):
        self._board.publish_shard(self.rank, clock)
        original(self, clock, number)

    def publish_shard(self, owner, clock):
        self.publish(
            Group.COMMITTED, self.workers + owner, max(clock, self.slots[Group.COMMITTED][self.workers + owner])
        )

    original = Shard.commit
    patch.setattr(Shard, "commit", commit)
    patch.setattr(SimBoard, "publish_shard", publish_shard)


@fault("a ship without room on the link is dropped")
def _(patch):
    def ship(self, node):
        original(self, node)
        self.ship_due[node] = False

    original = Shard.ship
    patch.setattr(Shard, "ship", ship)


@fault("a ship says a later clock than its rows hold")
def _(patch):
    def hear(self, source, clock):
        original(self, source, min(clock + 1, FINISHED))

    original = Shard._hear
    patch.setattr(Shard, "_hear", hear)
