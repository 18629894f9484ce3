"""The rows of a simulated node as whole arrays, in compiled code: `nbps.sim.memory` for hundreds of workers.

The same operations with the same results to the bit, without pauses between rows: nobody comes in the middle. Rows are
not sparse, so all are readable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from nbps.sim.memory import SimCopy, SimMemory

Floats = npt.NDArray[np.float32]


class Rows:
    """A batch: rows `index`, shape (n,), and their values or additions, shape (n, width). Never changed."""

    __slots__ = ("index", "values")

    def __init__(self, index: npt.NDArray[np.int64], values: Floats) -> None:
        self.index = index
        self.values = values

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.index.size

    def __getitem__(self, place: int) -> tuple[int, Floats]:
        """Return a row and its values, as a batch of `SimMemory` has them; for its size on the network."""
        return int(self.index[place]), self.values[place]


class ArrayMemory(SimMemory):
    """`SimMemory` with arrays for marks, versions and batches."""

    def __init__(
        self, rank: int, initial: Floats, nodes: int, sparse: bool, pause: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(rank, initial, nodes, False, pause)
        self.marked = np.zeros(len(initial), np.uint8)
        self.version = np.zeros(self.shard_rows, np.int64)
        self.given = np.zeros((nodes, self.shard_rows), np.int64)
        self._index = np.empty(self.shard_rows, np.int64)
        self._values = np.empty((self.shard_rows, initial.shape[1]), initial.dtype)
        self._own = np.zeros_like(self._values)  # additions that a ship does not contain; zeros between two calls

    def private_copy(self) -> ArrayCopy:
        """Return a worker's copy."""
        return ArrayCopy(self)

    def _packed(self, count: int) -> Rows | None:
        return Rows(self._index[:count].copy(), self._values[:count].copy()) if count else None

    def collect(self, owner: int, exact: bool = True) -> Rows | None:
        """Take what local workers added to replica rows."""
        first = owner * self.shard_rows
        return self._packed(_collect(self.values, self.base, self.marked, first, self._index, self._values))

    def bytes_of(self, rows: Rows) -> int:
        """Return how much memory a batch takes."""
        return rows.index.nbytes + rows.values.nbytes

    def apply(self, source: int, rows: Rows) -> None:
        """Add a batch of another node to owned rows; who sent it has them."""
        given = self.given[source]
        own = rows.index - self.owned.start
        up_to_date = own[given[own] == self.version[own]]
        _apply(self.values, self.version, self.owned.start, rows.index, rows.values)
        given[up_to_date] = self.version[up_to_date]

    def gather(self, subscriber: int, everything: bool = False) -> Rows | None:
        """Take the values of rows that changed since `subscriber` was given them."""
        given, first = self.given[subscriber], self.owned.start
        return self._packed(_gather(self.values, self.marked, self.version, given, first, self._index, self._values))

    def install(self, owner: int, rows: Rows, unapplied: Sequence[Rows | None], answered: int) -> None:
        """Take in values of the owner, as `SimMemory.install` does."""
        first = owner * self.shard_rows
        for batch in unapplied:
            if batch is not None:
                _add(self._own, first, batch.index, batch.values)
        _install(self.values, self.base, first, rows.index, rows.values, self._own)
        if unapplied:
            self._own[:] = 0


class ArrayCopy(SimCopy):
    """`SimCopy`, whose arrays stay the same ones."""

    parent: ArrayMemory

    def flush(self) -> float:
        """Send the deltas to the parent; return the largest absolute value sent."""
        return float(_flush(self.values, self.base, self.parent.values, self.parent.marked))

    def refresh(self) -> None:
        """Take in the parent, keeping what was not sent."""
        _refresh(self.values, self.base, self.parent.values)


@njit(cache=True)
def _collect(values: Any, base: Any, marked: Any, first: int, index: Any, delta: Any) -> int:
    count = 0
    for row in range(first, first + index.size):
        if marked[row]:
            marked[row] = 0
            changed = False
            for k in range(values.shape[1]):
                delta[count, k] = values[row, k] - base[row, k]
                changed |= delta[count, k] != 0
            if changed:
                for k in range(values.shape[1]):
                    base[row, k] += delta[count, k]
                index[count] = row
                count += 1
    return count


@njit(cache=True)
def _apply(values: Any, version: Any, first: int, index: Any, delta: Any) -> None:
    for n in range(index.size):
        version[index[n] - first] += 1
        for k in range(values.shape[1]):
            values[index[n], k] += delta[n, k]


@njit(cache=True)
def _gather(values: Any, marked: Any, version: Any, given: Any, first: int, index: Any, out: Any) -> int:
    count = 0
    for n in range(version.size):
        if marked[first + n]:
            marked[first + n] = 0
            version[n] += 1
        if given[n] < version[n]:
            given[n] = version[n]
            index[count] = first + n
            for k in range(values.shape[1]):
                out[count, k] = values[first + n, k]
            count += 1
    return count


@njit(cache=True)
def _add(own: Any, first: int, index: Any, delta: Any) -> None:
    for n in range(index.size):
        for k in range(own.shape[1]):
            own[index[n] - first, k] += delta[n, k]


@njit(cache=True)
def _install(values: Any, base: Any, first: int, index: Any, new: Any, own: Any) -> None:
    for n in range(index.size):
        row = index[n]
        for k in range(values.shape[1]):
            value = new[n, k] + own[row - first, k]
            # To the bit the owner's where nothing is unsent.
            if values[row, k] == base[row, k]:
                values[row, k] = value
            else:
                values[row, k] += value - base[row, k]
            base[row, k] = value


@njit(cache=True)
def _flush(values: Any, base: Any, shared: Any, marked: Any) -> float:
    norm = np.float32(0)
    for row in range(values.shape[0]):
        changed = False
        for k in range(values.shape[1]):
            changed |= values[row, k] != base[row, k]
        if changed:
            marked[row] = 1
            for k in range(values.shape[1]):
                delta = values[row, k] - base[row, k]
                base[row, k] += delta
                shared[row, k] += delta
                norm = max(norm, abs(delta))
    return norm


@njit(cache=True)
def _refresh(values: Any, base: Any, shared: Any) -> None:
    for row in range(values.shape[0]):
        for k in range(values.shape[1]):
            seen = shared[row, k]
            if values[row, k] == base[row, k]:
                values[row, k] = seen
            else:
                values[row, k] += seen - base[row, k]
            base[row, k] = seen
