"""The rows of a simulated node, and the private copies of its workers.

Meant to be read beside `nbps.core.memory`: the same rules as in shared memory, one row at a time, without speed.
Between two accesses of one operation, where on a real machine another process may come in, `pause` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Row = npt.NDArray[Any]
Batch = list[tuple[int, Row]]


def _nothing() -> None:
    pass


class SimMemory:
    """The rows of node `rank`: all `values`, of which it owns `shard_rows` from ``rank * shard_rows`` on.

    Attributes
    ----------
    values : ndarray, shape (rows, width)
        What workers of this node read and add to.
    base : ndarray, shape (rows, width)
        What of a replica row the owner sent, or knows from this node's batches.
    marked : bytearray
        1 for rows that local workers added to and nobody has collected.
    version : list of int
        For each owned row a number that rises when it changes.
    given : list of list of int or None
        Version of each owned row that each node was given last; -1 for none yet, None where it does not want the row.
    awaited : dict
        Replica rows that cannot be read before this request is answered.
    absent : set
        Replica rows that nobody keeps fresh.
    copied : dict
        Owned rows as they are now, copied to be sent; one copy is for all nodes.
    """

    def __init__(
        self,
        rank: int,
        initial: npt.NDArray[Any],
        nodes: int,
        sparse: bool,
        pause: Callable[[], None] = _nothing,
    ) -> None:
        self.rank = rank
        self.values = initial.copy()
        self.base = initial.copy()
        self.nodes = nodes
        self._row_bytes = int(initial[0].nbytes)
        self._exact = initial.dtype.kind == "i"  # sums of whole numbers do not depend on their order
        self.shard_rows = len(initial) // nodes
        self.owned = self.rows_of(rank)
        self.marked = bytearray(len(initial))
        self.version = [0] * self.shard_rows
        self.given: list[list[int | None]] = [[None if sparse else 0] * self.shard_rows for _ in range(nodes)]
        self.awaited: dict[int, int] = {}
        self.absent = {row for row in range(len(initial)) if row not in self.owned} if sparse else set()
        self.copied: dict[int, Row] = {}
        self.pause = pause

    def rows_of(self, owner: int) -> range:
        """Rows that node `owner` owns."""
        return range(owner * self.shard_rows, (owner + 1) * self.shard_rows)

    def owner_of(self, row: int) -> int:
        """Node that owns `row`."""
        return row // self.shard_rows

    def readable(self, row: int) -> bool:
        """Whether `row` is kept fresh here."""
        return row not in self.absent

    def add(self, row: int, delta: Row) -> None:
        """Add to a row, as a worker does: first the addition, then the mark."""
        values = self.values[row]
        values += delta
        self.copied.pop(row, None)
        self.pause()
        self.marked[row] = 1

    def private_copy(self) -> SimCopy:
        """Return a worker's copy of all rows, as they are now."""
        return SimCopy(self)

    # ----------------------------------------------------------------- what the core calls

    def collect(self, owner: int, exact: bool = True) -> Batch | None:
        """Take what local workers added to replica rows."""
        batch = []
        for row in self.rows_of(owner):
            if self.marked[row]:
                self.marked[row] = 0
                self.pause()
                base = self.base[row]
                delta = self.values[row] - base
                if np.count_nonzero(delta):
                    base += delta
                    batch.append((row, delta))
        return batch or None

    def important(self, owner: int, bytes_limit: int) -> Batch | None:
        """Take the largest deltas of replica rows."""
        marked = [row for row in self.rows_of(owner) if self.marked[row]]
        marked.sort(key=lambda row: -float(np.abs(self.values[row] - self.base[row]).max()))
        chosen = set(marked[: max(1, bytes_limit // self.values[0].nbytes)])
        kept = [row for row in marked if row not in chosen]
        for row in kept:
            self.marked[row] = 0
        batch = self.collect(owner)
        for row in kept:
            self.marked[row] = 1
        return batch

    def bytes_of(self, rows: Batch) -> int:
        """Return how much memory a batch takes."""
        return len(rows) * self._row_bytes

    def check(self, rows: Batch) -> None:
        """Take any batch: simulated nodes send none that cannot be used."""

    def apply(self, source: int, rows: Batch) -> None:
        """Add a batch of another node to owned rows."""
        given, version = self.given[source], self.version
        for row, delta in rows:
            values, n = self.values[row], row - self.owned.start
            values += delta
            self.copied.pop(row, None)
            if given[n] == version[n]:
                given[n] = version[n] + 1  # it has its own addition
            version[n] += 1
            self.pause()

    def gather(self, subscriber: int, everything: bool = False) -> Batch | None:
        """Take the values of rows that changed since `subscriber` was given them."""
        first, marked = self.owned.start, self.marked
        for row in self.owned:
            if marked[row]:
                marked[row] = 0
                self.version[row - first] += 1
        self.pause()
        given, batch = self.given[subscriber], []
        for n, version in enumerate(self.version):
            last = -1 if everything and given[n] is None else given[n]
            if last is not None and last < version:
                given[n] = version
                batch.append((first + n, self._copy(first + n)))
        return batch or None

    def _copy(self, row: int) -> Row:
        """Return a copy of an owned row as it is now."""
        copied = self.copied.get(row)
        if copied is None:
            copied = self.copied[row] = self.values[row].copy()
        return copied

    def install(self, owner: int, rows: Batch, unapplied: Sequence[Batch], answered: int) -> None:
        """Take in values of the owner: ``base' = value + unapplied; values += base' - base; base = base'``."""
        own: dict[int, Row] = {}
        for batch in unapplied:
            for row, delta in batch:
                own[row] = own[row] + delta if row in own else delta
        for row, value in rows:
            base = value + own[row] if row in own else value
            mine, known = self.values[row], self.base[row]
            if self._exact:
                mine += base - known
            else:  # to the bit the owner's where nothing is unsent, as in the kernel `refresh`
                mine[:] = np.where(mine == known, base, mine + (base - known))
            known[:] = base
            if self.awaited.get(row, answered + 1) <= answered:
                del self.awaited[row]
                self.absent.discard(row)
            self.pause()

    def want(self, owner: int, rows: Sequence[int], request: int) -> None:
        """Make rows readable when `request` is answered."""
        for row in rows:
            self.awaited[row] = request

    def forget(self, rows: Sequence[int]) -> None:
        """Stop reading rows: they are not kept fresh any more."""
        for row in rows:
            self.absent.add(row)
            self.awaited.pop(row, None)

    def subscribe(self, subscriber: int, rows: Sequence[int]) -> None:
        """Give `subscriber` these rows from now on."""
        for row in rows:
            self.given[subscriber][row - self.owned.start] = -1

    def unsubscribe(self, subscriber: int, rows: Sequence[int]) -> None:
        """Stop that."""
        for row in rows:
            self.given[subscriber][row - self.owned.start] = None

    def copy_owned(self) -> Row:
        """Return a copy of the owned rows."""
        copied: Row = self.values[self.owned.start : self.owned.stop].copy()
        return copied


class SimCopy:
    """A worker's private copy of all rows (access mode ``cached``)."""

    def __init__(self, parent: SimMemory) -> None:
        self.parent = parent
        self.values = parent.values.copy()
        self.base = parent.values.copy()

    def add(self, row: int, delta: Row) -> None:
        """Add to the copy."""
        self.values[row] += delta

    def flush(self) -> float:
        """Send the deltas to the parent; return the largest absolute value sent."""
        delta = self.values - self.base
        rows = np.flatnonzero(delta.any(axis=1))
        for row in rows:
            self.base[row] += delta[row]
            self.parent.add(int(row), delta[row])
        return float(np.abs(delta).max()) if rows.size else 0.0

    def refresh(self) -> None:
        """Take in the parent, keeping what was not sent."""
        seen = self.parent.values
        self.values = np.where(self.values == self.base, seen, self.values + (seen - self.base))
        self.base = seen.copy()
