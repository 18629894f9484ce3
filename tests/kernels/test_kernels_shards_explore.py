"""Rows on their way between nodes: adding beside collecting and installing, in every schedule."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from nbps.kernels import shards
from nbps.kernels.atomics import compare_exchange, load_acquire, store_release
from nbps.kernels.claim_layout import COUNT, HEADER
from nbps.kernels.claims import Claimed, retry
from nbps.kernels.relaxed import add_relaxed
from nbps.kernels.rows import TableKernel, inc_row
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


def claimed_table(values, dirty, claims, who):
    """Return a table of claimed rows, with a buffer for one row."""
    places = values.reshape(values.size), claims, np.zeros(HEADER + 1, np.int64), np.zeros(1, np.int64), dirty
    return TableKernel(values, 1, dirty, Claimed(*places, 1, 1, claims.size - 1, 1, who))


def explore_collection(order, take, alone, planted=None, install=False, claimed=False):
    """Have a worker add to a row twice; the agent takes what is marked three times, perhaps installing between."""
    machine = Machine(order)
    values, dirty, claims = machine.array(8, 1), machine.array(8), machine.array(1)
    values.dtype = np.dtype(np.int64)  # which the explorer's arrays have not
    add, inc, settle = machine.plain(add_and_mark), machine.plain(inc_row), machine.plain(retry)
    planted = {name: machine.plain(one) for name, one in (planted or {}).items()}
    take_marked = machine.plain(shards.take_marked, **planted)
    take_deltas = machine.plain(shards.take_deltas)
    install_rows = machine.plain(
        shards.install_rows,
        **{"shift_relaxed": machine.plain(shift if install != "plainly" else shift_plainly), "_LOOKS": 1},
        **({"take": take_anyway} if install == "unclaimed" else {}),
    )
    owners = np.zeros(8, np.uint8)
    if not alone:
        owners[1:] = 1

    def work():
        if not claimed:
            for _ in range(2):
                add(values[0], dirty, 1)
            return 0
        table = claimed_table(values, dirty, claims, 1)
        for _ in range(2):
            inc(table, 0, np.ones(1, np.int64))
        settle(table.claimed, 0)
        return int(table.claimed.words[COUNT]) * int(table.claimed.deltas[0])

    def collect():
        table = claimed_table(values, dirty, claims, 2) if claimed else TableKernel(values, 1, dirty)
        installed = 0
        base, total = np.zeros((8, 1), np.int64), 0
        taken, out_ids, out = np.zeros(8, np.int64), np.zeros(8, np.int64), np.zeros((8, 1), np.int64)
        for _ in range(3):
            total += take(take_marked, take_deltas, (table, base, dirty, owners), (taken, out_ids, out))
            if install and installed == 0:
                installed = install_rows(table, base, np.array([0]), np.array([[total + 10]]), 0)
        return total, installed

    machine.thread(work)
    machine.thread(collect)

    def check(cells, returned):
        value, mark, aside, (sent, installed) = cells[values.first], cells[dirty.first], *returned
        if value + aside != 2 + 10 * installed:
            return f"the row holds {value}, and {aside} is put aside"
        if cells[claims.first] != 0:
            return "a claim stayed"
        return None if mark or sent + aside == 2 else f"{sent} of 2 were sent, and no mark is left"

    return machine.explore(check)


def shift(array, index, old, new):
    """Do what `shift_relaxed` does by the compare-and-swap that it is compiled to."""
    while True:
        seen = array[index]
        if compare_exchange(array, index, seen, seen + (new - old)):
            return


def shift_plainly(array, index, old, new):
    """Shift without a swap."""
    seen = array[index]
    array[index] = seen + (new - old)


def take_anyway(claims, index, me):
    """Claim what another may have claimed."""
    return True


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
CLAIMED = {
    "as it should be": (mark_then_read, {}, False, set()),
    "with installs between": (mark_then_read, {}, True, set()),
    "marks cleared afterwards": (read_then_mark, {}, False, set(Order)),
    "installed without a claim": (mark_then_read, {}, "unclaimed", set(Order)),
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


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the explorer needs kernels that are compiled")
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
@pytest.mark.parametrize("name", CLAIMED)
def test_an_addition_to_a_claimed_row_is_sent_still_marked_or_put_aside(name, order):
    """The same of rows that worker and agent claim; planted: an agent that does not."""
    take, planted, install, losing = CLAIMED[name]
    result = explore_collection(order, take, True, planted, install, claimed=True)
    assert bool(result.failures) == (order in losing)
    assert result.schedules > 50
