"""The topics of a document as a list of entries: a topic in the upper half of each, its count in the lower.

An entry is uint32, or uint64 where topics or counts need more than 16 bits; no entry has count 0. Document d has
``list_sizes[d]`` of them, from ``list_starts[d]`` on; zeros follow, up to a multiple of `LANES`, so that sums over the
list have no rest.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from ..jit import Request, kernel


def half(lists):
    """Return half the number of bits of an entry, as an entry."""
    return lists.dtype.type(lists.dtype.itemsize * 4)


@overload(half, inline="always")
def _(lists):
    if lists.dtype == types.uint32:
        return lambda lists: np.uint32(16)
    return lambda lists: np.uint64(32)


def entry(lists, topic, count):
    """Return the entry of a topic and its count."""
    kind = lists.dtype.type
    return kind(topic) << half(lists) | kind(count)


@overload(entry, inline="always")
def _(lists, topic, count):
    if lists.dtype == types.uint32:
        return lambda lists, topic, count: np.uint32(np.uint32(topic) << np.uint32(16) | np.uint32(count))
    return lambda lists, topic, count: np.uint64(topic) << np.uint64(32) | np.uint64(count)


def count_of(entry):
    """Return the count of an entry, as int32: it converts to float32 faster than unsigned integers do."""
    return np.int32(entry & type(entry)((1 << entry.dtype.itemsize * 4) - 1))


@overload(count_of, inline="always")
def _(entry):
    if entry == types.uint32:
        return lambda entry: np.int32(entry & np.uint32(0xFFFF))
    return lambda entry: np.int32(entry & np.uint64(0xFFFFFFFF))


def topic_of(entry):
    """Return the topic of an entry, unsigned: no check for indices from the end."""
    return entry >> type(entry)(entry.dtype.itemsize * 4)


@overload(topic_of, inline="always")
def _(entry):
    if entry == types.uint32:
        return lambda entry: entry >> np.uint32(16)
    return lambda entry: entry >> np.uint64(32)


@kernel(inline=True)
def write_list(lists, start, dense, touched, count):
    """Write the list of a document from its counts by topic, which are cleared; return how many entries it has.

    Parameters
    ----------
    lists : uint32[m] or uint64[m]
    start : int
        Where the list begins; zeros there.
    dense : int32[topics]
        Counts.
    touched : int32[n]
        The first `count` are the topics with counts.
    count : int
    """
    for j in range(count):
        topic = touched[j]
        lists[start + j] = entry(lists, topic, dense[topic])
        dense[topic] = 0
    return count


@kernel(inline=True)
def _turned(lists, j):
    """Return an entry with its count in the upper half."""
    return entry(lists, count_of(lists[j]), topic_of(lists[j]))


@kernel
def sort_lists(list_starts, list_sizes, lists):
    """Sort the entries of each document by falling counts, and those of one count by falling topics.

    The order then follows from the tokens' topics alone, and draws find most of what they look for soon.
    """
    for d in range(list_sizes.size):
        first = list_starts[d]
        for j in range(first + 1, first + list_sizes[d]):
            each, key = lists[j], _turned(lists, j)
            i = j
            while i > first and _turned(lists, i - 1) < key:
                lists[i] = lists[i - 1]
                i -= 1
            lists[i] = each


def requests(wide: bool) -> list[Request]:
    """Kernels of lists, with entries of 64 bits if `wide`."""
    return [(sort_lists, (np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.uint64 if wide else np.uint32)))]
