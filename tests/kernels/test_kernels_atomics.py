"""Every atomic operation, compiled and as plain Python, against what it means for one process alone."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.kernels import atomics
from support.twins import DTYPES, placed

INTEGERS = [dtype for dtype in DTYPES if dtype.startswith("int")]
small = st.integers(-1000, 1000)
JITTED = {
    name: numba.njit(source)
    for name, source in {
        "load_acquire": lambda array, index: atomics.load_acquire(array, index),
        "store_release": lambda array, index, value: atomics.store_release(array, index, value),
        "fetch_add": lambda array, index, value: atomics.fetch_add(array, index, value),
        "exchange": lambda array, index, value: atomics.exchange(array, index, value),
        "compare_exchange": lambda array, index, old, new: atomics.compare_exchange(array, index, old, new),
        "address": lambda array, index: atomics.address(array, index),
        "fence": lambda: atomics.fence(),
        "pause": lambda: atomics.pause(),
    }.items()
}


@pytest.fixture(params=["jitted", "plain"])
def form(request):
    """Return the operations in one of their two forms."""
    return JITTED if request.param == "jitted" else {name: getattr(atomics, name) for name in JITTED}


def numbers(dtype):
    return st.lists(small, min_size=1, max_size=9).map(lambda items: np.array(items, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_load_and_store_move_one_element(form, dtype):
    """A load returns the element, a store changes it and no neighbour."""

    @given(numbers(dtype), st.data())
    def check(array, data):
        index = data.draw(st.integers(0, array.size - 1))
        value = array.dtype.type(data.draw(small))
        expected = array.copy()
        assert form["load_acquire"](array, index) == expected[index]
        form["store_release"](array, index, value)
        expected[index] = value
        assert np.array_equal(array, expected)

    check()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_load_and_store_keep_every_bit(form, dtype):
    """NaN with a payload, minus zero and denormals pass unchanged."""
    if dtype not in DTYPES:
        pytest.skip("not in this run's types")
    words = {"float32": [0x7FC01234, 0x80000000, 1], "float64": [0x7FF8000000001234, 1 << 63, 1]}[dtype]
    source = np.array(words, f"uint{8 * np.dtype(dtype).itemsize}").view(dtype)
    target = np.zeros_like(source)
    for index in range(source.size):
        form["store_release"](target, index, form["load_acquire"](source, index))
    assert target.tobytes() == source.tobytes()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_read_modify_write_returns_what_was_there(form, dtype):
    """fetch_add and exchange return the old element and leave the new one, and no neighbour changes."""

    @given(numbers(dtype), st.data())
    def check(array, data):
        index = data.draw(st.integers(0, array.size - 1))
        first, second = array.dtype.type(data.draw(small)), array.dtype.type(data.draw(small))
        expected = array.copy()
        assert form["fetch_add"](array, index, first) == expected[index]
        expected[index] += first
        assert form["exchange"](array, index, second) == expected[index]
        expected[index] = second
        assert np.array_equal(array, expected)

    check()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_compare_exchange_writes_only_what_was_expected(form, dtype):
    """The element changes exactly if it is the expected one, and the result says which."""

    @given(numbers(dtype), st.booleans(), st.data())
    def check(array, matches, data):
        index = data.draw(st.integers(0, array.size - 1))
        expected = array.copy()
        guess = array[index] if matches else array.dtype.type(array[index] + 1)
        desired = array.dtype.type(data.draw(small))
        assert form["compare_exchange"](array, index, guess, desired) == matches
        if matches:
            expected[index] = desired
        assert np.array_equal(array, expected)

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_address_is_that_of_the_element(form, dtype):
    """The address is where NumPy says the element lies."""
    array = placed(5, dtype, 1)
    assert [form["address"](array, n) for n in range(5)] == [array[n:].ctypes.data for n in range(5)]


def test_fence_and_pause_change_nothing(form):
    """Both can be called anywhere and return nothing."""
    assert form["fence"]() is None
    assert form["pause"]() is None
