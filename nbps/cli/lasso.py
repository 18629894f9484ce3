"""``nbps train lasso``: a linear model's options, and what it says of its data and results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbps.cli.training import Rows, RunOptions, Training
from nbps.data import read_features
from nbps.models.phases import Phases

_SHOWN = 5  # features in the table of results


@dataclass(frozen=True)
class FileOptions:
    """What the user said about the data."""

    data: Path
    format: str | None
    target: str | None

    @property
    def column(self) -> str | int | None:
        """Name or position of the target."""
        return int(self.target) if self.target is not None and self.target.isdecimal() else self.target


@dataclass(frozen=True)
class ModelOptions:
    """What the user said about the model; without `alpha` it is chosen by cross-validation."""

    alpha: float | None
    l1_ratio: float
    fit_intercept: bool
    standardize: bool
    positive: bool
    tol: float
    max_iter: int
    schedule: str
    clocks: int


class LassoTraining(Training):
    """Lasso or elastic net of a table of numbers."""

    epochs = None  # as many rounds as the duality gap takes

    def __init__(self, data: FileOptions, model: ModelOptions, run: RunOptions) -> None:
        self._file, self._options, self._run = data, model, run
        self._features: Any
        self._target: Any

    def build(self, run: RunOptions, callbacks: Sequence[Any]) -> Any:
        """Make the model."""
        from nbps.models import ElasticNet, ElasticNetCV

        chosen = asdict(self._options)
        if self._options.alpha is None:
            own = ("alpha", "schedule", "clocks")
            return ElasticNetCV(**{name: value for name, value in chosen.items() if name not in own})
        cyclic: dict[str, Any] = (
            {"consistency": run.model, "checkpoint": run.checkpoint} if chosen["schedule"] == "cyclic" else {}
        )
        return ElasticNet(**chosen, **cyclic, workers=run.workers, random_state=run.seed, callbacks=callbacks)

    def load(self, phases: Phases) -> None:
        """Read features and target."""
        with phases("read"):
            self._features, self._target = read_features(self._file.data, self._file.column, format=self._file.format)

    def notes(self) -> list[str]:
        """Say that names look like a row, which was not trained on then."""
        names = self._features.names or ()
        if not names or not all(map(_is_number, names)):
            return []
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        return [f"the columns are called {shown}: is the first line of the file a row? Put a line of names above it"]

    def fit(self, model: Any) -> None:
        """Solve."""
        model.fit(self._features, self._target)

    def rows(self, model: Any) -> Rows:
        """Return what the model is, and how good."""
        n, p = self._features.shape
        used = np.flatnonzero(model.coef_)
        largest = used[np.argsort(-np.abs(model.coef_[used]), kind="stable")][:_SHOWN]
        shown = ", ".join(f"{self._name(int(j))} {model.coef_[j]:.4g}" for j in largest)
        return [
            ("data", str(self._file.data)),
            ("size", f"{n:,} rows, {p:,} features" + (" (sparse)" if self._features.is_sparse else "")),
            ("alpha", f"{self._alpha(model):.6g}" + (" (cross-validated)" if self._options.alpha is None else "")),
            ("objective", f"{model.history_[-1].objective:.6g}, at most {model.dual_gap_:.1e} above the least"),
            ("non-zeros", f"{used.size:,} of {p:,}"),
            ("largest", shown + (", ..." if used.size > _SHOWN else "") if shown else "none"),
            ("intercept", f"{model.intercept_:.6g}"),
            ("training R²", f"{model.score(self._features, self._target):.4f}"),
        ]

    def summary(self, model: Any) -> dict[str, Any]:
        """Return the results, and the parameters with what was chosen for them."""
        n, p = self._features.shape
        parameters = {**asdict(self._options), **self._run.chosen, "alpha": self._alpha(model)}
        return {
            "objective": model.history_[-1].objective,
            "dual_gap": model.dual_gap_,
            "nonzeros": int(np.count_nonzero(model.coef_)),
            "coefficients": {self._name(int(j)): float(model.coef_[j]) for j in np.flatnonzero(model.coef_)},
            "intercept": model.intercept_,
            "train_r2": model.score(self._features, self._target),
            "iterations": model.n_iter_,
            "data": {"name": str(self._file.data), "rows": n, "features": p, "sparse": self._features.is_sparse},
            "parameters": parameters,
        }

    def _alpha(self, model: Any) -> float:
        return float(model.alpha_ if self._options.alpha is None else model.alpha)

    def _name(self, column: int) -> str:
        names = self._features.names
        return str(column) if names is None else names[column]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
