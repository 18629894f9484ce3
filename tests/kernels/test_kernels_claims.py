"""Claimed rows: additions against naive twins, what is put aside, and what the compiler refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba.core.errors import TypingError

from nbps.kernels import claim_layout, claims, relaxed, rows, shards
from nbps.kernels.claim_layout import CAPACITY, COUNT, HEADER, PUT, SPREAD
from nbps.tables.shared import SharedRows
from support import twins
from support.claimed import new_claims, shared_rows
from support.twins import DTYPES, placed


def table_of(values, capacity=CAPACITY, source=0, shared_claims=None, marks=rows.NOBODY_LOOKS):
    """Return a table of claimed rows, its buffer, and its claims."""
    height = values.shape[0]
    shared_claims = np.zeros(claim_layout.claims_bytes(height), np.uint8) if shared_claims is None else shared_claims
    aside = claims.Aside(values, shared_claims, marks, source, capacity)
    return rows.claimed_table(values, marks, aside), aside, shared_claims


def byte_of(row, shared_claims):
    return (row * SPREAD) & (shared_claims.size - 1)


@pytest.mark.parametrize("dtype", DTYPES)
@given(seed=st.integers(0, 2**32), width=st.integers(1, 40), start=st.integers(0, 4))
def test_additions_and_reads_of_claimed_rows_are_those_of_their_twins(dtype, seed, width, start):
    """Many rows and one, at any width and alignment; all claims are given back, and nothing is touched beside."""
    random = np.random.default_rng(seed)
    memory = placed(6 * width + 8, dtype, start)
    memory[:] = random.integers(-1000, 1000, memory.size)
    values, beside = memory[: 6 * width].reshape(6, width), memory[6 * width :].copy()
    expected, ids = values.copy(), random.integers(0, 6, 12)
    deltas = random.integers(-1000, 1000, (12, width)).astype(dtype)
    table, aside, shared_claims = table_of(values)
    rows.inc_rows(table, ids, deltas)
    rows.inc_row(table, ids[0], deltas[1])
    twins.inc_rows(expected, np.append(ids, ids[0]), np.append(deltas, deltas[1:2], axis=0))
    assert np.array_equal(values, expected)
    out = np.empty_like(deltas)
    rows.get_rows(table, ids, out)
    assert np.array_equal(out, expected[ids])
    assert (shared_claims.any(), aside.words[COUNT]) == (False, 0)
    assert np.array_equal(memory[6 * width :], beside)


@pytest.mark.parametrize("ids", [np.uint64, np.uint32, np.int32])
def test_rows_may_be_numbered_by_any_integers(ids):
    """Also by those that Numba makes floats of beside signed ones, as the indices of `prange` are."""
    values, out = np.zeros((9, 4)), np.zeros((9, 4))
    table, aside, shared_claims = table_of(values)
    shared_claims[byte_of(8, shared_claims)] = 9
    rows.inc_rows(table, np.arange(9, dtype=ids), np.ones((9, 4)))
    rows.inc_row(table, ids(1), np.ones(4))
    rows.get_rows(table, np.arange(9, dtype=ids), out)
    assert (out[:, 0].tolist(), aside.words[COUNT]) == ([1, 2, *[1] * 7], 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_column_of_a_matrix_is_added_as_it_reads(dtype):
    """A delta whose elements do not lie side by side, to a row that is free and to one that is claimed."""
    values, matrix = np.zeros((2, 20), dtype), np.arange(60).reshape(20, 3).astype(dtype)
    table, aside, shared_claims = table_of(values)
    shared_claims[byte_of(1, shared_claims)] = 9
    for row in (0, 1):
        rows.inc_row(table, row, matrix[:, 1])
    assert not values[1].any()
    shared_claims[:] = 0
    assert aside.retry() == 0
    assert np.array_equal(values, [matrix[:, 1]] * 2)


_LAST_USE = """
import numba
import numpy as np
from nbps.kernels import inc_row
from support.claimed import new_claims, shared_rows

@numba.njit
def train(table, ids, gradients, step):
    for n in range(ids.size):
        inc_row(table, ids[n], step * gradients[n])
        delta = np.ones_like(gradients[n])
        inc_row(table, ids[n], delta)

values = np.zeros((4, 9))
claims = new_claims(values)
for _ in range(2):
    train(shared_rows(values, True, claims=claims), np.arange(4), np.ones((4, 9)), 2.0)
