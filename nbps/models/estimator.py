"""What estimators share whose training is a job: epochs with callbacks and early stopping, files, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import pyarrow as pa

from nbps.errors import DataError, NotFittedError
from nbps.job.report import Report
from nbps.models.file import ModelFormat, parameters_from_json, parameters_to_json
from nbps.models.history import Record
from nbps.models.parameters import Parameters
from nbps.models.trainer import Trainer


class State(Protocol):
    """What training gives, as arrays: all that a model is saved as."""

    def to_file(self) -> tuple[dict[str, pa.Table], dict[str, Any]]:
        """Return the tables, and numbers for the manifest, that a saved model consists of."""

    @classmethod
    def from_file(cls, tables: dict[str, pa.Table], manifest: dict[str, Any]) -> Self:
        """Inverse of `to_file`."""


S = TypeVar("S", bound=State)
R = TypeVar("R", bound=Record)
Callback = Callable[[Any, Any], object]


class Estimator(Parameters, Generic[S, R]):
    """A model trained in a job, epoch by epoch.

    A model of one kind has the parameters `callbacks`, `early_stopping`, `verbose` and `checkpoint`, and says what its
    state, its records and its files are.

    Attributes
    ----------
    history_ : list of Record
    best_epoch_ : int
        Of the state kept: the last, or with `early_stopping` the best.
    train_seconds_ : float
        Sum of the epochs' training times.
    seconds_ : dict of str to float
        Where the time of the last training went: schedule, start, train, evaluate; empty in a model that was loaded.
    report_ : nbps.Report
        Clocks, waiting and measured staleness of the workers.
    """

    _FORMAT: ClassVar[ModelFormat]
    _STATE: ClassVar[type[Any]]
    _RECORD: ClassVar[type[Any]]

    callbacks: Sequence[Callback]
    early_stopping: int | None
    verbose: bool
    checkpoint: str | Path | None
    history_: list[R]
    best_epoch_: int
    train_seconds_: float
    seconds_: dict[str, float]
    report_: Report
    _state: S

    @property
    def _is_shown(self) -> bool:
        """Whether a callback looks at the model after each epoch."""
        return any(getattr(callback, "needs_model", True) for callback in self.callbacks)

    @property
    def _is_watched(self) -> bool:
        """Whether anybody looks at the state after each epoch."""
        return self._is_shown or self.early_stopping is not None

    def _run(self, trainer: Trainer[S, R], settings: Sequence[Any], history: Sequence[R] = ()) -> None:
        """Train for an epoch with each of `settings`. The model changes at the end, and before callbacks, as a whole.

        `history` is that of the state that training begins with; one that goes on from a checkpoint has its own.
        """
        patience = math.inf if self.early_stopping is None else self.early_stopping
        with trainer:
            records = [*history, *trainer.earlier]
            best = None if self.early_stopping is None else trainer.best
            is_solved = bool(trainer.earlier) and self._is_solved(trainer.earlier[-1])
            for setting in [] if is_solved else settings[len(trainer.earlier) :]:
                if best is not None and records[-1].epoch - best.epoch >= patience:
                    break
                record = trainer.epoch(len(records) + 1, setting)
                records.append(record)
                watched = record.watched
                if self.early_stopping is not None and watched is not None and (best is None or watched < best.watched):
                    best = trainer.keep_best(record.epoch, watched)
                trainer.save(records)
                if self.verbose:
                    print(f"epoch {record.epoch:3}  {record}")  # noqa: T201
                if self._is_shown:
                    self._become(trainer.state(), records, record.epoch, trainer)
                ends = [callback(self, record) is True for callback in self.callbacks]
                if any(ends) or self._is_solved(record):
                    break
            trainer.finish()
            epoch = records[-1].epoch if best is None else best.epoch
            final = trainer.state(None if best is None else best.values)
        self._become(final, records, epoch, trainer)

    def _is_solved(self, record: R) -> bool:
        """Whether training has come to its end before all epochs."""
        return False

    def _become(self, state: S, records: Sequence[R], epoch: int, trainer: Trainer[S, R]) -> None:
        """Take over what training gave, as of `epoch`."""
        self._state = state
        self.history_ = list(records)
        self.best_epoch_ = epoch
        self.train_seconds_ = sum(record.seconds for record in records)
        self.report_ = trainer.report()
        self.seconds_ = dict(trainer.phases.seconds)

    def _fitted(self) -> S:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(f"this {type(self).__name__} is not fitted; call fit() or load()")
        return self._state

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_state")

    def save(self, path: str | Path) -> None:
        """Write the model into folder `path`: Arrow IPC files and a manifest, see `nbps.models.file`."""
        tables, numbers = self._fitted().to_file()
        manifest = {
            "estimator": type(self).__name__,
            "parameters": parameters_to_json(self.get_params()),
            **numbers,
            "best_epoch": self.best_epoch_,
            "history": [asdict(record) for record in self.history_],
        }
        self._FORMAT.write(Path(path), tables, manifest)

    def check_folder(self, path: str | Path) -> None:
        """Raise `DataError` if `save` would refuse this folder: it is a file, or has a model of another kind."""
        self._FORMAT.check_folder(Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model that `save` wrote.

        Raises
        ------
        DataError
            If there is none, it is of another kind, or damaged.
        """
        tables, manifest = cls._FORMAT.read(Path(path))
        try:
            model = cls(**parameters_from_json(manifest["parameters"]))
            model._state = cls._STATE.from_file(tables, manifest)
            model.history_ = [cls._RECORD(**record) for record in manifest["history"]]
            model.best_epoch_ = int(manifest["best_epoch"])
        except (KeyError, TypeError, ValueError) as error:
            if (saved := manifest.get("estimator", cls.__name__)) != cls.__name__:
                raise DataError(
                    f"{path}: expected a model of {cls.__name__}, found one of {saved}; load it with {saved}.load"
                ) from error
            raise DataError(f"{path}: the manifest lacks or misstates something: {error!r}") from error
        model.train_seconds_ = sum(record.seconds for record in model.history_)
        model.seconds_ = {}
        return model
