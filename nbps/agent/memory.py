"""The rows of a node as its agent sees them: what `nbps.core.memory.Memory` asks for, by kernels.

Owned rows are the live ones that local workers add to. Of the rows of other nodes there is a replica in the same array,
and beside it `base`, what the owner knows of it (`nbps.kernels.shards` says how they are exchanged). Workers go on
reading and adding all the while.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.agent.batch import Bytes, Ids, Section, Shape, batch_limit, cut, new_batch, sections
from nbps.agent.sharding import Owners
from nbps.errors import ProtocolError
from nbps.kernels import shards

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
    replicated : bool
        Whether other nodes are told of changes during a run, or only at its end.
    """

    name: str
    values: npt.NDArray[Any]
    dirty: Bytes
    owners: Owners
    atomic: bool
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


class NodeMemory:
    """The rows of node `rank` among `nodes`; see `nbps.core.memory.Memory` for what the methods mean.

    Attributes
    ----------
    batch_limit : int
        Greatest size of a batch, in bytes.
    rows_sent, rows_received : int
    """

    def __init__(self, rank: int, nodes: int, tables: Sequence[TableShare], save: Save | None = None) -> None:
        self.rank = rank
        self.nodes = nodes
        self.rows_sent = self.rows_received = 0
        self._save = save
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

    def want(self, owner: int, rows: Bytes, request: int) -> None:
        """Remember rows that were asked for."""
        raise NotImplementedError

    def subscribe(self, subscriber: int, rows: Bytes) -> None:
        """Give `subscriber` these rows from now on."""
        raise NotImplementedError

    def unsubscribe(self, subscriber: int, rows: Bytes) -> None:
        """Stop that."""
        raise NotImplementedError

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
