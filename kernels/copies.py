"""A worker's own copy of a table (access mode ``cached``) and its exchange with the shared parent.

Three arrays of shape (rows, width): `values` is the copy that the worker reads and adds to at SIMD speed, `base` is
what of the parent it already contains, `parent` is the shared table that others add to at the same time.
``values - base`` is what the worker added and has not sent. Whatever a flush does not send stays there; what it sends
to a row that another worker has claimed is put aside (`nbps.kernels.claims`), and counts as sent.
"""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from .claim_layout import COUNT, HEADER
from .jit import Request, kernel
from .places import element, word
from .rows import example_table, inc_row, is_claimed


@kernel
def flush(values, base, parent, first, delta, peaks):
    """Send what the worker added: ``d = values - base; parent += d; base += d``, without loss.

    `parent` is a `rows.TableKernel` of the shared rows. Starts at row `first` and goes around: workers that flush the
    same rows in the same order collide on every one. `delta` is scratch of shape (width,), and so is `peaks`, float64;
    of shape (0,) if the norm is not wanted, which costs a tenth of the speed.

    Returns
    -------
    rows : int
        How many rows were sent.
    norm : float
        The largest absolute value sent; NaN if one was, 0.0 if none was or it is not wanted.
    """
    rows, width = values.shape
    peaks[:] = 0
    sent = 0
    for n in range(rows):
        i = first + n
        if i >= rows:
            i -= rows
        mine, known = values[i], base[i]
        changed = False
        for j in range(width):
            changed |= mine[j] != known[j]
        if changed:
            for j in range(width):
                delta[j] = mine[j] - known[j]
                known[j] += delta[j]
            if peaks.size > 0:
                _raise_peaks(peaks, delta)
            inc_row(parent, i, delta)
            sent += 1
    norm = 0.0
    for j in range(peaks.size):
        if peaks[j] > norm or peaks[j] != peaks[j]:
            norm = peaks[j]
    return sent, norm


@kernel(inline=True)
def _raise_peaks(peaks, delta):
    """Take the absolute values of `delta` into `peaks`, the largest of each column, of which no NaN goes away.

    A single maximum over the row would be a chain of dependent comparisons, and a flush half as fast.
    """
    for j in range(peaks.size):
        size = abs(np.float64(delta[j]))
        peaks[j] = size if size > peaks[j] or size != size else peaks[j]


@kernel
def refresh(values, base, parent):
    """Take in what others sent: ``values += parent - base; base = parent``. What was not sent yet stays.

    Where nothing is unsent the value is the parent's, to the bit: a rounding difference would look like an addition of
    this worker's, and every row that others change would be sent back to them.
    """
    mine, known = values.reshape(values.size), base.reshape(base.size)
    shared = parent.values.reshape(values.size)
    for n in range(mine.size):
        # One load of each shared element, in the machine code too: a second could see an addition that the first did
        # not, and that addition would be lost to this copy.
        seen = shared[n]
        old = known[n]
        mine[n] = seen if mine[n] == old else mine[n] + (seen - old)
        known[n] = seen
    _keep_if_claimed(values, base, parent)


@kernel
def _keep_aside(values, base, parent):
    """Add what this worker has sent, and put aside, to its copy: it is not in the parent yet."""
    claimed, zero = parent.claimed, values.dtype.type(0)
    for k in range(word(claimed.words, COUNT)):
        row = word(claimed.words, HEADER + k)
        for j in range(claimed.width):
            delta = element(claimed.deltas, k * claimed.width + j, zero)
            # Both by the same addition where they are the same: they stay so.
            values[row, j] += delta
            base[row, j] += delta


def _keep_if_claimed(values, base, parent):
    if parent.claimed is not None:
        _keep_aside(values, base, parent)


@overload(_keep_if_claimed, inline="always")
def _(values, base, parent):
    if is_claimed(parent):
        return lambda values, base, parent: _keep_aside(values, base, parent)
    return lambda values, base, parent: None


def requests(dtype: str, is_claimed: bool) -> list[Request]:
    """Kernels with which a worker's copy of a table exchanges rows with the shared one."""
    values, parent = np.zeros((1, 2), dtype), example_table(dtype, is_claimed)
    return [
        (flush, (values, values, parent, 0, values[0], np.zeros(0))),
        (refresh, (values, values, parent)),
    ]
