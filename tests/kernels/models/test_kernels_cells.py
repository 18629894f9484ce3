"""Sorting a worker's ratings into cells, against NumPy's stable sort."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nbps.kernels.models import cells

f32 = np.float32


@given(seed=st.integers(0, 10**6), cut=st.integers(0, 200), first=st.integers(0, 6), rows=st.integers(0, 6))
def test_ratings_are_sorted_by_block_and_user_in_their_order(seed, cut, first, rows):
    """Those of the worker's users alone, of items in a block, in one part or two; then shuffled within a cell only."""
    random = np.random.default_rng(seed)
    users, items = random.integers(0, 12, 200).astype(np.int32), random.integers(0, 9, 200).astype(np.int32)
    ratings = random.integers(1, 6, 200).astype(f32)
    user_place, item_part = random.permutation(12), random.integers(-1, 3, 9).astype(np.int32)
    item_row = random.permutation(9).astype(np.int32)
    own = (user_place[users] >= first) & (user_place[users] < first + rows) & (item_part[items] >= 0)
    cell = (item_part[items] * rows + user_place[users] - first)[own]
    order = np.argsort(cell, kind="stable")
    starts = np.zeros(3 * rows + 2, np.int64)
    out = np.empty(own.sum(), np.int32), np.empty(own.sum(), f32)
    parts = slice(0, cut), slice(cut, 200)
    for part in parts:
        cells.count_cells(users[part], items[part], user_place, first, rows, item_part, starts)
    np.cumsum(starts, out=starts)
    for part in parts:
        cells.place_in_cells(
            users[part],
            items[part],
            ratings[part],
            user_place,
            first,
            rows,
            item_part,
            item_row,
            3.0,
            0.5,
            starts,
            *out,
        )
    assert starts[:-1].tolist() == [0, *np.cumsum(np.bincount(cell, minlength=3 * rows)[: 3 * rows])]
    assert out[0].tolist() == item_row[items[own]][order].tolist()
    assert out[1].tolist() == ((ratings[own][order] - 3) / 2).tolist()
    pairs = sorted(zip(cell[order], *out, strict=True))
    cells.shuffle_cells(starts, seed, 5, *out)
    assert sorted(zip(cell[order], *out, strict=True)) == pairs


def test_another_seed_gives_another_order():
    """And the same seed the same, of which some random numbers may be skipped."""
    starts = np.array([0, 40, 100, 100])
    found = []
    for seed, skipped in ((1, 0), (2, 0), (1, 0), (1, 3)):
        out = np.arange(100, dtype=np.int32), np.arange(100, dtype=f32)
        cells.shuffle_cells(starts, seed, skipped, *out)
        found.append(out[0].tolist())
        assert out[1].tolist() == found[-1]
    assert found[0] == found[2]
    assert len({tuple(one) for one in found}) == 3
