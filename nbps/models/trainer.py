"""A training in a job, whatever the model: opened, carried out epoch by epoch, saved, closed."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from nbps.consistency import Consistency
from nbps.errors import ConfigError, SharedMemoryError
from nbps.job.job import Job
from nbps.job.report import Report
from nbps.memory.segments import FOLDER, shared_memory_usage
from nbps.models.history import Record
from nbps.models.phases import Phases
from nbps.models.plan import Plan
from nbps.models.saved import Best, SavedTraining
from nbps.tables.definition import Table

S = TypeVar("S")
R = TypeVar("R", bound=Record)
_MAY_CHANGE = ("early_stopping", "verbose")  # of the parameters, while a training goes on
Values = Mapping[str, npt.NDArray[Any]]


class Trainer(ABC, Generic[S, R]):
    """A job that trains a model epoch by epoch; a context manager.

    A model's own trainer makes the tables, gives the workers their shares of the data, and says what an epoch is. All
    that training would lose with its workers must be in the tables, or follow from the seed and the number of the
    epoch: then a checkpoint is the tables and the history, and training goes on from it as if it had not been cut off.

    Parameters
    ----------
    plan : Plan
    tables : sequence of Table
    consistency : Consistency
        Of the job: the plan's, or a stricter one.
    preload : callable
        Called once before the workers are forked: prepares their kernels.
    watched : bool
        Whether somebody looks at the model after each epoch.
    phases : Phases
        What takes time adds to them: start, schedule, train, evaluate.

    Attributes
    ----------
    earlier : list of Record
        Epochs that lie behind this training when it begins: of the checkpoint that it goes on from.
    best : Best or None
        Of those, the best one, if it was saved.
    """

    record: type[R]  # of its epochs

    def __init__(
        self,
        plan: Plan,
        tables: Sequence[Table],
        consistency: Consistency,
        preload: Callable[[], object],
        watched: bool,
        phases: Phases,
    ) -> None:
        self.phases = phases
        self.earlier: list[R] = []
        self.best: Best | None = None
        self._plan, self._tables, self._watched = plan, tables, watched
        self._saved: SavedTraining | None = None
        self._options: dict[str, Any] = {
            "workers": plan.local_workers, "nodes": plan.nodes, "consistency": consistency, "seed": plan.seed,
            "preload": preload,
        }  # fmt: skip
        self._job = Job(tables, **self._options)

    # ----------------------------------------------------------------------- what a model's trainer says

    @property
    @abstractmethod
    def task(self) -> str:
        """What it does, for errors: "training on 100 ratings of ...", "training at rank ..."."""

    @property
    @abstractmethod
    def input_bytes(self) -> int:
        """Shared memory that the workers' inputs take at most at a time, beside the tables."""

    @abstractmethod
    def deal(self) -> None:
        """Give the workers their inputs and their shares of the data."""

    @abstractmethod
    def train(self, epoch: int, setting: Any) -> Any:
        """Carry out an epoch; return what `measure` needs of it."""

    @abstractmethod
    def measure(self, found: Any, **timing: Any) -> R:
        """Return the record of an epoch, given what `train` returned; `timing` are the fields of `Record`.

        What it measures on other data is timed as the phase evaluate.

        Raises
        ------
        DataError
            If training diverged.
        """

    @abstractmethod
    def state(self, values: Values | None = None) -> S:
        """Return a copy of the model's state as it is now, or as it was with these values of the tables."""

    @abstractmethod
    def digest(self) -> dict[str, Any]:
        """Return a digest of the data, and what else must be the same for a checkpoint to fit."""

    def gather(self) -> None:
        """Have every node told of what otherwise only one knows; all nodes call this."""

    # ----------------------------------------------------------------------- what all do

    def save_to(self, path: str | Path, parameters: Mapping[str, Any]) -> None:
        """Save itself at `path` after its epochs, and go on from there if it is there; before it is opened.

        Raises
        ------
        CheckpointError
            If a training with other `parameters`, another number of workers or other data was saved there.
        """
        same = {name: value for name, value in parameters.items() if name not in _MAY_CHANGE}
        identity = {**same, "workers": self._plan.all_workers, **self.digest()}
        self._saved = SavedTraining(path, identity)
        self._job, history = self._saved.job(self._tables, **self._options)
        self.earlier = [self.record(**record) for record in history]
        self.best = self._saved.best(self._tables) if history else None

    def __enter__(self) -> Self:
        try:
            with self.phases("start"):
                self._job.__enter__()
            try:
                self._check_sizes()
                with self.phases("schedule"):
                    self.deal()
            except BaseException:
                self._job.close()
                raise
        except SharedMemoryError as error:
            raise self._too_large() from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._job.close()

    def _check_sizes(self) -> None:
        if self._job.size != self._plan.all_workers:
            raise ConfigError(
                f"workers is {self._plan.local_workers} on this node, {self._job.size} on all {self._plan.nodes.count} "
                f"nodes together; expected as many on each node"
            )

    def _too_large(self) -> SharedMemoryError:
        """Make the error for shared memory that does not hold tables and inputs."""
        usage = shared_memory_usage()
        needed = sum(table.nbytes for table in self._tables) + self.input_bytes
        size = -(-(usage.total_bytes - usage.free_bytes + needed) * 5 // (4 << 20))  # a quarter more, in MiB
        return SharedMemoryError(
            f"{self.task} needs {needed:,} bytes of shared memory; free are {usage.free_bytes:,} of "
            f"{usage.total_bytes:,} in {FOLDER}. Enlarge it (docker run --shm-size={size}m, mount -o "
            f"remount,size={size}m {FOLDER}), remove what is left over (nbps doctor --clean), or train a smaller model"
        )

    def epoch(self, number: int, setting: Any) -> R:
        """Train for one epoch and measure what came of it.

        Raises
        ------
        DataError
            If training diverges.
        """
        waited = self._job.report().wait_seconds
        start = time.perf_counter()
        found = self.train(number, setting)
        seconds = time.perf_counter() - start
        self.phases.add({"train": seconds})
        waited = self._job.report().wait_seconds - waited
        if self._watched:
            self.gather()
        share = waited / (seconds * self._plan.local_workers)
        return self.measure(found, epoch=number, seconds=seconds, wait_share=share)

    def keep_best(self, epoch: int, watched: float) -> Best:
        """Return the tables as they are now as those of the best epoch, and save them where training is saved."""
        if self._saved is not None:
            self._saved.save_best(self._job, epoch, watched)
        values = {table.name: self._job.table(table.name).to_numpy() for table in self._tables}
        return Best(epoch, watched, values)

    def save(self, history: Sequence[R]) -> None:
        """Save training as it is after an epoch, if it is to be saved."""
        if self._saved is not None:
            with self.phases("checkpoint"):
                self._saved.save(self._job, history)

    def finish(self) -> None:
        """End training: from now on `state` is whole on every node. All nodes call this after the last epoch."""
        if not self._watched:
            self.gather()

    def rows(self, values: Values | None, table: str, ids: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return a copy of rows of a table, as they are now or among `values`."""
        return self._job.table(table).rows(ids) if values is None else values[table][ids]

    def report(self) -> Report:
        """Return what the job measured so far."""
        return self._job.report()
