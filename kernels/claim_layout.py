"""Which tables have claims, where those of a row lie, and how much a worker can put aside; free of Numba."""

from __future__ import annotations

# An odd number times the row, modulo a power of two: no two rows share a byte, and those of neighbours lie far apart.
# Hot rows beside each other in one cache line of claims would cost half of the speed (Zipf rows, two processes).
SPREAD = 0x9E3779B1
_LEAST_BYTES = 1 << 16
_SPARSE_BYTES = 1 << 22  # up to here four bytes a row, beyond at least one: in tables that large neighbours are rare
_BYTES_A_ROW = 4

# Entries of the buffer of a worker, at least; of a table with fewer rows, one for each. One is one row, and a worker
# holds one claim at a time: more than a handful are put aside only where many workers were descheduled in the middle
# of an addition.
CAPACITY = 64

# Words of a buffer before the numbers of its rows: entries now, additions since the last retry, and how many additions
# were put aside in all.
COUNT, SINCE, PUT, HEADER = 0, 1, 2, 8


def claims_bytes(rows: int) -> int:
    """Bytes of the claims of so many rows: a power of two, so that a slot is a multiplication and a mask."""
    wanted = max(_LEAST_BYTES, rows, min(_BYTES_A_ROW * rows, _SPARSE_BYTES))
    return 1 << (wanted - 1).bit_length()


def capacity(sources: int, rows: int) -> int:
    """Entries of a buffer, where so many workers and agents of a node claim rows of a table of so many.

    More than they can claim at the same time, this worker included: whatever is stopped, one entry at least of a full
    buffer is of a row that is free or that one who runs will free. Or one for each row: then there is always room.
    """
    return min(max(CAPACITY, sources + 1), rows)


def has_claims(dtype: str, width: int) -> bool:
    """Whether rows of this kind are claimed; a single element is better added by one atomic operation."""
    return width > 1
