"""The protocol of claims in every schedule of two and three workers, and deliberate faults that it finds."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from nbps.kernels import claims, places, rows
from nbps.kernels.atomics import load_acquire, store_release
from nbps.kernels.claim_layout import COUNT, HEADER
from nbps.kernels.claims import slot
from nbps.kernels.places import take
from nbps.testing.consistency.interleave import Machine, Order
from support import small_programs

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the explorer needs kernels that are compiled")

ORDERS = list(Order)
CAPACITY = 4


def publish(slots, rank, clock):
    store_release(slots, rank, clock)


def look(slots, rank):
    return load_acquire(slots, rank)


def claim_and_die(claimed, row):
    """Claim a row, add to its first element, and be killed."""
    if take(claimed.claims, slot(claimed, row), claimed.me):
        claimed.values[0] = claimed.values[0] + 100
        return True
    return False


class Workers:
    """Workers that add rows of 1, of 10, ... to one row, read it, and publish a clock if nothing is put aside."""

    def __init__(self, order, workers, width, additions, planted=None, reader=False, killed=False, plain=False):
        self.machine = machine = Machine(order)
        self.workers, self.width, self.additions, self.killed = workers, width, additions, killed
        self.values, self.claims = machine.array(1, width), machine.array(1)
        self.values.dtype = np.dtype(np.int64)  # which the explorer's arrays have not
        self.slots = machine.array(workers)
        planted = planted or {}

        def plain_form(kernel):
            used = {name: fault for name, fault in planted.items() if name in USES[kernel]}
            return machine.plain(kernel, **used)

        self.inc, self.get = plain_form(rows.inc_row), plain_form(rows.get_row)
        self.retry = plain_form(claims.retry)
        self.publish, self.look = machine.plain(publish), machine.plain(look)
        self.die = machine.plain(claim_and_die)
        for rank in range(workers):
            machine.thread(lambda rank=rank: self.work(rank, plain and rank == 0))
        if reader:
            machine.thread(self.read)
        if killed:
            machine.thread(self.be_killed)

    def table(self, rank):
        words = np.zeros(HEADER + CAPACITY, np.int64)
        deltas = np.zeros(CAPACITY * self.width, np.int64)
        claimed = claims.Claimed(
            self.values.reshape(self.width), self.claims, words, deltas, None, 0, self.width, 0, CAPACITY, 1 + rank
        )
        return rows.TableKernel(self.values, 1, rows.NOBODY_LOOKS, claimed)

    def work(self, rank, plain):
        """Return what was seen after each addition, whether each clock was published, and what is left."""
        table, delta, out = self.table(rank), np.full(self.width, 10**rank), np.zeros(self.width, np.int64)
        seen, published = [], []
        for clock in range(1, self.additions + 1):
            if plain:
                small_programs.add_in_two_steps(self.values[0], delta)
            else:
                self.inc(table, 0, delta)
            self.get(table, 0, out)
            seen.append(tuple(out.tolist()))
            published.append(self.retry(table.claimed, 0) == 0)
            if published[-1]:
                self.publish(self.slots, rank, clock)
        left = table.claimed.deltas[: self.width] * int(table.claimed.words[COUNT])
        return tuple(seen), tuple(published), tuple(left.tolist())

    def read(self):
        """Look at what others have published, then at the row, as a worker that passed its gate."""
        clocks = tuple(self.look(self.slots, rank) for rank in range(self.workers))
        return clocks, tuple(self.values[0][j] for j in range(self.width))

    def be_killed(self):
        return self.die(self.table(self.workers).claimed, 0)

    def explore(self):
        return self.machine.explore(self.check)

    def check(self, cells, returned):
        """Say what is wrong: lost or doubled, not seen by its worker, promised by a clock, or a claim that stayed."""
        row = cells[self.values.first : self.values.first + self.width]
        dead = self.killed and returned[-1]
        if (cells[self.claims.first] != 0) != bool(dead):
            return f"the claim is {cells[self.claims.first]}"
        total = self.additions * sum(10**rank for rank in range(self.workers))
        left = [one[2] for one in returned[: self.workers]]
        for j, value in enumerate(row):
            found = value + sum(one[j] for one in left) - 100 * bool(dead and j == 0)
            if found != total:
                return f"element {j} and what is put aside make {found}; expected {total}"
        if len(returned) > self.workers and not self.killed:
            clocks, values = returned[-1]
            for rank, clock in enumerate(clocks):
                if any(value // 10**rank % 10 < clock for value in values):
                    return f"worker {rank} has published clock {clock}, and a reader sees {values}"
        for rank, (seen, published, aside) in enumerate(returned[: self.workers]):
            for clock, values in enumerate(seen, 1):
                if any(value // 10**rank % 10 < clock for value in values):
                    return f"worker {rank} does not see its own {clock} additions: {values}"
            if any(aside) and published[-1]:
                return f"worker {rank} has published its last clock, and {aside} is put aside"
        return None


USES = {
    rows.inc_row: {"take", "give", "put_aside", "retry"},
    rows.get_row: {"_see_own"},
    claims.retry: {"take", "give"},
}
SHAPES = {  # workers, width, additions of each, and whether there is a reader, and one who is killed
    "2 workers, twice": (2, 1, 2, False, False),
    "2 workers, 2 elements": (2, 2, 1, False, False),
    "2 workers and a reader": (2, 1, 1, True, False),
    "3 workers": (3, 1, 1, False, False),
    "2 workers, a third is killed": (2, 1, 1, False, True),
}


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
@pytest.mark.parametrize("shape", SHAPES)
def test_claims_lose_nothing_and_promise_nothing_too_early(shape, order):
    """Put aside, tried again, published and killed, in every schedule; no schedule waits for another worker."""
    workers, width, additions, reader, killed = SHAPES[shape]
    result = Workers(order, workers, width, additions, reader=reader, killed=killed).explore()
    assert result.failures == []
    assert result.schedules > 500


def keep(claimed, row):
    """Stand in for giving a claim back."""


def claim_what_is_claimed(array, index, me):
    array[index] = me
    return True


def give_plainly(array, index):
    array[index] = 0


def forget(table, row, source, start, stride, zero):
    """Put nothing aside."""


def drop(table, zero):
    """Empty the buffer without adding what is in it."""
    places.set_word(table.words, COUNT, 0)
    return 0


FAULTS = {  # what is planted, and the orders that show it
    "a claim is not given back": ({"give": keep}, set(Order)),
    "a claim is taken that another holds": ({"take": claim_what_is_claimed}, set(Order)),
    "a claim is given back by a plain store": ({"give": give_plainly}, {Order.PSO}),
    "nothing is put aside": ({"put_aside": forget}, set(Order)),
    "a read misses what is put aside": ({"_see_own": lambda table, row, out: None}, set(Order)),
}


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_claims_is_found(name, order):
    """Planted in the kernels themselves."""
    planted, showing = FAULTS[name]
    result = Workers(order, 2, 2, 1, planted).explore()
    assert bool(result.failures) == (order in showing)


def test_a_buffer_that_is_dropped_at_the_clock_is_found():
    """Planted: what is put aside is gone when the clock is published."""
    workers = Workers(Order.SC, 2, 1, 1, reader=True)
    workers.retry = drop
    assert any("make" in failure.message for failure in workers.explore().failures)


def test_a_clock_published_before_its_additions_is_found():
    """Planted: the clock does not wait for what is put aside, which stays there."""
    workers = Workers(Order.SC, 2, 1, 1, reader=True)
    workers.retry = lambda table, zero: 0
    messages = {failure.message for failure in workers.explore().failures}
    assert any("has published clock 1, and a reader sees" in message for message in messages)
    assert any("has published its last clock, and" in message for message in messages)


def test_a_plain_addition_beside_a_claim_is_found():
    """Planted: one worker adds by plain stores to rows that others claim."""
    assert Workers(Order.SC, 2, 1, 1, plain=True).explore().failures
