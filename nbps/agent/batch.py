"""Batches of rows as they travel: the `Rows` of the protocol core, one piece of memory for all tables.

All numbers are little-endian int64. A batch begins with the number of its sections, then has seven numbers for each
section: table, encoding, rows n, width, kept, where its ids begin, and where its values begin, in bytes from the
batch's start, one section after the other. Ids are int64[n], ascending, each once; values are [n, width] of the table's
dtype, and both begin at multiples of 64 bytes: they are buffers of an Arrow array of fixed-size lists as they are.
Additions may be in another encoding: rounded to 16 bits, or `kept` elements of each row, as uint32[n, kept] columns and
then their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nbps.agent.encodings import AS_IT_IS, LARGEST, ONLY_IDS, OVERWRITE, Bytes, largest_columns_bytes
from nbps.errors import RemoteProtocolError

Ids = npt.NDArray[np.int64]

_ALIGNMENT = 64
_WORDS = 7  # of a section in the head
_SECTIONS_LIMIT = 1 << 12


class Shape(NamedTuple):
    """What a section is made for: `rows` rows at most of `width` values of `itemsize` bytes, or `kept` of them."""

    table: int
    encoding: int
    rows: int
    width: int
    itemsize: int
    kept: int = 0


class Section(NamedTuple):
    """Rows of one table in a batch; `values` are the bytes of the values."""

    table: int
    encoding: int
    width: int
    kept: int
    ids: Ids
    values: Bytes


def _aligned(offset: int) -> int:
    return (offset + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT


def _places(shapes: Sequence[Shape]) -> tuple[list[tuple[int, int, int]], int]:
    """Return for each section where its ids and its values begin and how long these are; and where all ends."""
    end, places = _aligned(8 + 8 * _WORDS * len(shapes)), []
    for shape in shapes:
        ids, size = end, values_bytes(shape)
        values = _aligned(ids + 8 * shape.rows)
        places.append((ids, values, size))
        end = _aligned(values + size)
    return places, end


def batch_limit(shapes: Sequence[Shape]) -> int:
    """Return the greatest size of a batch with these sections, in bytes."""
    return _places(shapes)[1]


def values_bytes(shape: Shape) -> int:
    """Return the bytes of the values of a section."""
    encoding, rows = shape.encoding, shape.rows
    if encoding in (AS_IT_IS, OVERWRITE):
        return rows * shape.width * shape.itemsize
    if encoding == LARGEST:
        return largest_columns_bytes(rows, shape.kept) + rows * shape.kept * shape.itemsize
    return 0 if encoding == ONLY_IDS else 2 * rows * shape.width


def new_batch(shapes: Sequence[Shape]) -> tuple[Bytes, list[Section]]:
    """Make a batch with room for these sections; the caller fills them, and `cut` says how many rows came."""
    places, end = _places(shapes)
    batch = np.empty(end, np.uint8)
    head, sections = [len(shapes)], []
    for (table, encoding, rows, width, _, kept), (ids, values, size) in zip(shapes, places, strict=True):
        head += (table, encoding, rows, width, kept, ids, values)
        own = batch[ids : ids + 8 * rows].view(np.int64)
        sections.append(Section(table, encoding, width, kept, own, batch[values : values + size]))
    batch[: 8 * len(head)].view(np.int64)[:] = head
    return batch, sections


def cut(batch: Bytes, counts: Sequence[int]) -> Bytes | None:
    """Say that only so many rows of each section of a new batch were filled; None if none was."""
    if not any(counts):
        return None
    head = batch[: 8 + 8 * _WORDS * len(counts)].view(np.int64)
    last = 1 + (len(counts) - 1) * _WORDS
    if head[last + 2] > 0:  # the batch ends where the last section now does
        row = (batch.size - int(head[last + 6])) // int(head[last + 2])
        batch = batch[: int(head[last + 6]) + counts[-1] * row]
    head[3::_WORDS] = counts
    return batch


def sections(batch: Bytes, itemsizes: Sequence[int], widths: Sequence[int]) -> list[Section]:
    """Return the sections of a batch, views into it.

    Parameters
    ----------
    itemsizes, widths : sequence of int
        Of each table.

    Raises
    ------
    RemoteProtocolError
        If it is not a batch, or names a table that does not exist or is not as wide. Whose the ids are is not checked
        here.
    """
    if batch.size < 8:
        raise RemoteProtocolError(f"a batch of {batch.size} bytes; expected 8 or more")
    count = int(batch[:8].view(np.int64)[0])
    start = 8 + 8 * _WORDS * count
    if not 0 <= count <= _SECTIONS_LIMIT or start > batch.size:
        raise RemoteProtocolError(f"a batch of {batch.size} bytes claims {count} sections")
    head = batch[8:start].view(np.int64).tolist()
    found = []
    for n in range(count):
        table, encoding, rows, width, kept, ids, values = head[n * _WORDS : (n + 1) * _WORDS]
        fits = 0 <= table < len(widths) and width == widths[table] and AS_IT_IS <= encoding <= OVERWRITE
        fits = fits and 0 <= kept <= width
        if not (fits and 0 <= rows <= batch.size // 8):
            raise RemoteProtocolError(
                f"section {n} of a batch: table {table}, {rows} rows of width {width}, encoding {encoding}; "
                f"no such table"
            )
        size = values_bytes(Shape(table, encoding, rows, width, itemsizes[table], kept))
        # Nothing overlaps: a change of values must not change ids that were checked.
        ids_fit = ids % 8 == 0 and start <= ids <= values - 8 * rows
        if not (ids_fit and values % 8 == 0 and values <= batch.size - size):
            raise RemoteProtocolError(
                f"section {n} of a batch: {rows} rows at bytes {ids} and {values} of {batch.size}; expected ids, then "
                f"values, from byte {start} on"
            )
        start = values + size
        found.append(
            Section(
                table, encoding, width, kept, batch[ids : ids + 8 * rows].view(np.int64), batch[values : values + size]
            )
        )
    return found
