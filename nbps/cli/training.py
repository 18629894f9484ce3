"""``nbps train``, whatever the model: options of the run, progress, results, the saved model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from nbps.cli.console import Output
from nbps.cli.out_folder import check_writable
from nbps.cli.profile import profile, rows, seconds_since_start
from nbps.cli.progress import TrainingProgress
from nbps.consistency import Consistency, consistency_named
from nbps.errors import ConfigError
from nbps.models.phases import Phases
from nbps.runtime.cores import usable_cores

_DEFAULT_STALENESS = 2
_WITH_STALENESS = ("ssp", "essp")

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class RunOptions:
    """What the user said about the run; None where the default is to be taken."""

    workers: int
    consistency: str
    staleness: int | None
    seed: int
    early_stopping: int | None
    checkpoint: str | None
    out: Path | None
    output: Output
    profiled: bool

    def __post_init__(self) -> None:
        if self.staleness is not None and self.consistency not in _WITH_STALENESS:
            raise typer.BadParameter(
                f"--staleness is for --consistency ssp and essp; {self.consistency} has none. Leave one of them out."
            )

    @property
    def model(self) -> Consistency:
        """The consistency model."""
        return consistency_named(self.consistency, _DEFAULT_STALENESS if self.staleness is None else self.staleness)

    @property
    def parameters(self) -> dict[str, Any]:
        """Arguments of every estimator."""
        return {
            "workers": self.workers,
            "consistency": self.model,
            "random_state": self.seed,
            "early_stopping": self.early_stopping,
            "checkpoint": self.checkpoint,
        }

    @property
    def chosen(self) -> dict[str, Any]:
        """What was chosen, for JSON."""
        own = {"workers": self.workers, "consistency": self.consistency, "seed": self.seed}
        given = {"early_stopping": self.early_stopping, "checkpoint": self.checkpoint}
        return own | {name: value for name, value in given.items() if value is not None}


class Training(ABC):
    """What ``nbps train`` does for one kind of model.

    Attributes
    ----------
    epochs : int or None
        How many there will be at most, if that says anything.
    """

    epochs: int | None

    @abstractmethod
    def build(self, run: RunOptions, callbacks: Sequence[Any]) -> Any:
        """Make the model, and start in the background what its training waits for.

        Raises
        ------
        nbps.errors.ConfigError
            If the model refuses an option.
        """

    @abstractmethod
    def load(self, phases: Phases) -> None:
        """Read or generate the data."""

    def notes(self) -> list[str]:
        """Return what of the data is allowed but seldom meant."""
        return []

    @abstractmethod
    def fit(self, model: Any) -> None:
        """Train."""

    def advice(self, model: Any) -> str | None:
        """Return what to try instead, if there is something."""
        return None

    @abstractmethod
    def rows(self, model: Any) -> Rows:
        """Return data and results in words: what readers look for first."""

    @abstractmethod
    def summary(self, model: Any) -> dict[str, Any]:
        """Return data, parameters and results for JSON."""


def run(training: Training, options: RunOptions) -> None:
    """Train, report and save."""
    phases, output, out = Phases(), options.output, options.out
    phases.add({"imports": seconds_since_start()})
    if out is not None:
        check_writable(out)
    notes = output.progress()
    progress = TrainingProgress(training.epochs, notes)
    model = training.build(options, (progress,))
    if out is not None:
        model.check_folder(out)
    with notes.status("reading the data"):
        training.load(phases)
    found = training.notes()
    if options.workers > 2 * usable_cores():
        found.append(f"{options.workers} workers share {usable_cores()} cores and will wait for each other")
    for note in found:
        notes.print(f"note: {note}", soft_wrap=True)
    with progress:
        training.fit(model)
    phases.add(model.seconds_)
    if advice := training.advice(model):
        notes.print(f"note: {advice}", soft_wrap=True)
    if out is not None:
        with phases("save"):
            _save(model, out)
    output.print_rows(_rows(training, model, out))
    summary = _summary(training, model, options)
    if options.profiled:
        summary["profile"] = profile(phases.seconds)
        output.print_rows([("", ""), *rows(summary["profile"])])
    output.write_json(summary)


def _save(model: Any, out: Path) -> None:
    try:
        model.save(out)
    except OSError as error:  # `check_writable` cannot foresee a full disk
        raise ConfigError(
            f"--out {str(out)!r}: the model cannot be saved: {error.strerror or error}. "
            "Make room or name another folder."
        ) from error


def _rows(training: Training, model: Any, out: Path | None) -> Rows:
    has_workers = hasattr(model, "report_")  # else it was trained in this process
    return [
        *training.rows(model),
        ("epochs", f"{len(model.history_)}, the model is of epoch {model.best_epoch_}"),
        *([("consistency", model.report_.consistency)] if has_workers else []),
        ("training time", f"{model.train_seconds_:.2f} s"),
        *([("waiting", f"{_wait_share(model):.0%} of the workers' time")] if has_workers else []),
        ("saved in", "not saved (--out)" if out is None else str(out)),
    ]


def _summary(training: Training, model: Any, options: RunOptions) -> dict[str, Any]:
    return {
        **training.summary(model),
        "train_seconds": model.train_seconds_,
        "wait_share": _wait_share(model),
        "epochs": len(model.history_),
        "best_epoch": model.best_epoch_,
        "history": [asdict(record) for record in model.history_],
        "report": model.report_.to_dict() if hasattr(model, "report_") else None,
        "out": options.out,
    }


def _wait_share(model: Any) -> float:
    """Return the share of the workers' time that they waited for each other, all epochs together."""
    waited = sum(record.wait_share * record.seconds for record in model.history_)
    return float(waited / model.train_seconds_)


def kept_epoch(model: Any) -> Any:
    """Return the record of the epoch whose state the model has: the last, or the best one."""
    return next(record for record in model.history_ if record.epoch == model.best_epoch_)
