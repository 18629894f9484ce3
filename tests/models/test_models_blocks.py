"""The rotation of blocks: who may train on what, and when."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.data import Ratings
from nbps.models.blocks import Partition, Rotation, deal, deal_out
from nbps.models.mf.share import Share


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


@pytest.mark.parametrize(("heavy", "parts"), [(1_000_000, 2), (1_000_000, 3), (2_500_000, 2)])
def test_a_row_with_half_of_everything_has_a_part_for_itself(heavy, parts):
    """Dealt forth and back its part would get half of the rest, too; also where most rows are dealt all at once."""
    counts = np.r_[3, np.random.default_rng(0).integers(1, 20, 100_000), heavy]
    partition = deal(counts, parts, np.random.default_rng(0))
    sums = np.bincount(partition.part, weights=counts, minlength=parts)
    assert sums.max() == max(heavy, sums.max())
    assert sums.max() - max(counts.sum() / parts, heavy) <= 20
    others = np.delete(np.bincount(partition.part), partition.part[-1])
    assert sorted(partition.place) == list(range(counts.size))
    assert others.max() - others.min() <= 0.02 * counts.size


def test_workers_get_as_much_time_not_as_many_ratings():
    """One user's ratings take less time than as many of thousands, each of whom a worker begins with in every block."""
    counts = np.r_[200_000, np.full(20_000, 10)]
    users = deal_out(counts, np.full(5_000, 80), 2, 4, 0).users
    cells = np.minimum(counts, 8 * (1 - (1 - 1 / 8) ** counts))
    seconds = np.bincount(users.part, weights=counts + 3 * cells)
    ratings = np.bincount(users.part, weights=counts)
    assert seconds.max() < 1.02 * seconds.min()
    assert ratings.max() > 1.2 * ratings.min()


@pytest.mark.parametrize("idle", [10, 200_000])
def test_rows_without_ratings_are_spread_evenly(idle):
    """As where few users of a large model get new ratings: each part, and so each worker and node, has its share."""
    counts = np.r_[1_000, 1, 1, np.zeros(idle, np.int64)]
    rows = np.diff(deal(counts, 2, np.random.default_rng(0)).starts)
    assert abs(rows[0] - rows[1]) <= 3


def test_parts_stay_as_they_were_dealt_where_they_are_even_enough():
    """Rows of a usual set go forth and back, so that its models stay the same."""
    counts = np.random.default_rng(0).integers(20, 300, 1_000)
    falling = np.argsort(-counts, kind="stable")
    part = deal(counts, 2, np.random.default_rng(0)).part
    assert part[falling][:6].tolist() == [0, 1, 1, 0, 0, 1]


def _rotation(data: Ratings, workers: int, per_worker: int, seed: int = 0) -> Rotation:
    return deal_out(data.user_counts, data.item_counts, workers, per_worker, seed)


def _shares(data: Ratings, rotation: Rotation, cuts: list[int], seed: int) -> list[Share]:
    """Return what each worker takes of `data`, shown in the parts between `cuts`, shuffled as workers do it."""
    shares = [Share(rotation.users, rotation.items, worker) for worker in range(rotation.users.starts.size - 1)]
    parts = list(itertools.starmap(slice, itertools.pairwise([0, *sorted(cuts), len(data)])))
    skipped = 0
    for share in shares:
        for part in parts:
            share.count(data.users[part], data.items[part])
        for part in parts:
            share.place(data.users[part], data.items[part], data.values[part], 3.0, 0.5)
        draws = share.draws
        share.shuffle(seed, skipped)
        skipped += draws
    return shares


@given(
    seed=st.integers(0, 99),
    users=st.integers(2, 30),
    items=st.integers(2, 20),
    workers=st.integers(1, 4),
    per_worker=st.integers(1, 4),
    cuts=st.lists(st.integers(0, 200), max_size=4),
)
def test_shares_hold_every_rating_once(seed, users, items, workers, per_worker, cuts):
    """Over an epoch the workers train on exactly the given ratings, standardised, in whatever parts they came."""
    data = _ratings(seed, users, items, 200)
    rotation = _rotation(data, workers, per_worker, seed)
    shares = _shares(data, rotation, cuts, seed)
    found = []
    for worker, share in enumerate(shares):
        for clock in range(rotation.blocks):
            block = rotation.block_at(worker, clock)
            starts = share.starts_of(block)
            for u in range(starts.size - 1):
                place = rotation.users.starts[worker] + u
                for n in range(starts[u], starts[u + 1]):
                    item = rotation.items.starts[block] + share.others[n]
                    found.append((place, item, share.ratings[n] * 2.0 + 3.0))
    expected = zip(rotation.users.place[data.users], rotation.items.place[data.items], data.values, strict=True)
    assert sorted(found) == sorted((int(u), int(i), float(v)) for u, i, v in expected)
    whole = _shares(data, rotation, [], seed)
    assert all(np.array_equal(one.others, other.others) for one, other in zip(shares, whole, strict=True))


