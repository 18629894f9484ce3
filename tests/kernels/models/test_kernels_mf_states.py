"""States of four items advanced at once, against the plain Python form."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from nbps.kernels.models import mf_states
from nbps.kernels.models.mf_layout import DECAY_WIDTH, STATE_WIDTH

f32 = np.float32


@njit
def _advance4(state, decay, items, ratings, n, bias, products, step, bias_rate, growth):
    return mf_states.advance4(state, decay, items, ratings, n, bias, products, step, bias_rate, growth)


@given(seed=st.integers(0, 10**6), first=st.integers(0, 3), same=st.booleans())
def test_four_states_advance(seed, first, same):
    """Errors, factors and states are those of the plain form, to rounding; of two equal items the last one stays."""
    random = np.random.default_rng(seed)
    state = random.uniform(0.5, 2, (6, STATE_WIDTH)).astype(f32)
    decay, ratings, products = (random.normal(size=size).astype(f32) for size in ((6, DECAY_WIDTH), 7, 4))
    items = [int(i) for i in random.permutation(6)[:4]]
    if same:
        items[3] = items[1]
    given = decay, tuple(items), ratings, first, f32(0.25), tuple(products), f32(0.1), f32(0.35), f32(0.5)
    jitted, plain = state.copy(), state.copy()
    found, expected = _advance4(jitted, *given), mf_states.advance4(plain, *given)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jitted, plain, rtol=1e-5, atol=1e-6)
    others = [i for i in range(6) if i not in items]
    assert np.array_equal(jitted[others], state[others])
    assert not np.any(jitted[items] == state[items])
