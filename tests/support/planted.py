"""Deliberate faults of the protocol, each of which the simulator and its checks must find. Only tests switch them on.

A fault is a function that takes pytest's monkeypatch (or anything with its `setattr`) and breaks one thing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from nbps import VAP
from nbps.core import node, shard, worker
from nbps.core.link import Link
from nbps.core.messages import Received, Refreshed
from nbps.core.node import Node
from nbps.core.replica import Replica
from nbps.core.rules import FINISHED
from nbps.core.shard import Shard
from nbps.core.worker import Flush, Group, Publish, Worker
from nbps.sim import Network, random_scenario, simulate
from nbps.sim.board import SimBoard
from nbps.sim.memory import SimCopy, SimMemory

SEEDS = 1000


class Fault(NamedTuple):
    """What is broken, and in which schedules it is looked for."""

    plant: Callable[[Any], None]
    narrowed: dict[str, Any]


FAULTS: dict[str, Fault] = {}


def fault(text: str, **narrowed: Any) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register a fault under a text that says what is wrong.

    It is looked for in random schedules; `narrowed` replaces some of what they draw, for faults that need much to
    come together.
    """

    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        FAULTS[text] = Fault(function, narrowed)
        return function

    return register


def first_found(fault: Fault, seeds: int = SEEDS) -> tuple[int, str] | None:
    """Return the first seed that shows a violation, and of what."""
    for seed in range(seeds):
        outcome = simulate(dataclasses.replace(random_scenario(seed), **fault.narrowed))
        if outcome.violations:
            return seed, outcome.violations[0].property
    return None


# --------------------------------------------------------------------------- the worker


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
        while (action := next(script, None) if answer is None else script.send(answer)) is not None:
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
    faults=(),
)  # fmt: skip
def _(patch):
    def refreshed(self, event):
        original(self, event._replace(installs=self.installs))

    original = Node._on_refreshed
    patch.setitem(node._HANDLERS[node.State.RUNNING], Refreshed, refreshed)


@fault("a ship is no news to a worker that waits (VAP)", consistency=VAP(1.0), cached=True, sparse=False, faults=())
def _(patch):
    patch.setattr(SimBoard, "has_news", lambda self, who: self.slots[Group.COMMITTED] != self._taken[who].committed)


@fault("checkpoint without the strict gate")
def _(patch):
    patch.setattr(worker, "is_checkpoint", lambda clock, every: False)


# --------------------------------------------------------------------------- links


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
    def accept(self, frame, now):
        return original(self, frame._replace(run=self.run), now)

    original = Link.accept
    patch.setattr(Link, "accept", accept)


# --------------------------------------------------------------------------- replicas


@fault("own batches on their way are forgotten when values come in")
def _(patch):
    def install(self, ship):
        self.unapplied.clear()
        original(self, ship)

    original = Replica.install
    patch.setattr(Replica, "install", install)


@fault("own batches are forgotten when the owner has received them")
def _(patch):
    def push(self, clock):
        before = self.number
        original_push(self, clock)
        if self.number > before:
            link = self._post.__self__.links[self.owner]
            self.__dict__.setdefault("sent_in", {})[self.number] = link.sent

    def received(self, event):
        replica, acknowledged = self.replicas[event.source], event.frame.acknowledged
        while replica.unapplied and replica.sent_in[replica.unapplied[0][0]] <= acknowledged:
            replica.unapplied.popleft()
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


# --------------------------------------------------------------------------- shards


@fault("shard clock is the highest of the nodes")
def _(patch):
    patch.setattr(shard, "min", max, raising=False)


@fault("own slot of a shard rises with its own workers", nodes=3, faults=())
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


# --------------------------------------------------------------------------- memory


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
        self.marked[row] = 1

    patch.setattr(SimMemory, "add", add)


if __name__ == "__main__":  # the table of tests/README.md
    import pytest

    for text, planted in FAULTS.items():
        with pytest.MonkeyPatch.context() as patch:
            planted.plant(patch)
            seed, found_by = first_found(planted) or (None, "nothing")
        print(f"| {text} | {found_by} | {seed} |{' narrowed' if planted.narrowed else ''}", flush=True)  # noqa: T201
