"""``nbps train mf``: a factorization's options, and what it says of its data and results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import typer

from nbps.cli.training import Rows, RunOptions, Training, kept_epoch
from nbps.cli.training_data import DataOptions, TrainingData, load
from nbps.models.phases import Phases

_FEW_IDS = 5  # a column of genders or ratings read as ids
_MUCH_WORSE = 1.01  # a test error of 1% above the best is more than epochs differ by chance
_PATIENCE = 3  # of the advice to stop early


@dataclass(frozen=True)
class ModelOptions:
    """What the user said about the model; None where the default is to be taken."""

    rank: int
    epochs: int
    learning_rate: float | None
    regularization: float | None
    optimizer: str
    schedule: str

    @property
    def chosen(self) -> dict[str, Any]:
        """Arguments of the model."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return given | {"optimizer": str(self.optimizer), "schedule": str(self.schedule)}


class FactorizationTraining(Training):
    """Matrix factorization of ratings."""

    def __init__(self, data: DataOptions, model: ModelOptions, run: RunOptions) -> None:
        if run.consistency == "asp" and model.schedule == "rotate":
            raise typer.BadParameter(
                "--consistency asp has no bound that keeps the workers of --schedule rotate apart. "
                "Add --schedule cached or --schedule direct."
            )
        if run.early_stopping is not None and not data.has_test:
            raise typer.BadParameter("--early-stopping watches the test error, but --test-fraction is 0.")
        self.epochs = model.epochs
        self._data_options, self._options, self._run = data, model, run
        self._data: TrainingData

    def build(self, run: RunOptions, callbacks: Sequence[Any]) -> Any:
        """Make the model."""
        from nbps.models import MatrixFactorization  # takes longer than finding wrong usage

        return MatrixFactorization(**self._options.chosen, **run.parameters, callbacks=callbacks).warm_up()

    def load(self, phases: Phases) -> None:
        """Read or generate the ratings, and set those apart that are tested on."""
        self._data = load(self._data_options, phases)

    def fit(self, model: Any) -> None:
        """Train on the ratings."""
        model.fit(self._data.train, validation=self._data.test)

    def notes(self) -> list[str]:
        """Return what of the ratings is allowed but seldom meant."""
        data, notes = self._data, []
        users, items = data.train.shape
        if min(users, items) < _FEW_IDS:
            notes.append(
                f"the data has {users} users and {items} items: are these the right columns? "
                "Choose others with --columns user,item,rating (names or positions)"
            )
        if data.dropped:
            notes.append(f"{data.dropped} test ratings dropped: their user or item is not in the training data")
        if data.trained and data.test is not None:
            notes.append(
                f"{data.trained:,} of {len(data.test):,} test ratings are also in --data (the same user and item): "
                "their error is one of training. Take them out of --data, or leave out --test for a split of it"
            )
        return notes

    def advice(self, model: Any) -> str | None:
        """Return what to try where training went on for too long."""
        errors = [(each.validation_rmse, each.epoch) for each in model.history_ if each.validation_rmse is not None]
        if model.early_stopping is not None or not errors:
            return None
        (best, epoch), (last, _) = min(errors), errors[-1]
        if last <= _MUCH_WORSE * best:
            return None
        return (
            f"the test RMSE was best after epoch {epoch} ({best:.4f}) and {last:.4f} in the end: "
            f"try --early-stopping {_PATIENCE}"
        )

    def rows(self, model: Any) -> Rows:
        """Return the errors, and what they were measured on."""
        data, kept = self._data, kept_epoch(model)
        users, items = data.train.shape
        return [
            ("data", data.name),
            ("size", f"{len(data.train):,} ratings to train on, {users:,} users, {items:,} items"),
            ("tested on", _tested_on(data)),
            ("test RMSE", "no test ratings" if data.test is None else f"{kept.validation_rmse:.4f}"),
            ("train RMSE", f"{kept.train_rmse:.4f}"),
            ("speed", f"{self._speed(model):,.0f} ratings/s"),
        ]

    def summary(self, model: Any) -> dict[str, Any]:
        """Return errors, speed and parameters, with the model's own values where none were chosen."""
        kept, own = kept_epoch(model), model.get_params()
        defaults = {name: own[name] for name in (*asdict(self._options), "early_stopping")}
        return {
            "test_rmse": kept.validation_rmse,
            "train_rmse": kept.train_rmse,
            "ratings_per_second": self._speed(model),
            "data": self._data.to_dict(),
            "parameters": {**defaults, **self._run.chosen, "staleness": self._run.model.staleness},
        }

    def _speed(self, model: Any) -> float:
        """Return ratings trained on per second of training, all epochs together."""
        return len(self._data.train) * len(model.history_) / float(model.train_seconds_)


def _tested_on(data: TrainingData) -> str:
    tested = f"{0 if data.test is None else len(data.test):,} ratings"
    if not data.dropped:
        return tested
    return f"{tested} ({data.dropped:,} more dropped: their user or item is not in the training data)"
