"""The roll of the nodes that one process started: which have ended and how, and which failed because of others.

It is memory of that process, ``nbps run``, and lasts as long as it does; ``NBPS_ROLL`` names it to the nodes, which
are on the same machine. So a node that waits for another one hears at once that it ended, and ``nbps run`` knows which
one failed first: a node often takes longer to end than the others, to which it has said why. Two int64 for each rank::

    0: 0 while it runs, then 256 + its exit code or the negative number of the signal that ended it
    1: 0 as long as its job goes on; when it failed, in nanoseconds of the monotonic clock, if that was its own failure;
       -1 if its job ended because of another node
"""

from __future__ import annotations

import mmap
import os
import signal
import time
from pathlib import Path
from typing import Self

_ENTRY_BYTES = 16
_ENDED = 256  # added to what a process ended with, so that it is not 0
_BECAUSE_OF_ANOTHER = -1
_NAME = "nbps-roll"


class Roll:
    """The roll of `nodes` nodes, in the memory behind `descriptor`; use `made` or `found`.

    Attributes
    ----------
    path : str
        What ``NBPS_ROLL`` is to be.
    """

    def __init__(self, descriptor: int, nodes: int | None = None) -> None:
        self.path = f"/proc/{os.getpid()}/fd/{descriptor}"
        self._descriptor = descriptor
        if nodes is not None:
            os.ftruncate(descriptor, nodes * _ENTRY_BYTES)
        self._memory = mmap.mmap(descriptor, 0)
        self._words = memoryview(self._memory).cast("q")

    @classmethod
    def made(cls, nodes: int) -> Self:
        """Make a roll on which all nodes run."""
        return cls(os.memfd_create(_NAME, os.MFD_CLOEXEC), nodes)

    @classmethod
    def found(cls, path: str) -> Self | None:
        """Open the roll that another process has made; None if there is none: that process has ended, and we shall."""
        try:
            # The number of the process, and its descriptor, may be somebody else's by now.
            is_roll = path.startswith("/proc/") and str(Path(path).readlink()).startswith(f"/memfd:{_NAME} ")
            return cls(os.open(path, os.O_RDWR | os.O_CLOEXEC)) if is_roll else None
        except OSError:
            return None

    def __len__(self) -> int:
        return len(self._words) // 2

    def end(self, rank: int, status: int) -> None:
        """Note that the process of a node has ended, with an exit code or the negative number of a signal."""
        self._words[2 * rank] = status + _ENDED

    def fail(self, rank: int, because_of_another: bool) -> None:
        """Note that the job of a node failed now."""
        self._words[2 * rank + 1] = _BECAUSE_OF_ANOTHER if because_of_another else time.monotonic_ns()

    def begin(self, rank: int) -> None:
        """Note that a job of a node begins, whatever became of one before."""
        self._words[2 * rank + 1] = 0

    def ended(self) -> dict[int, str]:
        """Return how nodes have ended, in words, by rank."""
        return {rank: describe(self._words[2 * rank] - _ENDED) for rank in range(len(self)) if self._words[2 * rank]}

    def failed_at(self, rank: int) -> float | None:
        """Return when the job of a node failed, on the monotonic clock: infinite if because of another node."""
        failed_ns = self._words[2 * rank + 1]
        if failed_ns == _BECAUSE_OF_ANOTHER:
            return float("inf")
        return failed_ns / 1e9 if failed_ns else None

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._memory.close()
        os.close(self._descriptor)


def describe(status: int) -> str:
    """Return in words how a process ended: with an exit code, or by a signal where `status` is negative."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal without a name
        return f"killed by signal {-status}"
