"""Flush and refresh of a private copy against naive twins, and several copies against a model of plain integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.kernels import copies
from nbps.kernels.rows import TableKernel
from support import twins
from support.twins import DTYPES


@st.composite
def exchanges(draw, dtype):
    """(values, base, parent) of one shape; some elements differ, floats are any finite numbers of moderate size."""
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 20))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))

    def matrix():
        whole = random.integers(-1000, 1000, shape)
        return (whole * random.random(shape)).astype(dtype) if dtype.startswith("float") else whole.astype(dtype)

    base, parent = matrix(), matrix()
    values = np.where(random.random(shape) < draw(st.sampled_from([0.0, 0.2, 1.0])), matrix(), base)
    return values, base, parent


@pytest.mark.parametrize("dtype", DTYPES)
def test_flush_sends_the_difference(dtype):
    """Parent and base grow by values - base, from whatever row the flush starts; row count and norm are those sent."""

    @given(exchanges(dtype), st.booleans(), st.data())
    def check(arrays, wanted, data):
        expected = [array.copy() for array in arrays]
        first, width = data.draw(st.integers(0, arrays[0].shape[0] - 1)), arrays[0].shape[1]
        peaks = np.full(width if wanted else 0, 9e9)  # whatever was left there
        sent, norm = copies.flush(*arrays[:2], TableKernel(arrays[2], 1), first, np.empty(width, dtype), peaks)
        rows, largest = twins.flush(*expected)
        assert (sent, norm) == (rows, largest if wanted else 0.0)
        for array, twin in zip(arrays, expected, strict=True):
            assert np.array_equal(array, twin)

    check()


@pytest.mark.parametrize(
    ("dtype", "deltas", "norm"),
    [
        ("float32", [1, -np.inf, 5], np.inf),
        ("float32", [np.nan, 1, 2], np.nan),
        ("float64", [3, np.nan, np.inf], np.nan),
        ("float64", [5, 0, -7], 7),
        ("int32", [-(2**31), 1, 0], 2.0**31),
        ("int64", [1, -(2**63), 0], 2.0**63),
    ],
)
def test_the_norm_of_what_has_no_usual_size(dtype, deltas, norm):
    """Infinities, NaN, which nothing hides, and the negative integer whose absolute value does not fit its dtype."""
    for shift in range(3):
        values = np.zeros((2, 3), dtype)
        values[shift % 2] = np.roll(np.array(deltas, dtype), shift)
        values[1 - shift % 2, 0] = 2
        found = copies.flush(
            values, np.zeros((2, 3), dtype), TableKernel(np.zeros((2, 3), dtype), 1), 0, np.empty(3, dtype), np.empty(3)
        )
        assert found[0] == 2
        assert np.array_equal(found[1], norm, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_refresh_takes_in_the_parent_and_keeps_what_was_not_sent(dtype):
    """Values move by parent - base, and base becomes the parent."""

    @given(exchanges(dtype))
    def check(arrays):
        expected = [array.copy() for array in arrays]
        copies.refresh(*arrays[:2], TableKernel(arrays[2], 1))
        twins.refresh(*expected)
        for array, twin in zip(arrays, expected, strict=True):
            assert np.array_equal(array, twin)

    check()


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype.startswith("float")])
def test_a_copy_that_added_nothing_sends_nothing(dtype):
    """However floats round, a copy without additions of its own is the parent to the bit, and flushes no row."""

    @given(st.integers(0, 2**32))
    def check(seed):
        random = np.random.default_rng(seed)
        parent = random.standard_normal((5, 7)).astype(dtype)
        values, base = parent.copy(), parent.copy()
        for _ in range(5):
            parent += (random.standard_normal(parent.shape) * 10.0 ** random.integers(-6, 6)).astype(dtype)
            copies.refresh(values, base, TableKernel(parent, 1))
            assert copies.flush(values, base, TableKernel(parent, 1), 0, np.empty(7, dtype), np.empty(7)) == (0, 0.0)
            assert np.array_equal(values, parent)

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_agree_with_a_model_of_integers(dtype):
    """Three copies that add, flush and refresh in any order show what was sent before the refresh and all their own."""
    width = 3
    steps = st.tuples(st.integers(0, 2), st.sampled_from(["inc", "flush", "refresh"]), st.integers(-50, 50))

    @given(st.lists(steps, max_size=40))
    def check(actions):
        parent = np.zeros((2, width), dtype)
        held = [(parent.copy(), parent.copy()) for _ in range(3)]
        sent, own, known = 0, [0, 0, 0], [0, 0, 0]  # totals: in the parent, unsent, and seen in the parent
        for who, action, amount in actions:
            values, base = held[who]
            if action == "inc":
                values += values.dtype.type(amount)
                own[who] += amount
            elif action == "flush":
                copies.flush(values, base, TableKernel(parent, 1), who % 2, np.empty(width, dtype), np.empty(0))
                sent += own[who]
                known[who] += own[who]
                own[who] = 0
            else:
                copies.refresh(values, base, TableKernel(parent, 1))
                known[who] = sent
            assert (parent == sent).all()
            for rank, (mine, _) in enumerate(held):
                assert (mine == known[rank] + own[rank]).all()

    check()
