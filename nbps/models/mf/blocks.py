"""Rotating blocks: which ratings a worker trains on in which clock, so that no row ever has two writers.

Users are dealt to the workers, items to ``workers * per_worker`` blocks. In clock c worker w trains on the ratings of
its users in block ``(w * per_worker + c) mod blocks``. The worker that holds a block next gets it ``per_worker``
clocks later: under staleness ``s <= per_worker - 1`` its predecessor has then finished with it. So SSP turns
stratified SGD (Gemulla et al., KDD 2011) from a barrier after every block into s clocks of slack, and the result is
the same for any timing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
class Rotation:
    """Who trains on which block in which clock.

    Attributes
    ----------
    users, items : Partition
        Users by worker, items by block.
    per_worker : int
        Blocks for each worker; their number is ``workers * per_worker``.
    """

    users: Partition
    items: Partition
    per_worker: int

    @property
    def blocks(self) -> int:
        """Number of blocks, and of clocks in an epoch."""
        return self.items.starts.size - 1

    def block_at(self, worker: int, clock: int) -> int:
        """Block of `worker` in `clock`."""
        return (worker * self.per_worker + clock) % self.blocks


def deal_out(user_counts: Ints, item_counts: Ints, workers: int, per_worker: int, seed: int) -> Rotation:
    """Deal users to `workers` and items to ``workers * per_worker`` blocks, by their numbers of ratings."""
    random = np.random.default_rng(seed)
    users = deal(user_counts, workers, random)
    return Rotation(users, deal(item_counts, workers * per_worker, random), per_worker)
