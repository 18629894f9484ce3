"""The board of clocks: who has published what, and the wait for it. This is the whole SSP protocol of one box.

A worker at clock c may read under staleness s when the lowest committed slot is >= c - s (`nbps.kernels.layout` says
where slots lie).

Memory model: a worker adds to tables, then stores its slot with release order; a worker that loads the slot with
acquire order sees those additions. How workers sleep and are woken says `nbps.kernels.parking`.

An agent that exchanges rows with other nodes sleeps in the kernel on sockets, so workers wake it by a write to a
descriptor. It announces that it sleeps, fences and looks at the board again, as a parked worker does; a worker that
changed the board fences, and then looks whether it sleeps.

Under a value bound (VAP) a waiter also wakes for news, since others may wait for it to take them in. What it looks at
are then all committed slots, so every tick wakes it, not only one that raises the lowest.
"""

from __future__ import annotations

import numpy as np

from .atomics import exchange, fence, load_acquire, pause, store_release
from .futex import write_one
from .jit import Request, kernel
from .layout import (
    ABORT,
    AGENT_SLEEPS,
    ARRIVED,
    DOORBELL,
    FINISHED,
    HEADER_LINES,
    HELD,
    INSTALLS,
    LAST,
    LINE,
    NEEDED,
    ONE,
    SHIPS,
    SURVEY_ARRIVED,
    SURVEY_HEAD,
    SURVEY_LOWEST,
    SURVEY_WANTED,
    WANTED,
    board_words,
)
from .parking import announce, has_waiters, park, wake

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
    """Publish `clock` in word `slot`; wake those that wait for the lowest of `count` from `first` on, if it rose.

    Returns
    -------
    int
        The clock at which workers are held, looked at after that (`hold`).
    """
    before = load_acquire(board, slot)
    store_release(board, slot, clock)
    if has_waiters(board) and lowest(board, first, count) > before:
        wake(board)
    return load_acquire(board, HELD)


@kernel
def ring(board):
    """Wake the agent if it sleeps, so that it sees what was stored on the board before."""
    fence()
    if load_acquire(board, AGENT_SLEEPS) != 0 and exchange(board, AGENT_SLEEPS, 0) != 0:
        write_one(board, DOORBELL, ONE)


@kernel
def survey(board, workers, sources, out):
    """Write what an agent must know to `out`, int64[survey_words(workers)] (`nbps.kernels.layout`).

    The lowest committed and arrived slot of the workers and the count of requests; then for each worker its committed
    slot, the clock that it waited for, and how many ships it took in.
    """
    first = HEADER_LINES * LINE
    arrived = (HEADER_LINES + ARRIVED * sources) * LINE
    needed = (HEADER_LINES + NEEDED * sources) * LINE
    out[SURVEY_LOWEST] = out[SURVEY_ARRIVED] = FINISHED
    out[SURVEY_WANTED] = load_acquire(board, WANTED)
    for k in range(workers):
        clock = load_acquire(board, first + k * LINE)
        out[SURVEY_LOWEST] = min(out[SURVEY_LOWEST], clock)
        out[SURVEY_ARRIVED] = min(out[SURVEY_ARRIVED], load_acquire(board, arrived + k * LINE))
        out[SURVEY_HEAD + k] = clock
        out[SURVEY_HEAD + workers + k] = load_acquire(board, needed + k * LINE)
        out[SURVEY_HEAD + 2 * workers + k] = load_acquire(board, needed + k * LINE + SHIPS)


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
    """Set `word` and wake everybody who waits: rare news, unlike a clock."""
    store_release(board, word, value)
    if has_waiters(board):
        wake(board)


@kernel
def hold(board, clock, workers, sources):
    """Hold workers at `clock` and later ones; return the clock that one of `workers` may come to before it heeds that.

    A worker publishes its clock, fences and looks whether it is held (`tick`); here it is the other way round. So each
    worker is held at its next clock, or its last one is seen here.
    """
    publish(board, HELD, clock)
    highest = 0
    for k in range(workers):
        committed = load_acquire(board, (HEADER_LINES + k) * LINE)
        # Where it finished, or where it is while its clock is not published yet.
        last = load_acquire(board, (HEADER_LINES + NEEDED * sources + k) * LINE + LAST)
        highest = max(highest, last + 1 if committed == FINISHED else max(committed, last) + 1)
    return highest


@kernel
def gate(board, first, count, target, spins):
    """Wait until the lowest of `count` slots from word `first` on is >= `target`.

    Looks `spins` times, then parks.

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
    sequence = announce(board)
    if park(board, sequence, lowest(board, first, count) < target):
        return ABORTED
    return OPEN if lowest(board, first, count) >= target else TIMED_OUT


@kernel
def snapshot(board, first, count, out):
    """Load `count` slots from word `first` on into `out`; what each stands for can be read afterwards."""
    for k in range(count):
        out[k] = load_acquire(board, first + k * LINE)


@kernel
def publish_seen(board, first, sources, workers, reader, committed):
    """Say that `reader` has taken in what `committed`, a snapshot, stood for; wake those that may wait for that.

    `first` is the word of the first seen slot, of which each worker has `sources`. What `reader` says about itself
    stays.
    """
    rose = False
    for k in range(workers):
        slot = first + (k * sources + reader) * LINE
        if k != reader and committed[k] > load_acquire(board, slot):
            store_release(board, slot, committed[k])
            rose = True
    if rose and has_waiters(board):
        wake(board)


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
    sequence = announce(board)
    waits = lowest(board, first, count) < target
    if waits and has_news(board, committed, seen, sources, workers, reader, ships):
        waits = False
    if park(board, sequence, waits):
        return ABORTED
    if lowest(board, first, count) >= target:
        return OPEN
    return NEWS if has_news(board, committed, seen, sources, workers, reader, ships) else TIMED_OUT


def requests(bounded: bool) -> list[Request]:
    """Kernels of the clock; `bounded` is whether there is a value bound."""
    words, slots = np.zeros(board_words(1, bounded=True), np.int64), np.zeros(1, np.int64)
    always = [
        (tick, (words, 0, 1, 0, 0)),
        (gate, (words, 0, 1, 0, 0)),
        (lowest_other, (words, 0, 1, 0)),
    ]
    if not bounded:
        return always
    return [
        *always,
        (poll, (words, 0, 1, 0, 0, 0, 0, 1, 1, 0, -1)),
        (snapshot, (words, 0, 1, slots)),
        (publish_seen, (words, 0, 1, 1, 0, slots)),
    ]


def agent_requests() -> list[Request]:
    """Kernels with which workers wake an agent, and it looks at their clocks."""
    words, seen = np.zeros(board_words(2, bounded=True), np.int64), np.zeros(6, np.int64)
    return [
        (ring, (words,)),
        (publish, (words, 0, 0)),
        (hold, (words, 0, 1, 2)),
        (survey, (words, 1, 2, seen)),
        (differs, (words, 1, 2, seen, seen)),
        (doze, (words, 1, 2, seen, seen)),
    ]
