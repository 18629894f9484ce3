"""Rows on their way between nodes: the kernels against naive twins, compiled and plain, and under contention."""

from __future__ import annotations

import threading

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbps.kernels import rows, shards
from nbps.kernels.claims import retry
from support.claimed import new_claims, shared_rows
from support.twins import DTYPES, placed

FORMS = ["jitted", "plain"]


def kernel_of(kernel, form):
    """Return a kernel in one of its two forms."""
    return kernel if form == "jitted" or numba.config.DISABLE_JIT else kernel.py_func


@st.composite
def marked_tables(draw):
    """Draw marks of a table, padded to whole words, and who of three nodes owns its rows, in blocks or not."""
    size = draw(st.sampled_from([draw(st.integers(1, 70)), draw(st.integers(71, 700))]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    dirty = np.zeros(-(-size // 8) * 8, np.uint8)
    dirty[:size] = random.random(size) < draw(st.sampled_from([0.0, 0.005, 0.05, 0.5, 1.0]))
    owners = random.integers(0, draw(st.integers(1, 3)), size).astype(np.uint8)
    if draw(st.booleans()):
        owners.sort()
    return dirty, owners


@pytest.mark.parametrize("form", FORMS)
@given(marked_tables(), st.integers(0, 2))
def test_marks_that_are_taken_are_those_that_were_set(form, drawn, owner):
    """Marked rows of the owner, in their order, are found and cleared; marks of all other rows stay."""
    dirty, owners = drawn
    ids = np.flatnonzero(owners == owner)
    span = (ids[0], ids[-1]) if ids.size else (0, -1)
    expected, again = dirty.copy(), dirty.copy()
    marked = [row for row in ids if dirty[row]]
    expected[ids] = 0
    out = np.zeros(owners.size, np.int64)
    count = kernel_of(shards.take_marked, form)(dirty, dirty.view(np.int64), owners, owner, *span, out)
    assert out[:count].tolist() == marked
    assert np.array_equal(dirty, expected)
    count = kernel_of(shards.take_marks_of, form)(again, ids, out)
    assert out[:count].tolist() == marked
    assert np.array_equal(again, expected)


@st.composite
def replicas(draw, dtype):
    """Draw (values, base, ids) of one shape, at any alignment; some elements differ, rows ascend."""
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 20))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))

    def matrix():
        found = placed(height * width, dtype, draw(st.integers(0, 4))).reshape(height, width)
        found[...] = random.integers(-1000, 1000, (height, width))
        return found

    values, base = matrix(), matrix()
    same = random.random((height, width)) < draw(st.sampled_from([0.0, 0.7, 1.0]))
    values[same] = base[same]
    return values, base, np.flatnonzero(random.random(height) < 0.7)


