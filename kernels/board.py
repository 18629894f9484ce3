"""The board of clocks: who has published what, and the wait for it. This is the whole SSP protocol of one box.

A worker at clock c may read under staleness s when the lowest committed slot is >= c - s (`nbps.kernels.layout` says
where slots lie).

Memory model: a worker adds to tables, then stores its slot with release order; who loads the slot with acquire order
sees those additions. Parking follows the futex protocol: a waiter announces itself, reads the sequence word, looks
at the slots again and only then sleeps; a ticker stores its slot, fences, and looks for waiters. The fences make it
impossible that both look too early.

An agent that exchanges rows with other nodes sleeps in the kernel on sockets, so workers wake it by a write to a
descriptor. It announces that it sleeps, fences and looks at the board again, as a parked worker does; who changed the
board fences, and then looks whether it sleeps.

Under a value bound (VAP) a waiter also wakes for news, since others may wait for it to take them in. What it looks at
are then all committed slots, so every tick wakes it, not only one that raises the lowest.
"""

from __future__ import annotations

from .atomics import exchange, fence, fetch_add, load_acquire, pause, store_release
from .futex import futex_wait, futex_wake, write_one
from .jit import kernel
from .layout import (
    ABORT,
    AGENT_SLEEPS,
    DOORBELL,
    FINISHED,
    HEADER_LINES,
    INSTALLS,
    LINE,
    ONE,
    SEQUENCE,
    TIMEOUT,
    WAITERS,
    WANTED,
)

OPEN, TIMED_OUT, ABORTED, NEWS = 0, 1, 2, 3


@kernel
def lowest(board, first, count):
    """Return the lowest of `count` slots, of which the first is word `first`."""
    low = load_acquire(board, first)
    for k in range(1, count):
        low = min(low, load_acquire(board, first + k * LINE))
    return low


@kernel
def lowest_other(board, first, count, own):
    """Return the lowest of `count` slots without number `own`; `FINISHED` if there is no other."""
    low = FINISHED
    for k in range(count):
        if k != own:
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
def ring(board):
    """Wake the agent if it sleeps, so that it sees what was stored on the board before."""
    fence()
    if load_acquire(board, AGENT_SLEEPS) != 0 and exchange(board, AGENT_SLEEPS, 0) != 0:
        write_one(board, DOORBELL, ONE)


@kernel
def survey(board, workers, sources, out):
    """Write what an agent must know to `out`, int64[3 + 3 * workers].

    The lowest committed and arrived slot of the workers and the count of requests; then for each worker its committed
    slot, the clock that it waited for, and how many ships it took in.
    """
    first, arrived, needed = (
        HEADER_LINES * LINE,
        (HEADER_LINES + 2 * sources) * LINE,
        (HEADER_LINES + 3 * sources) * LINE,
    )
    out[0] = out[1] = FINISHED
    out[2] = load_acquire(board, WANTED)
    for k in range(workers):
        clock = load_acquire(board, first + k * LINE)
        out[0] = min(out[0], clock)
        out[1] = min(out[1], load_acquire(board, arrived + k * LINE))
        out[3 + k] = clock
        out[3 + workers + k] = load_acquire(board, needed + k * LINE)
        out[3 + 2 * workers + k] = load_acquire(board, needed + k * LINE + 1)


@kernel
def differs(board, workers, sources, known, out):
    """Tell whether the board says something else than `known`, an earlier `survey`; `out` is the new one."""
    survey(board, workers, sources, out)
    for k in range(out.size):  # noqa: SIM110  (Numba compiles no generator expressions)
        if out[k] != known[k]:
            return True
    return False


@kernel
def doze(board, workers, sources, known, out):
    """Announce that the agent sleeps, unless the board says more than `known`, an earlier `survey`; return whether.

    `out` is the survey made after the announcement.
    """
    store_release(board, AGENT_SLEEPS, 1)
    fence()
    if differs(board, workers, sources, known, out):
        store_release(board, AGENT_SLEEPS, 0)
        return False
    return True


@kernel
def publish(board, word, value):
    """Set `word` and wake everybody who waits: it is one of the rare news that are no clock."""
    store_release(board, word, value)
    fence()
    if load_acquire(board, WAITERS) > 0:
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


@kernel
def snapshot(board, first, count, out):
    """Load `count` slots from word `first` on into `out`; what each stands for can be read afterwards."""
    for k in range(count):
        out[k] = load_acquire(board, first + k * LINE)


@kernel
def publish_seen(board, first, sources, workers, reader, committed):
    """Say that `reader` has taken in what `committed`, a snapshot, stood for; wake who may wait for that.

    `first` is the word of the first seen slot, of which each worker has `sources`. What `reader` says about itself
    stays.
    """
    rose = False
    for k in range(workers):
        slot = first + (k * sources + reader) * LINE
        if k != reader and committed[k] > load_acquire(board, slot):
            store_release(board, slot, committed[k])
            rose = True
    fence()
    if rose and load_acquire(board, WAITERS) > 0:
        fetch_add(board, SEQUENCE, 1)
        futex_wake(board, SEQUENCE)


@kernel
def has_news(board, committed, seen, sources, workers, reader, ships):
    """Tell whether somebody committed, or a ship brought, what `reader` has not taken in.

    The first slots are words `committed` and `seen`; `reader` has taken in `ships` ships, -1 where there are none.
    """
    if ships >= 0 and load_acquire(board, INSTALLS) != ships:
        return True
    for k in range(workers):
        slot = seen + (k * sources + reader) * LINE
        if load_acquire(board, committed + k * LINE) > load_acquire(board, slot):
            return True
    return False


@kernel
def poll(board, first, count, target, spins, committed, seen, sources, workers, reader, ships):
    """Wait as `gate` does, but return `NEWS` as soon as `has_news`."""
    for _ in range(spins + 1):
        if lowest(board, first, count) >= target:
            return OPEN
        if has_news(board, committed, seen, sources, workers, reader, ships):
            return NEWS
        if load_acquire(board, ABORT) != 0:
            return ABORTED
        pause()
    fetch_add(board, WAITERS, 1)
    fence()
    sequence = load_acquire(board, SEQUENCE)
    waits = lowest(board, first, count) < target
    if waits and has_news(board, committed, seen, sources, workers, reader, ships):
        waits = False
    if waits and load_acquire(board, ABORT) == 0:
        futex_wait(board, SEQUENCE, sequence, TIMEOUT)
    fetch_add(board, WAITERS, -1)
    if load_acquire(board, ABORT) != 0:
        return ABORTED
    if lowest(board, first, count) >= target:
        return OPEN
    return NEWS if has_news(board, committed, seen, sources, workers, reader, ships) else TIMED_OUT
