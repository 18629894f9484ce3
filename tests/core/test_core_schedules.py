"""Hypothesis chooses each step of two or three nodes and shrinks what breaks a promise; the model is a dict of ints."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nbps.core.messages import Committed, LinkDown, LinkUp, Needed, Tick
from nbps.core.terms import Terms
from support.core_drivers import Cluster

node = st.integers(0, 2)


class Nodes(RuleBasedStateMachine):
    """Nodes with one worker each, which adds to any row and commits when its gate is open."""

    @initialize(
        staleness=st.integers(0, 2), eager=st.booleans(), window=st.integers(2, 4), size=st.integers(2, 3),
        window_bytes=st.sampled_from([1, 16, 1 << 20]),
    )  # fmt: skip
    def start(self, staleness, eager, window, size, window_bytes):
        """Begin with empty rows, one for each owner."""
        self.size = size
        self.staleness = staleness
        limits = {"window": window, "window_bytes": window_bytes, "failure_timeout_s": 1e9}
        self.cluster = Cluster(size, Terms(staleness=staleness, eager=eager), **limits)
        self.clocks = [0] * size
        self.added: Counter[tuple[int, int, int]] = Counter()  # worker, owner, clock -> sum
        self.last = [[0] * size for _ in range(size)]

    def slot(self, rank, owner):
        """Slot of `owner` on the board of `rank`."""
        return max([0, *(call[2] for call in self.cluster.calls[rank] if call[:2] == ("slot", owner))])

    def visible(self, rank):
        return min(self.slot(rank, owner) for owner in range(self.size))

    @rule(rank=node, owner=node, count=st.integers(1, 5))
    def add(self, rank, owner, count):
        """Add to a row of any owner, own or not."""
        rank, owner = rank % self.size, owner % self.size
        self.cluster.memory[rank].values[owner] += count
        self.last[rank][owner] += count
        self.added[rank, owner, self.clocks[rank]] += count

    @rule(rank=node)
    def commit(self, rank):
        """Tick, where the gate of the current clock was passed; else say what is needed."""
        rank %= self.size
        needed = self.clocks[rank] - self.staleness
        if self.visible(rank) >= needed:
            self.clocks[rank] += 1
            self.cluster.tell(rank, Committed(self.clocks[rank]))
        else:
            self.cluster.tell(rank, Needed(needed))

    @rule(rank=node)
    def work(self, rank):
        """Add to every row and commit."""
        for owner in range(self.size):
            self.add(rank, owner, 1)
        self.commit(rank)

    @rule(a=node, b=node, count=st.integers(1, 6))
    def deliver(self, a, b, count):
        """Deliver some frames of a connection, in order."""
        wire = self.cluster.wire.get((a, b))
        if wire:
            self.cluster.deliver(a, b, min(count, len(wire)))

    @rule(a=node, b=node)
    def repeat(self, a, b):
        """Let the next frame of a connection arrive twice."""
        wire = self.cluster.wire.get((a, b))
        if wire:
            wire.insert(0, wire[0])

    @rule(a=node, b=node)
    def cut(self, a, b):
        """Lose what is on its way between two nodes, and connect them again."""
        if (a, b) in self.cluster.wire:
            for source, target in ((a, b), (b, a)):
                self.cluster.wire[source, target].clear()
                self.cluster.tell(source, LinkDown(target))
            for source, target in ((a, b), (b, a)):
                self.cluster.tell(source, LinkUp(target))

    @rule()
    def wait(self):
        """Let time pass, so that what vanished is sent again."""
        self.cluster.now += 1.0
        for rank in range(self.size):
            self.cluster.tell(rank, Tick())

    @precondition(lambda self: hasattr(self, "cluster"))
    @invariant()
    def every_read_keeps_the_promises(self):
        """Each row, on each node: staleness bound, nothing twice, nothing that goes back."""
        for rank in range(self.size):
            clock = min(self.clocks[rank], self.visible(rank) + self.staleness)  # the last one that it was let into
            for owner in range(self.size):
                value = self.cluster.memory[rank].values[owner]
                own = sum(n for (w, o, _), n in self.added.items() if (w, o) == (rank, owner))
                least = own + sum(
                    n for (w, o, c), n in self.added.items() if o == owner and w != rank and c < clock - self.staleness
                )
                most = sum(n for (_, o, _), n in self.added.items() if o == owner)
                assert max(least, self.last[rank][owner]) <= value <= most
                self.last[rank][owner] = value

    def teardown(self):
        """Deliver everything: every owner holds the exact sum, and every link is empty."""
        if not hasattr(self, "cluster"):
            return
        top = max(self.clocks)
        for rank in range(self.size):
            self.cluster.tell(rank, Committed(top))
        for _ in range(6):
            self.wait()
            self.cluster.settle()
        for owner in range(self.size):
            total = sum(n for (_, o, c), n in self.added.items() if o == owner and c < top)
            open_clock = sum(n for (_, o, c), n in self.added.items() if o == owner and c >= top)
            assert total <= self.cluster.memory[owner].values[owner] <= total + open_clock
        assert all(not link.kept for part in self.cluster.nodes for link in part.links.values())


TestNodes = Nodes.TestCase
TestNodes.settings = settings(stateful_step_count=40)
