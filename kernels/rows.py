"""Rows of a table: read, add and write, one or many, in the access mode of the table.

A `TableKernel` is what a kernel needs of a table. Its rows are read and written in place, in memory that other
processes use at the same time. `get_row` may see another worker's addition in some elements of a row and not yet in
others; no element is ever torn. `inc_row` loses no update in ``direct`` mode (`atomic` is 1); in the other modes the
memory is private or has one writer, and the addition runs at SIMD speed. A `clock` publishes additions; until
then others may or may not see them.

Row numbers are not checked here: an id out of range reads or destroys other memory. `first_bad_id` checks many at once.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba.core.errors import TypingError
from numba.core.types import NoneType
from numba.extending import overload

from .atomics import address, store_release
from .claim_layout import has_claims
from .claims import AHEAD, Aside, Claimed, add, entry_of, fetch_ahead, retry
from .jit import Request, kernel
from .places import element, hold, place_of, stride_of
from .relaxed import PACK_BYTES, add_pack_relaxed, add_relaxed, pack_lanes

NOBODY_LOOKS = np.zeros(0, np.uint8)


class TableKernel(NamedTuple):
    """A table as kernels see it.

    Attributes
    ----------
    values : ndarray, shape (rows, width), C-contiguous
        The shared rows (``direct``, ``exclusive``) or this worker's own copy (``cached``). Read-only where rows are
        claimed, which the compiler knows: nothing else may change such a row. Such rows are read by `get_row`: `values`
        may lack what this worker has put aside for a moment.
    atomic : int
        1 where additions must not lose those of other workers, else 0.
    dirty : ndarray, uint8[rows] or uint8[0]
        Marks of changed rows, which an agent sends to other nodes; empty where nobody looks for them.
    claimed : nbps.kernels.claims.Claimed or None
        With what rows are claimed, where they are.
    """

    values: np.ndarray
    atomic: int
    dirty: np.ndarray = NOBODY_LOOKS
    claimed: Claimed | None = None


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


@kernel(early=True)
def _add_in_place(table, row, delta):
    target = table.values[row]
    if table.atomic:
        add_row_lossless(target, delta)
    else:
        for j in range(target.size):
            target[j] += delta[j]
    mark_row(table.dirty, row)


@kernel(early=True)
def _add_claimed(table, row, delta):
    add(table.claimed, row, place_of(delta), 0, stride_of(delta), table.values.dtype.type(0))
    hold(delta)


@kernel(early=True)
def _add_aside(table, row, out):
    """Add what this worker has put aside for a row to `out`."""
    k = entry_of(table.claimed, np.int64(row))
    if k >= 0:
        zero = table.values.dtype.type(0)
        for j in range(table.claimed.width):
            out[j] += element(table.claimed.deltas, k * table.claimed.width + j, zero)


@kernel(early=True)
def _inc_claimed_rows(table, ids, deltas):
    zero = table.values.dtype.type(0)
    for n in range(ids.size):
        if n + AHEAD < ids.size:
            fetch_ahead(table.claimed, ids[n + AHEAD], zero)
        _add_claimed(table, ids[n], deltas[n])


@kernel(early=True)
def _inc_rows_in_place(table, ids, deltas):
    for n in range(ids.size):
        _add_in_place(table, ids[n], deltas[n])


# Which of two, the compiler decides: a table without claims is of another type.


def _inc(table, row, delta):
    return (_add_in_place if table.claimed is None else _add_claimed)(table, row, delta)


def _inc_many(table, ids, deltas):
    return (_inc_rows_in_place if table.claimed is None else _inc_claimed_rows)(table, ids, deltas)


def _see_own(table, row, out):
    if table.claimed is not None:
        _add_aside(table, row, out)


def is_claimed(table) -> bool:
    """Tell of the type of a table whether its rows are claimed."""
    values, claimed = (table.types[table.fields.index(field)] for field in ("values", "claimed"))
    if values.mutable and not isinstance(claimed, NoneType):
        raise TypingError("a table has claims, and values that can be written to: make the values read-only")
    return not isinstance(claimed, NoneType)


def _has_claims(table, deltas) -> bool:
    values = table.types[table.fields.index("values")]
    if is_claimed(table) and values.dtype != deltas.dtype:
        raise TypingError(
            f"the deltas are {deltas.dtype}, the rows they go to {values.dtype}: make them {values.dtype}"
        )
    return is_claimed(table)


@overload(_inc, inline="always")
def _(table, row, delta):
    if _has_claims(table, delta):
        return lambda table, row, delta: _add_claimed(table, row, delta)
    return lambda table, row, delta: _add_in_place(table, row, delta)


@overload(_inc_many, inline="always")
def _(table, ids, deltas):
    if _has_claims(table, deltas):
        return lambda table, ids, deltas: _inc_claimed_rows(table, ids, deltas)
    return lambda table, ids, deltas: _inc_rows_in_place(table, ids, deltas)


@overload(_see_own, inline="always")
def _(table, row, out):
    if is_claimed(table):
        return lambda table, row, out: _add_aside(table, row, out)
    return lambda table, row, out: None


@kernel(early=True)
def get_row(table, row, out):
    """Copy row `row` of `table` into `out`, shape (width,)."""
    source = table.values[row]
    for j in range(source.size):
        out[j] = source[j]
    _see_own(table, row, out)


@kernel(early=True)
def inc_row(table, row, delta):
    """Add `delta`, shape (width,) and of the table's dtype, to row `row` of `table`."""
    _inc(table, row, delta)


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
    _inc_many(table, ids, deltas)


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


