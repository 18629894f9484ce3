"""The rows of a node as its agent sees them: what `nbps.core.memory.Memory` asks for, by kernels.

Owned rows are the live ones that local workers add to. Of the rows of other nodes there is a replica in the same array,
and beside it `base`, what the owner knows of it (`nbps.kernels.shards` says how they are exchanged). Workers go on
reading and adding all the while.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.agent.batch import Ids, Section, batch_limit, cut, new_batch, sections
from nbps.agent.encodings import AS_IT_IS, LARGEST, ONLY_IDS, OVERWRITE, Bytes, columns_of, expand
from nbps.agent.share import TableShare
from nbps.agent.stores import Store
from nbps.errors import RemoteProtocolError
from nbps.kernels import presence, shards

_NAP_S = 0.0001, 0.01  # the first and the longest between two looks at a row that is claimed
_PASSES = 4  # what is left of float32 and float64 after each is smaller by 20 bits or more


def nap(times: int) -> bool:
    """Let whoever claims a row go on, before the next look at it; longer after many. Return True: it is worth it."""
    time.sleep(min(_NAP_S[0] * 2 ** min(times, 10), _NAP_S[1]))
    return True


class NodeMemory:
    """The rows of node `rank` among `nodes`; see `nbps.core.memory.Memory` for what the methods mean.

    Attributes
    ----------
    batch_limit : int
        Greatest size of a batch, in bytes.
    rows_sent, rows_received : int

    Rows of which a worker is in the middle of an addition are waited for: `on_claimed` is called, with how often it was
    since one was added to, until it returns False, as nobody needs the rows any more.
    """

    def __init__(
        self,
        rank: int,
        nodes: int,
        tables: Sequence[TableShare],
        on_answer: Callable[[], None] = lambda: None,
        on_claimed: Callable[[int], bool] = nap,
    ) -> None:
        self.rank = rank
        self.nodes = nodes
        self.rows_sent = self.rows_received = 0
        self._on_answer = on_answer
        self._on_claimed = on_claimed
        self._asked: dict[int, deque[tuple[int, Bytes]]] = {}  # by owner: requests and their rows
        self._tables = [Store(number, share, rank, nodes) for number, share in enumerate(tables)]
        self._itemsizes = [table.shape.itemsize for table in self._tables]
        self._widths = [table.shape.width for table in self._tables]
        self._bits = [np.uint64(1 << node) for node in range(nodes)]
        self._others = [np.uint64(((1 << nodes) - 1) & ~(1 << rank) & ~(1 << node)) for node in range(nodes)]
        self.batch_limit = batch_limit(
            [shape for table in self._tables for shape in (table.shape,) * _PASSES]
            + [table.shape._replace(encoding=LARGEST, kept=table.share.kept) for table in self._tables]
        )

    def changes(self) -> list[tuple[int, int, int, int]]:
        """Return of each table addresses and sizes of int64 words that are 0 unless rows were changed.

        Words of marks, and words that sum up which rows are pending.
        """
        words = [(table.eights, table.summary) for table in self._tables]
        return [(one.ctypes.data, one.size, other.ctypes.data, other.size) for one, other in words]

    def collect(self, owner: int, exact: bool) -> Bytes | None:
        """Take what local workers added to replica rows of `owner`; all of it if `exact`."""
        chosen, rounded = [], []
        for table in self._tables:
            count = table.take_marked(owner)
            if exact and table.carried is not None:
                count = table.take_carried(owner, count)
            elif table.share.encoding not in (AS_IT_IS, OVERWRITE):
                rounded += [(table, table.taken[:count].copy())] * bool(count)
                continue
            if count:
                chosen.append((table, count))
        if exact or rounded:
            return self._collect_parts(chosen, rounded, _PASSES if exact else 1)
        return self._collect_whole(chosen)

    def _collect_whole(self, chosen: Sequence[tuple[Store, int]]) -> Bytes | None:
        """Take the deltas of the first so many rows that each table has `taken`."""
        if not chosen:
            return None
        batch, parts = new_batch([table.sent_shape._replace(rows=count) for table, count in chosen])
        counts = [
            table.take(table.taken[:count], part.ids, self._values(table, part))
            for (table, count), part in zip(chosen, parts, strict=True)
        ]
        for (table, _), part, count in zip(chosen, parts, counts, strict=True):
            if table.carried is not None:
                table.carried[part.ids[:count]] = True
        self.rows_sent += sum(counts)
        return cut(batch, counts)

    def _collect_parts(
        self, chosen: Sequence[tuple[Store, int]], rounded: Sequence[tuple[Store, Ids]], passes: int
    ) -> Bytes | None:
        """Take deltas of rows of tables as they are (`chosen`), and of others in fewer bytes.

        What rounding leaves of the former comes in a section of its own, until nothing is left or after `passes`.
        """
        found = []
        for table, count in chosen:
            rows = table.taken[:count]
            for _ in range(1 if table.carried is None else passes):
                ids = np.empty(rows.size, np.int64)
                deltas = np.empty((rows.size, table.shape.width), table.values.dtype)
                taken = table.take(rows, ids, deltas)
                rows = ids[:taken]
                found.append((table, rows, table.sent_shape.encoding, deltas[:taken].view(np.uint8).reshape(-1)))
            if table.carried is not None:
                table.carried[rows] = True
        for table, ids in rounded:
            deltas = np.empty((ids.size, table.shape.width), table.values.dtype)
            shards.read_deltas(table.values, table.base, ids, deltas)
            ids, packed = table.round_off(ids, deltas)
            found.append((table, ids, table.share.encoding, packed))
        found = [entry for entry in found if entry[1].size]
        if not found:
            return None
        batch, parts = new_batch(
            [
                table.shape._replace(rows=ids.size, encoding=encoding, kept=table.share.kept)
                for table, ids, encoding, _ in found
            ]
        )
        for (_, ids, _, packed), part in zip(found, parts, strict=True):
            part.ids[:], part.values[:] = ids, packed
            self.rows_sent += ids.size
        return batch

    def important(self, owner: int, bytes_limit: int) -> Bytes | None:
        """Take the deltas that are largest beside the values they belong to, of about `bytes_limit` bytes."""
        candidates = []
        for table in self._tables:
            ids, weights = np.empty(table.ids[owner].size, np.int64), np.empty(table.ids[owner].size)
            count = shards.weigh_marked(table.dirty, table.values, table.base, table.ids[owner], ids, weights)
            candidates.append((ids[:count], weights[:count]))
        every = np.concatenate([weights for _, weights in candidates])
        if not every.size:
            return None
        row_bytes = max(8 + table.shape.width * table.shape.itemsize for table in self._tables)
        rows = min(every.size, max(1, bytes_limit // row_bytes))
        least = np.partition(every, every.size - rows)[every.size - rows]
        chosen = []
        for table, (ids, weights) in zip(self._tables, candidates, strict=True):
            count = shards.take_marks_of(table.dirty, ids[weights >= least], table.taken)
            if count:
                chosen.append((table, count))
        return self._collect_whole(chosen)

    def bytes_of(self, rows: Bytes) -> int:
        """Return how much memory a batch takes, in bytes."""
        return rows.nbytes

    def check(self, rows: Bytes) -> None:
        """Raise `RemoteProtocolError` if `apply` could not add this batch."""
        self._checked(self._parts(rows, self.rank, counts=False))

    def apply(self, source: int, rows: Bytes) -> None:
        """Add a batch of node `source` to owned rows."""
        for table, part in self._checked(self._parts(rows, self.rank)):
            values = self._values(table, part)
            if part.encoding == OVERWRITE:
                shards.overwrite_rows(table.values, part.ids, values)
            else:
                self._on_all(shards.apply_rows, part.ids, table.shared.kernel, part.ids, values)
            shards.add_pending(table.pending, table.summary, part.ids, self._others[source])

    def gather(self, subscriber: int, everything: bool) -> Bytes | None:
        """Take the values of owned rows of which `subscriber` must be told."""
        chosen = []
        for table in self._tables:
            count = table.take_marked(self.rank)
            if count:
                shards.add_pending(table.pending, table.summary, table.taken[:count], self._others[self.rank])
            node = self._bits[subscriber]
            count = shards.take_pending(table.pending, table.summary, table.subscribers, node, everything, table.taken)
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
        for table, part in self._checked(self._parts(rows, owner)):
            values = self._values(table, part)
            for number, mine in own:
                if number == table.number:
                    newer = self._values(table, mine)
                    shards.merge_common(part.ids, values, mine.ids, newer, mine.encoding == OVERWRITE)
            if table.share.encoding == OVERWRITE:
                shards.install_unchanged(table.values, table.base, part.ids, values)
            else:
                self._on_all(shards.install_rows, part.ids, table.shared.kernel, table.base, part.ids, values)
        if self._asked and self._answer(owner, answered):
            self._on_answer()

    def _on_all(self, kernel: Callable[..., int], ids: Ids, *arguments: Any) -> None:
        """Call `kernel` until it is done with all `ids`; it stops at a row that is claimed."""
        done = waits = 0
        while (reached := kernel(*arguments, done)) < ids.size:
            waits = waits + 1 if reached == done else 0
            done = reached
            if not self._on_claimed(waits):
                return  # the job is ending: nobody reads these rows any more

    def wanted(self) -> list[tuple[int, Bytes]]:
        """Return the rows that workers want and nobody has asked for, as batches without values, by owner."""
        return self._listed(Store.take_wanted)

    def unused(self) -> list[tuple[int, Bytes]]:
        """Let go of rows that no worker has used since the last call; return them by owner."""
        return self._listed(Store.take_unused)

    def _listed(self, take: Callable[[Store, int], int]) -> list[tuple[int, Bytes]]:
        found = []
        for owner in range(self.nodes):
            if owner == self.rank:
                continue
            chosen = []
            for table in self._tables:
                if table.share.states is not None:
                    count = take(table, owner)
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
            shards.subscribe(table.subscribers, part.ids, self._bits[subscriber])
            shards.add_pending(table.pending, table.summary, part.ids, self._bits[subscriber])

    def unsubscribe(self, subscriber: int, rows: Bytes) -> None:
        """Stop that."""
        for table, part in self._parts(rows, self.rank):
            shards.unsubscribe(table.subscribers, part.ids, self._bits[subscriber])

    def copy_owned(self) -> Mapping[str, tuple[Ids, npt.NDArray[Any]]]:
        """Return the owned rows of each table and a copy of their values."""
        own = [(table, table.ids[self.rank]) for table in self._tables]
        return {table.share.name: (ids, table.values[ids]) for table, ids in own}

    def _parts(self, rows: Bytes, owner: int, check: bool = True, counts: bool = True) -> list[tuple[Store, Section]]:
        """Return the tables and sections of a batch of rows of `owner`; it `counts` if it is not looked at again."""
        parts = [(self._tables[part.table], part) for part in sections(rows, self._itemsizes, self._widths)]
        for table, part in parts if check else ():
            wrong = shards.first_foreign_id(part.ids, table.share.owners, owner)
            if wrong >= 0:
                raise RemoteProtocolError(
                    f"a batch for table {table.share.name!r} has row {part.ids[wrong]} at position {wrong}; expected "
                    f"ascending rows of node {owner}"
                )
            self.rows_received += part.ids.size if counts else 0
        return parts

    def _checked(self, parts: list[tuple[Store, Section]]) -> list[tuple[Store, Section]]:
        """Return `parts` if the values of all of them can be read: none is used before all were checked."""
        for table, part in parts:
            columns = columns_of(part.values, part.encoding, part.ids.size, part.kept)
            outside = columns is not None and (columns >= part.width).any()
            if part.encoding not in table.encodings or outside:
                raise RemoteProtocolError(
                    f"a batch for table {table.share.name!r} has values in encoding {part.encoding}; expected one of "
                    f"{table.encodings}, with columns below {part.width}"
                )
        return parts

    def _values(self, table: Store, part: Section) -> npt.NDArray[Any]:
        """Return the values of a section, shape (n, width); a view if they are as they are."""
        n, dtype = part.ids.size, table.values.dtype
        if part.encoding in (AS_IT_IS, OVERWRITE):
            return part.values.view(dtype).reshape(n, part.width)
        return expand(part.values, part.encoding, n, part.width, part.kept, dtype)
