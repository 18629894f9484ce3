"""Real jobs under stress: worker processes are stopped for a while (SIGSTOP, SIGCONT) or killed (SIGKILL) from outside.

The victims say themselves who they are: the probe's journal of a worker is a file whose name holds its rank and pid. A
signal goes to a pidfd that was opened while the journal grew, so never to another process that got the same pid later.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import random
import signal
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nbps
from nbps.errors import WorkerDiedError
from nbps.testing.consistency.history import Entry, History, Violation, check
from nbps.testing.consistency.probe import Plan, history_of, prepared

_POLL_S = 0.002


@dataclass(frozen=True)
class Disturbance:
    """What is done to the workers of a run.

    Attributes
    ----------
    pause_s : float
        Longest pause of a worker; 0 for none.
    gap_s : float
        Longest time between two pauses.
    kill_after_s : float, optional
        Kill a random worker so long after all have begun.
    seed : int
    """

    pause_s: float = 0.0
    gap_s: float = 0.01
    kill_after_s: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes
    ----------
    history : History
    violations : list of Violation
        Of the history; and of the promise that a killed worker ends the job and is named (``P7``).
    pauses : int
    killed : int or None
        Rank.
    """

    history: History
    violations: list[Violation]
    pauses: int
    killed: int | None


class Disturber:
    """Disturbs the workers whose journals appear in `folder`, from a thread, while it is entered."""

    def __init__(self, folder: Path, workers: int, disturbance: Disturbance) -> None:
        self.pauses = 0
        self.killed: int | None = None
        self._folder = folder
        self._workers = workers
        self._plan = disturbance
        self._random = random.Random(disturbance.seed)
        self._over = threading.Event()
        self._pidfds: dict[int, int] = {}
        self._thread = threading.Thread(target=self._disturb, name="disturber")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        for pidfd in self._pidfds.values():
            os.close(pidfd)

    def _disturb(self) -> None:
        while len(self._pidfds) < self._workers:
            if self._over.wait(_POLL_S):
                return
            self._find()
        draw, plan = self._random, self._plan
        left = math.inf if plan.kill_after_s is None else plan.kill_after_s
        while True:
            gap = min(left, draw.random() * plan.gap_s)
            if self._over.wait(gap):
                return
            left -= gap
            rank = draw.randrange(self._workers)
            if left <= 0:
                self.killed = rank if self._send(rank, signal.SIGKILL) else None
                return
            if plan.pause_s and self._send(rank, signal.SIGSTOP):
                self.pauses += 1
                pause = draw.random() * plan.pause_s
                self._over.wait(pause)
                self._send(rank, signal.SIGCONT)
                left -= pause

    def _find(self) -> None:
        for path in self._folder.iterdir():
            rank, pid = map(int, path.name.split("."))
            if rank not in self._pidfds:
                with contextlib.suppress(ProcessLookupError):  # it has ended: its job is about to
                    self._pidfds[rank] = os.pidfd_open(pid)

    def _send(self, rank: int, number: signal.Signals) -> bool:
        try:
            signal.pidfd_send_signal(self._pidfds[rank], number)
        except ProcessLookupError:
            return False  # it has ended
        return True


def run_disturbed(
    workers: int, model: Any, tables: Sequence[nbps.Table], plan: Plan, disturbance: Disturbance
) -> Outcome:
    """Run the probe in an `nbps.Job` under `disturbance`, and check what happened.

    After a kill all workers count as lost: the others are stopped in the middle as well.
    """
    with tempfile.TemporaryDirectory(prefix="nbps-chaos-") as name:
        folder = Path(name)
        told: list[Violation] = []
        with nbps.Job(tables, workers=workers, consistency=model, clock_timeout_s=60) as job:
            program = prepared(tables, model, plan, str(folder))
            error: WorkerDiedError | None = None
            with Disturber(folder, workers, disturbance) as disturber:
                try:
                    job.run(program)
                except WorkerDiedError as caught:
                    error = caught
            if error is not None and f"worker {disturber.killed} " not in str(error):
                told.append(Violation("P7", f"expected worker {disturber.killed} to be named, found {error}", None))
            final = {table.name: job.table(table.name).to_numpy() for table in tables}
        history = history_of(read_journals(folder), final, workers, model, tables)
        if error is not None:
            history.lost = set(range(workers))
        return Outcome(history, told + check(history), disturber.pauses, None if error is None else disturber.killed)


def read_journals(folder: Path) -> list[Entry]:
    """Return the entries of all journals; the last one of a killed worker may be incomplete and is left out."""
    entries: list[Entry] = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            while True:
                try:
                    entries.append(pickle.load(file))
                except (EOFError, pickle.UnpicklingError):
                    break
    return entries
