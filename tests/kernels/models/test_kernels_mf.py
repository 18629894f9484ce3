"""The factorization kernels against a naive NumPy twin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.kernels import rows
from nbps.kernels.claim_layout import claims_bytes
from nbps.kernels.claims import Aside
from nbps.kernels.models import mf

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


def _naive(starts, items, ratings, users, user_state, user_decay, rows, state, decay, norms, step, adapt, at_once):
    """Train in float64 NumPy, `at_once` ratings of a user against one state of it; return copies and the error."""
    users, user_state, rows, state = (np.array(a, np.float64) for a in (users, user_state, rows, state))
    item_norms = (rows**2).mean(axis=1)
    total = 0.0
    for u in range(starts.size - 1):
        norm = (users[u] ** 2).mean()
        n = starts[u]
        while n < starts[u + 1]:
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


@given(seed=st.integers(0, 10**6))
def test_lossless_block_matches_naive(seed):
    """The lossless form, alone, equals the twin in groups of four, wherever the block lies in its tables."""
    arguments, first = _block(seed), seed % 3
    expected = _naive(*arguments, at_once=4)
    tables = [np.concatenate([np.full((first, array.shape[1]), 7, f32), array]) for array in arguments[6:8]]
    claims = np.zeros(claims_bytes(len(tables[0])), np.uint8)
    asides = [Aside(table, claims, rows.NOBODY_LOOKS, 0, 64) for table in tables]
    arguments[6:8] = [table[first:] for table in tables]
    error = mf.sgd_block_lossless(*arguments, np.empty(16, f32), first, *(aside.claimed for aside in asides))
    _check(arguments, error, expected)
    assert not claims.any()
    assert all((table[:first] == 7).all() for table in tables)


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
