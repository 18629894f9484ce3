"""Drivers of the core for tests: a worker alone on a list of slots, nodes that hand frames to each other by hand."""

from __future__ import annotations

from typing import Any

from nbps.core.messages import Done, End, Leave, Received, Refuse, Save, Send, Tick
from nbps.core.node import Node
from nbps.core.runs import Runs
from nbps.core.settings import Settings
from nbps.core.terms import Terms
from nbps.errors import RemoteProtocolError


class Typed(list):
    """A list that does not take one kind of action or message for another with the same fields, as tuples do."""

    def __eq__(self, other):
        return [(type(action), action) for action in self] == [(type(action), action) for action in other]

    def __contains__(self, wanted):
        return any(type(action) is type(wanted) and action == wanted for action in self)


class Board:
    """Remembers what the node published, in order with what it did to its rows."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls
        self.bound = 1

    def publish_shard(self, owner: int, clock: int) -> None:
        self.calls.append(("slot", owner, clock))

    def publish_arrived(self, node: int, count: int, summands: Any) -> None:
        self.calls.append(("arrived", node, count, summands))

    def hold(self, clock: int) -> int:
        self.calls.append(("hold", clock))
        return self.bound

    def publish_installs(self, count: int) -> None:
        self.calls.append(("installs", count))

    def publish_seen(self, clocks: Any) -> None:
        self.calls.append(("seen", tuple(clocks)))


class Memory:
    """One number per owner, as seen by this node: what was sent is a difference, what was shipped a value."""

    def __init__(self, rank: int, nodes: int, calls: list[Any]) -> None:
        self.rank = rank
        self.values = [0] * nodes
        self.base = [0] * nodes
        self.calls = calls
        self.awaited: dict[int, int] = {}

    def collect(self, owner: int, exact: bool) -> int | None:
        delta = self.values[owner] - self.base[owner]
        self.base[owner] += delta
        return delta or None

    def important(self, owner: int, bytes_limit: int) -> int | None:
        return self.collect(owner, exact=False)

    def bytes_of(self, rows: int) -> int:
        return 8

    def check(self, rows: Any) -> None:
        if rows == "broken":
            raise RemoteProtocolError("these rows are broken")

    def apply(self, source: int, rows: Any) -> None:
        self.check(rows)
        self.calls.append(("apply", rows))
        self.values[self.rank] += rows

    def gather(self, subscriber: int, everything: bool) -> int:
        return self.values[self.rank]

    def install(self, owner: int, rows: Any, unapplied: list[int], answered: int) -> None:
        self.check(rows)
        self.calls.append(("install", owner, rows, answered))
        base = rows + sum(unapplied)
        self.values[owner] += base - self.base[owner]
        self.base[owner] = base

    def want(self, owner: int, rows: Any, request: int) -> None:
        self.calls.append(("want", owner, rows, request))

    def subscribe(self, subscriber: int, rows: Any) -> None:
        self.check(rows)
        self.calls.append(("subscribe", subscriber, rows))

    def unsubscribe(self, subscriber: int, rows: Any) -> None:
        self.calls.append(("unsubscribe", subscriber, rows))

    def copy_owned(self) -> int:
        self.calls.append(("copy", self.values[self.rank]))
        return self.values[self.rank]


class Cluster:
    """Nodes whose frames lie in queues until the test delivers them; each lives for one run."""

    kind: Any = Node

    def __init__(self, nodes: int, terms: Terms, **settings: Any) -> None:
        self.calls: list[list[Any]] = [[] for _ in range(nodes)]
        self.memory = [Memory(rank, nodes, self.calls[rank]) for rank in range(nodes)]
        self.nodes = [
            self.kind(Settings(rank, nodes, terms, **settings), self.memory[rank], Board(self.calls[rank]), 0.0)
            for rank in range(nodes)
        ]
        self.now = 0.0
        self.wire: dict[tuple[int, int], list[Any]] = {(a, b): [] for a in range(nodes) for b in range(nodes) if a != b}
        self.ends: list[str] = []
        self.left: list[int] = []
        self.saves: list[list[Save]] = [[] for _ in range(nodes)]
        self.refused: list[tuple[int, Refuse]] = []
        self.done: list[tuple[int, int]] = []  # nodes and runs

    def tell(self, node: int, event: Any) -> None:
        """Hand an event to a node; its frames go onto the wire."""
        for action in self.nodes[node].handle(event, self.now):
            if isinstance(action, Send):
                self.wire[node, action.peer].append(action.frame)
            elif isinstance(action, End):
                self.ends.append(action.reason)
            elif isinstance(action, Save):
                self.saves[node].append(action)
            elif isinstance(action, Refuse):
                self.refused.append((node, action))
            elif isinstance(action, Done):
                self.done.append((node, action.run))
            else:
                assert isinstance(action, Leave)
                self.left.append(node)
        self.nodes[node].validate()

    def deliver(self, source: int, target: int, count: int | None = None) -> None:
        """Deliver the first `count` frames of a pair, or all that are there."""
        wire = self.wire[source, target]
        for _ in range(len(wire) if count is None else count):
            self.tell(target, Received(source, wire.pop(0)))

    def settle(self) -> None:
        """Deliver until nothing is on the wire."""
        while any(self.wire.values()):
            for source, target in self.wire:
                self.deliver(source, target)

    def pass_time(self) -> None:
        """Deliver everything, with seconds in between, until nothing is said any more."""
        for _ in range(6):
            self.settle()
            self.now += 1.0
            for node in range(len(self.nodes)):
                self.tell(node, Tick())
        self.settle()

    def messages(self, source: int, target: int) -> Typed:
        """Messages on the wire of a pair."""
        return Typed(frame.message for frame in self.wire[source, target])


class Machines(Cluster):
    """The same with nodes that go from one run to the next."""

    kind = Runs
