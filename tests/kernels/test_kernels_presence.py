"""Rows that are fetched when they are read, and the agent's sleep: kernels against models, and in every schedule."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.kernels import board, layout, presence
from nbps.kernels.atomics import exchange, fence, fetch_add, load_acquire, store_release
from nbps.kernels.futex import futex_wait, futex_wake
from nbps.kernels.presence import ABSENT, ASKED, PRESENT, USED, WANTED_ROW
from nbps.testing.consistency.interleave import Machine, Order, Shared

FORMS = ["jitted", "plain"]
STATES = [ABSENT, WANTED_ROW, ASKED, PRESENT, USED]


def kernel_of(kernel, form):
    """Return a kernel in one of its two forms."""
    return kernel if form == "jitted" or numba.config.DISABLE_JIT else kernel.py_func


def board_words():
    words = np.zeros(layout.board_words(2, bounded=False), np.int64)
    words[layout.TIMEOUT + 1] = 1000
    return words


@pytest.mark.parametrize("form", FORMS)
@given(st.lists(st.sampled_from(STATES), min_size=1, max_size=8), st.data())
def test_rows_go_from_state_to_state(form, states, data):
    """Wanting uses what is here and counts one request for what is absent; the agent takes what is wanted or unused."""
    ids = np.array(data.draw(st.lists(st.integers(0, len(states) - 1), unique=True)), np.int64)
    words, out = board_words(), np.zeros(len(states), np.int64)
    padded = np.array(states + [WANTED_ROW] * (-len(states) % 8), np.uint8)  # what is behind the last row is nobody's
    array = padded[: len(states)]
    here = kernel_of(presence.want_rows, form)(words, array, ids)
    assert here == all(states[row] >= PRESENT for row in ids)
    assert words[layout.WANTED] == any(states[row] == ABSENT for row in ids)
    for row in ids:
        states[row] = {ABSENT: WANTED_ROW, PRESENT: USED}.get(states[row], states[row])
    assert array.tolist() == states
    status = kernel_of(presence.await_rows, form)(words, array, ids, 1)
    assert status == (board.OPEN if here else board.TIMED_OUT)
    words[layout.ABORT] = 1
    assert kernel_of(presence.await_rows, form)(words, array, ids, 1) == (board.OPEN if here else board.ABORTED) or here

    ids.sort()
    owners = np.ones(len(states), np.uint8)
    owners[ids] = 0
    span = (ids[0], ids[-1]) if ids.size else (0, -1)
    count = kernel_of(presence.take_wanted, form)(padded, padded.view(np.int64), owners, 0, *span, out)
    wanted = [row for row in ids if states[row] == WANTED_ROW]
    assert out[:count].tolist() == wanted
    for row in wanted:
        states[row] = ASKED
    assert array.tolist() == states
    count = kernel_of(presence.take_unused, form)(array, ids, out)
    unused = [row for row in ids if states[row] == PRESENT]
    assert out[:count].tolist() == unused
    for row in ids:
        states[row] = {PRESENT: ABSENT, USED: PRESENT}.get(states[row], states[row])
    assert array.tolist() == states
    kernel_of(presence.make_present, form)(array, ids)
    assert array.tolist() == [USED if row in ids else state for row, state in enumerate(states)]


@pytest.mark.parametrize("form", FORMS)
@given(st.integers(1, 3), st.integers(1, 3), st.data())
def test_a_survey_is_what_the_slots_say(form, workers, nodes, data):
    """The lowest of the workers, not of the shards, the count of requests, and each worker's words."""
    sources = workers + nodes
    words = np.array([data.draw(st.integers(0, 9)) for _ in range(layout.board_words(1, False))] * 20, np.int64)
    out = np.zeros(3 + 3 * workers, np.int64)
    kernel_of(board.survey, form)(words, workers, sources, out)
    committed = [words[layout.committed(k)] for k in range(workers)]
    needed = [words[layout.needed(sources, k)] for k in range(workers)]
    ships = [words[layout.needed(sources, k) + layout.SHIPS] for k in range(workers)]
    arrived = min(words[layout.arrived(sources, k)] for k in range(workers))
    assert out.tolist() == [min(committed), arrived, words[layout.WANTED], *committed, *needed, *ships]
    known, fresh = out.copy(), np.zeros_like(out)
    assert not kernel_of(board.differs, form)(words, workers, sources, known, fresh)
    assert kernel_of(board.doze, form)(words, workers, sources, known, fresh)
    assert words[layout.AGENT_SLEEPS] == 1
    known[data.draw(st.integers(0, out.size - 1))] -= 1
    fresh[:] = 0
    assert kernel_of(board.differs, form)(words, workers, sources, known, fresh)
    assert np.array_equal(fresh, out)
    assert not kernel_of(board.doze, form)(words, workers, sources, known, fresh)
    assert words[layout.AGENT_SLEEPS] == 0


