"""The board of clocks: ticks, gates, parking, wake-ups and abort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbps.kernels import board, layout
from sharing import peers

FIRST = layout.committed(0)
clocks = st.lists(st.integers(0, 20), min_size=1, max_size=5)


def board_of(slots: list[int]) -> np.ndarray:
    words = np.zeros(layout.board_words(len(slots)), np.int64)
    words[layout.TIMEOUT + 1] = 1000  # nanoseconds
    for worker, clock in enumerate(slots):
        words[layout.committed(worker)] = clock
    return words


@given(clocks)
def test_lowest_is_the_minimum(slots):
    """The lowest slot, whatever lies on the lines between and behind."""
    words = board_of(slots)
    words[layout.refreshed(len(slots), 0)] = -5
    assert board.lowest(words, FIRST, len(slots)) == min(slots)


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


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_board_gives_every_writer_cache_lines_of_its_own(workers):
    """No two slots or counters of different workers share a line, and all lie on the board."""
    places = [layout.ABORT, layout.SEQUENCE]
    for worker in range(workers):
        places += [layout.committed(worker), layout.refreshed(workers, worker), layout.arrived(workers, worker)]
        start = layout.statistics(workers, worker)
        places += range(start, start + layout.STATS_LINES * layout.LINE, layout.LINE)
    assert len({place // layout.LINE for place in places}) == len(places)
    assert max(places) + layout.LINE == layout.board_words(workers)


@pytest.mark.parametrize(
    ("rounds", "spins", "pauses"),
    [(10_000, 500, 0), (3_000, 0, 0), (400, 3, 1), (400, 0, 1)],
    ids=["spinning", "parked", "spinning with pauses", "parked with pauses"],
)
def test_no_wake_up_is_lost(rounds, spins, pauses):
    """Two processes hand a clock to and fro; a parked one would sleep for an hour if it were not woken."""
    with peers(8 * layout.board_words(2)) as group:
        words = group.memory.view(np.int64)
        words[layout.TIMEOUT] = 3600
        for _ in range(2):
            group.start("ping", rounds, spins, pauses)
        group.go()
        group.join()
        assert [int(words[layout.committed(slot)]) for slot in range(2)] == [rounds, rounds]
        assert words[layout.WAITERS] == 0


def test_abort_opens_every_gate():
    """Processes parked at a gate that nobody will open notice the abort flag, without a wake-up."""
    with peers(8 * layout.board_words(2)) as group:
        words = group.memory.view(np.int64)
        words[layout.TIMEOUT + 1] = 20_000_000
        for _ in range(2):
            group.start("wait_for_abort")
        group.go()
        words[layout.ABORT] = 1
        group.join()
        assert words[layout.WAITERS] == 0
