"""Faults of real nodes, planted in their agents and workers: each must show in what the probe sees.

All are planted before the processes of a node are forked, by `plant`, but fault n works only in run n of a job: every
run uses tables of its own, so what one fault has spoiled does not show in another's. Those that are races are widened
by a pause; the others need none. Imports no pytest: nodes import this file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nbps.agent.board import AgentBoard
from nbps.agent.memory import NodeMemory
from nbps.core.link import Link
from nbps.core.replica import Replica
from nbps.core.worker import Group, Publish, Worker
from nbps.kernels import shards
from nbps.runtime.clock import Clock

PAUSE_S = 0.003
FAULTS: dict[str, Callable[[Any], None]] = {}
_runs = [-1]  # of this process: number of the last that has begun


def plant() -> None:
    """Plant all faults in this process and those that it forks."""
    for number, fault in enumerate(FAULTS.values()):
        fault(_Patch(number))
    for owner in (AgentBoard, Worker):
        _count_runs(owner)


def _count_runs(owner: Any) -> None:
    original = owner.begin

    def begin(*args: Any, **options: Any) -> Any:
        _runs[0] += 1
        return original(*args, **options)

    owner.begin = begin


class _Patch:
    """Replaces functions in run `number` alone."""

    def __init__(self, number: int) -> None:
        self.number = number

    def setattr(self, owner: Any, name: str, broken: Callable[..., Any]) -> None:
        original = getattr(owner, name)

        def either(*args: Any, **options: Any) -> Any:
            return (broken if _runs[0] == self.number else original)(*args, **options)

        setattr(owner, name, either)


def fault(text: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register a fault under a text that says what is wrong."""

    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        FAULTS[text] = function
        return function

    return register


@fault("no fault")
def _(patch: _Patch) -> None:
    pass


@fault("slot of a shard published before its rows are in")
def _(patch: _Patch) -> None:
    def install(self, ship):
        if ship.clock > self.clock:
            self._board.publish_shard(self.owner, ship.clock)
            time.sleep(PAUSE_S)
        original(self, ship)

    original = Replica.install
    patch.setattr(Replica, "install", install)


@fault("batch applied twice")
def _(patch: _Patch) -> None:
    def apply(self, source, rows):
        original(self, source, rows)
        original(self, source, rows)

    original = NodeMemory.apply
    patch.setattr(NodeMemory, "apply", apply)


@fault("mark cleared after the row was read")
def _(patch: _Patch) -> None:
    def collect(self, owner, exact):
        for table in self._tables:
            marked = table.ids[owner][table.dirty[table.ids[owner]] != 0]
            late[table.number] = marked
        batch = original(self, owner, exact)
        time.sleep(PAUSE_S)
        for table in self._tables:
            table.dirty[late[table.number]] = 0
        return batch

    late: dict[int, Any] = {}
    original = NodeMemory.collect
    patch.setattr(NodeMemory, "collect", collect)


@fault("base not moved by what was sent")
def _(patch: _Patch) -> None:
    def collect(self, owner, exact):
        before = [table.base.copy() for table in self._tables]
        batch = original(self, owner, exact)
        for table, base in zip(self._tables, before, strict=True):
            table.base[:] = base
        return batch

    original = NodeMemory.collect
    patch.setattr(NodeMemory, "collect", collect)


@fault("own batches on their way are forgotten when values come in")
def _(patch: _Patch) -> None:
    def install(self, ship):
        self.unapplied.clear()
        original_install(self, ship)

    def push(self, clock):
        time.sleep(PAUSE_S)  # values come in that hold nothing of this batch
        original_push(self, clock)

    original_install, original_push = Replica.install, Replica.push
    patch.setattr(Replica, "install", install)
    patch.setattr(Replica, "push", push)


@fault("values that come in replace additions not sent yet")
def _(patch: _Patch) -> None:
    def install(self, owner, rows, unapplied, answered):
        for table, part in self._parts(rows, owner, counts=False):
            table.base[part.ids] = table.values[part.ids]
        original(self, owner, rows, unapplied, answered)

    original = NodeMemory.install
    patch.setattr(NodeMemory, "install", install)


def _tell(patch: _Patch, nodes: int) -> None:
    """Have others told only of additions that so many of the three nodes have not made: one's own, or another's."""

    def add_pending(pending, summary, ids, targets):
        if int(targets).bit_count() == nodes:
            original(pending, summary, ids, targets)

    original = shards.add_pending
    patch.setattr(shards, "add_pending", add_pending)


@fault("additions of local workers are not shipped")
def _(patch: _Patch) -> None:
    _tell(patch, nodes=1)


@fault("additions of other nodes are not shipped on")
def _(patch: _Patch) -> None:
    _tell(patch, nodes=2)


@fault("an element is added to by halves")
def _(patch: _Patch) -> None:
    def apply_rows(table, ids, deltas, first):
        low = deltas & 0xFFFFFFFF
        for part in (low, deltas - low):
            done = first
            while done < ids.size:
                done = original(table, ids, part, done)
            time.sleep(PAUSE_S)
        return done

    original = shards.apply_rows
    patch.setattr(shards, "apply_rows", apply_rows)


@fault("workers do not wait for the rows of other nodes")
def _(patch: _Patch) -> None:
    def slots(self, action):
        word, count = original_slots(self, action)
        return word, min(count, self._workers)

    def lowest(self, action):  # else they notice that their gate has opened too early
        return max(original_lowest(self, action), self.core.now)

    original_slots, original_lowest = Clock._slots, Clock._lowest
    patch.setattr(Clock, "_slots", slots)
    patch.setattr(Clock, "_lowest", lowest)


@fault("clock published before the copies are flushed")
def _(patch: _Patch) -> None:
    def tick(self, wait=True):
        self.now += 1
        yield Publish(Group.COMMITTED, self.now)
        time.sleep(PAUSE_S)
        self.now -= 1
        yield from original(self, wait)

    original = Worker.tick
    patch.setattr(Worker, "tick", tick)


@fault("the last ship of a run is empty")
def _(patch: _Patch) -> None:
    def gather(self, subscriber, everything):
        return None if everything else original(self, subscriber, everything)

    original = NodeMemory.gather
    patch.setattr(NodeMemory, "gather", gather)


def plant_repetition() -> None:
    """Break links, in this process and those that it forks: what a new connection brings again is taken again."""

    def accept(self, frame, now):
        message = original(self, frame, now)
        repeated = 0 < frame.number < self.received and frame.run == self.run
        return frame.message if repeated and message is None else message

    original = Link.accept
    Link.accept = accept  # type: ignore[method-assign]