# --------------------------------------------------------------------------- in every schedule

# The board without padding: what the kernels call a line is one word. One worker and no shard.
HEADER = {
    "ABORT": 0,
    "SEQUENCE": 1,
    "WAITERS": 2,
    "TIMEOUT": 3,
    "AGENT_SLEEPS": 4,
    "DOORBELL": 5,
    "WANTED": 6,
    "ONE": 7,
}
COMMITTED = 8
SMALL = {**HEADER, "LINE": 1, "HEADER_LINES": COMMITTED}


def nothing(*_):
    """Stand in for an operation that was forgotten."""


def write_to_bell(words, descriptor, one):
    """Ring as an eventfd does: a count, and a wake-up for who polls it."""
    fetch_add(words, 5, 1)
    futex_wake(words, 5)


def poll_bell(words):
    """Sleep until the count is not zero, take it, and take back that one sleeps."""
    futex_wait(words, 5, 0, 0)
    words[4] = 0
    exchange(words, 5, 0)


def commit(words, slot, clock):
    store_release(words, slot, clock)


def doze_after_looking(words, known, differs, out):
    """Look first, announce afterwards."""
    if differs(words, 1, 1, known, out):
        return False
    store_release(words, 4, 1)
    fence()
    return True


def small(machine, kernel, **planted):
    """Return a kernel on the small board, with what is planted."""
    names = {}
    for name, value in {**SMALL, **planted}.items():
        try:
            machine.plain(kernel, **{name: value})
        except ValueError:
            continue
        names[name] = value
    return machine.plain(kernel, **names)


def explore_sleep(order, workers, planted_ring=None, planted_doze=None, late=False):
    """Workers commit and ring; the agent sleeps whenever there is no news, until it has seen all."""
    machine = Machine(order)
    words = machine.array(COMMITTED + 3 * workers + workers + 1)
    store = machine.plain(commit)
    bell, poll = machine.plain(write_to_bell), machine.plain(poll_bell)
    ring = small(machine, board.ring, **{"write_one": bell, **(planted_ring or {})})
    differs = small(machine, board.differs)
    doze = small(machine, board.doze, **(planted_doze or {}))
    later = machine.plain(doze_after_looking)

    def work(worker):
        store(words, COMMITTED + worker, 1)
        ring(words)

    def serve():
        size = 3 + 3 * workers
        known = np.zeros(size, np.int64)
        out = np.zeros(size, np.int64)
        differs(words, workers, workers, known, known)
        while known[0] < 1:
            if later(words, known, differs, out) if late else doze(words, workers, workers, known, out):
                poll(words)
                differs(words, workers, workers, known, out)
            known[:] = out
        return int(known[0])

    for worker in range(workers):
        machine.thread(lambda worker=worker: work(worker))
    machine.thread(serve)
    return machine.explore(lambda cells, returned: None)


SLEEPS = {  # what is forgotten in ring and in doze, and the orders that show it
    "as it should be": ({}, set()),
    "ring forgets its fence": ({"planted_ring": {"fence": nothing}}, {Order.TSO, Order.PSO}),
    "doze forgets its fence": ({"planted_doze": {"fence": nothing}}, {Order.TSO, Order.PSO}),
    "ring writes nothing": ({"planted_ring": {"write_one": nothing}}, set(Order)),
    "announced after looking": ({"late": True}, set(Order)),
}


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the explorer needs kernels that are compiled")
@pytest.mark.parametrize("order", list(Order), ids=lambda order: order.name)
@pytest.mark.parametrize("name", SLEEPS)
def test_no_ring_is_lost(name, order):
    """Whatever a worker commits, the agent sees it or is woken, in every schedule; planted: what that needs."""
    planted, showing = SLEEPS[name]
    result = explore_sleep(order, 1, **planted)
    assert bool(result.failures) == (order in showing)
    assert all("deadlock" in failure.message for failure in result.failures)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the explorer needs kernels that are compiled")
@pytest.mark.parametrize("order", [Order.SC, Order.TSO], ids=lambda order: order.name)
def test_two_workers_wake_one_agent(order):
    """Both rings together are one write, and both commits are seen."""
    assert explore_sleep(order, 2).failures == []


def use_by_store(array, index, expected, desired):
    """Change a state in two steps."""
    if load_acquire(array, index) != expected:
        return False
    store_release(array, index, desired)
    return True


