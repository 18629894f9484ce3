"""What an agent writes to rows that workers add to at the same time: additions and values of other nodes.

It claims rows as workers do (`nbps.kernels.claims`), and puts nothing aside: it looks at a row that is claimed for as
long as an addition may take, and then says at which row it stopped. Rows without claims are changed element by element.
Which of the two, the compiler decides: a table without claims is of another type.
"""

from __future__ import annotations

from numba.extending import overload

from .atomics import pause
from .claims import AHEAD, fetch_ahead, slot
from .jit import kernel
from .places import add_elements, give, place_of, shift_elements, size_of, take
from .relaxed import add_relaxed, shift_relaxed
from .rows import is_claimed, mark_row

_LOOKS = 200  # at a row that is claimed: some microseconds; a worker that runs has added to it ten times by then


@kernel(inline=True)
def _claim(claimed, row):
    """Claim a row, looking for as long as a worker that runs may take for an addition; return whether it was free."""
    for _ in range(_LOOKS):
        if take(claimed.claims, slot(claimed, row), claimed.me):
            return True
        pause()
    return False


@kernel
def _round_claimed(table, row, seen, known):
    claimed, zero = table.claimed, table.values.dtype.type(0)
    if take(claimed.claims, slot(claimed, row), claimed.me):
        first = row * claimed.width
        shift_elements(claimed.values, first, place_of(seen), 0, place_of(known), 0, claimed.width, zero)
        give(claimed.claims, slot(claimed, row))
    else:
        mark_row(table.dirty, row)


@kernel
def _round_in_place(table, row, seen, known):
    for j in range(table.values.shape[1]):
        if known[j] != seen[j]:
            shift_relaxed(table.values[row], j, seen[j], known[j])


@kernel(early=True)
def _apply_claimed(table, ids, deltas, first):
    claimed, zero, source = table.claimed, table.values.dtype.type(0), place_of(deltas)
    width, count = claimed.width, ids.size
    for n in range(first, count):
        row = ids[n]
        if n + AHEAD < count:
            fetch_ahead(claimed, ids[n + AHEAD], zero)
        if not _claim(claimed, row):
            return n
        add_elements(claimed.values, row * width, source, n * width, size_of(zero), width, zero)
        give(claimed.claims, slot(claimed, row))
    return count


@kernel(early=True)
def _apply_in_place(table, ids, deltas, first):
    for n in range(first, ids.size):
        row = table.values[ids[n]]
        for j in range(row.size):
            add_relaxed(row, j, deltas[n, j])
    return ids.size


@kernel(early=True)
def _install_claimed(table, base, ids, fresh, first):
    claimed, zero, known, new = table.claimed, table.values.dtype.type(0), place_of(base), place_of(fresh)
    width, count = claimed.width, ids.size
    for n in range(first, count):
        row = ids[n]
        if n + AHEAD < count:
            fetch_ahead(claimed, ids[n + AHEAD], zero)
        if not _claim(claimed, row):
            return n
        shift_elements(claimed.values, row * width, known, row * width, new, n * width, width, zero)
        give(claimed.claims, slot(claimed, row))
    return count


@kernel(early=True)
def _install_in_place(table, base, ids, fresh, first):
    for n in range(first, ids.size):
        row, known, new = table.values[ids[n]], base[ids[n]], fresh[n]
        for j in range(row.size):
            shift_relaxed(row, j, known[j], new[j])
            known[j] = new[j]
    return ids.size


def round_off(table, row, seen, known):
    """Make a row `known` where it is `seen`; mark it instead if it is claimed."""
    return (_round_in_place if table.claimed is None else _round_claimed)(table, row, seen, known)


def apply(table, ids, deltas, first):
    """Do what `shards.apply_rows` says."""
    return (_apply_in_place if table.claimed is None else _apply_claimed)(table, ids, deltas, first)


def install(table, base, ids, fresh, first):
    """Do what `shards.install_rows` says."""
    return (_install_in_place if table.claimed is None else _install_claimed)(table, base, ids, fresh, first)


@overload(round_off, inline="always")
def _(table, row, seen, known):
    if is_claimed(table):
        return lambda table, row, seen, known: _round_claimed(table, row, seen, known)
    return lambda table, row, seen, known: _round_in_place(table, row, seen, known)


@overload(apply, inline="always")
def _(table, ids, deltas, first):
    if is_claimed(table):
        return lambda table, ids, deltas, first: _apply_claimed(table, ids, deltas, first)
    return lambda table, ids, deltas, first: _apply_in_place(table, ids, deltas, first)


@overload(install, inline="always")
def _(table, base, ids, fresh, first):
    if is_claimed(table):
        return lambda table, base, ids, fresh, first: _install_claimed(table, base, ids, fresh, first)
    return lambda table, base, ids, fresh, first: _install_in_place(table, base, ids, fresh, first)
