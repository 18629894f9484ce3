"""Parking and waking: how a worker sleeps on the board until what it waits for may have come.

The futex protocol. A worker that waits announces itself, reads the sequence word (`announce`), looks once more at what
it waits for, and only then sleeps (`park`). One that stored something fences and looks for waiters (`has_waiters`), and
changes the sequence word before it wakes them (`wake`). The two fences make it impossible that both look too early.

A waiter counts as one from `announce` to the end of `park`: the second has to follow the first.
"""

from __future__ import annotations

from .atomics import fence, fetch_add, load_acquire
from .futex import futex_wait, futex_wake
from .jit import kernel
from .layout import ABORT, SEQUENCE, TIMEOUT, WAITERS


@kernel(inline=True)
def announce(board):
    """Count this worker among those that wait; return the sequence word, for `park`."""
    fetch_add(board, WAITERS, 1)
    fence()
    return load_acquire(board, SEQUENCE)


@kernel(inline=True)
def park(board, sequence, waits):
    """Sleep until the next `wake` after `announce`, if this worker still `waits`; return whether the job is ending.

    Sleeps no longer than the board's time limit: the caller is Python and must get to its signal handlers.
    """
    if waits and load_acquire(board, ABORT) == 0:
        futex_wait(board, SEQUENCE, sequence, TIMEOUT)
    fetch_add(board, WAITERS, -1)
    return load_acquire(board, ABORT) != 0


@kernel(inline=True)
def has_waiters(board):
    """Tell whether a worker waits that may not have seen what was stored before."""
    fence()
    return load_acquire(board, WAITERS) > 0


@kernel(inline=True)
def wake(board):
    """Wake all that are parked."""
    fetch_add(board, SEQUENCE, 1)
    futex_wake(board, SEQUENCE)
