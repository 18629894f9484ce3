"""Quality of the defaults of matrix factorization on held-out ratings of many sets, and the choice of its constants.

Constants are compared by the error on *validation* parts, which are taken out of the training part (``--choose``, ten
minutes). The test parts are for the table alone: beside the defaults it has the best that biases alone reach, and what
becomes of the defaults if a tenth of the training ratings is held back to stop early by.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from measure import Options, console, options, summary, write
from rating_sets import RatingSet, generated, real
from rich.table import Table

from nbps.data import Ratings
from nbps.models import MatrixFactorization
from nbps.models.mf.constants import Constants
from nbps.models.mf.plan import TrainingPlan

_DAMPINGS = (1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 12.0)
_PATIENCE = 3
_WEIGHT_OF_REAL = 2.0  # generated ratings are of the model that is fitted, and tell less
# What the defaults are compared with: parameters of the model, and constants.
_OTHERS = {
    "regularization": (0.13, 0.15, 0.17, 0.2),
    "decay_exponent": (0.2, 0.3),
    "few_ratings": (0.0, 5.0, 8.0, 12.0, 16.0),
    "bias_prior": (15.0, 20.0, 30.0, 40.0),
    "factors_size": (0.02, 0.03, 0.06),
    "accumulator": (2.0, 4.0),
    "final_step": (0.05, 0.2),
    "learning_rate": (0.08, 0.125),
    "epochs": (15, 25),
}
_CONSTANTS = set(vars(Constants()))


class Candidate(MatrixFactorization):
    """The model with `constants`."""

    constants = Constants()

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's arguments by name, and the constants."""
        return super().get_params(deep) | {"constants": self.constants}


@dataclass(frozen=True)
class Defaults:
    """The defaults, or with one of them changed."""

    name: str = ""
    value: float = 0.0

    def fit(self, train: Ratings, held: Ratings, seed: int, **more: Any) -> MatrixFactorization:
        """Train with `held` as validation set."""
        changed = {self.name: self.value} if self.name else {}
        constant = self.name in _CONSTANTS
        model = Candidate(workers=1, random_state=seed, **more, **({} if constant else changed))
        if constant:
            model.constants = replace(model.constants, **changed)
        return model.fit(train, validation=held)

    def errors(self, train: Ratings, held: Ratings, seed: int) -> list[float]:
        """Return the error on `held` after each epoch."""
        return [float(record.validation_rmse or 0.0) for record in self.fit(train, held, seed).history_]

    def validation_error(self, data: RatingSet) -> float:
        """Return the mean error on the validation parts."""
        splits = data.validation_splits()
        return statistics.mean(self.errors(*split, seed)[-1] for seed, split in enumerate(splits))


def biases_alone(train: Ratings, held: Ratings, damping: float) -> float:
    """Return the error of the mean and alternating biases, as if each row had `damping` ratings more, all average."""
    mean = train.values.mean(dtype=float)
    user, item = (np.zeros(size) for size in train.shape)
    sides = ((item, train.items, user, train.users), (user, train.users, item, train.items))
    for _ in range(15):
        for own, codes, other, others in sides:
            sums = np.bincount(codes, train.values - mean - other[others], minlength=own.size)
            own[:] = sums / (np.bincount(codes, minlength=own.size) + damping)
    return float(np.sqrt(np.mean((held.values - mean - user[held.users] - item[held.items]) ** 2)))


def judge(data: RatingSet, seeds: range) -> dict[str, Any]:
    """Return the errors on one set, and what stopping early would have given."""
    defaults, splits = Defaults(), data.validation_splits()
    by_epoch = [defaults.errors(*split, seed) for seed, split in enumerate(splits)]
    dampings = {d: statistics.mean(biases_alone(*split, d) for split in splits) for d in _DAMPINGS}
    damping = min(dampings, key=dampings.__getitem__)
    stopped = []
    for seed in seeds:
        kept, held = data.train.split(0.1, seed)
        stopped.append(-defaults.fit(kept, held, seed, early_stopping=_PATIENCE).score(data.test))
    return {
        "ratings": len(data.train) + len(data.test),
        "users": data.train.shape[0],
        "items": data.train.shape[1],
        "real": data.real,
        "validation": summary([errors[-1] for errors in by_epoch]),
        "hindsight": statistics.mean(errors[-1] / min(errors) - 1 for errors in by_epoch),
        "test": summary([defaults.errors(data.train, data.test, seed)[-1] for seed in seeds]),
        "stopped_early": summary(stopped),
        "biases_alone": biases_alone(data.train, data.test, damping),
        "biases_damping": damping,
    }