def table_like(width: int, dtype: npt.DTypeLike = "float32", access: str = "direct") -> TableKernel:
    """Return a table of one row of zeros, of the types that the kernel of such a table of a job has.

    For compiling functions of one's own before the workers start, ``Job(preload=...)``: call them on no rows, or on
    row 0. Tables of the same kind are the same one, which keeps what is added to it.
    """
    name = np.dtype(dtype).name
    return example_table(name, access == "direct" and has_claims(name, width), access == "direct", width)


def example_table(dtype: str, is_claimed: bool, is_atomic: bool = True, width: int = 2) -> TableKernel:
    """Return a table of one row, claimed or not."""
    if not is_claimed:
        return TableKernel(np.zeros((1, width), dtype), int(is_atomic))
    return _claimed_example(dtype, width)[0]


@functools.cache
def _claimed_example(dtype: str, width: int) -> tuple[TableKernel, Aside]:
    """Return a table of one claimed row, and its memory, which is kept: the table holds addresses only."""
    values = np.zeros((1, width), dtype)
    aside = Aside(values, np.zeros(1, np.uint8), NOBODY_LOOKS, source=0, capacity=1)
    return claimed_table(values, NOBODY_LOOKS, aside), aside


def claimed_table(values: npt.NDArray[Any], dirty: npt.NDArray[np.uint8], aside: Aside) -> TableKernel:
    """Return a table of shared rows that are claimed; `aside` is to be kept as long as it is used."""
    shown = values.view()
    shown.flags.writeable = False
    return TableKernel(shown, 1, dirty, aside.claimed)


def requests(dtype: str, access: str, is_claimed: bool, check_finite: bool) -> list[Request]:
    """Kernels that a table uses when called from Python."""
    is_atomic = access == "direct"
    table, ids = example_table(dtype, is_claimed and is_atomic, is_atomic), np.zeros(0, np.int64)
    deltas = np.zeros((0, 2), dtype)
    found: list[Request] = [
        (first_bad_id, (ids, 2)),
        (get_rows, (table, ids, deltas)),
        (inc_rows, (table, ids, deltas)),
        (mark_rows, (table, 0, 0)),
    ]
    if table.claimed is not None:
        found.append((retry, (table.claimed, deltas.dtype.type(0))))
    if check_finite:
        found.append((first_not_finite, (deltas,)))
    if access == "exclusive":
        found.append((put_rows, (table, ids, deltas)))
    return found
