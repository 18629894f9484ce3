"""The factorization kernels against a naive NumPy twin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.kernels import rows
from nbps.kernels.claim_layout import PUT, SPREAD, claims_bytes
from nbps.kernels.claims import Aside
from nbps.kernels.models import mf, mf_lossless

f32 = np.float32


def _block(seed: int, users: int = 12, items: int = 9, width: int = 16):
    """Return arguments of `mf.sgd_block` with every item at most once for a user."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, items + 1, users)
    starts = np.concatenate([[0], np.cumsum(counts)])
    item_rows = np.concatenate([random.permutation(items)[:count] for count in counts]).astype(np.int32)
    ratings = random.standard_normal(starts[-1]).astype(f32)

    def side(rows: int):
        factors = random.standard_normal((rows, width)).astype(f32) * f32(0.3)
        state = np.stack([random.standard_normal(rows), random.uniform(1, 3, rows)], axis=1).astype(f32)
        return factors, state, random.uniform(0, 0.3, (rows, 2)).astype(f32)

    return [starts, item_rows, ratings, *side(users), *side(items), np.empty(items, f32), f32(0.1), f32(1)]


def _naive(
    starts, items, ratings, users, user_state, user_decay, rows, state, decay, norms, step, adapt, at_once, first=0
):
    """Train in float64 NumPy, `at_once` ratings of a user against one state of it; return copies and the error.

    It begins with user `first`, and measures a user's row anew after as many ratings as there are under one claim.
    """
    users, user_state, rows, state = (np.array(a, np.float64) for a in (users, user_state, rows, state))
    item_norms = (rows**2).mean(axis=1)
    total = 0.0
    for u in np.roll(np.arange(starts.size - 1), -first):
        n = starts[u]
        while n < starts[u + 1]:
            if (n - starts[u]) % mf_lossless.UNDER_ONE_CLAIM == 0:
                norm = (users[u] ** 2).mean()
            size = at_once if n + at_once <= starts[u + 1] else 1
            group = items[n : n + size]
            rate = step / np.sqrt(user_state[u, 1])
            errors = ratings[n : n + size] - user_state[u, 0] - state[group, 0] - rows[group] @ users[u]
            item_rates = step / np.sqrt(state[group, 1])
            p = users[u].copy()
            users[u] = (1 - size * rate * user_decay[u, 1]) * p + rate * errors @ rows[group]
            rows[group] += item_rates[:, None] * (errors[:, None] * p - decay[group, 1:] * rows[group])
            state[group, 0] += mf.BIAS_RATE * item_rates * (errors - decay[group, 0] * state[group, 0])
            state[group, 1] += adapt * errors**2 * norm
            user_state[u, 0] += mf.BIAS_RATE * rate * (errors.sum() - size * user_decay[u, 0] * user_state[u, 0])
            user_state[u, 1] += adapt * errors**2 @ item_norms[group]
            total += errors @ errors
            n += size
    return users, user_state, rows, state, total


def _check(arguments, found: float, expected) -> None:
    *arrays, total = expected
    for mine, theirs in zip((arguments[3], arguments[4], arguments[6], arguments[7]), arrays, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-5)
    assert found == pytest.approx(total, rel=1e-4)


@given(seed=st.integers(0, 10**6), adapt=st.sampled_from([0, 1]))
def test_block_matches_naive(seed, adapt):
    """A block trained in groups of four equals the float64 twin."""
    arguments = _block(seed)
    arguments[11] = f32(adapt)
    expected = _naive(*arguments, at_once=4)
    _check(arguments, mf.sgd_block(*arguments), expected)


def _lossless(arguments, first=0):
    """Make tables of which rows `first` and later are the block; return how to train, their claims and buffers."""
    tables = [np.concatenate([np.full((first, array.shape[1]), 7, f32), array]) for array in arguments[3:5]]
    claims = np.zeros(claims_bytes(len(tables[0])), np.uint8)
    asides = [Aside(table, claims, rows.NOBODY_LOOKS, 0, 64) for table in tables]
    arguments[3:5] = [table[first:] for table in tables]
    copies, claimed = np.empty(2 * tables[0].shape[1], f32), [aside.claimed for aside in asides]
    return (lambda: mf.sgd_block_lossless(*arguments, copies, first, *claimed)), tables, claims, asides


