"""A worker's share of the ratings: those of its users, sorted into cells, made of parts that pass by.

A cell is a user's ratings of the items of one block. Or, for training item by item, it is an item's ratings by one
part of the worker's users: all users, if their rows fit a cache.

Every worker is shown all ratings twice, a part at a time, and picks out its own: once to count them, once to place
them. So no process ever holds more than the ratings, its share, and a part.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nbps.models.blocks import Partition

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Share:
    """The ratings of one worker; in each cell in the order in which they came, until they are shuffled.

    Parameters
    ----------
    users, items : Partition
        Users by worker, items by block.
    worker : int
    user_parts : int, optional
        Into so many parts the worker's users are divided, to train item by item.

    Attributes
    ----------
    others, ratings : int32[n], float32[n]
        Row of the item within its block, or of the user within its part, and ``(rating - mean) * scale``; from the
        first `place` on.
    user_starts : int64[user_parts + 1]
        Position of the first user of each part among those of all workers, and where the last part ends.
    """

    def __init__(self, users: Partition, items: Partition, worker: int, user_parts: int | None = None) -> None:
        first, end = (int(start) for start in users.starts[worker : worker + 2])
        self.user_starts = first + np.arange((user_parts or 1) + 1) * (end - first) // (user_parts or 1)
        self._by_item = user_parts is not None
        if user_parts is None:
            self._place, self._first, self._rows = users.place, first, end - first
            self._part, self._row, parts = items.part, items.row_in_part, items.starts.size - 1
        else:
            self._place, self._first, self._rows = items.place, 0, items.place.size
            own, parts = Partition(users.place, self.user_starts), user_parts
            self._part, self._row = own.part, own.row_in_part
            self._part[users.place >= end] = -1  # as those before the first are
        self._starts = np.zeros(parts * self._rows + 2, np.int64)
        self._is_counted = False
        self.others: Int32s = np.empty(0, np.int32)
        self.ratings: Floats = np.empty(0, np.float32)

    def count(self, users: Int32s, items: Int32s) -> None:
        """Count the worker's ratings among these: a part of all of them."""
        from nbps.kernels.models import cells

        cells.count_cells(*self._sides(users, items), self._place, self._first, self._rows, self._part, self._starts)

    def place(self, users: Int32s, items: Int32s, ratings: Floats, mean: float, scale: float) -> None:
        """Take the worker's ratings among these, after all parts were counted; the same parts in the same order."""
        from nbps.kernels.models import cells

        if not self._is_counted:
            np.cumsum(self._starts, out=self._starts)
            own = int(self._starts[-1])
            self.others, self.ratings = np.empty(own, np.int32), np.empty(own, np.float32)
            self._is_counted = True
        cells.place_in_cells(
            *self._sides(users, items), ratings, self._place, self._first, self._rows, self._part, self._row,
            mean, scale, self._starts, self.others, self.ratings,
        )  # fmt: skip

    def _sides(self, users: Int32s, items: Int32s) -> tuple[Int32s, Int32s]:
        return (items, users) if self._by_item else (users, items)

    @property
    def draws(self) -> int:
        """How many random numbers `shuffle` takes."""
        return self.ratings.size - int(np.count_nonzero(np.diff(self._starts[:-1])))

    def shuffle(self, seed: int, skipped: int) -> None:
        """Shuffle within each cell, by the random numbers of `seed` after the first `skipped`."""
        from nbps.kernels.models import cells

        cells.shuffle_cells(self._starts, seed, skipped, self.others, self.ratings)

    def starts_of(self, part: int, rows: slice = slice(None)) -> Int64s:
        """Return where the ratings of each of the worker's users in block `part` begin, and where the last ends.

        Or, item by item, those of each of the items at places `rows` by users in part `part`.
        """
        first, end, _ = rows.indices(self._rows)
        return self._starts[part * self._rows + first : part * self._rows + end + 1]

    def user_places(self) -> Int32s:
        """Return the position of the user of each rating among those of all workers, where there is one block."""
        own = np.arange(*self.user_starts, dtype=np.int32)
        return np.repeat(own, np.diff(self.starts_of(0)))
