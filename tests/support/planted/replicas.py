"""Faults of replicas."""

from __future__ import annotations

from nbps.core import node
from nbps.core.messages import Received
from nbps.core.node import Node
from nbps.core.replica import Replica
from support.planted.faults import fault


@fault("own batches on their way are forgotten when values come in")
def _(patch):
    def install(self, ship):
        self.unapplied.clear()
        self.unapplied_bytes = 0
        original(self, ship)

    original = Replica.install
    patch.setattr(Replica, "install", install)


@fault("own batches are forgotten when the owner has received them")
def _(patch):
    def push(self, clock):
        before = self.number
        original_push(self, clock)
        if self.number > before:
            link = self._post.__self__[self.owner]
            self.__dict__.setdefault("sent_in", {})[self.number] = link.sent

    def received(self, event):
        replica, acknowledged = self.replicas[event.source], event.frame.acknowledged
        while replica.unapplied and replica.sent_in[replica.unapplied[0][0]] <= acknowledged:
            replica.unapplied_bytes -= self._memory.bytes_of(replica.unapplied.pop(0)[1])
        original_received(self, event)

    original_push, original_received = Replica.push, Node._on_received
    patch.setattr(Replica, "push", push)
    patch.setitem(node._HANDLERS[node.State.RUNNING], Received, received)


@fault("the slot of a shard rises before its rows are in")
def _(patch):
    def install(self, ship):
        if ship.clock > self.clock:
            self._board.publish_shard(self.owner, ship.clock)
        original(self, ship)

    original = Replica.install
    patch.setattr(Replica, "install", install)


@fault("a batch counts as sent that waits for room")
def _(patch):
    def push(self, clock):
        if not self.can_push():
            self._memory.collect(self.owner, True)
        original(self, clock)

    original = Replica.push
    patch.setattr(Replica, "push", push)


@fault("a question for a later clock hides one for an earlier clock")
def _(patch):
    def ask(self, clock):
        if self.asked is None:
            original(self, clock)

    original = Replica._ask
    patch.setattr(Replica, "_ask", ask)
