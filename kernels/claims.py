"""Claims: lossless additions to shared rows by plain SIMD, without waiting for another worker.

Every row has a claim: a byte that is 0, or says who adds to the row right now. Who gets it by one compare-and-swap adds
with plain loads and stores and gives it back by a store. Who finds it taken does not wait: the addition is put aside in
a buffer of the worker's own, merged with what lies there for the same row, and is made after `EVERY` more additions,
or when the worker's clock is published or it comes to a barrier (`nbps.runtime.aside`), at the latest. Eight
compare-and-swaps of 16 bytes, which a row of 32 floats takes without a claim, cost five times as much.

The claims are of a job, not of a table: row r of every table with claims is claimed by the same byte, so that one claim
is enough for what belongs together, as the factors of an item and its bias.

*Memory order.* A claim is taken with acquire order and given back with release order: the next one that adds to the row
reads what this one wrote, and nothing of an addition happens outside its claim. On x86 the first is ``lock cmpxchg``
and the second a plain store; on arm64 ``ldaxrb``/``stlxrb``, or ``casab``, and ``stlrb``. What else is in the claim are
plain accesses. The order of a clock is that of the board, as for every other addition.

*Readers* claim nothing. They may see a row half added to, never a torn element: elements are aligned, and no machine
that nbps runs on tears an aligned element of a vector. A worker sees its own additions: `get_row` adds what it has put
aside.

*A full buffer.* It has more entries, one for each row, than all workers of the node together can hold claims
(`claim_layout.capacity`). So at any instant one entry at least is of a row that nobody claims, and a retry that finds
none was overtaken by somebody who goes on. No worker that is stopped can make another wait here. A table of fewer rows
has one entry for each of them, and its buffer is never full when another row comes.

*A claimant that is stopped or descheduled* keeps its row, and only this row, from being added to; the others put aside.
*One that is killed* leaves its claim and maybe half an addition. No other worker outlives it by more than its current
call: a worker that dies ends all of its node, whose memory goes with them, whatever other nodes then do.

What is written by claims is written by claims alone: a compare-and-swap beside the plain stores of a claimant would be
overwritten by them. Kernels therefore see such rows as a read-only array, which Numba refuses to compile a store to.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from .claim_layout import COUNT, HEADER, PUT, SINCE, SPREAD
from .jit import kernel
from .places import add_elements, call, copy_elements, fetch, give, mark, set_word, size_of, take, word

EVERY = 16  # additions between two looks whether what was put aside can be added
AHEAD = 4  # rows that are fetched for writing before it is their turn


class Claimed(NamedTuple):
    """A table with claims as one worker sees it; what places are says `nbps.kernels.places`.

    Attributes
    ----------
    values : place
        Rows of `width` elements, shared.
    claims : place
        uint8[mask + 1], shared.
    words : place
        int64[HEADER + capacity], this worker's own: the counts of `claim_layout`, then the rows that are put aside.
    deltas : place
        As many rows, of the type of the values: what is put aside for each.
    marks : place
        uint8[rows]: marks of changed rows (`rows.mark_row`), if there are any (`marked`).
    marked, width, mask, capacity : int
    me : int
        1 to 255: who is said to have claimed a row.
    """

    values: Any
    claims: Any
    words: Any
    deltas: Any
    marks: Any
    marked: int
    width: int
    mask: int
    capacity: int
    me: int


class Aside:
    """What one worker, number `source` of its node, has put aside of a table; keeps the memory of a `Claimed`.

    Attributes
    ----------
    claimed : Claimed
    words : int64[HEADER + capacity]
    """

    def __init__(
        self,
        values: npt.NDArray[Any],
        claims: npt.NDArray[np.uint8],
        marks: npt.NDArray[np.uint8],
        source: int,
        capacity: int,
    ) -> None:
        width = values.shape[1]
        self.words = np.zeros(HEADER + capacity, np.int64)
        self._deltas = np.zeros(capacity * width, values.dtype)
        self._shared = values.reshape(-1), claims, marks
        self._zero = values.dtype.type(0)
        places = (values.reshape(-1), claims, self.words, self._deltas, marks)
        self.claimed = Claimed(
            *(place if numba.config.DISABLE_JIT else place.ctypes.data for place in places),
            int(marks.size > 0), width, claims.size - 1, capacity, 1 + source % 255,
        )  # fmt: skip

    def retry(self) -> int:
        """Add what can be added; return how many rows are left."""
        return int(retry(self.claimed, self._zero))

    def holders(self) -> list[tuple[int, int]]:
        """Return the rows that are left, each with the number of who claims it; -1 if nobody does any more."""
        claims, mask = self._shared[1], self.claimed.mask
        rows = self.words[HEADER : HEADER + int(self.words[COUNT])].tolist()
        return [(row, int(claims[(row * SPREAD) & mask]) - 1) for row in rows]


@kernel(inline=True)
def slot(table, row):
    """Return which byte is the claim of a row."""
    return (row * SPREAD) & table.mask


@kernel(inline=True)
def fetch_row(table, row, zero):
    """Fetch two cache lines of a row for writing; of longer ones the machine fetches the rest."""
    first = row * table.width
    fetch(table.values, first, zero)
    fetch(table.values, first + table.width // 2, zero)


@kernel(inline=True)
def give_row(table, row):
    """Give back the claim of a row that was added to, and mark it: the agent, which clears marks, reads it then."""
    give(table.claims, slot(table, row))
    if table.marked:
        mark(table.marks, row)


@kernel(inline=True)
def _add_claimed(table, row, source, start, stride, zero):
    add_elements(table.values, row * table.width, source, start, stride, table.width, zero)
    give_row(table, row)


@kernel
def retry(table, zero):
    """Add what was put aside where the row is free now; return how many rows are left. Its caller holds no claim."""
    words, deltas, width = table.words, table.deltas, table.width
    set_word(words, SINCE, 0)
    k = 0
    while k < word(words, COUNT):
        row = word(words, HEADER + k)
        if take(table.claims, slot(table, row), table.me):
            _add_claimed(table, row, deltas, k * width, size_of(zero), zero)
            last = word(words, COUNT) - 1
            set_word(words, COUNT, last)
            set_word(words, HEADER + k, word(words, HEADER + last))
            copy_elements(deltas, k * width, deltas, last * width, size_of(zero), width, zero)
        else:
            k += 1
    return word(words, COUNT)


@kernel(inline=True)
def entry_of(table, row):
    """Return the entry of a row in the buffer, or -1."""
    for k in range(word(table.words, COUNT)):
        if word(table.words, HEADER + k) == row:
            return k
    return -1


@kernel
def put_onto(table, row, source, start, stride, zero):
    """Add to what is put aside for a row, if something is; return whether. Retries now and then."""
    since = word(table.words, SINCE) + 1
    set_word(table.words, SINCE, since)
    if since >= EVERY:
        retry(table, zero)
    k = entry_of(table, row)
    if k < 0:
        return False
    add_elements(table.deltas, k * table.width, source, start, stride, table.width, zero)
    set_word(table.words, PUT, word(table.words, PUT) + 1)
    return True


@kernel
def put_aside(table, row, source, start, stride, zero):
    """Put an addition aside."""
    k = entry_of(table, row)
    if k >= 0:
        add_elements(table.deltas, k * table.width, source, start, stride, table.width, zero)
    else:
        while word(table.words, COUNT) == table.capacity:  # ends: see "A full buffer" above
            retry(table, zero)
        k = word(table.words, COUNT)
        set_word(table.words, HEADER + k, row)
        copy_elements(table.deltas, k * table.width, source, start, stride, table.width, zero)
        set_word(table.words, COUNT, k + 1)
    set_word(table.words, PUT, word(table.words, PUT) + 1)


@kernel(inline=True)
def add(table, row, source, start, stride, zero):
    """Add the elements from `start` of `source` on, `stride` bytes apart, to a row: now, or a little later.

    `zero` is of the type of the values.
    """
    row = np.int64(row)  # one that is unsigned would become a float beside the others
    if word(table.words, COUNT) == 0 or not call(put_onto, table, row, source, start, stride, zero):
        fetch_row(table, row, zero)
        if take(table.claims, slot(table, row), table.me):
            _add_claimed(table, row, source, start, stride, zero)
        else:
            call(put_aside, table, row, source, start, stride, zero)


@kernel(inline=True)
def fetch_ahead(table, row, zero):
    """Fetch a row that is to be added to soon, and its claim; not while something is put aside."""
    row = np.int64(row)
    if word(table.words, COUNT) == 0:
        fetch(table.claims, slot(table, row), np.uint8(0))
        fetch_row(table, row, zero)
