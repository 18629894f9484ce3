"""A worker's own copy of a table (access mode ``cached``) and its exchange with the shared parent.

Three arrays of shape (rows, width): `values` is the copy that the worker reads and adds to at SIMD speed, `base` is
what of the parent it already contains, `parent` is the shared table that others add to at the same time.
``values - base`` is what the worker added and has not sent. Whatever a flush does not send stays there.
"""

from __future__ import annotations

import numpy as np

from .jit import Request, kernel
from .rows import NOBODY_LOOKS, add_row_lossless, mark_row


@kernel
def flush(values, base, parent, dirty, first, delta, peaks):
    """Send what the worker added: ``d = values - base; parent += d; base += d``, without loss.

    Starts at row `first` and goes around: workers that flush the same rows in the same order collide on every one
    (ten times slower). Rows sent are marked in `dirty` (`rows.mark_row`). `delta` is scratch of shape (width,), and so
    is `peaks`, float64; of shape (0,) if the norm is not wanted, which costs a tenth of the speed.

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
            add_row_lossless(parent[i], delta)
            mark_row(dirty, i)
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
    mine, known, shared = values.reshape(values.size), base.reshape(base.size), parent.reshape(parent.size)
    for n in range(mine.size):
        # One load of each shared element, in the machine code too: a second could see an addition that the first did
        # not, and that addition would be lost to this copy.
        seen = shared[n]
        old = known[n]
        mine[n] = seen if mine[n] == old else mine[n] + (seen - old)
        known[n] = seen


def requests(dtype: str) -> list[Request]:
    """Kernels with which a worker's copy of a table exchanges rows with the shared one."""
    values = np.zeros((2, 4), dtype)
    return [
        (flush, (values, values, values, NOBODY_LOOKS, 0, values[0], np.zeros(0))),
        (refresh, (values, values, values)),
    ]
