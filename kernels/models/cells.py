"""Sorting a worker's ratings by (item block, user), while all ratings pass by in parts: count, place, shuffle.

A rating is the worker's own where its user has one of the worker's rows: ``0 <= user_place[u] - first < rows``, and
its item is in a block. Its *cell* is ``item_part[i] * rows + row``. Users and items may change places: then the cells
are those of (part of the worker's users, item), and users of other workers are in no part. Every part is counted, then
``starts`` is cumulated, then every part is placed, which is a counting sort that needs no memory beside its output; and
then each cell is shuffled.
"""

from __future__ import annotations

import numpy as np

from ..jit import Request, kernel


@kernel
def count_cells(users, items, user_place, first, rows, item_part, starts):
    """Add to ``starts[c + 2]`` how many of these ratings are in cell c.

    Parameters
    ----------
    users, items : int32[m]
    user_place : int64[number of users]
        Position of each user among those of all workers.
    first, rows : int
        Position of the worker's first user, and how many it has.
    item_part : int32[number of items]
        Block of an item, or -1.
    starts : int64[cells + 2]
        All zeros before the first part.
    """
    for n in range(users.size):
        row = user_place[users[n]] - first
        if 0 <= row < rows:
            part = item_part[items[n]]
            if part >= 0:
                starts[part * rows + row + 2] += 1


@kernel
def place_in_cells(
    users, items, ratings, user_place, first, rows, item_part, item_row, mean, scale, starts, rows_out, ratings_out
):
    """Place these ratings, standardised to ``(rating - mean) * scale``, at the next free places of their cells.

    Parameters
    ----------
    users, items, ratings : int32[m], int32[m], float32[m]
    user_place, first, rows, item_part
        As in `count_cells`.
    item_row : int32[number of items]
        Row of an item within its block.
    starts : int64[cells + 2]
        Cumulated counts; ``starts[c + 1]`` is the next free place of cell c, in the end the start of the next cell.
    rows_out, ratings_out : int32[k], float32[k]
        Where the worker's ratings go.
    """
    for n in range(users.size):
        row = user_place[users[n]] - first
        if 0 <= row < rows:
            part = item_part[items[n]]
            if part >= 0:
                c = part * rows + row + 1
                place = starts[c]
                starts[c] = place + 1
                rows_out[place] = item_row[items[n]]
                ratings_out[place] = np.float32((ratings[n] - mean) * scale)


@kernel
def shuffle_cells(starts, seed, skipped, rows_out, ratings_out):
    """Shuffle within each cell; the random numbers are those of `seed` after the first `skipped`.

    A cell of k ratings takes k - 1 of them: with those of the workers before it skipped, each worker's order is the one
    that shuffling the cells of all workers in turn would give.
    """
    random = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0xD1B54A32D192ED03)
    for _ in range(skipped):
        random ^= random << np.uint64(13)
        random ^= random >> np.uint64(7)
        random ^= random << np.uint64(17)
    for c in range(starts.size - 2):
        for last in range(starts[c + 1] - 1, starts[c], -1):
            random ^= random << np.uint64(13)
            random ^= random >> np.uint64(7)
            random ^= random << np.uint64(17)
            other = starts[c] + np.int64((random >> np.uint64(32)) * np.uint64(last - starts[c] + 1) >> np.uint64(32))
            rows_out[last], rows_out[other] = rows_out[other], rows_out[last]
            ratings_out[last], ratings_out[other] = ratings_out[other], ratings_out[last]


def requests() -> list[Request]:
    """Kernels that sort a worker's ratings; what comes with a call is read-only."""

    def given(dtype):
        array = np.zeros(0, dtype)
        array.flags.writeable = False
        return array

    i32, f32, starts = given(np.int32), given(np.float32), np.zeros(2, np.int64)
    own, out = (np.zeros(0, np.int32), np.zeros(0, np.int32)), (np.zeros(0, np.int32), np.zeros(0, np.float32))
    return [
        (count_cells, (i32, i32, given(np.int64), 0, 0, own[0], starts)),
        (place_in_cells, (i32, i32, f32, given(np.int64), 0, 0, *own, 0.0, 1.0, starts, *out)),
        (shuffle_cells, (starts, 0, 0, *out)),
    ]
