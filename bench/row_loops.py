"""What `kernels.py` times inside a worker: adds and reads of rows that stay in the cache, in loops without Python.

Rows of table ``direct`` are claimed. Those of two tables of access mode ``exclusive`` are added to by compare-and-swap,
as rows without claims are, or by plain SIMD, which loses what others add at the same time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from nbps.kernels import TableKernel, get_rows, inc_rows
from nbps.kernels.relaxed import PACK_BYTES, add_pack_relaxed, add_relaxed

if TYPE_CHECKING:
    from nbps import Worker

ROWS, WIDTH = 64, 32
ZIPF_ROWS, ZIPF_BATCH = 3706, 4096  # the items of ml-1m
# 16 KiB of deltas and 8 KiB of table: both fit a first-level cache of 32 KiB.
BATCH = 128


@njit(nogil=True)
def repeat_inc(table, ids, deltas, times):
    """Call `inc_rows` `times` times."""
    for _ in range(times):
        inc_rows(table, ids, deltas)


@njit(nogil=True)
def repeat_get(table, ids, out, times):
    """Call `get_rows` `times` times."""
    for _ in range(times):
        get_rows(table, ids, out)


@njit(nogil=True)
def repeat_elements(table, ids, deltas, times):
    """Add the same with one atomic operation for each element."""
    for _ in range(times):
        for n in range(ids.size):
            row, delta = table.values[ids[n]], deltas[n]
            for j in range(row.size):
                add_relaxed(row, j, delta[j])


@njit(nogil=True)
def repeat_packs(table, ids, deltas, times):
    """Add the same by nothing but compare-and-swaps of packs; rows are aligned and a whole number of packs."""
    lanes = PACK_BYTES // table.values.itemsize
    for _ in range(times):
        for n in range(ids.size):
            row, delta = table.values[ids[n]], deltas[n]
            for j in range(0, row.size, lanes):
                add_pack_relaxed(row, j, delta, j)


@njit(nogil=True)
def repeat_plain(table, ids, deltas, times):
    """Add the same without atomic operations: what the machine can do at best."""
    for _ in range(times):
        for n in range(ids.size):
            row, delta = table.values[ids[n]], deltas[n]
            for j in range(row.size):
                row[j] += delta[j]


_LOOPS = {
    "inc": repeat_inc,
    "get": repeat_get,
    "elements": repeat_elements,
    "packs": repeat_packs,
    "plain": repeat_plain,
}


def table_kernel(worker: Worker, table: str) -> TableKernel:
    """Return what adds to a table: ``swapped`` is another one, whatever its access mode says."""
    kernel = worker.table(table).kernel
    return TableKernel(kernel.values, 1) if table == "swapped" else kernel


def ns_per_float(worker: Worker, table: str, loop: str, times: int) -> float:
    """Run one of the loops on a table and return nanoseconds for each float added or read.

    Every delta is 1, so that float sums are exact as long as they stay below 2**24. All workers start together.
    """
    kernel = table_kernel(worker, table)
    ids = np.random.default_rng(worker.rank).permutation(np.arange(BATCH) % ROWS)
    deltas = np.ones((BATCH, WIDTH), kernel.values.dtype)
    function = _LOOPS[loop]
    function(kernel, ids, deltas, 0)  # compiles on the first call in this process
    worker.barrier()
    start = time.perf_counter_ns()
    function(kernel, ids, deltas, times)
    return (time.perf_counter_ns() - start) / (times * BATCH * WIDTH)


def span(worker: Worker, table: str, times: int) -> tuple[float, float]:
    """Add ones to a batch of rows `times` times, together with all workers; return when it began and ended.

    Rows of a table of `ZIPF_ROWS` are used as items are, a few of them most, wherever they lie; of others all alike.
    """
    kernel, random = table_kernel(worker, table), np.random.default_rng(worker.rank)
    count = kernel.values.shape[0]
    shares = 1 / np.arange(1, count + 1) if count == ZIPF_ROWS else np.ones(count)
    ids = np.random.default_rng(0).permutation(count)[random.choice(count, ZIPF_BATCH, p=shares / shares.sum())]
    deltas = np.ones((ZIPF_BATCH, WIDTH), kernel.values.dtype)
    repeat_inc(kernel, ids, deltas, 0)
    worker.barrier()
    start = time.monotonic()  # the same clock in all processes: with more of them than cores they begin one by one
    repeat_inc(kernel, ids, deltas, times)
    return start, time.monotonic()


def pack_bytes(worker: Worker) -> int:
    """Return the width of the compare-and-swap in use, in bytes."""
    return PACK_BYTES
