"""The rows of a node as its agent sees them: what `nbps.core.memory.Memory` asks for, by kernels.

Owned rows are the live ones that local workers add to. Of the rows of other nodes there is a replica in the same array,
and beside it `base`, what the owner knows of it (`nbps.kernels.shards` says how they are exchanged). Workers go on
reading and adding all the while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.agent.batch import ONLY_IDS, Bytes, Ids, Section, Shape, batch_limit, cut, new_batch, sections
from nbps.agent.sharding import Owners
from nbps.errors import ProtocolError
from nbps.kernels import presence, shards

Save = Callable[[int, Mapping[str, tuple[Ids, npt.NDArray[Any]]]], None]


@dataclass(frozen=True)
class TableShare:
    """What an agent is given of a table.

    Attributes
    ----------
    name : str
    values : ndarray, shape (rows, width)
        The live rows.
    dirty : ndarray, uint8[8 * ceil(rows / 8)]
        Marks of changed rows.
    owners : ndarray, uint8[rows]
    atomic : bool
        Whether local workers may change a row while the agent does.
    states : ndarray, uint8[8 * ceil(rows / 8)], or None
        Which rows are here (`nbps.kernels.presence`); None for all.
    replicated : bool
        Whether other nodes are told of all changes during a run.
    """

    name: str
    values: npt.NDArray[Any]
    dirty: Bytes
    owners: Owners
    atomic: bool
    states: Bytes | None
    replicated: bool


class _Rows:
    """A table with what its agent keeps beside it."""

    def __init__(self, number: int, share: TableShare, rank: int, nodes: int) -> None:
        rows, width = share.values.shape
        self.number = number
        self.share = share
        self.values = share.values
        self.base = np.empty_like(share.values)
        self.dirty = share.dirty
        self.eights = share.dirty.view(np.int64)
        self.atomic = int(share.atomic)
        self.shape = Shape(number, 0, rows, width, share.values.itemsize)
        self.ids = [np.flatnonzero(share.owners == node) for node in range(nodes)]
        self.pending = np.zeros(rows, np.uint64)
        everybody = (1 << nodes) - 1 if share.replicated else 0
        self.subscribers = np.full(rows, everybody, np.uint64)
        self.taken = np.empty(rows, np.int64)
        for node, ids in enumerate(self.ids):
            if node != rank:
                self.base[ids] = share.values[ids]
            elif share.states is not None:
                presence.make_present(share.states, ids.copy())


class NodeMemory:
    """The rows of node `rank` among `nodes`; see `nbps.core.memory.Memory` for what the methods mean.

    Attributes
    ----------
    batch_limit : int
        Greatest size of a batch, in bytes.
    rows_sent, rows_received : int
    """

    def __init__(
        self,
        rank: int,
        nodes: int,
        tables: Sequence[TableShare],
        save: Save | None = None,
        on_answer: Callable[[], None] = lambda: None,
    ) -> None:
        self.rank = rank
        self.nodes = nodes
        self.rows_sent = self.rows_received = 0
        self._save = save
        self._on_answer = on_answer
        self._asked: dict[int, deque[tuple[int, Bytes]]] = {}  # by owner: requests and their rows
        self._tables = [_Rows(number, share, rank, nodes) for number, share in enumerate(tables)]
        self._itemsizes = [table.shape.itemsize for table in self._tables]
        self._widths = [table.shape.width for table in self._tables]
        self._bits = [np.uint64(1 << node) for node in range(nodes)]
        self._others = [np.uint64(((1 << nodes) - 1) & ~(1 << rank) & ~(1 << node)) for node in range(nodes)]
        self.batch_limit = batch_limit([table.shape for table in self._tables])

    def collect(self, owner: int) -> Bytes | None:
        """Take what local workers added to replica rows of `owner`."""
        chosen = []
        for table in self._tables:
            count = shards.take_marked(table.dirty, table.eights, table.ids[owner], table.taken)
            if count:
                chosen.append((table, count))
        if not chosen:
            return None
        batch, parts = new_batch([table.shape._replace(rows=count) for table, count in chosen])
        counts = [
            int(shards.take_differences(
                table.values, table.base, table.taken[:count], part.ids, self._values(table, part)
            ))
            for (table, count), part in zip(chosen, parts, strict=True)
        ]  # fmt: skip
        self.rows_sent += sum(counts)
        return cut(batch, counts)

    def apply(self, source: int, rows: Bytes) -> None:
        """Add a batch of node `source` to owned rows."""
        for table, part in self._parts(rows, self.rank):
            values = self._values(table, part)
            shards.apply_rows(table.values, table.atomic, part.ids, values, table.pending, self._others[source])

    def gather(self, subscriber: int, everything: bool) -> Bytes | None:
        """Take the values of owned rows of which `subscriber` must be told."""
        chosen = []
        for table in self._tables:
            own = table.ids[self.rank]
            count = shards.take_marked(table.dirty, table.eights, own, table.taken)
            if count:
                shards.add_pending(table.pending, table.taken, count, self._others[self.rank])
            count = shards.take_pending(
                table.pending, table.subscribers, own, self._bits[subscriber], everything, table.taken
            )
            if count:
                chosen.append((table, count))
        if not chosen:
            return None
        batch, parts = new_batch([table.shape._replace(rows=count) for table, count in chosen])
        for (table, count), part in zip(chosen, parts, strict=True):
            part.ids[:] = table.taken[:count]
            shards.copy_rows(table.values, part.ids, self._values(table, part))
            self.rows_sent += count
        return batch

    def install(self, owner: int, rows: Bytes, unapplied: Sequence[Bytes], answered: int) -> None:
        """Take in values of `owner`."""
        own = [(table.number, part) for batch in unapplied for table, part in self._parts(batch, owner, check=False)]
        for table, part in self._parts(rows, owner):
            values = self._values(table, part)
            for number, mine in own:
                if number == table.number:
                    shards.add_common(part.ids, values, mine.ids, self._values(table, mine))
            shards.install_rows(table.values, table.base, table.atomic, part.ids, values)
        if self._asked and self._answer(owner, answered):
            self._on_answer()

    def wanted(self) -> list[tuple[int, Bytes]]:
        """Return the rows that workers want and nobody has asked for, as batches without values, by owner."""
        return self._listed(presence.take_wanted)

    def unused(self) -> list[tuple[int, Bytes]]:
        """Let go of rows that no worker has used since the last call; return them by owner."""
        return self._listed(presence.take_unused)

    def _listed(self, take: Callable[..., int]) -> list[tuple[int, Bytes]]:
        found = []
        for owner in range(self.nodes):
            if owner == self.rank:
                continue
            chosen = []
            for table in self._tables:
                if table.share.states is not None:
                    count = take(table.share.states, table.ids[owner], table.taken)
                    if count:
                        chosen.append((table, table.taken[:count].copy()))
            if chosen:
                shapes = [table.shape._replace(encoding=ONLY_IDS, rows=ids.size) for table, ids in chosen]
                batch, parts = new_batch(shapes)
                for (_, ids), part in zip(chosen, parts, strict=True):
                    part.ids[:] = ids
                found.append((owner, batch))
        return found

    def want(self, owner: int, rows: Bytes, request: int) -> None:
        """Remember rows that were asked for."""
        self._asked.setdefault(owner, deque()).append((request, rows))

    def _answer(self, owner: int, answered: int) -> bool:
        """Make rows present that were asked for by requests up to `answered`; return whether there were any."""
        asked, any_ = self._asked.get(owner), False
        while asked and asked[0][0] <= answered:
            for table, part in self._parts(asked.popleft()[1], owner, check=False):
                presence.make_present(table.share.states, part.ids)
                any_ = True
        return any_

    def forget_requests(self) -> None:
        """Begin a run: requests of the one before were answered."""
        self._asked.clear()

    def subscribe(self, subscriber: int, rows: Bytes) -> None:
        """Give `subscriber` these rows from now on."""
        for table, part in self._parts(rows, self.rank):
            shards.subscribe(table.subscribers, table.pending, part.ids, self._bits[subscriber])

    def unsubscribe(self, subscriber: int, rows: Bytes) -> None:
        """Stop that."""
        for table, part in self._parts(rows, self.rank):
            shards.unsubscribe(table.subscribers, part.ids, self._bits[subscriber])

    def save(self, clock: int) -> None:
        """Copy the owned rows, and hand them on to be saved."""
        if self._save is None:
            raise ProtocolError(f"node {self.rank} shall save clock {clock}, but not where")
        own = [(table, table.ids[self.rank]) for table in self._tables]
        self._save(clock, {table.share.name: (ids, table.values[ids]) for table, ids in own})

    def _parts(self, rows: Bytes, owner: int, check: bool = True) -> list[tuple[_Rows, Section]]:
        """Return the tables and sections of a batch of rows of `owner`."""
        parts = [(self._tables[part.table], part) for part in sections(rows, self._itemsizes, self._widths)]
        for table, part in parts if check else ():
            wrong = shards.first_foreign_id(part.ids, table.share.owners, owner)
            if wrong >= 0:
                raise ProtocolError(
                    f"a batch for table {table.share.name!r} has row {part.ids[wrong]} at position {wrong}; expected "
                    f"ascending rows of node {owner}"
                )
            self.rows_received += part.ids.size
        return parts

    def _values(self, table: _Rows, part: Section) -> npt.NDArray[Any]:
        return part.values.view(table.values.dtype).reshape(part.ids.size, part.width)
