"""Nodes of an agent's rows for tests: tables with bytes around them that nobody may touch, and batches made by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbps.agent.batch import Shape, new_batch
from nbps.agent.encodings import AS_IT_IS, ONLY_IDS
from nbps.agent.memory import NodeMemory
from nbps.agent.share import TableShare
from nbps.kernels import presence
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