def _shift(items: int) -> int:
    """Return with which item worker 0 begins."""
    return ((SPREAD & 0xFFFFFFFF) * items) >> 32


@given(seed=st.integers(0, 10**6))
def test_lossless_block_matches_naive(seed):
    """The lossless form, alone, equals the twin in groups of four, wherever the block lies in its tables."""
    arguments, first = _block(seed), seed % 3
    expected = _naive(*arguments, at_once=4, first=_shift(12))
    train, tables, claims, _ = _lossless(arguments, first)
    _check(arguments, train(), expected)
    assert not claims.any()
    assert all((table[:first] == 7).all() for table in tables)


@pytest.mark.parametrize("is_claimed", [False, True])
def test_an_item_with_more_ratings_than_fit_one_claim(is_claimed):
    """They are taken in parts; where others hold the claim, the parts follow each other in the buffer."""
    arguments = _block(5, users=3, items=600)
    starts = arguments[0]
    assert np.diff(starts).max() > mf_lossless.UNDER_ONE_CLAIM
    expected = _naive(*arguments, at_once=4, first=_shift(3))
    train, _, claims, asides = _lossless(arguments)
    claims[:] = is_claimed
    error = train()
    claims[:] = 0
    assert [aside.retry() for aside in asides] == [0, 0]
    if not is_claimed:
        _check(arguments, error, expected)
    else:  # each part against the row as it was, so that only the number of what was put aside is known
        assert [int(aside.words[PUT]) for aside in asides] == [-(-np.diff(starts) // 256).sum()] * 2


@given(seed=st.integers(0, 10**6))
def test_what_is_trained_on_beside_a_claim_is_added_later(seed):
    """Users change now, items and their states when they are free: then all is as in the twin."""
    arguments = _block(seed)
    expected = _naive(*arguments, at_once=4, first=_shift(12))
    train, tables, claims, asides = _lossless(arguments)
    before = [table.copy() for table in tables]
    claims[:] = 9
    error = train()
    assert all(np.array_equal(table, old) for table, old in zip(tables, before, strict=True))
    claims[:] = 0
    assert [aside.retry() for aside in asides] == [0, 0]
    _check(arguments, error, expected)


def test_a_user_who_rated_an_item_twice_keeps_both_updates():
    """Two of four ratings are of one user: the lossless form takes them one by one."""
    arguments = _block(1, users=1)
    arguments[:3] = np.array([0, 4]), np.int32([3, 5, 3, 1]), f32([1, -1, 2, 0.5])
    expected = _naive(*arguments, at_once=1)
    train, *_ = _lossless(arguments)
    _check(arguments, train(), expected)


def test_padding_stays_zero():
    """Columns that start as zeros on both sides stay zeros, so the width may be padded."""
    arguments = _block(3)
    arguments[3][:, 11:] = arguments[6][:, 11:] = 0
    mf.sgd_block(*arguments)
    assert not arguments[3][:, 11:].any()
    assert not arguments[6][:, 11:].any()


@given(seed=st.integers(0, 10**6))
def test_squared_error_matches_numpy(seed):
    """The error on held-out ratings is that of the model's formula."""
    _, _, _, users, user_state, _, rows, state, *_ = _block(seed)
    random = np.random.default_rng(seed)
    u, i = random.integers(0, 12, 50), random.integers(0, 9, 50)
    ratings = random.standard_normal(50).astype(f32)
    errors = ratings - user_state[u, 0] - state[i, 0] - np.einsum("nk,nk->n", users[u], rows[i])
    assert mf.squared_error(u, i, ratings, users, user_state, rows, state) == pytest.approx(errors @ errors, rel=1e-4)
