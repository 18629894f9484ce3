"""The driver's view of the board of clocks: made, reset, told to abort, read for the report."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nbps.kernels import layout
from nbps.memory.segments import Segment, attach

# The longest sleep of a parked worker: it gets to its signal handlers and sees the abort flag this often.
_PARK_NS = 50_000_000


class Board:
    """The board of `workers` workers in a segment of its own, owned by this process.

    With `shards` there are slots for an agent, which sleeps on the descriptor `doorbell`. With `bounded` it has the
    seen slots that a value bound (VAP) needs; they take 128 bytes for each pair of workers.
    """

    def __init__(self, workers: int, bounded: bool = False, shards: int = 0, doorbell: int = -1) -> None:
        self.workers = workers
        self._sources = sources = workers + shards
        self._bounded = bounded
        self.segment = Segment("board", 8 * layout.board_words(sources, bounded, nodes=max(1, shards)))
        self.words: npt.NDArray[np.int64] = attach(self.segment.name).view(np.int64)
        self.words[layout.TIMEOUT + 1] = _PARK_NS
        self.words[layout.DOORBELL] = doorbell
        self.words[layout.ONE] = 1

    def reset(self, clock: int = 0) -> None:
        """Set every slot to its value before a run that starts at `clock`; only while no worker runs."""
        words, sources = self.words, self._sources
        words[layout.WANTED] = words[layout.INSTALLS] = words[layout.HELD] = 0
        words[layout.committed(0) : layout.refreshed(sources, 0)] = clock
        # Nobody may send before all have taken in what was there when the run began.
        words[layout.refreshed(sources, 0) : layout.arrived(sources, 0)] = clock - 1
        words[layout.arrived(sources, 0) : layout.statistics(sources, 0)] = 0
        sums = layout.sums(sources, self._bounded)
        if self._bounded:
            seen = words[layout.seen(sources, 0, 0) : sums]
            seen[:] = clock
            own = (sources + 1) * layout.LINE  # from one worker's slot about itself to that of the next
            seen[::own] = layout.FINISHED
        words[sums:] = 0  # barriers are counted anew

    def abort(self) -> None:
        """Make every wait end at once, now and later."""
        self.words[layout.ABORT] = 1

    def clock(self, worker: int) -> int | None:
        """Clock that `worker` published last; None if it finished its run."""
        clock = int(self.words[layout.committed(worker)])
        return None if clock == layout.FINISHED else clock

    def statistics(self, worker: int) -> npt.NDArray[np.int64]:
        """Copy of the counters of `worker`."""
        start = layout.statistics(self._sources, worker)
        return self.words[start : start + layout.STATS_LINES * layout.LINE].copy()
