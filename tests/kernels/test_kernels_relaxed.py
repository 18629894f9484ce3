"""Every addition that loses no update, compiled and as plain Python, against what it means for one process alone."""

from __future__ import annotations

import threading

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.kernels import relaxed
from support.twins import DTYPES, placed

INTEGERS = [dtype for dtype in DTYPES if dtype.startswith("int")]
small = st.integers(-1000, 1000)
JITTED = {
    name: numba.njit(source)
    for name, source in {
        "add_relaxed": lambda array, index, value: relaxed.add_relaxed(array, index, value),
        "add_pack_relaxed": lambda array, index, deltas, first: relaxed.add_pack_relaxed(array, index, deltas, first),
        "shift_relaxed": lambda array, index, old, new: relaxed.shift_relaxed(array, index, old, new),
        "shift_pack_relaxed": lambda array, index, old, new, first: relaxed.shift_pack_relaxed(
            array, index, old, new, first
        ),
    }.items()
}


@pytest.fixture(params=["jitted", "plain"])
def form(request):
    """Return the operations in one of their two forms."""
    return JITTED if request.param == "jitted" else {name: getattr(relaxed, name) for name in JITTED}


def numbers(dtype):
    return st.lists(small, min_size=1, max_size=9).map(lambda items: np.array(items, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_relaxed_adds_to_one_element(form, dtype):
    """One element grows by the value and no neighbour changes."""

    @given(numbers(dtype), st.data())
    def check(array, data):
        index = data.draw(st.integers(0, array.size - 1))
        value = array.dtype.type(data.draw(small))
        expected = array.copy()
        expected[index] += value
        form["add_relaxed"](array, index, value)
        assert np.array_equal(array, expected)

    check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step", [1, 3])
def test_add_pack_adds_all_lanes_and_nothing_else(form, dtype, step):
    """Every lane of a pack is added, from any place in `deltas`, also from a column of a matrix."""
    lanes = relaxed.PACK_BYTES // np.dtype(dtype).itemsize
    for pack in range(3):
        for first in range(4):
            array = placed(4 * lanes, dtype, 0)
            array[...] = np.arange(array.size)
            deltas = np.arange(100, 100 + (lanes + 4) * step).astype(dtype)[::step]
            expected = array.copy()
            expected[pack * lanes : (pack + 1) * lanes] += deltas[first : first + lanes]
            form["add_pack_relaxed"](array, pack * lanes, deltas, first)
            assert np.array_equal(array, expected)


def shifted(array, old, new):
    return np.where(array == old, new, array + (new - old))


@pytest.mark.parametrize("dtype", DTYPES)
def test_shift_relaxed_moves_one_element(form, dtype):
    """One element grows by the difference, and becomes the new value where it is the old one; no neighbour changes."""

    @given(numbers(dtype), st.booleans(), st.data())
    def check(array, same, data):
        index = data.draw(st.integers(0, array.size - 1))
        old = array[index] if same else array.dtype.type(data.draw(small))
        new = array.dtype.type(data.draw(small))
        expected = array.copy()
        expected[index] = shifted(array[index], old, new)
        form["shift_relaxed"](array, index, old, new)
        assert np.array_equal(array, expected)

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_shift_pack_moves_all_lanes_and_nothing_else(form, dtype):
    """Each lane by its own difference, from any place in old and new, which need not be aligned."""
    lanes = relaxed.PACK_BYTES // np.dtype(dtype).itemsize
    random = np.random.default_rng(0)
    for pack in range(3):
        for first in range(4):
            array, old, new = placed(4 * lanes, dtype, 0), placed(lanes + 4, dtype, 1), placed(lanes + 4, dtype, 3)
            for one in (array, old, new):
                one[...] = random.integers(-50, 50, one.size)
            place = slice(pack * lanes, (pack + 1) * lanes)
            old[first] = array[pack * lanes]  # one lane where nothing is unsent
            expected = array.copy()
            expected[place] = shifted(array[place], old[first : first + lanes], new[first : first + lanes])
            form["shift_pack_relaxed"](array, pack * lanes, old, new, first)
            assert np.array_equal(array, expected)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype.startswith("float")])
def test_a_shift_from_the_old_value_is_the_new_one_to_the_bit(form, dtype):
    """Where adding the difference would round, and where it would be no number."""
    lanes = relaxed.PACK_BYTES // np.dtype(dtype).itemsize
    for was, becomes in ((1e10, 1e-10), (0.1, 0.3), (np.inf, 1.0), (1.0, -np.inf), (-0.0, 0.0), (5.0, np.nan)):
        array, old, new = placed(lanes, dtype, 0), np.full(lanes, was, dtype), np.full(lanes, becomes, dtype)
        array[...] = was
        form["shift_relaxed"](array, lanes - 1, old[0], new[0])
        assert array[-1:].tobytes() == new[:1].tobytes()
        array[...] = was
        form["shift_pack_relaxed"](array, 0, old, new, 0)
        assert array.tobytes() == new.tobytes()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_lanes_of_a_pack_do_not_carry_into_each_other(dtype):
    """A lane that wraps around leaves its neighbours alone."""
    lanes = relaxed.PACK_BYTES // np.dtype(dtype).itemsize
    array, deltas = placed(lanes, dtype, 0), np.ones(lanes, dtype)
    array[...] = np.iinfo(dtype).max
    with np.errstate(over="ignore"):
        JITTED["add_pack_relaxed"](array, 0, deltas, 0)
    assert np.array_equal(array, np.full(lanes, np.iinfo(dtype).min, dtype))


@numba.njit(nogil=True)
def shift_many(array, old, new, rounds):
    for _ in range(rounds):
        relaxed.shift_relaxed(array, 0, old[0], new[0])
        relaxed.shift_pack_relaxed(array, relaxed.pack_lanes(array), old, new, 0)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="threads of plain Python are no atomics")
@pytest.mark.parametrize("dtype", DTYPES)
def test_shifts_of_two_threads_lose_nothing(dtype):
    """One moves all elements up by one, the other by three, at the same time."""
    lanes, rounds = relaxed.PACK_BYTES // np.dtype(dtype).itemsize, 100_000
    array = placed(2 * lanes, dtype, 0)
    old = np.full(lanes, -1, dtype)  # which the elements are at no time
    shift_many(array, old, old, 0)
    both = threading.Barrier(2)

    def work(step):
        both.wait()
        shift_many(array, old, old + array.dtype.type(step), rounds)

    threads = [threading.Thread(target=work, args=(step,)) for step in (1, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert array[0] == 4 * rounds
    assert (array[lanes:] == 4 * rounds).all()