# Long because a worker and an agent share their cells, which the explorer must know by name.
def explore_fetch(order, planted=None, reads=2, early=False):
    """Have a worker read a row that the agent lets go of and fetches again, while the owner changes it.

    Cell `truth` is what the owner has shipped to who subscribes. Who begins to read when it is t must read t or more.
    """
    machine = Machine(order)
    words, states = machine.array(COMMITTED + 5), machine.array(1, fill=PRESENT)
    row, truth = machine.array(1), machine.array(1)
    planted = planted or {}

    def made(kernel, **more):
        return small(machine, kernel, **{**more, **planted.get(kernel.__name__, {})})

    bell, poll, store = machine.plain(write_to_bell), machine.plain(poll_bell), machine.plain(commit)
    ring, differs, doze = made(board.ring, write_one=bell), made(board.differs), made(board.doze)
    want, wait, publish = made(presence.want_rows), made(presence.await_rows), made(board.publish)
    take_wanted, take_unused = made(presence.take_wanted), made(presence.take_unused)
    states_as_words, owners = Shared(machine, states.first, (1,), 8), np.zeros(1, np.uint8)
    make_present = made(presence.make_present)
    load = machine.plain(read_word)
    ids = np.array([0])

    def call(kernel, *arguments):
        """Run a kernel of which only what it returned matters later: the explorer forgets its accesses."""
        return machine.call(lambda: int(kernel(*arguments)))

    def read():
        begun = load(truth, 0)
        if not call(want, words, states, ids):
            ring(words)
            while call(wait, words, states, ids, 0) != board.OPEN:
                if not call(want, words, states, ids):
                    ring(words)
        return load(row, 0) >= begun

    def work():
        seen = tuple(machine.call(read) for _ in range(reads))
        store(words, COMMITTED, 1)
        ring(words)
        return seen

    def sleep_or_look(known):
        """Return what the board says, after a sleep if that is what was known."""

        def run():
            before, out = np.array(known), np.zeros(6, np.int64)
            if doze(words, 1, 1, before, out):
                poll(words)
                differs(words, 1, 1, before, out)
            return tuple(out.tolist())

        return machine.call(run)

    def serve():
        known, taken = (0,) * 6, np.zeros(1, np.int64)
        fresh, version = True, 0
        while known[0] == 0:
            if version < 2:  # the clock goes on: who subscribes is shipped the row, others are not
                version += 1
                if call(take_unused, states, ids, taken):
                    fresh = False
                if fresh:
                    store(row, 0, version)
                store(truth, 0, version)
            else:
                known = sleep_or_look(known)
            if call(take_wanted, states, states_as_words, owners, 0, 0, 0, taken):
                if early:
                    call(lambda: make_present(states, ids) or 0)
                store(row, 0, version)
                if not early:
                    call(lambda: make_present(states, ids) or 0)
                fresh = True
                publish(words, HEADER["ONE"], 1)

    machine.thread(work)
    machine.thread(serve)
    return machine.explore(lambda cells, returned: None if all(returned[0]) else f"stale: {returned[0]}")


def read_word(array, index):
    return load_acquire(array, index)


FETCHES = {  # what is planted, and what is found under which orders
    "as it should be": ({}, set()),
    "nobody counts the request": ({"planted": {"want_rows": {"fetch_add": nothing}}}, {Order.SC, Order.TSO}),
    "present before its values": ({"early": True}, {Order.SC, Order.TSO}),
    "used by a store": ({"planted": {"want_rows": {"compare_exchange": use_by_store}}}, {Order.SC, Order.TSO}),
    "nobody is woken": ({"planted": {"publish": {"futex_wake": nothing}}}, {Order.SC, Order.TSO}),
}


@pytest.mark.slow
@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the explorer needs kernels that are compiled")
@pytest.mark.parametrize("order", [Order.SC, Order.TSO], ids=lambda order: order.name)
@pytest.mark.parametrize("name", FETCHES)
def test_a_row_that_can_be_read_is_fresh_and_comes(name, order):
    """No read is older than what was shipped when it began, and none waits for good; planted: what that needs."""
    planted, showing = FETCHES[name]
    result = explore_fetch(order, **planted)
    assert bool(result.failures) == (order in showing)
    assert result.schedules > 1000


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the explorer needs kernels that are compiled")
@pytest.mark.parametrize("order", [Order.SC, Order.TSO], ids=lambda order: order.name)
def test_a_row_let_go_of_while_another_is_awaited_holds_nobody_up(order):
    """Who waits for both rows when the first is gone again is told so, and does not sleep for good."""
    machine = Machine(order)
    words, states = machine.array(COMMITTED + 5), machine.array(2, fill=ASKED)
    wait, publish = small(machine, presence.await_rows), small(machine, board.publish)
    make_present, take_unused = machine.plain(presence.make_present), machine.plain(presence.take_unused)
    first, second, taken = np.array([0]), np.array([1]), np.zeros(2, np.int64)

    def serve():
        make_present(states, first)
        publish(words, HEADER["ONE"], 1)
        for _ in range(2):
            take_unused(states, first, taken)
        make_present(states, second)
        publish(words, HEADER["ONE"], 2)

    machine.thread(lambda: int(wait(words, states, np.arange(2), 0)))
    machine.thread(serve)
    result = machine.explore(lambda cells, returned: None if returned[0] in (board.OPEN, board.TIMED_OUT) else "status")
    assert result.failures == []
    assert result.ends > 1
