"""Columns of ratings, gone through part by part: temporary arrays of 8 bytes a rating would be most of the memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nbps.buffers import numbers

_PART = 1 << 20


def parts(size: int, least: int = 0) -> Iterator[slice]:
    """Cut `size` entries into parts to go through, of not less than `least`."""
    step = max(least, _PART)
    return (slice(first, first + step) for first in range(0, size, step))


def in_parts(column: pa.ChunkedArray) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """Go through the numbers of a column without nulls: where each part is in it, and its numbers."""
    start = 0
    for chunk in column.chunks:
        whole = numbers(chunk)
        for part in parts(whole.size):
            found = whole[part]
            yield slice(start, start + found.size), found
            start += found.size


def flat(column: pa.ChunkedArray, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the numbers of a column without nulls as one new array."""
    out = np.empty(len(column), dtype)
    for part, found in in_parts(column):
        out[part] = found
    return out


def release_unused() -> None:
    """Have Arrow give back the memory that it keeps for its next arrays: after reading, as much as the ratings take."""
    pa.default_memory_pool().release_unused()
