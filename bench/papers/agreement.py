"""Whether simulated runs show what real ones of the same configuration showed.

Each real run with copies is simulated: the same workers on one node, ratings, initial factors, clocks, step and
injected sleeps. From the real run come the mean and the standard deviation of each worker's computing, when it began,
and the mean cost of an exchange. What waits, staleness and objective follow from these is the simulator's.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from measure import console
from PIL import Image
from rich.table import Table

from papers import figures, plan, simulated
from papers.backends import Task
from papers.costs import Costs, fit, pooled, refresh_ratio
from papers.numbers import Numbers, Runs, spread
from papers.records import RunRecord, rounded

_MODELS = ("BSP", "SSP", "ESSP", "ASP", "VAP")
# Quantity -> what it is, a tolerance chosen before the first comparison, and whether that is a share of the real value.
_TOLERANCES: dict[str, tuple[str, float, bool]] = {
    "waiting": ("share of waiting", 0.05, False),
    "clocks_per_second": ("clocks/s", 0.1, True),
    "mean": ("differential: mean", 0.5, False),
    "variance": ("differential: variance", 0.25, True),
    "objective": ("objective at target clock", 0.005, True),
}


def compared(runs: Runs) -> dict[tuple[str, str], Sequence[RunRecord]]:
    """Return the real runs that are simulated: paced ones, whose workers each have a copy."""
    return {key: own for key, own in runs.items() if own[0].setting.model in _MODELS and own[0].setting.pace_s > 0}


def _ratios(runs: Runs) -> dict[str, float]:
    """Return, by condition, what a refresh costs beside a flush."""
    found = {}
    for condition in {condition for condition, _ in runs}:
        largest = max(
            own[0].setting.bound
            for (name, _), own in runs.items()
            if name == condition and own[0].setting.model == "ESSP"
        )
        lazy, eager = (runs[condition, f"{model}({largest:g})"] for model in ("SSP", "ESSP"))
        found[condition] = refresh_ratio(lazy, eager)
    return found


def tasks_of(runs: Runs, size: plan.Size) -> dict[tuple[str, str, int], Task]:
    """Return a simulated run for each real one, fed with its costs, by condition, label and repeat."""
    ratios, found = _ratios(runs), {}
    for (condition, label), own in runs.items():
        for repeat, run in enumerate(own):
            cluster = simulated.Cluster(1, fit(run, ratios[condition]))
            found[condition, label, repeat] = Task(run.setting, size, size.clocks, repeat, cluster)
    return found


def costs_of(runs: Runs) -> Costs:
    """Return what the workers without stragglers cost in SSP and ESSP, all together: for a cluster of such."""
    ratios = _ratios(runs)
    base = min(runs, key=lambda key: key[0] != "even")[0]
    chosen = [
        fit(run, ratios[condition])
        for (condition, _), own in runs.items()
        for run in own
        if condition == base and run.setting.model in ("SSP", "ESSP") and run.setting.bound
    ]
    return pooled(chosen)


def _quantities(run: RunRecord, clock: int) -> dict[str, float]:
    return {
        "waiting": run.shares()["waiting"],
        "clocks_per_second": run.clocks_per_second,
        "mean": run.differential.mean,
        "variance": run.differential.variance,
        "objective": run.objective_at(clock),
    }


def agreement(runs: Runs, again: Mapping[tuple[str, str, int], RunRecord], clock: int) -> dict[str, dict[str, Numbers]]:
    """Compare by condition and label: medians over the repeats of each quantity, real and simulated."""
    found: dict[str, dict[str, Numbers]] = {}
    for (condition, label), own in runs.items():
        pair = {"real": own, "simulated": [again[condition, label, repeat] for repeat in range(len(own))]}
        values = {name: [_quantities(run, clock) for run in some] for name, some in pair.items()}
        one: Numbers = {"model": own[0].setting.model, "bound": own[0].setting.bound}
        for quantity, (_, tolerance, relative) in _TOLERANCES.items():
            both = {name: spread([each[quantity] for each in some]) for name, some in values.items()}
            one[quantity] = both | _difference(both["real"]["median"], both["simulated"]["median"], tolerance, relative)
        one["objectives"] = {name: _along(some, clock) for name, some in pair.items()}
        found.setdefault(condition, {})[label] = one
    return found


def _along(runs: Sequence[RunRecord], clock: int) -> list[float | None]:
    """Return the objective at eight equal distances up to two times `clock`, medians."""
    clocks = np.linspace(0, 2 * clock, 9)[1:]
    return [rounded(statistics.median(run.objective_at(at) for run in runs)) for at in clocks]


def _difference(real: float | None, other: float | None, tolerance: float, relative: bool) -> Numbers:
    if real is None or other is None:  # diverged
        return {"difference": None, "relative_difference": None, "agrees": real is other}
    difference = other - real
    share = difference / abs(real) if real else None
    agrees = abs(difference) <= tolerance * (abs(real) if relative else 1)
    return {
        "difference": rounded(difference),
        "relative_difference": None if share is None else rounded(share),
        "agrees": bool(agrees),
    }


def sayings(grid: Mapping[str, Mapping[str, Numbers]]) -> list[str]:
    """Say for each quantity and condition how often real and simulated runs agree, and where not."""
    lines = []
    for quantity, (name, tolerance, relative) in _TOLERANCES.items():
        within = f"{100 * tolerance:g} % of the real one" if relative else f"{tolerance:g}"
        lines.append(f"Does the simulated {name} lie within {within}?")
        for condition, by_label in grid.items():
            wrong = [_wrong(label, one[quantity]) for label, one in by_label.items() if not one[quantity]["agrees"]]
            agreeing = len(by_label) - len(wrong)
            lines.append(
                f"    {condition}: {agreeing} of {len(by_label)}" + (f"; not {', '.join(wrong)}" if wrong else "")
            )
    return lines


def _wrong(label: str, one: Numbers) -> str:
    return f"{label} {_shown(one['real']['median'])} / {_shown(one['simulated']['median'])}"


def _shown(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.3g}"


def show(grid: Mapping[str, Mapping[str, Numbers]]) -> None:
    """Print real / simulated values of all quantities, with the relative difference."""
    for condition, by_label in grid.items():
        table = Table(title=f"{condition}: real / simulated (relative difference)")
        table.add_column("")
        for name, _, _ in _TOLERANCES.values():
            table.add_column(name, justify="right")
        for label, one in by_label.items():
            table.add_row(label, *[_cell(one[quantity]) for quantity in _TOLERANCES])
        console().print(table)


def _cell(one: Numbers) -> str:
    share = one["relative_difference"]
    text = f"{_shown(one['real']['median'])} / {_shown(one['simulated']['median'])}"
    return text if share is None else f"{text} ({100 * share:+.0f} %)"


def draw(grid: Mapping[str, Mapping[str, Numbers]], titles: Mapping[str, str]) -> Image.Image:
    """Figure 7: each quantity, real and simulated, for all models."""
    names = list(_TOLERANCES)
    figure, axes = figures.subplots(
        len(names), [titles[name] for name in grid], "Does the simulator show what real processes show?", height=1.9
    )
    for column, by_label in enumerate(grid.values()):
        places = np.arange(len(by_label))
        for row, quantity in enumerate(names):
            ax = axes[row, column]
            for shift, name, color in ((-0.12, "real", "black"), (0.12, "simulated", "tab:orange")):
                spreads = [one[quantity][name] for one in by_label.values()]
                middle, low, high = (np.array([one[end] for one in spreads], float) for end in ("median", "min", "max"))
                look = {"color": color, "marker": "o", "ms": 3, "ls": "", "capsize": 2, "lw": 1, "label": name}
                ax.errorbar(places + shift, middle, [middle - low, high - middle], **look)
            ax.set_xticks(
                places, list(by_label) if row == len(names) - 1 else [""] * len(by_label), rotation=90, fontsize=7
            )
            ax.grid(axis="x", color="whitesmoke")
            if column == 0:
                ax.set_ylabel(_TOLERANCES[quantity][0], fontsize=8)
    axes[0, 0].legend(fontsize=7)
    return figures.image(figure)
