"""A worker's share of the ratings: those of its users, sorted by (block, user), made of parts that pass by.

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
    """The ratings of one worker; in each (block, user) in the order in which they came, until they are shuffled.

    Attributes
    ----------
    item_rows, ratings : int32[n], float32[n]
        Row of the item within its block, and ``(rating - mean) * scale``; from the first `place` on.
    """

    def __init__(self, users: Partition, items: Partition, worker: int) -> None:
        self._users, self._first = users.place, int(users.starts[worker])
        self._rows = int(users.starts[worker + 1]) - self._first
        self._part, self._row = items.part, items.row_in_part
        self._starts = np.zeros((items.starts.size - 1) * self._rows + 2, np.int64)
        self._is_counted = False
        self.item_rows: Int32s = np.empty(0, np.int32)
        self.ratings: Floats = np.empty(0, np.float32)

    def count(self, users: Int32s, items: Int32s) -> None:
        """Count the worker's ratings among these: a part of all of them."""
        from nbps.kernels.models import cells

        cells.count_cells(users, items, self._users, self._first, self._rows, self._part, self._starts)

    def place(self, users: Int32s, items: Int32s, ratings: Floats, mean: float, scale: float) -> None:
        """Take the worker's ratings among these, after all parts were counted; the same parts in the same order."""
        from nbps.kernels.models import cells

        if not self._is_counted:
            np.cumsum(self._starts, out=self._starts)
            own = int(self._starts[-1])
            self.item_rows, self.ratings = np.empty(own, np.int32), np.empty(own, np.float32)
            self._is_counted = True
        cells.place_in_cells(
            users, items, ratings, self._users, self._first, self._rows, self._part, self._row, mean, scale,
            self._starts, self.item_rows, self.ratings,
        )  # fmt: skip

    @property
    def draws(self) -> int:
        """How many random numbers `shuffle` takes."""
        return self.ratings.size - int(np.count_nonzero(np.diff(self._starts[:-1])))

    def shuffle(self, seed: int, skipped: int) -> None:
        """Shuffle within each (block, user), by the random numbers of `seed` after the first `skipped`."""
        from nbps.kernels.models import cells

        cells.shuffle_cells(self._starts, seed, skipped, self.item_rows, self.ratings)

    def starts_of(self, block: int) -> Int64s:
        """Return where the ratings of each of the worker's users in `block` begin, and where the last ends."""
        return self._starts[block * self._rows : (block + 1) * self._rows + 1]

    def user_places(self) -> Int32s:
        """Return the position of the user of each rating among those of all workers, where there is one block."""
        own = np.arange(self._first, self._first + self._rows, dtype=np.int32)
        return np.repeat(own, np.diff(self.starts_of(0)))