@pytest.mark.parametrize("is_claimed", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_differences_are_taken_once(dtype, form, is_claimed):
    """Rows with a difference come with it, and base is the values then; of all others nothing is written."""

    @given(replicas(dtype))
    def check(drawn):
        values, base, ids = drawn
        before, live = base.copy(), values.copy()
        out_ids, out = np.full(ids.size, -7, np.int64), np.zeros((ids.size, values.shape[1]), dtype)
        read, seen = out.copy(), np.zeros(values.shape[1], dtype)
        kernel_of(shards.read_deltas, form)(values, base, ids, read)
        assert np.array_equal(read, values[ids] - base[ids])
        table = shared_rows(values, is_claimed)
        count = kernel_of(shards.take_deltas, form)(table, base, ids, out_ids, out, seen)
        changed = [row for row in ids if (live[row] != before[row]).any()]
        assert out_ids[:count].tolist() == changed
        assert np.array_equal(out[:count], live[changed] - before[changed])
        assert (out_ids[count:] == -7).all()
        assert np.array_equal(values, live)
        before[ids] = live[ids]
        assert np.array_equal(base, before)
        assert kernel_of(shards.take_deltas, form)(table, base, ids, out_ids, out, seen) == 0

    check()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_are_those_of_the_marked_rows(dtype, form):
    """The largest difference over the largest value, of rows that are marked and differ; marks stay."""

    @given(replicas(dtype), st.integers(0, 255))
    def check(drawn, bits):
        values, base, ids = drawn
        dirty = np.array([bits >> row & 1 for row in range(8)], np.uint8)
        out_ids, weights = np.zeros(ids.size, np.int64), np.zeros(ids.size)
        count = kernel_of(shards.weigh_marked, form)(dirty, values, base, ids, out_ids, weights)
        expected = [row for row in ids if dirty[row] and (values[row] != base[row]).any()]
        assert out_ids[:count].tolist() == expected
        for row, weight in zip(expected, weights, strict=False):
            largest = np.abs(values[row].astype(float) - base[row]).max()
            assert weight == largest / (np.abs(base[row].astype(float)).max() + 1e-30)
        assert dirty.tolist() == [bits >> row & 1 for row in range(8)]

    check()


@pytest.mark.parametrize("is_claimed", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_applied_added_and_copied(dtype, form, is_claimed):
    """Values grow by the deltas of their rows, and copies are what the rows are."""

    @given(replicas(dtype))
    def check(drawn):
        values, deltas, ids = drawn
        expected = values.copy()
        for n, row in enumerate(ids):
            expected[row] += deltas[n]
        table = shared_rows(values, is_claimed)
        assert kernel_of(shards.apply_rows, form)(table, ids, deltas[: ids.size], 0) == ids.size
        assert np.array_equal(values, expected)
        out = np.zeros((ids.size, values.shape[1]), dtype)
        kernel_of(shards.copy_rows, form)(values, ids, out)
        assert np.array_equal(out, expected[ids])
        kernel_of(shards.add_to_base, form)(values, ids, out)
        expected[ids] += expected[ids]
        assert np.array_equal(values, expected)

    check()


id_lists = st.sets(st.integers(0, 12)).map(lambda found: np.array(sorted(found), np.int64))


@pytest.mark.parametrize("form", FORMS)
@given(id_lists, id_lists)
def test_common_rows_of_two_batches_are_added(form, ids, others):
    """Each row of the second that the first has is added to it there."""
    values = np.arange(3 * ids.size).reshape(ids.size, 3)
    deltas = 1000 + np.arange(3 * others.size).reshape(others.size, 3)
    expected = values.copy()
    for m, row in enumerate(others):
        expected[ids == row] += deltas[m]
    kernel_of(shards.merge_common, form)(ids, values, others, deltas, False)
    assert np.array_equal(values, expected)


@st.composite
def orders_to_tell(draw):
    """Draw how many rows there are, and what happens to who must be told of them: sets of rows, a node, whether all."""
    size = draw(st.sampled_from([1, 63, 64, 65, 4096, 4097, 10_000]))
    row = st.one_of(
        st.integers(0, size - 1), st.integers(max(0, size - 3), size - 1), st.integers(0, min(size, 130) - 1)
    )
    some = st.sets(row, max_size=12).map(lambda found: np.array(sorted(found), np.int64))
    kind = st.sampled_from(["add", "take", "take everything", "subscribe", "unsubscribe"])
    return size, draw(st.lists(st.tuples(kind, some, st.sampled_from([0, 1, 5, 63])), max_size=20))


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20)
@given(orders_to_tell())
def test_who_must_be_told_is_told_once(form, drawn):
    """Of every row that was added since, in their order, if it subscribes or is told everything; others keep theirs."""
    size, orders = drawn
    pending, subscribers, out = np.zeros(size, np.uint64), np.zeros(size, np.uint64), np.zeros(size, np.int64)
    summary = np.zeros(-(-size // shards.ROWS_OF_A_WORD), np.uint64)
    due, subscribed = set(), set()
    for kind, ids, node in orders:
        bit = np.uint64(1 << node)
        pairs = {(int(row), node) for row in ids}
        if kind == "add":  # for this node and the last
            kernel_of(shards.add_pending, form)(pending, summary, ids, bit | np.uint64(1 << 63))
            due |= pairs | {(int(row), 63) for row in ids}
        elif kind == "subscribe":
            kernel_of(shards.subscribe, form)(subscribers, ids, bit)
            subscribed |= pairs
        elif kind == "unsubscribe":
            kernel_of(shards.unsubscribe, form)(subscribers, ids, bit)
            subscribed -= pairs
        else:
            everything = kind == "take everything"
            expected = {pair for pair in due if pair[1] == node and (everything or pair in subscribed)}
            due -= expected
            count = kernel_of(shards.take_pending, form)(pending, summary, subscribers, bit, everything, out)
            assert out[:count].tolist() == sorted(row for row, _ in expected)
    for bits, pairs in ((pending, due), (subscribers, subscribed)):
        found = {(int(row), node) for row in np.flatnonzero(bits) for node in range(64) if int(bits[row]) >> node & 1}
        assert found == pairs


@pytest.mark.parametrize("form", FORMS)
def test_nobody_to_tell_costs_nothing(form):
    """Without targets nothing is noted, and what was taken leaves an empty summary."""
    pending, summary, ids = np.zeros(100, np.uint64), np.zeros(1, np.uint64), np.arange(100)
    kernel_of(shards.add_pending, form)(pending, summary, ids, np.uint64(0))
    assert not summary.any()
    kernel_of(shards.add_pending, form)(pending, summary, ids, np.uint64(2))
    assert summary.tolist() == [3]
    assert kernel_of(shards.take_pending, form)(pending, summary, pending, np.uint64(2), True, ids.copy()) == 100
    assert not summary.any()


@pytest.mark.parametrize("is_claimed", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_installed_values_keep_what_is_unsent(dtype, form, is_claimed):
    """Values move by fresh - base, and base is fresh then; where nothing is unsent values are fresh to the bit."""

    @given(replicas(dtype), st.integers(0, 2**32))
    def check(drawn, seed):
        values, base, ids = drawn
        random = np.random.default_rng(seed)
        fresh = random.integers(-1000, 1000, (ids.size, values.shape[1])).astype(dtype)
        if dtype.startswith("float"):
            fresh *= random.random(fresh.shape).astype(dtype) * dtype_scale(random)
        kept = random.random(fresh.shape) < 0.3
        fresh[kept] = base[ids][kept]
        expected, known = values.copy(), base.copy()
        with np.errstate(over="ignore"):
            moved = values[ids] + (fresh - base[ids])
        expected[ids] = np.where(values[ids] == base[ids], fresh, moved)
        known[ids] = fresh
        table = shared_rows(values, is_claimed)
        assert kernel_of(shards.install_rows, form)(table, base, ids, fresh, 0) == ids.size
        assert np.array_equal(values, expected)
        assert np.array_equal(base, known)

    check()


def dtype_scale(random):
    return np.float32(10.0 ** random.integers(-6, 6))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_one_writer_travel_as_they_are(dtype, form):
    """Changed rows come whole and overwrite; a value that a local writer has changed since is not installed."""

    @given(replicas(dtype), id_lists)
    def check(drawn, others):
        values, base, ids = drawn
        live, changed = values.copy(), [row for row in ids if (values[row] != base[row]).any()]
        out_ids, out = np.zeros(ids.size, np.int64), np.zeros((ids.size, values.shape[1]), dtype)
        expected = base.copy()
        expected[ids] = values[ids]
        count = kernel_of(shards.take_values, form)(values, base, ids, out_ids, out)
        assert out_ids[:count].tolist() == changed
        assert np.array_equal(out[:count], live[changed])
        assert np.array_equal(values, live)
        assert np.array_equal(base, expected)
        values += 1
        expected, fresh = values.copy(), out[: ids.size] + values.dtype.type(9)
        expected[ids] = np.where(values[ids] == base[ids], fresh, values[ids])
        base[ids[::2]] = values[ids[::2]]
        expected[ids[::2]] = fresh[::2]
        kernel_of(shards.install_unchanged, form)(values, base, ids, fresh)
        assert np.array_equal(values, expected)
        assert np.array_equal(base[ids], fresh)
        expected[ids] = fresh
        kernel_of(shards.overwrite_rows, form)(values, ids, fresh)
        assert np.array_equal(values, expected)
        common = np.full((others.size, values.shape[1]), 3, dtype)
        expected = fresh.copy()
        expected[np.isin(ids, others)] = 3
        kernel_of(shards.merge_common, form)(ids, fresh, others, common, True)
        assert np.array_equal(fresh, expected)

    check()


@pytest.mark.parametrize("form", FORMS)
@given(
    st.lists(st.integers(-3, 12), max_size=8), st.lists(st.integers(0, 2), min_size=1, max_size=10), st.integers(0, 2)
)
def test_the_first_foreign_id_is_found(form, ids, owners, owner):
    """The first that does not ascend, is out of range or is not the owner's; -1 if there is none."""
    bad = [
        n
        for n, row in enumerate(ids)
        if not 0 <= row < len(owners) or owners[row] != owner or (n and row <= ids[n - 1])
    ]
    found = kernel_of(shards.first_foreign_id, form)(np.array(ids, np.int64), np.array(owners, np.uint8), owner)
    assert found == (bad[0] if bad else -1)
    ends = np.iinfo(np.int64)
    for end in (ends.min, ends.max):
        assert kernel_of(shards.first_foreign_id, form)(np.array([end]), np.array(owners, np.uint8), owner) == 0


@pytest.mark.parametrize("form", FORMS)
def test_whoever_changes_rows_marks_them(form):
    """Every way of changing a row sets its mark and no other; a table that nobody watches has none."""
    inc, put = kernel_of(rows.inc_rows, form), kernel_of(rows.put_rows, form)
    mark_rows = kernel_of(rows.mark_rows, form)
    for change in (
        lambda table: inc(table, np.array([2, 5]), np.ones((2, 3))),
        lambda table: put(table, np.array([2, 5]), np.ones((2, 3))),
        lambda table: [mark_rows(table, 2, 3), mark_rows(table, 5, 6), mark_rows(table, 4, 4)],
    ):
        for atomic in (0, 1):
            dirty = np.zeros(8, np.uint8)
            change(rows.TableKernel(np.zeros((8, 3)), atomic, dirty))
            assert np.flatnonzero(dirty).tolist() == [2, 5]
        change(rows.TableKernel(np.zeros((8, 3)), 1))


# --------------------------------------------------------------------------- under contention


@pytest.mark.parametrize("is_claimed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_addition_is_lost_while_rows_are_installed_and_collected(dtype, is_claimed):
    """A thread adds ones to rows of every alignment, another installs and collects: sums are exact in the end."""
    height, width, rounds = 3, 13, 60_000
    values = placed(height * width, dtype, 1).reshape(height, width)
    base, dirty, owners = values.copy(), np.zeros(8, np.uint8), np.zeros(height, np.uint8)
    claims = new_claims(values)
    table, agent = (shared_rows(values, is_claimed, dirty, claims) for _ in range(2))
    ids = np.arange(height)
    order, ones = np.arange(rounds) % height, np.ones((rounds, width), dtype)
    rows.inc_rows(table, order[:0], ones[:0])
    sent, shipped = np.zeros((height, width)), np.zeros((height, width), dtype)
    taken, out_ids, out = np.zeros(height, np.int64), np.zeros(height, np.int64), np.zeros((height, width), dtype)
    seen = np.zeros(width, dtype)

    def collect():
        count = shards.take_marked(dirty, dirty.view(np.int64), owners, 0, 0, height - 1, taken)
        count = shards.take_deltas(agent, base, taken[:count], out_ids, out, seen)
        sent[out_ids[:count]] += out[:count]

    def install(fresh):
        done = 0
        while done < height:
            done = shards.install_rows(agent, base, ids, fresh, done)

    collect()
    install(base.copy())
    adder = threading.Thread(target=lambda: rows.inc_rows(table, order, ones))
    adder.start()
    meanwhile = 0
    while adder.is_alive() or meanwhile < 10:
        shipped += 1  # what others have added
        install((sent + shipped).astype(dtype))
        collect()
        meanwhile += 1
    adder.join()
    if is_claimed:
        assert retry(table.claimed, values.dtype.type(0)) == 0
    collect()
    assert (sent == rounds / height).all()
    assert (values == rounds / height + meanwhile).all()