print("sums:", *np.unique(values))
"""


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.parametrize("prunes", ["0", "1"])
def test_a_delta_that_is_not_used_again_is_read_before_it_is_freed(prunes):
    """Numba, which fills freed memory here, frees an array after its last use; whether it prunes references or not."""
    done = subprocess.run(
        [sys.executable, "-c", _LAST_USE],
        env={**os.environ, "NUMBA_DEBUG_NRT": "1", "NUMBA_LLVM_REFPRUNE_PASS": prunes},
        capture_output=True, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert "sums: 6.0\n" in done.stdout, done.stderr


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_cannot_be_added_is_put_aside_merged_read_and_added_later(dtype):
    """One entry a row; this worker sees it, others do not, until the row is free."""
    values = np.zeros((4, 7), dtype)
    marks = np.zeros(8, np.uint8)
    table, aside, shared_claims = table_of(values, marks=marks)
    other, _, _ = table_of(values, shared_claims=shared_claims)
    shared_claims[byte_of(2, shared_claims)] = 200
    ids, deltas = np.array([2, 1, 2, 2]), np.arange(28).reshape(4, 7).astype(dtype)
    rows.inc_rows(table, ids, deltas)
    assert not values[2].any()
    assert np.array_equal(values[1], deltas[1])
    assert (aside.words[COUNT], aside.words[PUT], aside.holders()) == (1, 3, [(2, 199)])
    assert marks.tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    mine, theirs = np.empty((1, 7), dtype), np.empty((1, 7), dtype)
    for kernel, out in ((table, mine), (other, theirs)):
        rows.get_rows(kernel, np.array([2]), out)
    assert np.array_equal(mine[0], deltas[[0, 2, 3]].sum(0))
    assert not theirs.any()
    assert aside.retry() == 1
    shared_claims[:] = 0
    assert (aside.retry(), aside.holders(), marks[2]) == (0, [], 1)
    assert np.array_equal(values[2], deltas[[0, 2, 3]].sum(0))


def test_it_is_tried_again_after_a_while_without_a_clock():
    """Sixteen additions later what was put aside is in the row, if that is free."""
    values = np.zeros((40, 4))
    table, aside, shared_claims = table_of(values)
    shared_claims[byte_of(0, shared_claims)] = 1
    rows.inc_rows(table, np.zeros(1, np.int64), np.ones((1, 4)))
    shared_claims[:] = 0
    rows.inc_rows(table, np.arange(1, 1 + claims.EVERY), np.ones((claims.EVERY, 4)))
    assert aside.words[COUNT] == 0
    assert (values[: 1 + claims.EVERY] == 1).all()


def test_a_full_buffer_adds_what_it_can_first():
    """More rows than entries: one is free by then, and makes room; nothing is lost."""
    values = np.zeros((CAPACITY + 1, 3), np.float32)
    table, aside, shared_claims = table_of(values)
    shared_claims[:] = 3
    ids = np.arange(CAPACITY)
    rows.inc_rows(table, ids, np.ones((CAPACITY, 3), np.float32))
    assert aside.words[COUNT] == CAPACITY
    shared_claims[byte_of(17, shared_claims)] = 0
    rows.inc_rows(table, np.array([CAPACITY]), np.ones((1, 3), np.float32))
    assert aside.words[COUNT] == CAPACITY
    assert values.sum(axis=1).nonzero()[0].tolist() == [17]
    shared_claims[:] = 0
    assert aside.retry() == 0
    assert (values == 1).all()


@pytest.mark.parametrize("sources", [1, 2, 16, 819])
def test_a_buffer_has_more_entries_than_there_can_be_claims(sources):
    """So one of a full buffer is of a row that nobody claims, whatever was stopped; or there is one for each row."""
    least = max(64, sources + 1)
    assert claim_layout.capacity(sources, 1_000_000) >= least
    assert [claim_layout.capacity(sources, height) for height in (1, 7)] == [1, 7]


def test_buffers_take_no_more_rows_than_are_needed():
    """Of a table of one long row a worker's buffer is one row, and so is that of an agent, which puts nothing aside."""
    sizes = []
    for height, sources in ((1, 3), (100, 3), (100, None)):
        values = np.zeros((height, 5))
        shared = SharedRows(values, rows.NOBODY_LOOKS, new_claims(values), True, 0, sources)
        sizes.append(shared.aside.words.size - HEADER)
    assert sizes == [1, 64, 1]


@pytest.mark.parametrize("height", [1, 3706, 100_000, 5_000_000])
def test_every_row_has_a_byte_of_its_own(height):
    """An odd number modulo a power of two: no two rows share a claim, and those of neighbours lie apart."""
    size = claim_layout.claims_bytes(height)
    assert size >= max(height, 1 << 16)
    assert size & (size - 1) == 0
    slots = (np.arange(height) * SPREAD) & (size - 1)
    assert np.bincount(slots).max() == 1
    assert height == 1 or np.abs(np.diff(slots)).min() >= 64


