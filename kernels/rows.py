"""Rows of a table: read, add and write, one or many, in the access mode of the table.

A `TableKernel` is what a kernel needs of a table. Its rows are read and written in place, in memory that other
processes use at the same time. `get_row` may see another worker's addition in some elements of a row and not yet in
others; no element is ever torn. `inc_row` loses no update in ``direct`` mode (`atomic` is 1); in the other modes the
memory is private or has one writer, and the addition runs at SIMD speed. A `clock` publishes additions; until
then others may or may not see them.

Row numbers are not checked here: an id out of range reads or destroys other memory. `first_bad_id` checks many at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .atomics import address, store_release
from .jit import Request, kernel
from .relaxed import PACK_BYTES, add_pack_relaxed, add_relaxed, pack_lanes

NOBODY_LOOKS = np.zeros(0, np.uint8)


class TableKernel(NamedTuple):
    """A table as kernels see it.

    Attributes
    ----------
    values : ndarray, shape (rows, width), C-contiguous
        The shared rows (``direct``, ``exclusive``) or this worker's own copy (``cached``).
    atomic : int
        1 where additions must not lose those of other workers, else 0.
    dirty : ndarray, uint8[rows] or uint8[0]
        Marks of changed rows, which an agent sends to other nodes; empty where nobody looks for them.
    """

    values: np.ndarray
    atomic: int
    dirty: np.ndarray = NOBODY_LOOKS


@kernel(inline=True)
def mark_row(dirty, row):
    """Mark row `row` as changed, after it was: the agent, which clears a mark, reads the row afterwards."""
    if dirty.size > 0:
        store_release(dirty, row, 1)


@kernel
def mark_rows(table, first, last):
    """Mark rows `first` to `last` - 1 of `table` as changed, after kernels of one's own wrote to them."""
    for row in range(first, last if table.dirty.size > 0 else first):
        store_release(table.dirty, row, 1)


@kernel(inline=True)
def add_row_lossless(row, delta):
    """Add `delta` to `row` without losing what others add at the same time.

    Both have shape (width,) and one dtype. The bulk goes in packs of `PACK_BYTES`; a head and a tail that fill none
    go element by element.
    """
    lanes = pack_lanes(row)
    head = min(row.size, (-address(row, 0) & (PACK_BYTES - 1)) // (PACK_BYTES // lanes))
    for j in range(head):
        add_relaxed(row, j, delta[j])
    tail = head + (row.size - head) // lanes * lanes
    for j in range(head, tail, lanes):
        add_pack_relaxed(row, j, delta, j)
    for j in range(tail, row.size):
        add_relaxed(row, j, delta[j])


@kernel(inline=True)
def get_row(table, row, out):
    """Copy row `row` of `table` into `out`, shape (width,)."""
    source = table.values[row]
    for j in range(source.size):
        out[j] = source[j]


@kernel(inline=True)
def inc_row(table, row, delta):
    """Add `delta`, shape (width,) and of the table's dtype, to row `row` of `table`."""
    target = table.values[row]
    if table.atomic:
        add_row_lossless(target, delta)
    else:
        for j in range(target.size):
            target[j] += delta[j]
    mark_row(table.dirty, row)


@kernel(inline=True)
def put_row(table, row, source):
    """Overwrite row `row` of `table` with `source`, shape (width,); only its one writer may do so."""
    target = table.values[row]
    for j in range(target.size):
        target[j] = source[j]
    mark_row(table.dirty, row)


@kernel
def get_rows(table, ids, out):
    """Copy row ``ids[n]`` of `table` into ``out[n]`` for every n."""
    for n in range(ids.size):
        get_row(table, ids[n], out[n])


@kernel
def inc_rows(table, ids, deltas):
    """Add ``deltas[n]`` to row ``ids[n]`` of `table` for every n; ids that occur twice accumulate."""
    for n in range(ids.size):
        inc_row(table, ids[n], deltas[n])


@kernel
def put_rows(table, ids, source):
    """Overwrite row ``ids[n]`` of `table` with ``source[n]`` for every n; the last of equal ids stays."""
    for n in range(ids.size):
        put_row(table, ids[n], source[n])


@kernel
def first_bad_id(ids, rows):
    """Return the position of the first id outside ``0 <= id < rows``, or -1."""
    for n in range(ids.size):
        if ids[n] < 0 or ids[n] >= rows:
            return n
    return -1


@kernel
def first_not_finite(deltas):
    """Return the flat position of the first NaN or infinity in `deltas`, shape (n, width), or -1."""
    flat = deltas.reshape(deltas.size)
    for n in range(flat.size):
        if not np.isfinite(flat[n]):
            return n
    return -1


def requests(dtype: str, access: str, check_finite: bool) -> list[Request]:
    """Kernels that a table uses when called from Python."""
    values, deltas, ids = np.zeros((2, 4), dtype), np.zeros((1, 4), dtype), np.zeros(1, np.int64)
    table = TableKernel(values, 0)
    found: list[Request] = [
        (first_bad_id, (ids, 2)),
        (get_rows, (table, ids, deltas)),
        (inc_rows, (table, ids, deltas)),
        (mark_rows, (table, 0, 0)),
    ]
    if check_finite:
        found.append((first_not_finite, (deltas,)))
    if access == "exclusive":
        found.append((put_rows, (table, ids, deltas)))
    return found
