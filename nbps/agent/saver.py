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

_PART_TIMEOUT_S = 600.0  # for the slowest node to write its part


class Saver:
    """Writes this node's part of one checkpoint after the other, in a thread.

    Attributes
    ----------
    error : Exception or None
        Why one could not be written; nothing is written after it.
    written : int
        How many were, or are given up because of the error; `notify` is called whenever it rises.
    """

    def __init__(self, plan: SavePlan, attempt: str, rank: int, nodes: int, notify: Callable[[], None]) -> None:
        self.error: Exception | None = None
        self.written = 0
        self._plan = plan
        self._attempt = attempt
        self._rank = rank
        self._nodes = nodes
        self._notify = notify
        # Not limited here: the protocol core has so many copies at most (`nbps.core.settings.Settings.copies`).
        self._waiting: queue.SimpleQueue[tuple[int, int, Rows] | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="nbps-saver")
        self._thread.start()

    def save(self, run: int, clock: int, rows: Rows) -> None:
        """Have `rows`, the caller's no more, written as of `clock` of run number `run`, after those before."""
        self._waiting.put((run, clock, rows))

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
            self.written += 1
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
