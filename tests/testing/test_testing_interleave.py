"""The explorer covers every schedule, knows the orders of x86 and of weaker machines, and finds planted bugs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nbps.kernels import board, copies, layout, relaxed, rows
from nbps.kernels.rows import TableKernel
from nbps.testing.consistency.interleave import Machine, Order
from support import small_programs

ORDERS = list(Order)


def nothing(*_):
    """Stand in for an operation that was forgotten."""


def twice(body):
    body()
    body()


# --------------------------------------------------------------------------- the explorer itself


@pytest.mark.parametrize(("threads", "accesses", "schedules"), [(2, 8, 12_870), (3, 5, 756_756)])
def test_all_schedules_are_counted(threads, accesses, schedules):
    """The number of schedules is the multinomial coefficient, for additions and for loads and stores in turn."""
    assert schedules == math.factorial(threads * accesses) // math.factorial(accesses) ** threads
    lossless, lossy = Machine(), Machine()
    counter, word = lossless.array(1), lossy.array(1)
    add = lossless.plain(rows.add_row_lossless)

    def load_and_store():
        for n in range(accesses):
            if n % 2 == 0:
                seen = word[0]
            else:
                word[0] = seen + 1

    for _ in range(threads):
        lossless.thread(lambda: [add(counter, [1]) for _ in range(accesses)].clear())
        lossy.thread(load_and_store)
    result = lossless.explore(lambda cells, returned: None if cells[0] == threads * accesses else "lost")
    assert (result.schedules, result.states, result.failures) == (schedules, (accesses + 1) ** threads, [])
    result = lossy.explore(lambda cells, returned: f"{cells[0]}")
    assert result.schedules == schedules
    # The fewest: all but one thread sleep through the others' additions, and one of its own is overwritten at the end.
    assert {failure.message for failure in result.failures} == {
        f"{n}" for n in range(min(2, accesses // 2), threads * (accesses // 2) + 1)
    }


def test_its_ends_are_those_of_every_schedule_walked_one_by_one():
    """12,870 schedules of 2 x 8 loads and stores, carried out naively, end in exactly the states that were found."""
    places = [0, 1, 0, 1]

    def program(words):
        total = 0
        for place in places:
            total = 3 * total + words[place]
            words[1 - place] = total + 1
        return total

    def steps(memory):
        """Carry out `program`, stopping before each access."""
        total = 0
        for place in places:
            yield
            total = 3 * total + memory[place]
            yield
            memory[1 - place] = total + 1
        return total

    expected = set()
    for chosen in itertools.combinations(range(16), 8):
        memory, returned = [0, 0], [None, None]
        threads = [steps(memory), steps(memory)]
        for thread in threads:
            next(thread)
        for n in range(16):
            who = int(n in chosen)
            try:
                next(threads[who])
            except StopIteration as end:
                returned[who] = end.value
        expected.add((*memory, *returned))
    machine = Machine()
    words = machine.array(2)
    for _ in range(2):
        machine.thread(lambda: program(words))
    found = set()
    result = machine.explore(lambda cells, returned: found.add((*cells, *returned)))
    assert result.schedules == 12_870
    assert found == expected
    assert len(found) == 67


LITMUS = {  # what threads do with x and y, and the outcome in question with the orders that allow it
    "store buffering": ([["x=1", "y"], ["y=1", "x"]], ((0,), (0,)), {Order.TSO, Order.PSO}),
    "store buffering, fenced": ([["x=1", "fence", "y"], ["y=1", "fence", "x"]], ((0,), (0,)), set()),
    "message passing": ([["x=1", "y=1"], ["y", "x"]], ((), (1, 0)), {Order.PSO}),
    "message passing, released": ([["x=1", "y=1 release"], ["y", "x"]], ((), (1, 0)), set()),
    "message passing, fenced": ([["x=1", "fence", "y=1"], ["y", "x"]], ((), (1, 0)), set()),
    "own stores are seen": ([["x=1", "x"], ["x=2", "x"]], ((0,), (0,)), set()),
    "load buffering": ([["x", "y=1"], ["y", "x=1"]], ((1,), (1,)), set()),
    "stores to one place": ([["x=1", "x=2"], ["x", "x"]], ((), (2, 1)), set()),
    "independent readers": ([["x=1"], ["y=1"], ["x", "y"], ["y", "x"]], ((), (), (1, 0), (1, 0)), set()),
}


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
@pytest.mark.parametrize("name", LITMUS)
def test_litmus_programs_end_as_the_order_allows(name, order):
    """The classic small programs that tell memory models apart."""
    threads, outcome, allowing = LITMUS[name]
    machine = Machine(order)
    places = {"x": machine.array(1), "y": machine.array(1)}
    fence = machine.plain(small_programs.order_stores)
    store = machine.plain(small_programs.publish)

    def body(lines):
        seen = []
        for line in lines:
            if line == "fence":
                fence()
            elif line.endswith("release"):
                store(places[line[0]])
            elif "=" in line:
                places[line[0]][0] = int(line[2])
            else:
                seen.append(places[line][0])
        return tuple(seen)

    for lines in threads:
        machine.thread(lambda lines=lines: body(lines))
    result = machine.explore(lambda cells, returned: "seen" if returned == outcome else None)
    assert bool(result.failures) == (order in allowing)


def test_a_failure_comes_with_its_schedule():
    """Each wrong end is told once, with the accesses that lead to it."""
    machine = Machine()
    word = machine.array(1)
    for _ in range(2):
        machine.thread(lambda: small_programs.add_in_two_steps(word, [1]))
    result = machine.explore(lambda cells, returned: None if cells[0] == 2 else "lost")
    assert [failure.message for failure in result.failures] == ["lost"]
    assert len(result.failures[0].schedule) == 4
    assert result.failures[0].schedule[0].startswith("thread 0: Access(kind='load'")


def test_a_planted_bug_that_nothing_uses_is_refused():
    """A misspelt name would plant nothing, and its test would prove nothing."""
    with pytest.raises(ValueError, match="fench"):
        Machine().plain(board.tick, fench=nothing)


# --------------------------------------------------------------------------- kernels


def explore_additions(order, times=2, **planted):
    """Two threads add to a row of 5 that starts in the middle of a pack: one single element, two packs."""
    machine = Machine(order)
    matrix = machine.array(2, 5)
    add = machine.plain(rows.add_row_lossless, **planted)
    for n in (1, 10):
        machine.thread(lambda n=n: [add(matrix[1], [n] * 5) for _ in range(times)].clear())
    total = 11 * times
    return machine.explore(lambda cells, returned: None if cells[5:10] == (total,) * 5 else f"found {cells[5:10]}")


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
def test_lossless_additions_lose_nothing(order):
    """`add_row_lossless` in every schedule of twice two rows."""
    result = explore_additions(order)
    assert result.failures == []
    accesses = 2 * (3 if relaxed.PACK_BYTES == 16 else 5)
    assert result.schedules == math.comb(2 * accesses, accesses)


def test_additions_in_two_steps_lose_something():
    """Planted: a pack that is loaded, added and stored."""

    def add_pack(array, index, deltas, delta_index):
        for lane in range(relaxed.PACK_BYTES // 8):
            array[index + lane] = array[index + lane] + deltas[delta_index + lane]

    assert explore_additions(Order.SC, times=1, add_pack_relaxed=add_pack).failures


def explore_parking(order, tickers, planted_tick=None, planted_gate=None, spins=0):
    """Let `tickers` workers publish clock 1 while one more waits for it, sleeping if need be."""
    machine = Machine(order)
    words = machine.array(layout.committed(tickers))
    first = layout.committed(0)
    tick = machine.plain(board.tick, **(planted_tick or {}))
    gate = machine.plain(board.gate, **(planted_gate or {}))

    def wait():
        while gate(words, first, tickers, 1, spins) != board.OPEN:
            pass

    machine.thread(wait)
    for n in range(tickers):
        machine.thread(lambda n=n: tick(words, first, tickers, layout.committed(n), 1))
    return machine.explore(lambda cells, returned: None)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
@pytest.mark.parametrize("tickers", [1, 2])
def test_no_wake_up_is_lost(tickers, order):
    """Whoever sleeps in `gate` is woken by the `tick` that opens it, in every schedule."""
    result = explore_parking(order, tickers)
    assert result.failures == []
    assert result.schedules > 1000


PARKING_BUGS = {  # what is forgotten in tick and in gate, and the orders that show it
    "tick forgets its fence": ({"fence": nothing}, None, 1, {Order.TSO, Order.PSO}),
    "two ticks forget their fences": ({"fence": nothing}, None, 2, {Order.TSO, Order.PSO}),
    "tick does not count": ({"fetch_add": nothing}, None, 1, set(Order)),
    "tick wakes nobody": ({"futex_wake": nothing}, None, 1, set(Order)),
    "gate does not announce itself": (None, {"fetch_add": nothing}, 1, set(Order)),
    # An addition of x86 is a fence itself, and here loads are never early: only arm64 needs this one. Not seen.
    "gate forgets its fence": (None, {"fence": nothing}, 1, set()),
}


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
@pytest.mark.parametrize("name", PARKING_BUGS)
def test_a_lost_wake_up_is_found_as_a_deadlock(name, order):
    """Planted: what the futex protocol needs is left out. Only store buffers show a missing fence."""
    tick, gate, tickers, showing = PARKING_BUGS[name]
    result = explore_parking(order, tickers, tick, gate)
    assert bool(result.failures) == (order in showing)
    assert all(failure.message.startswith("deadlock: thread 0 sleeps") for failure in result.failures)


def explore_exchange(order, refresh, width=3, **planted):
    """Two workers add to their copies of a row, flush and refresh, twice; worker 0 adds ones, worker 1 tens."""
    machine = Machine(order)
    parent = machine.array(1, width)
    flush, refresh = machine.plain(copies.flush, **planted), machine.plain(refresh)

    def work(step):
        values, base = np.zeros((1, width), np.int64), np.zeros((1, width), np.int64)
        seen = []
        for send in (True, True, False):
            values[0] += step * send
            flush(values, base, TableKernel(parent, 1), 0, np.zeros(width, np.int64), np.zeros(0))
            if send:
                refresh(values, base, TableKernel(parent, 1))
                seen.append(tuple(values[0].tolist()))
        return tuple(seen)

    def check(cells, returned):
        if cells[:width] != (22,) * width:
            return f"the parent holds {cells[:width]}, expected 22"
        for rank, seen in enumerate(returned):
            for column in zip(*seen, strict=True):
                own, other = zip(*[divmod(value, 10)[:: 1 if rank else -1] for value in column], strict=True)
                if own != (1, 2) or not 0 <= other[0] <= other[1] <= 2:
                    return f"worker {rank} sees {column}"
        return None

    for step in (1, 10):
        machine.thread(lambda step=step: work(step))
    return machine.explore(check)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
def test_flush_and_refresh_lose_nothing_and_show_ones_own(order):
    """`copies.flush` and `refresh` of two workers on one row: exact sums, read-my-writes, monotone reads."""
    result = explore_exchange(order, copies.refresh)
    assert result.failures == []
    accesses = 2 * (2 if relaxed.PACK_BYTES == 16 else 3) + 2 * 3  # per clock packs and a rest, and three loads
    assert result.schedules == math.comb(2 * accesses, accesses)


def test_a_refresh_that_looks_twice_is_found():
    """Planted: what is added between the two looks counts as sent by this worker, and is taken away again."""
    assert explore_exchange(Order.SC, small_programs.refresh_with_two_loads, width=2).failures


def test_a_flush_that_adds_in_two_steps_is_found():
    """Planted: a flush that is not lossless."""
    assert explore_exchange(
        Order.SC, copies.refresh, width=2, add_row_lossless=small_programs.add_in_two_steps
    ).failures


# --------------------------------------------------------------------------- protocols


MESSAGES = {  # who sends, what is forgotten, and the orders that show it
    "as it should be": (small_programs.send, {}, set()),
    "published too early": (small_programs.send_too_early, {}, set(Order)),
    "not released": (
        small_programs.send,
        {"store_release": lambda array, index, value: array.__setitem__(index, value)},
        {Order.PSO},
    ),
}


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
@pytest.mark.parametrize("name", MESSAGES)
def test_what_was_released_is_seen_whole(name, order):
    """Message passing; planted: the wrong order, and a plain store, which x86 forgives."""
    send, planted, showing = MESSAGES[name]
    machine = Machine(order)
    data, flag = machine.array(1), machine.array(1)
    send, receive = machine.plain(send, **planted), machine.plain(small_programs.receive)
    machine.thread(lambda: send(data, flag))
    machine.thread(lambda: receive(data, flag))
    result = machine.explore(lambda cells, returned: None if returned[1] in (None, 7) else f"received {returned[1]}")
    assert bool(result.failures) == (order in showing)


DIRTY_BYTES = {  # who adds, who collects, and the orders that lose an addition
    "add, mark; clear, read": (small_programs.add_and_mark, small_programs.clear_and_read, set()),
    "mark, add; clear, read": (small_programs.mark_and_add, small_programs.clear_and_read, set(Order)),
    "add, mark; read, clear": (small_programs.add_and_mark, small_programs.read_and_clear, set(Order)),
    "add, mark; clear by a store, read": (
        small_programs.add_and_mark, small_programs.clear_by_store_and_read, {Order.TSO, Order.PSO}),
    "add plainly, mark if clean; clear, read": (
        small_programs.add_plainly_and_mark_if_clean, small_programs.clear_and_read, {Order.TSO, Order.PSO}),
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
@pytest.mark.parametrize("name", DIRTY_BYTES)
def test_an_addition_is_collected_or_still_marked(name, order):
    """The byte is cleared by an exchange before the row is read; planted: every other order of the four steps."""
    add, collect, losing = DIRTY_BYTES[name]
    machine = Machine(order)
    row, dirty = machine.array(1), machine.array(1)
    add, collect = machine.plain(add), machine.plain(collect)

    def collect_all():
        """Return what the last collection that found a mark has read."""
        return max(found for found in (0, collect(row, dirty), collect(row, dirty)) if found is not None)

    machine.thread(lambda: twice(lambda: add(row, dirty, 1)))
    machine.thread(collect_all)

    def check(cells, returned):
        total, marked = cells[row.first], cells[dirty.first]
        return None if marked or returned[1] == total else f"collected {returned[1]} of {total}, and no mark is left"

    assert bool(machine.explore(check).failures) == (order in losing)
