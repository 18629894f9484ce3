"""Columns of ratings, gone through part by part: temporary arrays of 8 bytes a rating would be most of the memory."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nbps.buffers import numbers

Task = TypeVar("Task")
_PART = 1 << 18  # whose temporary arrays, of 2 MiB, the allocator keeps for the next part
_CACHED_PART = 1 << 16  # whose temporary arrays, of 512 KiB, stay in a core's cache: threads need not share a bus


def parts(size: int, least: int = 0) -> Iterator[slice]:
    """Cut `size` entries into parts to go through, of not less than `least`."""
    step = max(least, _PART)
    return (slice(first, first + step) for first in range(0, size, step))


def on_all_cores(work: Callable[[Task], object], tasks: Iterable[Task]) -> None:
    """Call `work` with each task, in threads: for what NumPy and Arrow do without Python's lock.

    A task is let go of when it is done. Arrow's number of threads is used.
    """
    left = deque(tasks)

    def work_off() -> None:
        while True:
            try:
                task = left.popleft()
            except IndexError:
                return
            work(task)

    threads = min(pa.cpu_count(), len(left))
    if threads < 2:
        work_off()
        return
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work_off) for _ in range(threads)]:
            future.result()


def added_up(value_of: Callable[[slice], Any], size: int, least: int = 0) -> Any:
    """Return the sum of what `value_of` gives for parts of `size` entries: in the order of the parts."""
    threads, total, left = pa.cpu_count(), 0, parts(size, least)
    with ThreadPoolExecutor(threads) as pool:
        while some := list(itertools.islice(left, threads)):
            for value in pool.map(value_of, some):
                total = total + value
    return total


def cached_parts(size: int) -> Iterator[slice]:
    """Cut `size` entries into parts to go through `on_all_cores`."""
    step = min(_CACHED_PART, _PART)
    return (slice(first, first + step) for first in range(0, size, step))


def in_parts(column: pa.ChunkedArray) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """Go through the numbers of a column without nulls: where each part is in it, and its numbers."""
    start = 0
    for chunk in column.chunks:
        whole = numbers(chunk)
        for part in cached_parts(whole.size):
            found = whole[part]
            yield slice(start, start + found.size), found
            start += found.size


def flat(column: pa.ChunkedArray, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the numbers of a column without nulls as one new array."""
    out = np.empty(len(column), dtype)
    for part, found in in_parts(column):
        out[part] = found
    return out


def own_memory(column: pa.ChunkedArray) -> npt.NDArray[Any] | None:
    """Return the numbers of a column of 4 bytes each, writable over its memory, if it is one array that can be written.

    A file that is mapped, or given by somebody who keeps it, cannot.
    """
    if column.num_chunks != 1 or column.type.bit_width != 32:
        return None
    found = numbers(column.chunk(0))
    return found if found.flags.writeable else None


def release_unused() -> None:
    """Have Arrow give back the memory that it keeps for its next arrays: after reading, as much as the ratings take."""
    pa.default_memory_pool().release_unused()
