"""Rotating blocks: which ratings a worker trains on in which clock, so that no row ever has two writers.

Users are dealt to the workers, items to ``workers * per_worker`` blocks. In clock c worker w trains on the ratings of
its users in block ``(w * per_worker + c) mod blocks``. The worker that holds a block next gets it ``per_worker``
clocks later: under staleness ``s <= per_worker - 1`` its predecessor has then finished with it. So SSP turns
stratified SGD (Gemulla et al., KDD 2011) from a barrier after every block into s clocks of slack, and the result is
the same for any timing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nbps.kernels.models import mf
from nbps.kernels.prepare import prepare

if TYPE_CHECKING:
    from nbps.data import Ratings

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Partition:
    """Rows dealt to parts, and ordered so that each part is contiguous.

    Attributes
    ----------
    place : int64[rows]
        Position of each row in the new order.
    starts : int64[parts + 1]
        Part k holds positions ``starts[k]`` to ``starts[k + 1]``.
    """

    place: Ints
    starts: Ints

    @property
    def part(self) -> npt.NDArray[np.int32]:
        """Part of each row."""
        return (np.searchsorted(self.starts, self.place, side="right") - 1).astype(np.int32)

    @property
    def row_in_part(self) -> npt.NDArray[np.int32]:
        """Position of each row within its part."""
        return (self.place - self.starts[self.part]).astype(np.int32)


def deal(counts: Ints, parts: int, random: np.random.Generator) -> Partition:
    """Deal rows to `parts` parts with nearly equal sums of `counts`, in random order within each.

    Rows go out by falling count, to the parts forth and back.
    """
    rows = counts.size
    turn = np.arange(rows) % (2 * parts)
    part = np.empty(rows, np.int64)
    part[np.argsort(-counts, kind="stable")] = np.where(turn < parts, turn, 2 * parts - 1 - turn)
    order = random.permutation(rows)
    order = order[np.argsort(part[order], kind="stable")]
    place = np.empty(rows, np.int64)
    place[order] = np.arange(rows)
    starts = np.concatenate([[0], np.cumsum(np.bincount(part, minlength=parts))])
    return Partition(place, starts)


@dataclass(frozen=True)
class Schedule:
    """All ratings sorted by (worker, block, user), standardised.

    Attributes
    ----------
    users, items : Partition
        Users by worker, items by block.
    per_worker : int
        Blocks for each worker; their number is ``workers * per_worker``.
    starts : int64[cells + 1]
        Of each (worker, block, user) in the columns.
    cells : int64[workers + 1]
        First cell of each worker.
    item_rows, ratings : int32[n], float32[n]
        Row of the item within its block, and ``(rating - mean) / scale``.
    """

    users: Partition
    items: Partition
    per_worker: int
    starts: Ints
    cells: Ints
    item_rows: npt.NDArray[np.int32]
    ratings: npt.NDArray[np.float32]

    @property
    def blocks(self) -> int:
        """Number of blocks, and of clocks in an epoch."""
        return self.items.starts.size - 1

    def block_at(self, worker: int, clock: int) -> int:
        """Block of `worker` in `clock`."""
        return (worker * self.per_worker + clock) % self.blocks

    def starts_of(self, worker: int, block: int) -> Ints:
        """Return where the ratings of each user of `worker` in `block` begin, and where the last ends."""
        users = int(self.users.starts[worker + 1] - self.users.starts[worker])
        first = int(self.cells[worker]) + block * users
        return self.starts[first : first + users + 1]


def build_schedule(ratings: Ratings, workers: int, per_worker: int, mean: float, scale: float, seed: int) -> Schedule:
    """Deal users and items and sort `ratings`; takes time and memory for every rating and every (user, block)."""
    random = np.random.default_rng(seed)
    user_count, item_count = ratings.shape
    users = deal(np.bincount(ratings.users, minlength=user_count), workers, random)
    blocks = workers * per_worker
    items = deal(np.bincount(ratings.items, minlength=item_count), blocks, random)
    worker_users = np.diff(users.starts)
    cells = np.concatenate([[0], np.cumsum(worker_users * blocks)])
    worker = users.part
    starts = np.zeros(int(cells[-1]) + 2, np.int64)
    item_rows, standardised = np.empty(len(ratings), np.int32), np.empty(len(ratings), np.float32)
    arguments = (
        np.require(ratings.users, requirements="W"), np.require(ratings.items, requirements="W"),
        np.require(ratings.values, requirements="W"), cells[worker] + users.row_in_part, worker_users[worker],
        items.part, items.row_in_part, mean, 1.0 / scale, seed, starts, item_rows, standardised,
    )  # fmt: skip
    prepare(mf.sort_requests())
    mf.sort_into_cells(*arguments)
    return Schedule(users, items, per_worker, starts[:-1], cells, item_rows, standardised)