def compare(sets: list[RatingSet], others: dict[str, tuple[float, ...]]) -> list[dict[str, Any]]:
    """Return for each other value how much worse it is on the validation parts: in all, and on each set."""
    own = {data.name: Defaults().validation_error(data) for data in sets}
    weights = [_WEIGHT_OF_REAL if data.real else 1.0 for data in sets]
    lines = []
    for name, values in others.items():
        for value in values:
            other = Defaults(name, value)
            worse = {data.name: float(np.log(other.validation_error(data) / own[data.name])) for data in sets}
            mean = float(np.average(list(worse.values()), weights=weights))
            lines.append({"name": name, "default": own_value(name), "value": value, "worse": mean, "by_set": worse})
    return lines


def own_value(name: str) -> float:
    """Return the default of a parameter or constant."""
    plan = TrainingPlan.of(MatrixFactorization().get_params())
    return plan.first_step if name == "learning_rate" else getattr(plan.constants if name in _CONSTANTS else plan, name)


def show_sets(found: dict[str, dict[str, Any]]) -> None:
    """Print the errors on the sets."""
    table = Table(title="RMSE of the defaults; sets that are named by their size are generated")
    headings = ("ratings", "validation", "test", "min", "max", "biases alone", "stopped early", "hindsight")
    for heading in ("", *headings):
        table.add_column(heading, justify="right" if heading else "left")
    for name, one in found.items():
        test = one["test"]
        table.add_row(
            name,
            f"{one['ratings']:,}",
            f"{statistics.mean(one['validation']['samples']):.4f}",
            *(f"{x:.4f}" for x in (statistics.mean(test["samples"]), test["min"], test["max"], one["biases_alone"])),
            f"{statistics.mean(one['stopped_early']['samples']):.4f}",
            f"{one['hindsight']:.2%}",
        )
    console().print(table)
    print(
        "stopped early: a tenth of the training ratings held back; hindsight: how much better the best epoch was than "
        "the last, on the validation parts"
    )


def show_others(lines: list[dict[str, Any]]) -> None:
    """Print the comparison of other values."""
    table = Table(title="Other values: how much worse on the validation parts, %; real sets count double")
    for heading in ("", "default", "value", "mean", *lines[0]["by_set"]):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=not heading, overflow="fold")
    for line in lines:
        figures = (line["worse"], *line["by_set"].values())
        cells = (f"{100 * figure:+.2f}" for figure in figures)
        table.add_row(line["name"], f"{line['default']:g}", f"{line['value']:g}", *cells)
    console().print(table)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument(
        "--data", type=Path, help="folder with ml-1m, ml-100k, filmtrust, libmf-demo (default: generated sets alone)"
    )
    parser.add_argument("--choose", action="store_true", help="compare other constants too, on validation parts")


def read(given: Options) -> list[RatingSet]:
    """Return the sets."""
    folder = given.arguments.data
    return [*(() if folder is None or given.smoke else real(folder)), *generated(given.smoke)]


def main() -> None:
    """Judge the defaults, compare other constants if asked, print both, write ``defaults.json``."""
    given = options(__doc__, repeats=3, add=add_arguments)
    sets = read(given)
    found = {data.name: judge(data, range(given.repeats)) for data in sets}
    show_sets(found)
    content: dict[str, Any] = {"sets": found}
    if given.arguments.choose or given.smoke:
        others = {"bias_prior": (15.0,), "epochs": (15,)} if given.smoke else _OTHERS
        content["others"] = compare(sets, others)
        show_others(content["others"])
    write("defaults", content, given)


if __name__ == "__main__":
    main()
