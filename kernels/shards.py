"""Rows on their way between nodes: what the agent of a node does to its tables while workers read and add to them.

Of each table there are, besides the live `values`, shape (rows, width):

- `table`, the live rows as a `rows.TableKernel`, for what is written to them: the agent claims rows as workers do, and
  puts nothing aside. It looks at a row that is claimed for as long as an addition may take; then its caller waits.
- `dirty`, uint8[rows]: a worker that changed a row sets its mark afterwards. The agent clears a mark atomically and
  reads the row then: an addition in between is taken now, or still marked.
- `base`, shaped as `values`: what of a replica row the owner has sent, or knows from batches of this node. The agent's
  own; so ``values - base`` is what local workers added and nobody has sent.
- `pending`, uint64[rows]: of an owned row, one bit for each node that must be told of its value. The agent's own, as is
  `summary`, uint64[ceil(rows / 4096)], with one bit for every 64 rows of which one may be pending.

Marks and pending rows are looked for in every clock, so rows of which there is nothing to say are passed over many at a
time.

A batch lists rows once, in the order of the ids that a node owns, so two batches of rows of one owner can be merged.
"""

from __future__ import annotations

import numpy as np

from .atomics import exchange, fetch_add
from .jit import Request, kernel
from .marks import EIGHT, next_one, owned
from .row_writes import apply, install, round_off
from .rows import example_table

_BLOCK_SHIFT, _WORD_SHIFT = 6, 12  # rows of a bit of the summary, and of a word of it, as powers of two
ROWS_OF_A_WORD = 1 << _WORD_SHIFT


