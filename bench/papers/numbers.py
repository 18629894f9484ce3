"""From runs to the numbers of each figure: plain dictionaries, which go into JSON and are drawn."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from papers.plan import SINGLE
from papers.records import Differential, Floats, RunRecord, rounded

Runs = Mapping[tuple[str, str], Sequence[RunRecord]]  # repeats by condition and label
Numbers = dict[str, Any]


def spread(values: Sequence[float | None]) -> Numbers:
    """Return median, minimum, maximum and all of the repeats; None counts as infinite, and is what JSON has for it."""
    known = [float("inf") if value is None else float(value) for value in values]
    return {
        "median": rounded(statistics.median(known)),
        "min": rounded(min(known)),
        "max": rounded(max(known)),
        "samples": [rounded(value) for value in known],
    }


def target_objective(runs: Runs, clock: int) -> float:
    """Return what the single worker has reached at `clock`, in the median over its runs."""
    singles = [run for own in runs.values() for run in own if run.setting.model == SINGLE]
    return statistics.median(run.curve.at_clock(clock) for run in singles)


def each(runs: Runs, describe: Callable[[Sequence[RunRecord]], Numbers]) -> dict[str, dict[str, Numbers]]:
    """Return what `describe` says of the repeats, by condition and label."""
    found: dict[str, dict[str, Numbers]] = {}
    for (condition, label), own in runs.items():
        setting = own[0].setting
        known = {"model": setting.model, "bound": setting.bound, "backend": own[0].backend}
        found.setdefault(condition, {})[label] = known | describe(own)
    return found


def objective(runs: Runs, target: float) -> dict[str, dict[str, Numbers]]:
    """Figure 1: the curve of the run of median length, and what all took to the target."""

    def describe(own: Sequence[RunRecord]) -> Numbers:
        middle = sorted(own, key=lambda run: run.seconds)[(len(own) - 1) // 2].curve
        return {
            "seconds_to_target": spread([run.curve.first_at(target, run.curve.seconds) for run in own]),
            "clocks_to_target": spread([run.curve.first_at(target, run.curve.clocks) for run in own]),
            "final_objective": spread([run.final_objective for run in own]),
            "curve": {name: _thinned(getattr(middle, name)) for name in ("seconds", "clocks", "objective")},
        }

    return each(runs, describe)


def _thinned(values: Floats) -> list[float | None]:
    """Return about 20 of the values, the first and the last among them: enough to draw."""
    places = np.unique(np.append(np.arange(0, len(values), max(1, len(values) // 20)), len(values) - 1))
    return [rounded(value) for value in values[places]]


def time_shares(runs: Runs) -> dict[str, dict[str, Numbers]]:
    """Figure 2: what the workers' time went into."""

    def describe(own: Sequence[RunRecord]) -> Numbers:
        shares = [run.shares() for run in own]
        means = {name: rounded(statistics.fmean(one[name] for one in shares)) for name in shares[0]}
        return {"shares": {"waiting": spread([one["waiting"] for one in shares])}, "mean_shares": means}

    return each(runs, describe)


def quantity_quality(runs: Runs, clock: int) -> dict[str, dict[str, Numbers]]:
    """Figure 3: clocks in a second, and the objective after `clock` clocks."""

    def describe(own: Sequence[RunRecord]) -> Numbers:
        return {
            "clocks_per_second": spread([run.clocks_per_second for run in own]),
            "objective_at_clock": spread([run.objective_at(clock) for run in own]),
        }

    return each(runs, describe)


def staleness(runs: Runs) -> dict[str, dict[str, Numbers]]:
    """Figure 4: histograms of the clock differential, summed over the repeats; mean and variance of each."""

    def describe(own: Sequence[RunRecord]) -> Numbers:
        counts: Counter[int] = Counter()
        for run in own:
            counts.update(run.differential.counts)
        return {
            "counts": {str(d): n for d, n in sorted(counts.items())},
            "mean": spread([run.differential.mean for run in own]),
            "variance": spread([run.differential.variance for run in own]),
            "mean_of_all": rounded(Differential.from_counts(dict(counts)).mean),
        }

    return each({key: own for key, own in runs.items() if own[0].setting.workers > 1}, describe)


def divergence(runs: Mapping[tuple[str, str, float], Sequence[RunRecord]]) -> list[Numbers]:
    """Figure 5: how each staleness and step size ended."""
    return [
        {
            "condition": condition,
            "model": own[0].setting.model,
            "bound": own[0].setting.bound,
            "step": step,
            "final_objective": spread([run.final_objective for run in own]),
            "diverged": sum(run.diverged for run in own),
            "mean_differential": rounded(statistics.median(run.differential.mean for run in own)),
        }
        for (condition, _, step), own in runs.items()
    ]