def test_tables_of_width_one_have_no_claims():
    """A single element is changed by one atomic operation."""
    assert [claim_layout.has_claims("float32", width) for width in (1, 2, 32)] == [False, True, True]


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_the_compiler_refuses_to_write_to_claimed_rows_in_another_way():
    """A store, a compare-and-swap of an element or a pack, and deltas of another type; each says what is wrong."""
    table, row = rows.table_like(4), np.ones(4, np.float32)

    @numba.njit
    def store(table, row):
        table.values[0, 0] += row[0]

    @numba.njit
    def add_element(table, row):
        relaxed.add_relaxed(table.values[0], 0, row[0])

    @numba.njit
    def add_pack(table, row):
        relaxed.add_pack_relaxed(table.values[0], 0, row, 0)

    @numba.njit
    def add_row(table, row):
        rows.inc_row(table, 0, row)

    with pytest.raises(TypingError, match="readonly"):
        store(table, row)
    for kernel in (add_element, add_pack):
        with pytest.raises(TypingError, match="additions to them go through inc_row or inc_rows"):
            kernel(table, row)
    with pytest.raises(TypingError, match="the deltas are float64, the rows they go to float32"):
        add_row(table, row.astype(np.float64))
    with pytest.raises(ValueError, match="read-only"):
        table.values[0, 0] = 1


@pytest.mark.parametrize("atomic", [0, 1])
def test_read_only_rows_without_claims_are_read_and_not_added_to(atomic):
    """A table of somebody's own: whether there are claims is part of its type, and refused where it cannot be."""
    values = np.arange(6.0).reshape(2, 3)
    values.flags.writeable = False
    out, ones = np.zeros((1, 3)), np.ones((1, 3))
    table = rows.TableKernel(values, atomic)
    rows.get_rows(table, np.array([1]), out)
    assert out.tolist() == [[3, 4, 5]]
    if not numba.config.DISABLE_JIT:
        with pytest.raises(TypingError, match=r"read-?only"):
            rows.inc_rows(table, np.array([1]), ones)
        claimed, aside, _ = table_of(np.zeros((2, 3)))
        with pytest.raises(TypingError, match="claims, and values that can be written to"):
            rows.inc_rows(claimed._replace(values=np.zeros((2, 3))), np.array([1]), ones)
        assert aside.words[COUNT] == 0


def test_the_table_to_compile_with_can_be_added_to():
    """Its row, its claim and its buffer are real memory: who compiles on one row instead of none reads no address 0."""
    table, out = rows.table_like(5, "float64"), np.zeros((1, 5))
    rows.inc_rows(table, np.array([0]), np.ones((1, 5)))
    rows.get_rows(rows.table_like(5, "float64"), np.array([0]), out)
    assert out.tolist() == [[1] * 5]


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_the_table_to_compile_with_has_the_types_of_a_job():
    """Claimed rows or not, as the table of such a definition has."""
    values = np.zeros((3, 4), np.float32)
    claimed, _, _ = table_of(values)
    pairs = [(rows.table_like(4), claimed), (rows.table_like(4, access="cached"), rows.TableKernel(values, 0))]
    pairs.append((rows.table_like(1, "int64"), rows.TableKernel(np.zeros((3, 1), np.int64), 1)))
    for example, real in pairs:
        assert numba.typeof(example) == numba.typeof(real)
    assert claimed.claimed.capacity >= HEADER


# --------------------------------------------------------------------------- an agent


def test_an_agent_stops_at_a_row_that_is_claimed_and_goes_on_there():
    """Of additions and values of other nodes all before it are done, the rest when it is free; nothing twice."""
    values, base, ids = np.zeros((6, 4)), np.zeros((6, 4)), np.arange(6)
    shared_claims = new_claims(values)
    table, byte = shared_rows(values, True, claims=shared_claims), byte_of(3, shared_claims)
    shared_claims[byte] = 1
    assert shards.apply_rows(table, ids, np.ones((6, 4)), 0) == 3
    assert shards.apply_rows(table, ids, np.ones((6, 4)), 3) == 3
    assert shards.install_rows(table, base, ids, np.full((6, 4), 5.0), 0) == 3
    assert values[:, 0].tolist() == [6, 6, 6, 0, 0, 0]
    shared_claims[byte] = 0
    assert shards.apply_rows(table, ids, np.ones((6, 4)), 3) == 6
    assert shards.install_rows(table, base, ids, np.full((6, 4), 5.0), 3) == 6
    assert (values == 6).all()
    assert (base == 5).all()
    assert not shared_claims.any()


def test_what_is_rounded_off_a_claimed_row_is_sent_next_time():
    """A row that cannot be made its owner's to the bit is marked; the next batch brings the difference."""
    values, base = np.float32([[1e8, 1]]), np.float32([[3, 1]])
    shared_claims, dirty = new_claims(values), np.zeros(8, np.uint8)
    table = shared_rows(values, True, dirty, shared_claims)
    values[0, 0] = np.float32(1e8) / 3
    out_ids, out, seen = np.zeros(1, np.int64), np.zeros((1, 2), np.float32), np.zeros(2, np.float32)
    shared_claims[0] = 1
    known = base[0, 0] + (values[0, 0] - base[0, 0])
    assert known != values[0, 0]
    assert shards.take_deltas(table, base, np.array([0]), out_ids, out, seen) == 1
    assert (dirty[0], base[0, 0]) == (1, known)
    assert values[0, 0] != known
    shared_claims[0] = 0
    assert shards.take_deltas(table, base, np.array([0]), out_ids, out, seen) == 1
    assert values[0, 0] == base[0, 0] == known + out[0, 0]
