"""Rotating blocks: which ratings a worker trains on in which clock, so that no row ever has two writers.

Users are dealt to the workers, items to ``workers * per_worker`` blocks. In clock c worker w trains on the ratings of
its users in block ``(w * per_worker + c) mod blocks``. The worker that holds a block next gets it ``per_worker``
clocks later: under staleness ``s <= per_worker - 1`` its predecessor has then finished with it. So SSP turns
stratified SGD (Gemulla et al., KDD 2011) from a barrier after every block into s clocks of slack, and the result is
the same for any timing.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
_UNEVEN = 1.05  # largest sum over the mean: a twentieth of the time is not worth another order of dealing
_CELL_RATINGS = 3.0  # that take as long as beginning with a user in a block: 11 to 41 ns, where a rating takes 6 to 11
_SINGLY = 1 << 16  # rows that are dealt out one by one, in 30 ms


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


def deal(counts: npt.NDArray[Any], parts: int, random: np.random.Generator) -> Partition:
    """Deal rows to `parts` parts with nearly equal sums of `counts`, in random order within each.

    Rows go out by falling count, to the parts forth and back; where that leaves one part with much more than the
    others, because one row has a large share of everything, each goes to the part that has least. Rows without a count
    always go forth and back.
    """
    rows = counts.size
    falling = np.argsort(-counts, kind="stable")
    turn = np.arange(rows) % (2 * parts)
    part = np.empty(rows, np.int64)
    part[falling] = np.where(turn < parts, turn, 2 * parts - 1 - turn)
    sums = np.bincount(part, weights=counts, minlength=parts)
    if sums.max() > _UNEVEN * sums.mean():
        falling = falling[: np.count_nonzero(counts)]
        part[falling] = _to_the_least(counts[falling], parts, random)
    order = random.permutation(rows)
    order = order[np.argsort(part[order], kind="stable")]
    place = np.empty(rows, np.int64)
    place[order] = np.arange(rows)
    starts = np.concatenate([[0], np.cumsum(np.bincount(part, minlength=parts))])
    return Partition(place, starts)


def _to_the_least(counts: npt.NDArray[Any], parts: int, random: np.random.Generator) -> Ints:
    """Return the part of each row, given their falling counts: always the part with the least sum so far."""
    least = [(0.0, part) for part in range(parts)]
    part = np.empty(counts.size, np.int64)
    for row, count in enumerate(counts[:_SINGLY].tolist()):
        total, part[row] = least[0]
        heapq.heapreplace(least, (total + count, int(part[row])))
    # Of many rows those that are left are so small that in any order they fill what the parts lack, to within one.
    sums = np.zeros(parts)
    for total, number in least:
        sums[number] = total
    order = _SINGLY + random.permutation(counts[_SINGLY:].size)
    rest = counts[order]
    room = np.maximum(_level(sums, float(rest.sum())) - sums, 0)
    middles = np.cumsum(rest) - rest / 2
    part[order] = np.minimum(np.searchsorted(np.cumsum(room), middles, side="right"), parts - 1)
    return part


def _level(sums: npt.NDArray[np.float64], more: float) -> float:
    """Return to which sum the lowest of `sums` are raised when `more` is poured over them."""
    lowest = np.sort(sums)
    levels = (np.cumsum(lowest) + more) / np.arange(1, sums.size + 1)
    return float(levels[np.flatnonzero(levels >= lowest)[-1]])


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
    """Deal users to `workers` and items to ``workers * per_worker`` blocks, by the time that their ratings take."""
    random, blocks = np.random.default_rng(seed), workers * per_worker
    in_blocks = -blocks * np.expm1(-user_counts / blocks)  # in so many blocks a user has ratings, by chance
    users = deal(user_counts + _CELL_RATINGS * in_blocks, workers, random)
    return Rotation(users, deal(item_counts, blocks, random), per_worker)
