"""The rotation of blocks: who may train on what, and when."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.data import Ratings
from nbps.models.mf.blocks import build_schedule, deal


def _ratings(seed: int, users: int, items: int, count: int) -> Ratings:
    random = np.random.default_rng(seed)
    return Ratings.from_columns(
        np.r_[np.arange(users), random.integers(0, users, count)],
        np.r_[np.arange(users) % items, random.integers(0, items, count)],
        random.integers(1, 6, users + count),
    )


@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=60), parts=st.integers(1, 8), seed=st.integers(0, 99))
def test_deal_is_a_balanced_permutation(counts, parts, seed):
    """Every row gets one place, parts are contiguous, and their sums differ by no more than the largest count."""
    partition = deal(np.array(counts), parts, np.random.default_rng(seed))
    assert sorted(partition.place) == list(range(len(counts)))
    sums = np.bincount(partition.part, weights=counts, minlength=parts)
    assert sums.max() - sums.min() <= max(counts)
    assert (partition.starts[partition.part] + partition.row_in_part == partition.place).all()
    assert (partition.place < partition.starts[partition.part + 1]).all()


@given(
    seed=st.integers(0, 99),
    users=st.integers(2, 30),
    items=st.integers(2, 20),
    workers=st.integers(1, 4),
    per_worker=st.integers(1, 4),
)
def test_schedule_holds_every_rating_once(seed, users, items, workers, per_worker):
    """Over an epoch the workers train on exactly the given ratings, standardised."""
    data = _ratings(seed, users, items, 200)
    schedule = build_schedule(data, workers, per_worker, mean=3.0, scale=2.0, seed=seed)
    found = []
    for worker in range(workers):
        for clock in range(schedule.blocks):
            block = schedule.block_at(worker, clock)
            starts = schedule.starts_of(worker, block)
            for u in range(starts.size - 1):
                place = schedule.users.starts[worker] + u
                for n in range(starts[u], starts[u + 1]):
                    item = schedule.items.starts[block] + schedule.item_rows[n]
                    found.append((place, item, schedule.ratings[n] * 2.0 + 3.0))
    expected = zip(schedule.users.place[data.users], schedule.items.place[data.items], data.values, strict=True)
    assert sorted(found) == sorted((int(u), int(i), float(v)) for u, i, v in expected)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("staleness", [0, 1, 2, 4])
def test_rotation_gives_a_block_one_writer(workers, staleness):
    """Whatever clocks the bound allows, no two workers hold one block; with one clock more two do."""
    schedule = build_schedule(_ratings(0, 20, 40, 300), workers, staleness + 1, 3.0, 1.0, 0)

    def collides(bound: int) -> bool:
        # Worker v at clock c may run while worker w is at any clock in [c - bound, c].
        return any(
            schedule.block_at(v, c) == schedule.block_at(w, c - lag)
            for v in range(workers)
            for w in range(workers)
            if v != w
            for c in range(2 * schedule.blocks)
            for lag in range(min(bound, c) + 1)
        )

    assert not collides(staleness)
    assert collides(staleness + 1) == (workers > 1)
