"""Looking for rows of which a byte is 1, against naive twins."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.kernels import marks, presence

FORMS = ["jitted", "plain"]


def kernel_of(kernel, form):
    """Return a kernel in one of its two forms."""
    return kernel if form == "jitted" or numba.config.DISABLE_JIT else kernel.py_func


@pytest.mark.parametrize("form", FORMS)
@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 319), st.integers(0, 7)), max_size=40), st.data())
def test_the_next_word_with_a_one_is_found(form, words, bytes_, data):
    """All other bytes up to 7 are passed over, wherever the search begins and ends."""
    array = np.zeros(8 * words, np.uint8)
    for place, value in bytes_:
        array[place % array.size] = value
    last = data.draw(st.integers(-1, words - 1))
    group = data.draw(st.integers(0, last + 1))
    expected = next((k for k in range(group, last + 1) if (array[8 * k : 8 * k + 8] == 1).any()), last + 1)
    assert kernel_of(marks.next_one, form)(array.view(np.int64), group, last) == expected


@pytest.mark.parametrize("form", FORMS)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=20), st.integers(0, 2), st.data())
def test_the_rows_of_an_owner_are_ones_of_a_word(form, owners, owner, data):
    """A byte for each of eight rows; those behind the last are nobody's."""
    first = data.draw(st.integers(0, len(owners) - 1)) // 8 * 8
    expected = [1 if found == owner else 0 for found in owners[first : first + 8]]
    word = kernel_of(marks.owned, form)(np.array(owners, np.uint8), first, owner)
    assert np.array([word], np.int64).view(np.uint8).tolist() == expected + [0] * (8 - len(expected))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sharding", ["one block", "blocks", "hash"])
@pytest.mark.parametrize("rows", [1, 7, 63, 64, 65, 20_001])
def test_wanted_rows_are_found(form, sharding, rows):
    """Those of the owner, in their order; what other owners' rows say stays, and so does what lies behind the last."""
    random = np.random.default_rng(3)
    owners = {"one block": np.zeros(rows), "blocks": np.arange(rows) * 3 // rows, "hash": random.integers(0, 3, rows)}
    owned, states = owners[sharding].astype(np.uint8), np.full(-(-rows // 8) * 8, presence.WANTED_ROW, np.uint8)
    states[:rows] = random.choice([0, 2, 3, 4], rows)
    wanted = np.sort(random.choice(rows, min(rows, 100), replace=False))
    states[wanted] = presence.WANTED_ROW
    for owner in range(3):
        ids, expected, out = np.flatnonzero(owned == owner), states.copy(), np.zeros(rows, np.int64)
        mine = np.intersect1d(wanted, ids)
        expected[mine] = presence.ASKED
        span = (ids[0], ids[-1]) if ids.size else (0, -1)
        count = kernel_of(presence.take_wanted, form)(states, states.view(np.int64), owned, owner, *span, out)
        assert out[:count].tolist() == mine.tolist()
        assert np.array_equal(states, expected)
