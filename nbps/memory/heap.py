"""How the C library manages the memory of a process that sends and receives batches of rows without end."""

from __future__ import annotations

import contextlib
import ctypes

# Parameters of mallopt in malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_BATCH_BYTES = 32 << 20  # the most that malloc takes; larger pieces go back to the system at once
_KEPT_BYTES = 256 << 20


def tune_heap() -> None:
    """Keep what is freed for the next batch, for all threads together.

    With new pages for every batch, shipping takes a third longer. So a process keeps what it needed at most of pieces
    up to 32 MB, which fragments can make more; up to 256 MB free at the end of its heap are never given back. With an
    arena for each thread that once was, 30 MB were kept after 60 of them.
    """
    with contextlib.suppress(AttributeError):  # a C library without it manages otherwise
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_MMAP_THRESHOLD, _BATCH_BYTES), (_TRIM_THRESHOLD, _KEPT_BYTES), (_ARENA_MAX, 1)):
            mallopt(parameter, value)
