"""Rows of a table: the kernels against naive NumPy twins, in every dtype, width and alignment."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.kernels import rows
from support import twins
from support.twins import DTYPES, placed

small = st.integers(-1000, 1000)


@st.composite
def batches(draw, dtype):
    """Draw a table, ids with duplicates, and one row for each id."""
    height, width, count = draw(st.integers(1, 7)), draw(st.integers(1, 40)), draw(st.integers(0, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = placed(height * width, dtype, draw(st.integers(0, 4))).reshape(height, width)
    values[...] = random.integers(-1000, 1000, values.shape)
    ids = np.array(draw(st.lists(st.integers(0, height - 1), min_size=count, max_size=count)), np.int64)
    return values, ids, random.integers(-1000, 1000, (count, width)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lossless_add_touches_its_row_only_at_any_width_and_alignment(dtype):
    """Head, packs and tail together add each element once, for widths 1 to 40 and every start of row and delta."""
    lanes = 16 // np.dtype(dtype).itemsize
    for width in range(1, 41):
        for start in range(2 * lanes):
            memory = placed(start + width + lanes, dtype, 0)
            memory[...] = np.arange(memory.size)
            delta = placed(width, dtype, (start * 3) % lanes)
            delta[...] = np.arange(1000, 1000 + width)
            expected = memory.copy()
            expected[start : start + width] += delta
            rows.add_row_lossless(memory[start : start + width], delta)
            assert np.array_equal(memory, expected), (width, start)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lossless_add_takes_a_column_of_a_matrix(dtype):
    """A delta whose elements do not lie side by side is added as it reads."""
    matrix = np.arange(20 * 3).reshape(20, 3).astype(dtype)
    row = placed(20, dtype, 1)
    rows.add_row_lossless(row, matrix[:, 1])
    assert np.array_equal(row, matrix[:, 1])


@pytest.mark.parametrize("atomic", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_inc_rows_accumulates_duplicates(dtype, atomic):
    """Every delta is added to its row, also when an id occurs several times, in both ways of adding."""

    @given(batches(dtype))
    def check(batch):
        values, ids, deltas = batch
        expected = values.copy()
        twins.inc_rows(expected, ids, deltas)
        rows.inc_rows(rows.TableKernel(values, atomic), ids, deltas)
        assert np.array_equal(values, expected)

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_get_rows_copies_rows_in_the_order_of_the_ids(dtype):
    """Row n of the result is row ids[n] of the table, and the table stays as it was."""

    @given(batches(dtype))
    def check(batch):
        values, ids, out = batch
        before = values.copy()
        rows.get_rows(rows.TableKernel(values, 1), ids, out)
        assert np.array_equal(out, before[ids])
        assert np.array_equal(values, before)

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_put_rows_overwrites_and_the_last_of_equal_ids_stays(dtype):
    """Rows become their source, in the order of the ids."""

    @given(batches(dtype))
    def check(batch):
        values, ids, source = batch
        expected = values.copy()
        twins.put_rows(expected, ids, source)
        rows.put_rows(rows.TableKernel(values, 0), ids, source)
        assert np.array_equal(values, expected)

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_row_forms_do_what_the_batch_forms_do(dtype):
    """get_row, inc_row and put_row on one row equal the batch forms with one id."""

    @given(batches(dtype), st.integers(0, 1))
    def check(batch, atomic):
        values, _, _ = batch
        row, delta = values.shape[0] - 1, np.arange(values.shape[1]).astype(dtype)
        table, expected = rows.TableKernel(values, atomic), values.copy()
        out = np.empty_like(delta)
        rows.get_row(table, row, out)
        assert np.array_equal(out, expected[row])
        rows.inc_row(table, row, delta)
        expected[row] += delta
        assert np.array_equal(values, expected)
        rows.put_row(table, row, delta)
        expected[row] = delta
        assert np.array_equal(values, expected)

    check()


@given(st.lists(st.integers(-3, 8), max_size=12), st.integers(1, 6))
def test_first_bad_id_is_the_first_outside_the_table(ids, height):
    """The position of the first negative or too large id, or -1."""
    bad = [n for n, row in enumerate(ids) if not 0 <= row < height]
    assert rows.first_bad_id(np.array(ids, np.int64), height) == (bad[0] if bad else -1)


def test_first_bad_id_knows_the_ends_of_the_integers():
    """The smallest and the largest int64 are out of range as well."""
    ends = np.array([0, np.iinfo(np.int64).max, np.iinfo(np.int64).min])
    assert [rows.first_bad_id(ends[n : n + 1].copy(), 1) for n in range(3)] == [-1, 0, 0]


@given(st.lists(st.sampled_from([0.0, -1.5, np.nan, np.inf, -np.inf]), min_size=1, max_size=8))
def test_first_not_finite_is_the_first_nan_or_infinity(items):
    """The flat position of the first element that is no number, or -1."""
    bad = [n for n, item in enumerate(items) if not np.isfinite(item)]
    assert rows.first_not_finite(np.array([items], np.float32)) == (bad[0] if bad else -1)


@pytest.mark.skipif(not numba.config.BOUNDSCHECK, reason="needs NUMBA_BOUNDSCHECK=1; test_kernels_modes runs it so")
def test_bounds_checks_are_on():
    """A row outside the table raises in this mode: the other tests of this run show that no kernel goes there."""
    with pytest.raises(IndexError):
        rows.get_row(rows.TableKernel(np.zeros((2, 3), DTYPES[0]), 0), 2, np.zeros(3, DTYPES[0]))
