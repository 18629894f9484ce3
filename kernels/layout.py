"""Where things lie on the board of clocks; free of Numba, for processes that only look at it.

The board is a flat int64 array in shared memory, cut into lines of `LINE` words so that no two writers share a cache
line (nor the pair of lines that x86 fetches together). *Sources* are the node's workers and, where an agent exchanges
rows with other nodes, after them one shard for every node::

    line 0            the abort flag, and the clock at which workers are held: read by all, written once
    line 1            futex words: written when a worker parks
    line 2            the agent's doorbell: whether it sleeps, and the descriptor that wakes it
    line 3            how many requests for rows there were, and how many ships came (VAP)
    sources lines     committed slots: slot k = c says that every update of source k from clocks < c is visible here
    sources lines     refreshed slots: worker k has taken in what it reads in clock c (strict BSP)
    sources lines     arrived slots: how many barriers worker k, or all workers of node k, have reached
    sources lines     needed slots: the highest visible clock that worker k has waited for; ships taken in (VAP); how
                      many clocks it had completed when it finished, or when it published none, as additions of it were
                      put aside
    sources x STATS   counters of one worker, written by it alone
    sources x sources under a value bound: seen slots, for each worker one of each reader: slot (i, j) = c says that
                      reader j has taken in all of worker i from clocks < c. Slot (i, i) is `FINISHED`. The first shard
                      stands for all other nodes as one reader
    2 x nodes x SUM   summands: what the workers of each node add up at even, and at odd barriers. First four words of
                      each worker: the barrier's number, how many elements there are in all, a checksum of their
                      shape, and whether they are floats; then the elements of one worker after the other
"""

from __future__ import annotations

LINE = 16  # int64 words; 128 bytes
FINISHED = 2**63 - 1  # slot of a worker that holds nobody back any more; the same as `nbps.core.rules.FINISHED`

ABORT = 0
HELD = 1  # workers that have completed so many clocks wait; 0 if nobody shall
SEQUENCE = LINE
WAITERS = LINE + 1
TIMEOUT = LINE + 2  # a struct timespec: seconds, nanoseconds
AGENT_SLEEPS = 2 * LINE
DOORBELL = 2 * LINE + 1  # a descriptor that workers and agent inherited; -1 where there is no agent
ONE = 2 * LINE + 2  # the number that is written to it
WANTED = 3 * LINE
INSTALLS = 3 * LINE + 1
HEADER_LINES = 4

# Kinds of slots behind the committed ones, in this order, `sources` lines each; then the counters. The functions below
# say where one lies; kernels, which cannot call them, compute it from these.
REFRESHED, ARRIVED, NEEDED, STATISTICS = range(1, 5)
SHIPS, LAST = 1, 2  # words of a needed slot after its clock: ships taken in (VAP), clocks completed but not published

# Counters of one worker, in words from the start of its statistics. Clock differentials are visible clock minus
# reader's clock, so never positive; bin d counts those of -d, the last bin all below as well. The share of the value
# bound that was in transit is a float64, all others are int64.
CLOCKS, COMPUTE_NS, WAIT_NS, READS, DIFFERENTIAL_SUM, DIFFERENTIAL_SQUARES, ROWS_SENT, TRANSIT_SHARE = range(8)
HISTOGRAM, HISTOGRAM_BINS = 16, 64
STATS_LINES = (HISTOGRAM + HISTOGRAM_BINS) // LINE

# What an agent reads on the board at once (`nbps.kernels.board.survey`): three words, then for each worker its
# committed slot, for each the clock that it waited for, and for each how many ships it took in.
SURVEY_LOWEST, SURVEY_ARRIVED, SURVEY_WANTED, SURVEY_HEAD = range(4)

SUM_WORDS = 4096  # 32 KiB, which travel in one frame; larger arrays are added in pieces
SUM_BARRIER, SUM_ELEMENTS, SUM_SHAPE, SUM_IS_FLOAT, SUM_HEADER = range(5)
WORKERS_LIMIT = SUM_WORDS // (SUM_HEADER + 1)  # of a node: each has room for one summand


def survey_words(workers: int) -> int:
    """Size of a survey of the board of so many workers, in int64 words."""
    return SURVEY_HEAD + 3 * workers


def committed(source: int) -> int:
    """Word of the committed slot of `source`."""
    return (HEADER_LINES + source) * LINE


def refreshed(sources: int, worker: int) -> int:
    """Word of the refreshed slot of `worker`, one of `sources`."""
    return committed(REFRESHED * sources + worker)


def arrived(sources: int, source: int) -> int:
    """Word of the barrier slot of `source`, one of `sources`."""
    return committed(ARRIVED * sources + source)


def needed(sources: int, worker: int) -> int:
    """Word of the visible clock that `worker`, one of `sources`, waited for.

    `SHIPS` words on is how many ships it took in, `LAST` words on how many clocks it had completed when it finished, or
    when it had to leave a clock unpublished.
    """
    return committed(NEEDED * sources + worker)


def statistics(sources: int, worker: int) -> int:
    """First word of the counters of `worker`, one of `sources`."""
    return committed(STATISTICS * sources + STATS_LINES * worker)


def seen(sources: int, worker: int, reader: int) -> int:
    """Word of what `reader` says about `worker`, both of `sources`; the next reader's is the next line."""
    return statistics(sources, sources) + (worker * sources + reader) * LINE


def sums(sources: int, bounded: bool) -> int:
    """First word of the summands; `bounded` is whether there are seen slots."""
    return seen(sources, sources if bounded else 0, 0)


def board_words(sources: int, bounded: bool, nodes: int = 0) -> int:
    """Size of the board in int64 words, with summands of `nodes` nodes."""
    return sums(sources, bounded) + 2 * nodes * SUM_WORDS
