"""Checkpoints of a running job: the agent hands over its rows, a thread writes them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.agent.spec import SavePlan
from nbps.checkpoint.progress import Progress
from nbps.checkpoint.writer import CheckpointWriter

Rows = Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]

_MEANWHILE_S = 0.05
_PART_TIMEOUT_S = 600.0  # for the slowest node to write its part


class Saver:
    """Writes this node's part of one checkpoint after the other, in a thread.

    Attributes
    ----------
    error : Exception or None
        Why one could not be written.
    """

    def __init__(self, plan: SavePlan, attempt: str, rank: int, nodes: int, notify: Callable[[], None]) -> None:
        self.error: Exception | None = None
        self._plan = plan
        self._attempt = attempt
        self._rank = rank
        self._nodes = nodes
        self._notify = notify
        # One is written while one waits: whoever saves faster than the disk writes is held up.
        self._waiting: queue.Queue[tuple[int, int, Rows] | None] = queue.Queue(maxsize=1)
        self._ordered = self._written = 0  # each is counted by one thread only
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="nbps-saver")
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether everything was written."""
        return self._ordered == self._written

    def save(self, run: int, clock: int, rows: Rows, give_up: Callable[[], bool]) -> None:
        """Have `rows`, the caller's no more, written as of `clock` of run number `run`.

        Blocks while two are unwritten, and asks `give_up` now and then: if so, they are not written.
        """
        self._ordered += 1
        while True:
            try:
                self._waiting.put((run, clock, rows), timeout=_MEANWHILE_S)
                return
            except queue.Full:
                if give_up():
                    self._ordered -= 1
                    return

    def close(self) -> None:
        """End the thread; what it is writing stays incomplete if other nodes do not write their parts. Idempotent."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._waiting.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (order := self._waiting.get()) is not None:
            try:
                if self.error is None:
                    self._write(*order)
            except Exception as error:  # told to the job, which ends
                self.error = error
            self._written += 1
            self._notify()

    def _write(self, run: int, clock: int, rows: Rows) -> None:
        plan = self._plan
        # Clocks come again in another run: each is an attempt of its own.
        writer = CheckpointWriter(
            plan.path, f"{self._attempt}-run{run}", self._rank, self._nodes, plan.tables, plan.keep
        )
        writer.write(clock, rows)
        if self._rank == 0:
            progress = Progress(run, plan.every, plan.keep)
            writer.complete(clock, _PART_TIMEOUT_S, self._stopped.is_set, progress.to_json())
