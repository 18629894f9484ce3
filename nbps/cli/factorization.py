"""``nbps train mf`` from options to results."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

import nbps
from nbps.cli.console import Output
from nbps.cli.out_folder import check_writable
from nbps.cli.progress import TrainingProgress
from nbps.cli.training_data import DataOptions, TrainingData, load

if TYPE_CHECKING:
    from nbps.models import MatrixFactorization

_DEFAULT_STALENESS = 2
_WITH_STALENESS = ("ssp", "essp")


@dataclass(frozen=True)
class ModelOptions:
    """What the user said about the model and the run; None where the default is to be taken."""

    rank: int
    epochs: int
    learning_rate: float | None
    regularization: float | None
    optimizer: str
    early_stopping: int | None
    workers: int | None
    consistency: str
    staleness: int | None
    schedule: str
    seed: int

    def __post_init__(self) -> None:
        if self.staleness is not None and self.consistency not in _WITH_STALENESS:
            raise typer.BadParameter(
                f"--staleness is for --consistency ssp and essp; {self.consistency} has none. "
                "Leave one of them out."
            )

    def build(self, callbacks: tuple[Any, ...]) -> MatrixFactorization:
        """Make the model.

        Raises
        ------
        nbps.errors.ConfigError
            If the model refuses an option.
        """
        from nbps.models import MatrixFactorization  # Numba's import takes longer than finding wrong usage

        staleness = _DEFAULT_STALENESS if self.staleness is None else self.staleness
        consistency = {
            "bsp": nbps.BSP,
            "ssp": lambda: nbps.SSP(staleness),
            "essp": lambda: nbps.ESSP(staleness),
            "asp": nbps.ASP,
        }[self.consistency]()
        chosen = {"learning_rate": self.learning_rate, "regularization": self.regularization}
        return MatrixFactorization(
            rank=self.rank,
            epochs=self.epochs,
            optimizer=str(self.optimizer),
            schedule=str(self.schedule),
            consistency=consistency,
            workers=usable_cores() if self.workers is None else self.workers,
            random_state=self.seed,
            early_stopping=self.early_stopping,
            callbacks=callbacks,
            **{name: value for name, value in chosen.items() if value is not None},
        )


def usable_cores() -> int:
    """Return the number of cores this process may run on."""
    return len(os.sched_getaffinity(0))


def run(data_options: DataOptions, model_options: ModelOptions, out: Path | None, output: Output) -> None:
    """Train, report and save."""
    if model_options.early_stopping is not None and not data_options.has_test:
        raise typer.BadParameter("--early-stopping watches the test error, but --test-fraction is 0.")
    if out is not None:
        check_writable(out)
    notes = output.progress()
    progress = TrainingProgress(model_options.epochs, notes)
    model = model_options.build((progress,))
    with notes.status("reading the ratings"):
        data = load(data_options)
    if data.dropped:
        notes.print(
            f"note: {data.dropped} test ratings dropped: their user or item is not in the training data",
            soft_wrap=True,
        )
    with progress:
        model.fit(data.train, data.test)
    if out is not None:
        model.save(out)
    output.result().print(_table(model, data, out))
    output.write_json(_summary(model, data, out, model_options))


def _table(model: Any, data: TrainingData, out: Path | None) -> Table:
    last = model.history_[-1]
    users, items = data.train.shape
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows = [
        ("data", data.name),
        ("size", f"{len(data.train):,} ratings to train on, {users:,} users, {items:,} items"),
        ("test RMSE", "no test ratings" if data.test is None else f"{_test_rmse(model):.4f}"),
        ("train RMSE", f"{last.train_rmse:.4f}"),
        ("epochs", str(len(model.history_))),
        ("training time", f"{model.train_seconds_:.2f} s"),
        ("speed", f"{_speed(model, data):,.0f} ratings/s"),
        ("waiting", f"{last.wait_share:.0%} of the last epoch"),
        ("saved in", "not saved (--out)" if out is None else str(out)),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def _summary(model: Any, data: TrainingData, out: Path | None, options: ModelOptions) -> dict[str, Any]:
    return {
        "test_rmse": None if data.test is None else _test_rmse(model),
        "train_rmse": model.history_[-1].train_rmse,
        "train_seconds": model.train_seconds_,
        "ratings_per_second": _speed(model, data),
        "epochs": len(model.history_),
        "data": data.to_dict(),
        "parameters": _parameters(model, options),
        "history": [asdict(record) for record in model.history_],
        "report": model.report_.to_dict(),
        "out": out,
    }


def _parameters(model: Any, options: ModelOptions) -> dict[str, Any]:
    return asdict(options)


def _test_rmse(model: Any) -> float:
    return float(model.history_[-1].validation_rmse)


def _speed(model: Any, data: TrainingData) -> float:
    """Return ratings trained on per second of training, all epochs together."""
    return len(data.train) * len(model.history_) / float(model.train_seconds_)
