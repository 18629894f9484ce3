"""Where things lie on the board of clocks; free of Numba, for processes that only look at it.

The board is a flat int64 array in shared memory, cut into lines of `LINE` words so that no two writers share a cache
line (nor the pair of lines that x86 fetches together)::

    line 0            the abort flag: read by all, written once
    line 1            futex words: written when a worker parks
    workers lines     committed slots: slot k = c says that every update of worker k from clocks < c is visible
    workers lines     refreshed slots: worker k has taken in what it reads in clock c (strict BSP)
    workers lines     arrived slots: how many barriers worker k has reached
    workers x STATS   counters of one worker, written by it alone
    workers x workers under a value bound: seen slots, for each worker one of each reader: slot (i, j) = c says that
                      reader j has taken in all of worker i from clocks < c. Slot (i, i) is `FINISHED`
"""

from __future__ import annotations

LINE = 16  # int64 words; 128 bytes
FINISHED = 2**63 - 1  # slot of a worker that holds nobody back any more

ABORT = 0
SEQUENCE = LINE
WAITERS = LINE + 1
TIMEOUT = LINE + 2  # a struct timespec: seconds, nanoseconds
HEADER_LINES = 2

# Counters of one worker, in words from the start of its statistics. Clock differentials are visible clock minus
# reader's clock, so never positive; bin d counts those of -d, the last bin all below as well. The share of the value
# bound that was in transit is a float64, all others are int64.
CLOCKS, COMPUTE_NS, WAIT_NS, READS, DIFFERENTIAL_SUM, DIFFERENTIAL_SQUARES, ROWS_SENT, TRANSIT_SHARE = range(8)
HISTOGRAM, HISTOGRAM_BINS = 16, 64
STATS_LINES = (HISTOGRAM + HISTOGRAM_BINS) // LINE


def committed(worker: int) -> int:
    """Word of the committed slot of `worker`."""
    return (HEADER_LINES + worker) * LINE


def refreshed(workers: int, worker: int) -> int:
    """Word of the refreshed slot of `worker`, one of `workers`."""
    return (HEADER_LINES + workers + worker) * LINE


def arrived(workers: int, worker: int) -> int:
    """Word of the barrier slot of `worker`, one of `workers`."""
    return (HEADER_LINES + 2 * workers + worker) * LINE


def statistics(workers: int, worker: int) -> int:
    """First word of the counters of `worker`, one of `workers`."""
    return (HEADER_LINES + 3 * workers + STATS_LINES * worker) * LINE


def seen(workers: int, worker: int, reader: int) -> int:
    """Word of what `reader` says about `worker`, both of `workers`; the next reader's is the next line."""
    return statistics(workers, workers) + (worker * workers + reader) * LINE


def board_words(workers: int, bounded: bool) -> int:
    """Size of the board in int64 words; `bounded` is whether there are seen slots."""
    return seen(workers, workers if bounded else 0, 0)
