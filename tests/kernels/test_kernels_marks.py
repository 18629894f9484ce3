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
@given(st.sets(st.integers(0, 60), max_size=40), st.booleans(), st.integers(0, 70), st.data())
def test_the_position_of_a_row_is_found(form, rows, consecutive, row, data):
    """That of the first id which is not smaller, from where the search begins; the end if there is none."""
    ids = np.arange(5, 5 + len(rows)) if consecutive else np.array(sorted(rows), np.int64)
    low = data.draw(st.integers(0, ids.size))
    assert kernel_of(marks.position, form)(ids, low, row) == low + np.searchsorted(ids[low:], row)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("part", ["all", "the second half", "every third"])
def test_wanted_rows_of_a_large_table_are_found(form, part):
    """Those of the ids, in their order; what other owners' rows say stays."""
    random, rows = np.random.default_rng(3), 20_000
    ids = {
        "all": np.arange(rows),
        "the second half": np.arange(rows // 2 + 3, rows),
        "every third": np.arange(0, rows, 3),
    }
    ids, states = ids[part], random.choice([0, 2, 3, 4], rows).astype(np.uint8)
    wanted = np.sort(random.choice(rows, 100, replace=False))
    states[wanted] = presence.WANTED_ROW
    mine, expected, out = np.intersect1d(wanted, ids), states.copy(), np.zeros(rows, np.int64)
    expected[mine] = presence.ASKED
    count = kernel_of(presence.take_wanted, form)(states, states.view(np.int64), ids, out)
    assert out[:count].tolist() == mine.tolist()
    assert np.array_equal(states, expected)
