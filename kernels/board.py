"""The board of clocks: who has published what, and the wait for it. This is the whole SSP protocol of one box.

A worker at clock c may read under staleness s when the lowest committed slot is >= c - s (`nbps.kernels.layout` says
where slots lie).

Memory model: a worker adds to tables, then stores its slot with release order; who loads the slot with acquire order
sees those additions. Parking follows the futex protocol: a waiter announces itself, reads the sequence word, looks
at the slots again and only then sleeps; a ticker stores its slot, fences, and looks for waiters. The fences make it
impossible that both look too early.
"""

from __future__ import annotations

from .atomics import fence, fetch_add, load_acquire, pause, store_release
from .futex import futex_wait, futex_wake
from .jit import kernel
from .layout import ABORT, LINE, SEQUENCE, TIMEOUT, WAITERS

OPEN, TIMED_OUT, ABORTED = 0, 1, 2


@kernel
def lowest(board, first, count):
    """Return the lowest of `count` slots, of which the first is word `first`."""
    low = load_acquire(board, first)
    for k in range(1, count):
        low = min(low, load_acquire(board, first + k * LINE))
    return low


@kernel
def tick(board, first, count, slot, clock):
    """Publish `clock` in word `slot`; wake who waits for the lowest of `count` slots from `first` on, if it rose."""
    before = load_acquire(board, slot)
    store_release(board, slot, clock)
    fence()
    if load_acquire(board, WAITERS) > 0 and lowest(board, first, count) > before:
        fetch_add(board, SEQUENCE, 1)
        futex_wake(board, SEQUENCE)


@kernel
def gate(board, first, count, target, spins):
    """Wait until the lowest of `count` slots from word `first` on is >= `target`.

    Looks `spins` times, then sleeps until woken, but no longer than the board's time limit: the caller is Python
    and must get to its signal handlers.

    Returns
    -------
    int
        `OPEN`, `TIMED_OUT` (call again) or `ABORTED` (the job is ending).
    """
    for _ in range(spins + 1):
        if lowest(board, first, count) >= target:
            return OPEN
        if load_acquire(board, ABORT) != 0:
            return ABORTED
        pause()
    fetch_add(board, WAITERS, 1)
    fence()
    seen = load_acquire(board, SEQUENCE)
    if lowest(board, first, count) < target and load_acquire(board, ABORT) == 0:
        futex_wait(board, SEQUENCE, seen, TIMEOUT)
    fetch_add(board, WAITERS, -1)
    if load_acquire(board, ABORT) != 0:
        return ABORTED
    return OPEN if lowest(board, first, count) >= target else TIMED_OUT
