"""Rows on their way between nodes: adding beside collecting and installing, in every schedule."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from nbps.kernels import shards
from nbps.kernels.atomics import compare_exchange, load_acquire, store_release
from nbps.kernels.relaxed import add_relaxed
from nbps.testing.consistency.interleave import Machine, Order, Shared

ORDERS = list(Order)


def add_and_mark(row, dirty, delta):
    """Do what `inc_row` does, of one element."""
    add_relaxed(row, 0, delta)
    store_release(dirty, 0, 1)


def eights_of(dirty):
    """Return eight marks as one word, of which all but the first are never set."""
    return Shared(dirty._machine, dirty.first, (1,), 8)


def clear_by_store(array, index, value):
    store_release(array, index, load_acquire(array, index) + value)


def explore_collection(order, take, alone, planted=None, install=False):
    """Have a worker add to a row twice; the agent takes what is marked three times, perhaps installing between."""
    machine = Machine(order)
    values, dirty = machine.array(8, 1), machine.array(8)
    values.dtype = np.dtype(np.int64)  # which the explorer's arrays have not
    add = machine.plain(add_and_mark)
    planted = {name: machine.plain(one) for name, one in (planted or {}).items()}
    take_marked = machine.plain(shards.take_marked, **planted)
    take_deltas = machine.plain(shards.take_deltas)
    install_rows = machine.plain(
        shards.install_rows,
        _shift_row=machine.plain(shift_row if install != "plainly" else shift_row_plainly),
    )
    owners = np.zeros(8, np.uint8)
    if not alone:
        owners[1:] = 1

    def work():
        for _ in range(2):
            add(values[0], dirty, 1)

    def collect():
        base, total = np.zeros((8, 1), np.int64), 0
        taken, out_ids, out = np.zeros(8, np.int64), np.zeros(8, np.int64), np.zeros((8, 1), np.int64)
        for turn in range(3):
            total += take(take_marked, take_deltas, (values, base, dirty, owners), (taken, out_ids, out))
            if install and turn == 0:
                install_rows(values, base, np.array([0]), np.array([[total + 10]]))
        return total

    machine.thread(work)
    machine.thread(collect)

    def check(cells, returned):
        value, mark, sent = cells[values.first], cells[dirty.first], returned[1]
        if value != 2 + 10 * bool(install):
            return f"the row holds {value}"
        return None if mark or sent == 2 else f"{sent} of 2 were sent, and no mark is left"

    return machine.explore(check)


def shift_row(target, old, new):
    """Do what `_shift_row` does, of one element, by the compare-and-swap that it is compiled to."""
    while True:
        seen = target[0]
        if compare_exchange(target, 0, seen, seen + (new[0] - old[0])):
            return


def shift_row_plainly(target, old, new):
    """Shift without a swap."""
    seen = target[0]
    target[0] = seen + (new[0] - old[0])


def mark_then_read(take_marked, take_deltas, table, out):
    """Collect as `NodeMemory` does."""
    values, base, dirty, owners = table
    taken, out_ids, deltas = out
    count = take_marked(dirty, eights_of(dirty), owners, 0, 0, 0, taken)
    count = take_deltas(values, base, taken[:count], out_ids, deltas, np.zeros(1, np.int64))
    return int(deltas[:count].sum())


def read_then_mark(take_marked, take_deltas, table, out):
    """Clear marks after the rows were read: what is added between is lost."""
    values, base, dirty, owners = table
    taken, out_ids, deltas = out
    count = take_deltas(values, base, np.array([0]), out_ids, deltas, np.zeros(1, np.int64))
    take_marked(dirty, eights_of(dirty), owners, 0, 0, 0, taken)
    return int(deltas[:count].sum())


COLLECTIONS = {  # how it is collected, what is planted, and the orders that lose something
    "as it should be": (mark_then_read, {}, False, set()),
    "with installs between": (mark_then_read, {}, True, set()),
    "marks cleared afterwards": (read_then_mark, {}, False, set(Order)),
    "marks cleared by a store": (mark_then_read, {"fetch_add": clear_by_store}, False, {Order.TSO, Order.PSO}),
    "installed without a swap": (mark_then_read, {}, "plainly", set(Order)),
}


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the explorer needs kernels that are compiled")
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
@pytest.mark.parametrize("alone", [False, True], ids=["several owners", "one owner"])
@pytest.mark.parametrize("name", COLLECTIONS)
def test_an_addition_is_sent_or_still_marked(name, alone, order):
    """Adding beside `take_marked`, `take_deltas` and `install_rows`, in every schedule; planted: wrong orders."""
    take, planted, install, losing = COLLECTIONS[name]
    result = explore_collection(order, take, alone, planted, install)
    assert bool(result.failures) == (order in losing)
    assert result.schedules > 50
