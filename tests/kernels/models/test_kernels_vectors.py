"""SIMD dot products and fused updates against their plain Python forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from nbps.kernels.models import vectors
from nbps.kernels.models.mf_layout import LANES

f32 = np.float32


@njit
def _dot4(p, i, q, j, n):
    return vectors.dot(p, i, q, j[0], n), vectors.dot4(p, i, q, j[0], j[1], j[2], j[3], n)


@njit
def _update(p, i, q, j, n, keep, gain, keep_q, gain_q):
    vectors.update(p, i, q, j, n, keep, gain, keep_q, gain_q)


@njit
def _update4(p, i, q, j, n, keep, gains, keeps_q, gains_q):
    vectors.update4(p, i, q, j[0], j[1], j[2], j[3], n, keep, gains, keeps_q, gains_q)


def _rows(seed: int, width: int):
    random = np.random.default_rng(seed)
    p, q = random.integers(-8, 9, (2, 6 * width)).astype(f32)
    places = [int(row) * width for row in random.permutation(6)]
    return p, q, places


@given(seed=st.integers(0, 10**6), vectors_=st.integers(1, 6))
def test_dots_are_exact_on_small_integers(seed, vectors_):
    """One and four dot products agree with NumPy's on numbers whose sums are exact."""
    width = vectors_ * LANES
    p, q, (i, *j) = _rows(seed, width)
    one, four = _dot4(p, i, q, tuple(j[:4]), width)
    expected = [float(p[i : i + width] @ q[k : k + width]) for k in j[:4]]
    assert one == expected[0]
    assert list(four) == expected
    assert [vectors.dot(p, i, q, k, width) for k in j[:4]] == expected


@given(seed=st.integers(0, 10**6), vectors_=st.integers(1, 5))
def test_updates_use_the_old_rows(seed, vectors_):
    """Both rows of an update are computed from both old rows; other rows stay."""
    width = vectors_ * LANES
    p, q, (i, *j) = _rows(seed, width)
    jitted, plain = (p.copy(), q.copy()), (p.copy(), q.copy())
    factors = f32(0.5), f32(2), f32(0.25), f32(-1)
    _update(jitted[0], i, jitted[1], j[0], width, *factors)
    vectors.update(plain[0], i, plain[1], j[0], width, *factors)
    assert np.array_equal(jitted, plain)
    expected = p.copy()
    expected[i : i + width] = f32(0.5) * p[i : i + width] + f32(2) * q[j[0] : j[0] + width]
    assert np.array_equal(jitted[0], expected)


@given(seed=st.integers(0, 10**6), vectors_=st.integers(1, 5), same=st.booleans())
def test_four_updates_at_once(seed, vectors_, same):
    """Four rows are updated from the old state; of two equal rows the last stays."""
    width = vectors_ * LANES
    p, q, (i, *j) = _rows(seed, width)
    if same:
        j[2] = j[0]
    jitted, plain = (p.copy(), q.copy()), (p.copy(), q.copy())
    factors = f32(0.5), (f32(1), f32(2), f32(-1), f32(4)), (f32(1), f32(0.5), f32(2), f32(0)), (f32(1),) * 4
    _update4(jitted[0], i, jitted[1], tuple(j[:4]), width, *factors)
    vectors.update4(plain[0], i, plain[1], *j[:4], width, *factors)
    assert np.array_equal(jitted, plain)


@pytest.mark.parametrize("width", [8, 32, 104])
def test_dot_of_reals_is_close(width):
    """On reals the order of summation may change the last bits only."""
    random = np.random.default_rng(width)
    p, q = random.standard_normal((2, width)).astype(f32)
    one, _ = _dot4(p, 0, q, (0, 0, 0, 0), width)
    assert one == pytest.approx(float(p.astype(float) @ q.astype(float)), abs=1e-5)
