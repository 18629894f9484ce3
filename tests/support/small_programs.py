"""Small kernels that only the explorer runs: protocols that nbps uses or will use, and their mistakes."""

from __future__ import annotations

from nbps.kernels.atomics import exchange, fence, load_acquire, store_release
from nbps.kernels.relaxed import add_relaxed


def add_in_two_steps(row, delta):
    """Add as Hogwild does: load, add, store."""
    for j in range(row.size):
        row[j] = row[j] + delta[j]


def refresh_with_two_loads(values, base, parent):
    """Refresh as in `nbps.kernels.copies`, but look at the shared element again for the base."""
    shared = parent.values.reshape(base.size)
    for n in range(base.size):
        values[0][n] += shared[n] - base[0][n]
        base[0][n] = shared[n]


def order_stores():
    """Only a fence."""
    fence()


def publish(flag):
    """Only a store with release order."""
    store_release(flag, 0, 1)


def send(data, flag):
    """Write, then publish."""
    data[0] = 7
    store_release(flag, 0, 1)


def send_too_early(data, flag):
    """Publish, then write."""
    store_release(flag, 0, 1)
    data[0] = 7


def receive(data, flag):
    """Return what was written if it was published, else None."""
    return data[0] if load_acquire(flag, 0) == 1 else None


# ----------------------------------------------------------------- dirty bytes (design, section 6)


def add_and_mark(row, dirty, delta):
    """Add to a live row, then mark it."""
    add_relaxed(row, 0, delta)
    store_release(dirty, 0, 1)


def mark_and_add(row, dirty, delta):
    """Mark first: the addition may come after the mark was cleared."""
    store_release(dirty, 0, 1)
    add_relaxed(row, 0, delta)


def add_plainly_and_mark_if_clean(row, dirty, delta):
    """Save the store where the mark is set: sound only if no load overtakes a store."""
    row[0] = row[0] + delta
    if load_acquire(dirty, 0) == 0:
        store_release(dirty, 0, 1)


def clear_and_read(row, dirty):
    """Return the row if it was marked, else None: the mark is cleared before the row is read."""
    return row[0] if exchange(dirty, 0, 0) == 1 else None


def read_and_clear(row, dirty):
    """Read first: what is added between is neither read nor marked."""
    seen = row[0]
    return seen if exchange(dirty, 0, 0) == 1 else None


def clear_by_store_and_read(row, dirty):
    """Clear by a plain store, which may become visible only after the row was read."""
    if load_acquire(dirty, 0) == 1:
        store_release(dirty, 0, 0)
        return row[0]
    return None
