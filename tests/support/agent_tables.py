"""Nodes of an agent's rows for tests: tables with bytes around them that nobody may touch, and batches made by hand."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbps.agent.batch import Shape, new_batch, sections
from nbps.agent.encodings import AS_IT_IS, ONLY_IDS, OVERWRITE
from nbps.agent.memory import NodeMemory
from nbps.agent.share import TableShare
from nbps.kernels import presence
from nbps.kernels.claim_layout import claims_bytes, has_claims
from nbps.tables.sharding import row_owners

_CANARY, _AROUND = 0xA5, 1024


@dataclass
class Fence:
    """Memory for arrays with canaries before and behind each."""

    wholes: list[np.ndarray] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def array(self, content: np.ndarray) -> np.ndarray:
        """Return a copy of `content` between canaries."""
        whole = np.full(content.nbytes + 2 * _AROUND, _CANARY, np.uint8)
        inside = whole[_AROUND : _AROUND + content.nbytes].view(content.dtype).reshape(content.shape)
        inside[...] = content
        self.wholes.append(whole)
        self.sizes.append(content.nbytes)
        return inside

    def is_whole(self) -> bool:
        """Whether every canary lives."""
        return all(
            (whole[:_AROUND] == _CANARY).all() and (whole[_AROUND + size :] == _CANARY).all()
            for whole, size in zip(self.wholes, self.sizes, strict=True)
        )

    def state(self) -> bytes:
        """Return all of it."""
        return b"".join(whole.tobytes() for whole in self.wholes)

    def restore(self, state: bytes) -> None:
        """Make it what `state` was."""
        start = 0
        for whole in self.wholes:
            whole[:] = np.frombuffer(state, np.uint8, whole.size, start)
            start += whole.size


@dataclass
class Kind:
    """What a table of a test is like."""

    name: str
    rows: int
    width: int
    dtype: str
    sharding: Any = "block"
    encoding: int = AS_IT_IS
    kept: int = 0
    replicate: str = "clock"

    @property
    def is_claimed(self) -> bool:
        """Whether the agent of such a table of a job claims rows."""
        return self.encoding != OVERWRITE and has_claims(self.dtype, self.width)


class TestNode:
    """Node `rank`, its memory and what its workers see."""

    __test__ = False

    def __init__(self, rank: int, nodes: int, kinds: list[Kind], fence: Fence | None = None, **more: Any) -> None:
        place = (fence or Fence()).array
        self.rank, self.kinds = rank, kinds
        self.values = [place(np.zeros((kind.rows, kind.width), kind.dtype)) for kind in kinds]
        marks = [-(-kind.rows // 8) * 8 for kind in kinds]
        self.dirty = [place(np.zeros(size, np.uint8)) for size in marks]
        self.states = [
            place(np.zeros(size, np.uint8)) if kind.replicate == "read" else None
            for kind, size in zip(kinds, marks, strict=True)
        ]
        self.owners = [place(row_owners(kind.rows, nodes, kind.sharding)) for kind in kinds]
        shares = [
            TableShare(
                kind.name, self.values[n], self.dirty[n], self.owners[n], self.states[n],
                kind.replicate == "clock", kind.encoding, kind.kept,
                np.zeros(claims_bytes(kind.rows), np.uint8) if kind.is_claimed else None, 1,
            )
            for n, kind in enumerate(kinds)
        ]  # fmt: skip
        self.memory = NodeMemory(rank, nodes, shares, **more)
        if fence is not None:  # what the agent keeps for itself, too
            for table in self.memory._tables:
                for name in ("base", "pending", "summary", "subscribers", "taken"):
                    setattr(table, name, place(getattr(table, name)))

    def add(self, table: int, row: int, delta: np.ndarray | int | float) -> None:
        """Add to a row as a worker does."""
        self.values[table][row] += np.asarray(delta, self.values[table].dtype)
        self.dirty[table][row] = 1

    def fetch(self, table: int, row: int) -> bool:
        """Use a row as a worker does; return whether it is here."""
        board = np.zeros(64, np.int64)
        return bool(presence.want_rows(board, self.states[table], np.array([row])))


def batch_of(*parts: tuple[int, int, list[int], np.ndarray | None]) -> np.ndarray:
    """Make a batch of sections given as (table, width, ids, values); without values if None."""
    shapes = [
        Shape(
            table, ONLY_IDS if values is None else AS_IT_IS, len(ids), width, 0 if values is None else values.itemsize
        )
        for table, width, ids, values in parts
    ]
    batch, sections = new_batch(shapes)
    for (_, _, ids, values), section in zip(parts, sections, strict=True):
        section.ids[:] = ids
        if values is not None:
            section.values[:] = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
    return batch


class Exchange:
    """Nodes, and what is on its way between them: links keep the order, as in `nbps.core`."""

    def __init__(self, nodes: int, kinds: list[Kind]) -> None:
        self.kinds = kinds
        self.nodes = [TestNode(rank, nodes, kinds) for rank in range(nodes)]
        self.pairs = [(a, b) for a in range(nodes) for b in range(nodes) if a != b]
        self.wire: dict[tuple[int, int], deque] = {pair: deque() for pair in self.pairs}
        self.unapplied: dict[tuple[int, int], deque] = {pair: deque() for pair in self.pairs}  # by (node, owner)
        self.numbers = dict.fromkeys(self.pairs, 0)
        self.applied = dict.fromkeys(self.pairs, 0)  # by (owner, source)
        self.answered = dict.fromkeys(self.pairs, 0)
        self.requests = dict.fromkeys(self.pairs, 0)
        # Of each row: who added how much, and how much of it each node can know.
        shape = [(nodes, kind.rows, kind.width) for kind in kinds]
        self.added = [np.zeros(one, np.float64) for one in shape]
        self.told: list[tuple[int, int, int, int]] = []  # owner, subscriber, table, row

    def add(self, rank: int, table: int, row: int, delta: np.ndarray) -> None:
        self.nodes[rank].add(table, row, delta)
        self.added[table][rank, row] += delta

    def push(self, rank: int, owner: int, exact: bool = True, bytes_limit: int | None = None) -> bool:
        memory = self.nodes[rank].memory
        rows = memory.collect(owner, exact) if bytes_limit is None else memory.important(owner, bytes_limit)
        if rows is not None:
            self.numbers[rank, owner] += 1
            self.unapplied[rank, owner].append((self.numbers[rank, owner], rows))
            self.wire[rank, owner].append(("push", self.numbers[rank, owner], rows))
        return rows is not None

    def ship(self, owner: int, node: int, everything: bool = False) -> None:
        rows = self.nodes[owner].memory.gather(node, everything)
        if rows is not None:
            for part in self.sections(rows):
                self.told += [(owner, node, part.table, int(row)) for row in part.ids]
        self.wire[owner, node].append(("ship", self.applied[owner, node], self.answered[owner, node], rows))

    def sections(self, rows):
        memory = self.nodes[0].memory
        return sections(rows, memory._itemsizes, memory._widths)

    def deliver(self, source: int, target: int) -> None:
        """Hand over the first message of a link."""
        if not self.wire[source, target]:
            return
        kind, *content = self.wire[source, target].popleft()
        memory = self.nodes[target].memory
        if kind == "push":
            memory.apply(source, content[1].copy())
            self.applied[target, source] = content[0]
        elif kind == "ship":
            applied, answered, rows = content
            unapplied = self.unapplied[target, source]
            while unapplied and unapplied[0][0] <= applied:
                unapplied.popleft()
            if rows is not None:
                memory.install(source, rows.copy(), [rows for _, rows in unapplied], answered)
        elif kind == "subscribe":
            memory.subscribe(source, content[1])
            self.answered[target, source] = content[0]
            self.ship(target, source)
        else:
            memory.unsubscribe(source, content[0])

    def fetch(self, rank: int) -> None:
        """Ask owners for the rows that workers want, as the core does."""
        for owner, rows in self.nodes[rank].memory.wanted():
            self.requests[rank, owner] += 1
            self.nodes[rank].memory.want(owner, rows, self.requests[rank, owner])
            self.wire[rank, owner].append(("subscribe", self.requests[rank, owner], rows))

    def let_go(self, rank: int) -> None:
        for owner, rows in self.nodes[rank].memory.unused():
            self.wire[rank, owner].append(("unsubscribe", rows))

    def settle(self, everything: bool = True) -> None:
        """Send, apply and ship all there is, as at the end of a run."""
        self.drain()
        for a, b in self.pairs:
            self.push(a, b)
        self.drain()
        for a, b in self.pairs:
            self.ship(a, b, everything)
        self.drain()

    def drain(self) -> None:
        while any(self.wire.values()):
            for pair in self.pairs:
                self.deliver(*pair)

    def check_equal(self) -> None:
        """All nodes hold the sum, to the bit, and know that nothing is unsent."""
        for table, added in enumerate(self.added):
            for node in self.nodes:
                assert np.array_equal(node.values[table], added.sum(0)), (node.rank, self.kinds[table])

    def check_own(self, rank: int) -> None:
        """See that what a node added is in its rows, and of others no more than they added: all here is positive."""
        for table, added in enumerate(self.added):
            values = self.nodes[rank].values[table].astype(np.float64)
            assert (values >= added[rank]).all(), "own additions are missing"
            assert (values <= added.sum(0)).all(), "something was added twice"