@given(seed=st.integers(0, 10**6), workers=st.integers(1, 5))
def test_workers_shuffle_as_one_that_shuffles_everything(seed, workers):
    """Which random numbers a cell gets depends on the cells before it, not on who does the shuffling."""
    data = _ratings(seed % 100, 12, 5, 300)
    rotation = _rotation(data, workers, 2)
    shares = _shares(data, rotation, [], seed)
    random = (seed * 0x9E3779B97F4A7C15 + 0xD1B54A32D192ED03) % 2**64
    for worker, share in enumerate(shares):
        sorted_only = Share(rotation.users, rotation.items, worker)
        sorted_only.count(data.users, data.items)
        sorted_only.place(data.users, data.items, data.values, 3.0, 0.5)
        rows = sorted_only.others
        for block in range(rotation.blocks):
            for start, end in itertools.pairwise(share.starts_of(block).tolist()):
                for last in range(end - 1, start, -1):
                    random ^= random << 13 & 2**64 - 1
                    random ^= random >> 7
                    random ^= random << 17 & 2**64 - 1
                    other = start + ((random >> 32) * (last - start + 1) >> 32)
                    rows[last], rows[other] = rows[other], rows[last]
        assert np.array_equal(rows, share.others)


@given(seed=st.integers(0, 99), workers=st.integers(1, 4), user_parts=st.integers(1, 3))
def test_shares_item_by_item_hold_every_rating_once(seed, workers, user_parts):
    """Each in the cell of its item and of its user's part, whose users are the worker's own."""
    data = _ratings(seed, 20, 12, 150)
    rotation = _rotation(data, workers, 3, seed)
    found = []
    for worker in range(workers):
        share = Share(rotation.users, rotation.items, worker, user_parts)
        share.count(data.users, data.items)
        share.place(data.users, data.items, data.values, 0.0, 1.0)
        share.shuffle(seed, 0)
        assert [share.user_starts[0], share.user_starts[-1]] == rotation.users.starts[worker : worker + 2].tolist()
        for part, (first, end) in enumerate(itertools.pairwise(share.user_starts)):
            for block in map(slice, rotation.items.starts, rotation.items.starts[1:]):
                for item, cell in enumerate(itertools.pairwise(share.starts_of(part, block)), block.start):
                    users = first + share.others[slice(*cell)]
                    assert (users < end).all()
                    found += zip(users.tolist(), itertools.repeat(item), share.ratings[slice(*cell)].tolist())
    expected = zip(rotation.users.place[data.users], rotation.items.place[data.items], data.values, strict=True)
    assert sorted(found) == sorted((int(u), int(i), float(v)) for u, i, v in expected)


def test_test_ratings_keep_their_order_user_by_user():
    """With all items in one block the share is sorted by user alone, and knows whose each rating is."""
    data = _ratings(1, 20, 10, 100)
    rotation = _rotation(data, 2, 3)
    every = Partition(rotation.items.place, np.array([0, 10]))
    for worker in range(2):
        share = Share(rotation.users, every, worker)
        assert share.user_places().size == 0
        share.count(data.users, data.items)
        share.place(data.users, data.items, data.values, 0.0, 1.0)
        own = rotation.users.part[data.users] == worker
        order = np.argsort(rotation.users.place[data.users[own]], kind="stable")
        assert share.user_places().tolist() == rotation.users.place[data.users[own]][order].tolist()
        assert share.others.tolist() == rotation.items.place[data.items[own]][order].tolist()
        assert share.ratings.tolist() == data.values[own][order].tolist()


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("staleness", [0, 1, 2, 4])
def test_rotation_gives_a_block_one_writer(workers, staleness):
    """Whatever clocks the bound allows, no two workers hold one block; with one clock more two do."""
    rotation = _rotation(_ratings(0, 20, 40, 300), workers, staleness + 1)

    def collides(bound: int) -> bool:
        # Worker v at clock c may run while worker w is at any clock in [c - bound, c].
        return any(
            rotation.block_at(v, c) == rotation.block_at(w, c - lag)
            for v in range(workers)
            for w in range(workers)
            if v != w
            for c in range(2 * rotation.blocks)
            for lag in range(min(bound, c) + 1)
        )

    assert not collides(staleness)
    assert collides(staleness + 1) == (workers > 1)
