"""``nbps train mf`` from options to results."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nbps.cli.console import Output
from nbps.cli.out_folder import check_writable
from nbps.cli.profile import profile, rows, seconds_since_start
from nbps.cli.progress import TrainingProgress
from nbps.cli.training_data import DataOptions, TrainingData, load
from nbps.consistency import consistency_named
from nbps.errors import ConfigError
from nbps.models.phases import Phases
from nbps.runtime.cores import usable_cores

if TYPE_CHECKING:
    from nbps.models import MatrixFactorization

_DEFAULT_STALENESS = 2
_FEW_IDS = 5  # a column of genders or ratings read as ids
_MUCH_WORSE = 1.01  # a test error of 1% above the best is more than epochs differ by chance
_PATIENCE = 3  # of the advice to stop early
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
    workers: int
    consistency: str
    staleness: int | None
    schedule: str
    seed: int

    def __post_init__(self) -> None:
        if self.staleness is not None and self.consistency not in _WITH_STALENESS:
            raise typer.BadParameter(
                f"--staleness is for --consistency ssp and essp; {self.consistency} has none. Leave one of them out."
            )
        if self.consistency == "asp" and self.schedule == "rotate":
            raise typer.BadParameter(
                "--consistency asp has no bound that keeps the workers of --schedule rotate apart. "
                "Add --schedule cached or --schedule direct."
            )

    def build(self, callbacks: tuple[Any, ...]) -> MatrixFactorization:
        """Make the model.

        Raises
        ------
        nbps.errors.ConfigError
            If the model refuses an option.
        """
        from nbps.models import MatrixFactorization  # Numba's import takes longer than finding wrong usage

        own = {"learning_rate": self.learning_rate, "regularization": self.regularization}
        return MatrixFactorization(
            rank=self.rank,
            epochs=self.epochs,
            optimizer=str(self.optimizer),
            schedule=str(self.schedule),
            consistency=consistency_named(
                self.consistency, _DEFAULT_STALENESS if self.staleness is None else self.staleness
            ),
            workers=self.workers,
            random_state=self.seed,
            early_stopping=self.early_stopping,
            callbacks=callbacks,
        ).set_params(**{name: value for name, value in own.items() if value is not None})


def run(
    data_options: DataOptions, model_options: ModelOptions, out: Path | None, output: Output, profiled: bool = False
) -> None:
    """Train, report and save."""
    phases = Phases()
    phases.add({"imports": seconds_since_start()})
    if model_options.early_stopping is not None and not data_options.has_test:
        raise typer.BadParameter("--early-stopping watches the test error, but --test-fraction is 0.")
    if out is not None:
        check_writable(out)
    notes = output.progress()
    progress = TrainingProgress(model_options.epochs, notes)
    model = model_options.build((progress,)).warm_up()
    with notes.status("reading the ratings"):
        data = load(data_options, phases)
    for note in _notes(data, model_options.workers):
        notes.print(f"note: {note}", soft_wrap=True)
    with progress:
        model.fit(data.train, validation=data.test)
    phases.add(model.seconds_)
    if advice := _advice(model):
        notes.print(f"note: {advice}", soft_wrap=True)
    if out is not None:
        with phases("save"):
            _save(model, out)
    output.print_rows(_rows(model, data, out))
    summary = _summary(model, data, out, model_options)
    if profiled:
        summary["profile"] = profile(phases.seconds)
        output.print_rows([("", ""), *rows(summary["profile"])])
    output.write_json(summary)


def _notes(data: TrainingData, workers: int) -> list[str]:
    """Return what is allowed but seldom meant."""
    notes = []
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
            f"{data.trained:,} of {len(data.test):,} test ratings are also in --data (the same user and item): their "
            "error is one of training. Take them out of --data, or leave out --test for a split of it"
        )
    if workers > 2 * usable_cores():
        notes.append(f"{workers} workers share {usable_cores()} cores and will wait for each other")
    return notes


def _advice(model: MatrixFactorization) -> str | None:
    """Return what to try where training went on for too long."""
    errors = [(record.validation_rmse, record.epoch) for record in model.history_ if record.validation_rmse is not None]
    if model.early_stopping is not None or not errors:
        return None
    (best, epoch), (last, _) = min(errors), errors[-1]
    if last <= _MUCH_WORSE * best:
        return None
    return (
        f"the test RMSE was best after epoch {epoch} ({best:.4f}) and {last:.4f} in the end: "
        f"try --early-stopping {_PATIENCE}"
    )


def _save(model: MatrixFactorization, out: Path) -> None:
    try:
        model.save(out)
    except OSError as error:  # `check_writable` cannot foresee a full disk
        raise ConfigError(
            f"--out {str(out)!r}: the model cannot be saved: {error.strerror or error}. "
            "Make room or name another folder."
        ) from error


def _rows(model: Any, data: TrainingData, out: Path | None) -> list[tuple[str, str]]:
    kept = _kept_epoch(model)
    users, items = data.train.shape
    return [
        ("data", data.name),
        ("size", f"{len(data.train):,} ratings to train on, {users:,} users, {items:,} items"),
        ("tested on", _tested_on(data)),
        ("test RMSE", "no test ratings" if data.test is None else f"{kept.validation_rmse:.4f}"),
        ("train RMSE", f"{kept.train_rmse:.4f}"),
        ("epochs", f"{len(model.history_)}, the model is of epoch {kept.epoch}"),
        ("consistency", model.report_.consistency),
        ("training time", f"{model.train_seconds_:.2f} s"),
        ("speed", f"{_speed(model, data):,.0f} ratings/s"),
        ("waiting", f"{_wait_share(model):.0%} of the workers' time"),
        ("saved in", "not saved (--out)" if out is None else str(out)),
    ]


def _tested_on(data: TrainingData) -> str:
    tested = f"{0 if data.test is None else len(data.test):,} ratings"
    if not data.dropped:
        return tested
    return f"{tested} ({data.dropped:,} more dropped: their user or item is not in the training data)"


def _summary(model: Any, data: TrainingData, out: Path | None, options: ModelOptions) -> dict[str, Any]:
    kept = _kept_epoch(model)
    return {
        "test_rmse": kept.validation_rmse,
        "train_rmse": kept.train_rmse,
        "train_seconds": model.train_seconds_,
        "ratings_per_second": _speed(model, data),
        "wait_share": _wait_share(model),
        "epochs": len(model.history_),
        "best_epoch": kept.epoch,
        "data": data.to_dict(),
        "parameters": _parameters(model, options),
        "history": [asdict(record) for record in model.history_],
        "report": model.report_.to_dict(),
        "out": out,
    }


def _parameters(model: Any, options: ModelOptions) -> dict[str, Any]:
    """Return what was chosen, with the model's own values where nothing was."""
    own = model.get_params()
    chosen = {name: value for name, value in asdict(options).items() if value is not None}
    defaults = {name: own[name] for name in asdict(options) if name in own}
    return {**defaults, **chosen, "staleness": own["consistency"].staleness}


def _kept_epoch(model: Any) -> Any:
    """Return the record of the epoch whose factors the model has: the last, or the best one."""
    return next(record for record in model.history_ if record.epoch == model.best_epoch_)


def _wait_share(model: Any) -> float:
    """Return the share of the workers' time that they waited for each other, all epochs together."""
    waited = sum(record.wait_share * record.seconds for record in model.history_)
    return float(waited / model.train_seconds_)


def _speed(model: Any, data: TrainingData) -> float:
    """Return ratings trained on per second of training, all epochs together."""
    return len(data.train) * len(model.history_) / float(model.train_seconds_)