@kernel
def take_marked(dirty, eights, owners, owner, first, last, out):
    """Clear the marks of the rows of `owner`, and write their numbers to `out`, int64[rows]; return how many.

    They ascend. `first` and `last` are the first and last of its rows. `eights` is `dirty` seen as int64[ceil(rows /
    8)], of which marks are taken by one subtraction, while workers store single bytes: a 1 over the 1 that is taken, or
    elsewhere.
    """
    found = 0
    group = next_one(eights, first // EIGHT, last // EIGHT)
    while group <= last // EIGHT:
        start = group * EIGHT
        marks = eights[group] & owned(owners, start, owner)
        if marks != 0:
            fetch_add(eights, group, -marks)
        for row in range(start, min(start + EIGHT, owners.size)):
            out[found] = row  # overwritten if it is none: guessing which ones are takes longer
            found += (marks >> (EIGHT * (row - start))) & 1
        group = next_one(eights, group + 1, last // EIGHT)
    return found


@kernel
def take_marks_of(dirty, ids, out):
    """Clear the marks of rows `ids`, and write the numbers of those that were set to `out`; return how many."""
    found = 0
    for n in range(ids.size):
        if exchange(dirty, ids[n], 0) != 0:
            out[found] = ids[n]
            found += 1
    return found


@kernel
def weigh_marked(dirty, values, base, ids, out_ids, out_weights):
    """Write the marked rows of `ids` and their weights to `out_ids` and `out_weights`; return how many. Clears nothing.

    The weight of a row is the largest element of its delta beside that of its base (Wei et al., SoCC 2015).
    """
    found, width = 0, values.shape[1]
    for k in range(ids.size):
        row = ids[k]
        if dirty[row] == 0:
            continue
        largest, size = 0.0, 0.0
        for j in range(width):
            known = float(base[row, j])
            largest = max(largest, abs(float(values[row, j]) - known))
            size = max(size, abs(known))
        if largest > 0:
            out_ids[found] = row
            out_weights[found] = largest / (size + 1e-30)
            found += 1
    return found


@kernel
def take_deltas(table, base, ids, out_ids, out_deltas, seen):
    """Take what was added to rows `ids`: ``d = values - base; base += d``; return how many rows had a delta.

    Where ``base + d`` is rounded the value becomes that too: a replica has the bits of its owner. If the row is claimed
    just then, it is marked again, and the next batch brings what was rounded off.

    Writes their numbers and deltas to `out_ids` and `out_deltas`, shape (ids.size, width). `seen` is scratch of
    shape (width,): what was read, which may have changed since.
    """
    values, width = table.values, table.values.shape[1]
    found = 0
    for n in range(ids.size):
        mine, known, delta = values[ids[n]], base[ids[n]], out_deltas[found]
        changed = rounded = False
        for j in range(width):
            now, old = mine[j], known[j]
            # Where nothing was added it is 0, also of infinities.
            d = now - old if now != old else values.dtype.type(0)
            seen[j], delta[j], known[j] = now, d, old + d
            changed |= d != 0
            rounded |= old + d != now
        if rounded:  # the owner adds the same to the same, so this is what it has
            round_off(table, ids[n], seen, known)
        if changed:
            out_ids[found] = ids[n]
            found += 1
    return found


@kernel
def take_values(values, base, ids, out_ids, out_values):
    """Take the values of rows `ids` that differ from `base`, and make them its own; return how many rows.

    For rows with one writer, whose values stand for themselves: nothing is rounded on their way.
    """
    width = values.shape[1]
    found = 0
    for n in range(ids.size):
        mine, known, copy = values[ids[n]], base[ids[n]], out_values[found]
        changed = False
        for j in range(width):
            seen = mine[j]
            changed |= seen != known[j]
            copy[j] = seen
            known[j] = seen
        if changed:
            out_ids[found] = ids[n]
            found += 1
    return found


@kernel
def overwrite_rows(values, ids, fresh):
    """Make row ``ids[n]`` what ``fresh[n]`` says."""
    width = values.shape[1]
    for n in range(ids.size):
        target, new = values[ids[n]], fresh[n]
        for j in range(width):
            target[j] = new[j]


@kernel
def install_unchanged(values, base, ids, fresh):
    """Take in values of an owner, where no local writer has changed them since: ``base = fresh`` in any case."""
    width = values.shape[1]
    for n in range(ids.size):
        target, known, new = values[ids[n]], base[ids[n]], fresh[n]
        for j in range(width):
            if target[j] == known[j]:
                target[j] = new[j]
            known[j] = new[j]


@kernel
def read_deltas(values, base, ids, out):
    """Write ``values - base`` of rows `ids` to `out`, shape (ids.size, width); nothing is taken."""
    width = values.shape[1]
    for n in range(ids.size):
        mine, known, delta = values[ids[n]], base[ids[n]], out[n]
        for j in range(width):
            seen, old = mine[j], known[j]
            delta[j] = seen - old if seen != old else values.dtype.type(0)


@kernel
def add_to_base(base, ids, deltas):
    """Take note that ``deltas[n]`` of row ``ids[n]`` is on its way to the owner."""
    width = base.shape[1]
    for n in range(ids.size):
        known, delta = base[ids[n]], deltas[n]
        for j in range(width):
            known[j] += delta[j]


@kernel
def apply_rows(table, ids, deltas, first):
    """Add ``deltas[n]`` to row ``ids[n]`` without loss, from `first` on.

    Returns
    -------
    int
        The position of a row that another process keeps claimed: to be called with again. ``ids.size`` if none is left.
    """
    return apply(table, ids, deltas, first)


@kernel
def add_pending(pending, summary, ids, targets):
    """Have the nodes of `targets`, a bit each, told of rows `ids`."""
    one = np.uint64(1)
    for n in range(ids.size if targets != 0 else 0):
        row = ids[n]
        pending[row] |= targets
        summary[row >> _WORD_SHIFT] |= one << np.uint64((row >> _BLOCK_SHIFT) & 63)


@kernel
def take_pending(pending, summary, subscribers, node, everything, out):
    """Write the rows to `out` of which `node`, a bit, must be told, and forget that; return how many.

    They ascend. Without `everything` only rows to which it subscribes count.
    """
    found, one = 0, np.uint64(1)
    for word in range(summary.size):
        for k in range(64 if summary[word] != 0 else 0):
            bit = one << np.uint64(k)
            if summary[word] & bit == 0:
                continue
            first = (word << _WORD_SHIFT) + (k << _BLOCK_SHIFT)
            left = np.uint64(0)
            for row in range(first, min(first + (1 << _BLOCK_SHIFT), pending.size)):
                if pending[row] & node != 0 and (everything or subscribers[row] & node != 0):
                    pending[row] &= ~node
                    out[found] = row
                    found += 1
                left |= pending[row]
            if left == 0:
                summary[word] &= ~bit
    return found


@kernel
def subscribe(subscribers, ids, node):
    """Have `node`, a bit, told of rows `ids` whenever they change."""
    for n in range(ids.size):
        subscribers[ids[n]] |= node


@kernel
def unsubscribe(subscribers, ids, node):
    """Stop that; `pending` stays, so that a run's end tells of what changed."""
    for n in range(ids.size):
        subscribers[ids[n]] &= ~node


@kernel
def copy_rows(values, ids, out):
    """Copy row ``ids[n]`` to ``out[n]`` for every n; each element is loaded once."""
    width = values.shape[1]
    for n in range(ids.size):
        source, target = values[ids[n]], out[n]
        for j in range(width):
            target[j] = source[j]


@kernel
def merge_common(ids, values, other_ids, others, overwrites):
    """Add ``others[m]`` to ``values[n]`` where ``ids[n] == other_ids[m]``, or overwrite it; both ascend."""
    width = values.shape[1]
    n = m = 0
    while n < ids.size and m < other_ids.size:
        if ids[n] < other_ids[m]:
            n += 1
        elif ids[n] > other_ids[m]:
            m += 1
        else:
            target, other = values[n], others[m]
            for j in range(width):
                target[j] = other[j] if overwrites else target[j] + other[j]
            n += 1
            m += 1


@kernel
def install_rows(table, base, ids, fresh, first):
    """Take in values of an owner, from `first` on: ``values += fresh - base; base = fresh``, losing no addition.

    `fresh`, shape (ids.size, width), holds this node's own batches that the owner had not applied. Where nothing is
    unsent a value becomes the owner's to the bit. Returns as `apply_rows` does.
    """
    return install(table, base, ids, fresh, first)


@kernel
def first_foreign_id(ids, owners, owner):
    """Return the position of the first of `ids` that is out of order, out of range or not of `owner`, or -1."""
    last = -1
    for n in range(ids.size):
        row = ids[n]
        if row <= last or row >= owners.size or owners[row] != owner:
            return n
        last = row
    return -1


def requests(dtype: str, is_claimed: bool) -> list[Request]:
    """Kernels with which an agent exchanges rows of a table."""
    values, marks, bits = np.zeros((1, 2), dtype), np.zeros(8, np.uint8), np.zeros(2, np.uint64)
    none, node, eights, batch = np.zeros(0, np.int64), np.uint64(1), marks.view(np.int64), np.zeros(0, np.uint8)
    ids, rows = batch.view(np.int64), batch.view(dtype).reshape(0, 2)  # as they lie in a batch
    table = example_table(dtype, is_claimed)
    return [
        (take_marked, (marks, eights, marks, 0, 0, 0, none)),
        (take_marks_of, (marks, none, none)),
        (take_deltas, (table, values, none, ids, rows, values[0])),
        (weigh_marked, (marks, values, values, none, none, np.zeros(0))),
        (take_values, (values, values, none, ids, rows)),
        (overwrite_rows, (values, ids, rows)),
        (install_unchanged, (values, values, ids, rows)),
        (read_deltas, (values, values, none, values)),
        (add_to_base, (values, none, values)),
        (apply_rows, (table, ids, rows, 0)),
        *((add_pending, (bits, bits, which, node)) for which in (none, ids)),
        (take_pending, (bits, bits, bits, node, False, none)),
        (subscribe, (bits, ids, node)),
        (unsubscribe, (bits, ids, node)),
        (copy_rows, (values, ids, rows)),
        (merge_common, (ids, rows, ids, rows, False)),
        (install_rows, (table, values, ids, rows, 0)),
        (first_foreign_id, (ids, marks, 0)),
    ]
