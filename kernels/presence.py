"""Rows of other nodes that a node fetches when a worker reads them, and keeps fresh as long as they are read.

One byte for each row says where it stands; workers and the agent change it by atomic operations. A worker that finds a
row absent makes it wanted, counts a request on the board and rings; the agent makes it asked, and when its values have
come, present. Every read makes a present row used; the agent looks now and then which rows were not used since, and
lets go of them. A worker that read the byte before that may read the row after it: its values are still those of that
time, and the reader's clock has not moved.
"""

from __future__ import annotations

import numpy as np

from .atomics import compare_exchange, fetch_add, load_acquire, pause, store_release
from .board import ABORTED, OPEN, TIMED_OUT
from .jit import Request, kernel
from .layout import ABORT, WANTED, board_words
from .marks import EIGHT, next_one
from .parking import announce, park

ABSENT, WANTED_ROW, ASKED, PRESENT, USED = 0, 1, 2, 3, 4  # `marks.next_one` looks for wanted rows


@kernel
def want_rows(board, states, ids):
    """Use rows `ids`, and make those wanted that are absent; return whether all are here."""
    here, wanted = True, False
    for n in range(ids.size):
        # Again if the agent lets go of it, or another worker uses or wants it, between the look and the change: a
        # worker that waited for a row that nobody wants would wait until the board's time limit.
        while True:
            state = load_acquire(states, ids[n])
            if state == USED or (state == PRESENT and compare_exchange(states, ids[n], PRESENT, USED)):
                break
            asked = state == ABSENT and compare_exchange(states, ids[n], ABSENT, WANTED_ROW)
            if asked or state in (WANTED_ROW, ASKED):
                wanted |= asked
                here = False
                break
    if wanted:
        fetch_add(board, WANTED, 1)
    return here


@kernel(inline=True)
def _lowest_state(states, ids):
    low = USED
    for n in range(ids.size):
        low = min(low, load_acquire(states, ids[n]))
    return low


@kernel
def await_rows(board, states, ids, spins):
    """Wait until rows `ids`, which are wanted, are here; parks and returns as `board.gate` does.

    Returns at once, as after the time limit, if the agent let go of one meanwhile: it is to be wanted again.
    """
    for _ in range(spins + 1):
        state = _lowest_state(states, ids)
        if state >= PRESENT:
            return OPEN
        if state == ABSENT:
            return TIMED_OUT
        if load_acquire(board, ABORT) != 0:
            return ABORTED
        pause()
    sequence = announce(board)
    state = _lowest_state(states, ids)
    if park(board, sequence, ABSENT < state < PRESENT):
        return ABORTED
    return OPEN if _lowest_state(states, ids) >= PRESENT else TIMED_OUT


@kernel
def take_wanted(states, eights, owners, owner, first, last, out):
    """Make the wanted rows of `owner` asked, and write their numbers to `out`, ascending; return how many.

    `first` and `last` are the first and last of its rows, `eights` is `states` seen as int64[ceil(rows / 8)]. A row
    that became wanted too late to be seen here is counted on the board after that: there is another look.
    """
    found = 0
    group = next_one(eights, first // EIGHT, last // EIGHT)
    while group <= last // EIGHT:
        start = group * EIGHT
        for row in range(start, min(start + EIGHT, owners.size)):
            if owners[row] == owner and load_acquire(states, row) == WANTED_ROW:
                store_release(states, row, ASKED)
                out[found] = row
                found += 1
        group = next_one(eights, group + 1, last // EIGHT)
    return found


@kernel
def make_present(states, ids):
    """Say that rows `ids` are here; what was written to them before can be read."""
    for n in range(ids.size):
        store_release(states, ids[n], USED)


@kernel
def take_unused(states, ids, out):
    """Let go of the rows of `ids` that nobody used since the last call, write them to `out`; return how many."""
    found = 0
    for n in range(ids.size):
        state = load_acquire(states, ids[n])
        if state == USED:
            compare_exchange(states, ids[n], USED, PRESENT)
        elif state == PRESENT and compare_exchange(states, ids[n], PRESENT, ABSENT):
            out[found] = ids[n]
            found += 1
    return found


def requests() -> list[Request]:
    """Kernels that fetch rows of other nodes, and let go of them."""
    words, states, none = np.zeros(board_words(2, bounded=True), np.int64), np.zeros(8, np.uint8), np.zeros(0, np.int64)
    ids = np.zeros(0, np.uint8).view(np.int64)
    return [
        (want_rows, (words, states, none)),
        (await_rows, (words, states, none, 0)),
        (take_wanted, (states, states.view(np.int64), states, 0, 0, 0, none)),
        (make_present, (states, ids)),
        (take_unused, (states, none, none)),
    ]
