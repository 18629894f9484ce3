"""The board of clocks: ticks, gates, parking, wake-ups and abort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.core import rules
from nbps.kernels import board, layout, parking
from support.sharing import peers

FIRST = layout.committed(0)
clocks = st.lists(st.integers(0, 20), min_size=1, max_size=5)


def board_of(slots: list[int]) -> np.ndarray:
    words = np.zeros(layout.board_words(len(slots), bounded=True), np.int64)
    words[layout.TIMEOUT + 1] = 1000  # nanoseconds
    for worker, clock in enumerate(slots):
        words[layout.committed(worker)] = clock
    return words


def test_finished_is_the_same_number_in_core_and_kernels():
    """They know nothing of each other, but a slot of the board holds what the core decides on."""
    assert layout.FINISHED == rules.FINISHED


@given(clocks)
def test_lowest_is_the_minimum(slots):
    """The lowest slot, whatever lies on the lines between and behind."""
    words = board_of(slots)
    words[layout.refreshed(len(slots), 0)] = -5
    assert board.lowest(words, FIRST, len(slots)) == min(slots)


@given(clocks, st.data())
def test_lowest_other_leaves_one_out(slots, data):
    """The minimum of the others; nobody is held back where there is none."""
    own = data.draw(st.integers(0, len(slots) - 1))
    others = slots[:own] + slots[own + 1 :]
    assert board.lowest_other(board_of(slots), FIRST, len(slots), own) == min(others, default=layout.FINISHED)


@given(clocks, st.data())
def test_tick_sets_its_slot_and_wakes_only_who_can_go_on(slots, data):
    """One slot changes; the sequence word moves exactly if somebody waits and the lowest clock rose."""
    words = board_of(slots)
    worker = data.draw(st.integers(0, len(slots) - 1))
    words[layout.WAITERS] = data.draw(st.integers(0, 2))
    expected = words.copy()
    expected[layout.committed(worker)] += 1
    after = list(slots)
    after[worker] += 1
    if words[layout.WAITERS] and min(after) > min(slots):
        expected[layout.SEQUENCE] += 1
    board.tick(words, FIRST, len(slots), layout.committed(worker), after[worker])
    assert np.array_equal(words, expected)


@given(clocks, st.integers(0, 22), st.integers(0, 3), st.booleans())
def test_gate_says_whether_the_lowest_clock_has_come(slots, target, spins, abort):
    """Open if the lowest slot is at the target, else aborted or timed out; nothing on the board changes."""
    words = board_of(slots)
    words[layout.ABORT] = abort
    before = words.copy()
    status = board.gate(words, FIRST, len(slots), target, spins)
    if min(slots) >= target:
        assert status == board.OPEN
    else:
        assert status == (board.ABORTED if abort else board.TIMED_OUT)
    assert np.array_equal(words, before)


@st.composite
def bounded_boards(draw):
    """Draw a board with seen slots in any state: (words, clocks, what reader j has taken in of worker i, reader)."""
    slots = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))
    workers = len(slots)
    taken = np.array(draw(st.lists(st.integers(0, 9), min_size=workers**2, max_size=workers**2)))
    taken = taken.reshape(workers, workers)
    np.fill_diagonal(taken, layout.FINISHED)
    words = board_of(slots)
    for worker in range(workers):
        for reader in range(workers):
            words[layout.seen(workers, worker, reader)] = taken[worker, reader]
    return words, np.array(slots), taken, draw(st.integers(0, workers - 1))


@given(bounded_boards())
def test_a_snapshot_holds_every_committed_slot(made):
    """In the order of the workers."""
    words, slots, _, _ = made
    out = np.empty(slots.size, np.int64)
    board.snapshot(words, FIRST, slots.size, out)
    assert out.tolist() == slots.tolist()


@given(bounded_boards(), st.integers(0, 2), st.data())
def test_what_a_reader_has_taken_in_only_grows(made, waiting, data):
    """Its slots rise to the snapshot, what it says of itself and all others stay; who waits is woken if one rose."""
    words, slots, taken, reader = made
    workers = slots.size
    committed = np.array(data.draw(st.lists(st.integers(0, 9), min_size=workers, max_size=workers)))
    words[layout.WAITERS] = waiting
    expected = words.copy()
    for worker in range(workers):
        expected[layout.seen(workers, worker, reader)] = max(taken[worker, reader], committed[worker])
    if waiting and (expected != words).any():
        expected[layout.SEQUENCE] += 1
    board.publish_seen(words, layout.seen(workers, 0, 0), workers, workers, reader, committed)
    assert np.array_equal(words, expected)


@given(bounded_boards(), st.integers(0, 11), st.integers(0, 2), st.booleans())
def test_poll_opens_or_tells_news_or_waits(made, target, spins, abort):
    """Open before news, news before the abort, else timed out; nothing on the board changes."""
    words, slots, taken, reader = made
    words[layout.ABORT] = abort
    before = words.copy()
    first = layout.seen(slots.size, reader, 0)  # waits for what others have taken in of it
    status = board.poll(
        words,
        first,
        slots.size,
        target,
        spins,
        FIRST,
        layout.seen(slots.size, 0, 0),
        slots.size,
        slots.size,
        reader,
        -1,
    )
    if taken[reader].min() >= target:
        assert status == board.OPEN
    elif (slots > taken[:, reader]).any():
        assert status == board.NEWS
    else:
        assert status == (board.ABORTED if abort else board.TIMED_OUT)
    assert np.array_equal(words, before)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_board_gives_every_writer_cache_lines_of_its_own(workers):
    """No two slots or counters of different workers share a line, and all lie on the board."""
    places = [layout.ABORT, layout.SEQUENCE, layout.DOORBELL, layout.WANTED]
    places += [layout.seen(workers, worker, reader) for worker in range(workers) for reader in range(workers)]
    for worker in range(workers):
        places += [layout.committed(worker), layout.refreshed(workers, worker), layout.arrived(workers, worker)]
        places.append(layout.needed(workers, worker))
        start = layout.statistics(workers, worker)
        places += range(start, start + layout.STATS_LINES * layout.LINE, layout.LINE)
    assert len({place // layout.LINE for place in places}) == len(places)
    assert max(places) + layout.LINE == layout.board_words(workers, bounded=True)
    assert layout.board_words(workers, bounded=False) == layout.seen(workers, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rounds", "spins", "pauses"),
    [(10_000, 500, 0), (3_000, 0, 0), (400, 3, 1), (400, 0, 1)],
    ids=["spinning", "parked", "spinning with pauses", "parked with pauses"],
)
def test_no_wake_up_is_lost(rounds, spins, pauses):
    """Two processes hand a clock to and fro; a parked one would sleep for an hour if it were not woken."""
    with peers(8 * layout.board_words(2, bounded=False)) as group:
        words = group.memory.view(np.int64)
        words[layout.TIMEOUT] = 3600
        for _ in range(2):
            group.add("ping", rounds, spins, pauses)
        group.go()
        group.join()
        assert [int(words[layout.committed(slot)]) for slot in range(2)] == [rounds, rounds]
        assert words[layout.WAITERS] == 0


def plain(kernel):
    return getattr(kernel, "py_func", kernel)


@pytest.mark.parametrize(("call", "slot"), [("gate", 1), ("poll", 1), ("poll", 0), ("gate", None), ("poll", None)])
def test_what_comes_while_a_waiter_announces_itself_keeps_it_awake(monkeypatch, call, slot):
    """A target, news or an abort between the last look and the sleep: the look after the announcement finds it."""
    words = board_of([0, 0])
    words[layout.seen(2, 0, 0) :: 3 * layout.LINE] = layout.FINISHED
    waiting = []

    def meanwhile():
        waiting.append(int(words[layout.WAITERS]))
        words[layout.ABORT if slot is None else layout.committed(slot)] = 1

    def sleep(*arguments):
        raise AssertionError("it slept")

    monkeypatch.setattr(parking, "fence", meanwhile)
    monkeypatch.setattr(parking, "futex_wait", sleep)
    for name in ("announce", "park"):
        monkeypatch.setattr(board, name, plain(getattr(parking, name)))
    more = (FIRST, layout.seen(2, 0, 0), 2, 2, 1, -1) if call == "poll" else ()  # worker 1 waits for its own slot
    status = plain(getattr(board, call))(words, layout.committed(1), 1, 1, 0, *more)
    assert status == {1: board.OPEN, 0: board.NEWS, None: board.ABORTED}[slot]
    assert waiting == [1]
    assert words[layout.WAITERS] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("rounds", "spins", "pauses"), [(1_500, 0, 0), (150, 20, 1)])
def test_no_news_is_lost(rounds, spins, pauses):
    """Three processes that each wait until all have taken in its clock, and take in theirs while they wait."""
    with peers(8 * layout.board_words(3, bounded=True)) as group:
        words = group.memory.view(np.int64)
        words[layout.TIMEOUT] = 3600
        words[layout.seen(3, 0, 0) :: 4 * layout.LINE] = layout.FINISHED
        for _ in range(3):
            group.add("exchange", rounds, spins, pauses)
        group.go()
        group.join()
        assert [int(words[layout.committed(slot)]) for slot in range(3)] == [rounds] * 3
        assert words[layout.WAITERS] == 0


def test_abort_opens_every_gate():
    """Processes parked at a gate that nobody will open notice the abort flag, without a wake-up."""
    with peers(8 * layout.board_words(2, bounded=False)) as group:
        words = group.memory.view(np.int64)
        words[layout.TIMEOUT + 1] = 20_000_000
        for _ in range(2):
            group.add("wait_for_abort")
        group.go()
        words[layout.ABORT] = 1
        group.join()
        assert words[layout.WAITERS] == 0
