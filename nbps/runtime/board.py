"""The driver's view of the board of clocks: made, reset, told to abort, read for the report."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nbps.kernels import layout
from nbps.runtime.segments import Segment, attach

# The longest sleep of a parked worker: it gets to its signal handlers and sees the abort flag this often.
_PARK_NS = 50_000_000


class Board:
    """The board of `workers` workers in a segment of its own, owned by this process.

    With `bounded` it has the seen slots that a value bound (VAP) needs; they take 128 bytes for each pair of workers.
    """

    def __init__(self, workers: int, bounded: bool = False) -> None:
        self.workers = workers
        self._bounded = bounded
        self.segment = Segment("board", 8 * layout.board_words(workers, bounded))
        self.words: npt.NDArray[np.int64] = attach(self.segment.name).view(np.int64)
        self.words[layout.TIMEOUT + 1] = _PARK_NS

    def reset(self) -> None:
        """Set every slot to its value before a run; only while no worker runs."""
        refreshed, arrived = layout.refreshed(self.workers, 0), layout.arrived(self.workers, 0)
        self.words[layout.committed(0) : layout.statistics(self.workers, 0)] = 0
        # Nobody may send before all have taken in what was there when the run began.
        self.words[refreshed:arrived] = -1
        if self._bounded:
            self.words[layout.seen(self.workers, 0, 0) :] = 0
            own = (self.workers + 1) * layout.LINE  # from one worker's slot about itself to that of the next
            self.words[layout.seen(self.workers, 0, 0) :: own] = layout.FINISHED

    def abort(self) -> None:
        """Make every wait end at once, now and later."""
        self.words[layout.ABORT] = 1

    def clock(self, worker: int) -> int | None:
        """Clock that `worker` published last; None if it finished its run."""
        clock = int(self.words[layout.committed(worker)])
        return None if clock == layout.FINISHED else clock

    def statistics(self, worker: int) -> npt.NDArray[np.int64]:
        """Copy of the counters of `worker`."""
        start = layout.statistics(self.workers, worker)
        return self.words[start : start + layout.STATS_LINES * layout.LINE].copy()
