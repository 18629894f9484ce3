"""Matrix factorization on real ratings, side by side: error, seconds and epochs to a given error, ratings per second.

The systems take turns; each trains from scratch every time. *Training seconds* leave out reading, sorting and
evaluation, for all alike; *total seconds* are everything from the ratings in memory to the factors. A system that is
not installed gets a line that says so.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from measure import Options, console, in_turn, options, significant, summary, write
from peers import libmf
from rich.table import Table
from systems import NBPS, YARDSTICK, Run, System, all_systems

from nbps.data import Ratings, generate_ratings, read_ratings

_TEST_FRACTION, _SPLIT_SEED = 0.1, 0
_ONCE = ("torch", "ray")  # far behind and slow: one turn tells enough


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument(
        "--data", type=Path, help="ratings file, for instance ml-1m (default: generated ratings of that shape)"
    )
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--goal", type=float, default=0.8455, help="test RMSE to pass (default %(default)s, for ml-1m at rank 32)"
    )
    parser.add_argument("--peers", help="comma-separated: which systems (default: all)")
    libmf.add_arguments(parser)


def read(given: Options) -> tuple[str, Ratings, Ratings]:
    """Return a name for the data, and its parts to train on and to test with."""
    if given.arguments.data is not None and not given.smoke:
        name, ratings = given.arguments.data.name, read_ratings(given.arguments.data)
    else:
        users, items, count = given.size(6040, 300), given.size(3706, 200), given.size(1_000_209, 8_000)
        name, ratings = f"generated, {users} x {items}", generate_ratings(users=users, items=items, ratings=count)
    return name, *ratings.split(_TEST_FRACTION, _SPLIT_SEED)


def choose(given: Options) -> tuple[list[System], list[System]]:
    """Return the systems that run, and those asked for that cannot."""
    systems = all_systems(given.arguments)
    names = given.arguments.peers.split(",") if given.arguments.peers else list(systems)
    unknown = sorted(set(names) - set(systems))
    if unknown:
        raise SystemExit(f"--peers: unknown {', '.join(unknown)}; known: {', '.join(systems)}")
    chosen = [systems[name] for name in names]
    return [s for s in chosen if s.missing is None], [s for s in chosen if s.missing is not None]


def describe(runs: list[Run], goal: float) -> dict[str, Any]:
    """Sum up the runs of one system."""
    errors = [[epoch.test_rmse for epoch in run.epochs if epoch.test_rmse is not None] for run in runs]
    passed = [next((e for e in run.epochs if (e.test_rmse or goal + 1) <= goal), None) for run in runs]
    hits = [epoch for epoch in passed if epoch is not None]
    all_passed = len(hits) == len(runs)
    return {
        "best_test_rmse": summary([min(own) for own in errors]),
        "last_test_rmse": summary([own[-1] for own in errors]),
        "ratings_per_second": summary([statistics.median(e.ratings_per_second for e in run.epochs) for run in runs]),
        "epochs_to_goal": summary([float(e.epoch) for e in hits]) if all_passed else None,
        "seconds_to_goal": summary([e.train_seconds for e in hits]) if all_passed else None,
        "train_seconds": summary([run.epochs[-1].train_seconds for run in runs]),
        "total_seconds": summary([run.total_seconds for run in runs]),
        "epochs": [[vars(epoch) for epoch in run.epochs] for run in runs],
    }


def yardstick_epoch_seconds(runs: dict[str, list[Run]]) -> float | None:
    """Return the median seconds of an epoch of the yardstick, if it ran."""
    if YARDSTICK not in runs:
        return None
    return statistics.median(run.epochs[-1].train_seconds / len(run.epochs) for run in runs[YARDSTICK])


def show(
    title: str,
    found: dict[str, dict[str, Any]],
    present: list[System],
    absent: list[System],
    goal: float,
    unit: float | None,
) -> None:
    """Print the comparison."""
    table = Table(title=title)
    headings = (
        "best RMSE",
        f"epochs to {goal:g}",
        "seconds",
        "yardstick epochs",
        "M ratings/s",
        "min",
        "max",
        "total s",
    )
    for heading in ("", *headings):
        table.add_column(heading, justify="right" if heading else "left")
    for name, one in found.items():
        hit = one["seconds_to_goal"]
        speed = one["ratings_per_second"]
        table.add_row(
            name,
            f"{one['best_test_rmse']['median']:.4f}",
            "-" if hit is None else f"{one['epochs_to_goal']['median']:g}",
            "-" if hit is None else significant(hit["median"]),
            "-" if hit is None or unit is None else f"{hit['median'] / unit:.1f}",
            *(significant(speed[key] / 1e6) for key in ("median", "min", "max")),
            significant(one["total_seconds"]["median"]),
        )
    for system in absent:
        table.add_row(system.name, str(system.missing))
    console().print(table)
    for system in present:
        if system.told:
            console().print(f"{system.name}: {system.told}", highlight=False)


def targets(found: dict[str, dict[str, Any]], unit: float | None) -> dict[str, bool]:
    """Return which of the project's targets are reached, as far as this run can tell."""
    own = found.get(NBPS)
    if own is None:
        return {}
    reached = {"test RMSE <= 0.845": own["best_test_rmse"]["median"] <= 0.845}
    hit = own["seconds_to_goal"]
    if "libmf" in found and found["libmf"]["seconds_to_goal"] is not None:
        theirs = found["libmf"]["seconds_to_goal"]["median"]
        reached["goal passed in less training time than LIBMF"] = hit is not None and hit["median"] < theirs
    if unit is not None:
        reached["goal passed within 12 yardstick epochs"] = hit is not None and hit["median"] <= 12 * unit
    return reached


def main() -> None:
    """Run the comparison, print it, write ``mf.json``."""
    given = options(__doc__, repeats=5, add=add_arguments)
    name, train, test = read(given)
    epochs, workers, goal = given.size(given.arguments.epochs, 2), given.arguments.workers, given.arguments.goal
    present, absent = choose(given)

    def candidates(systems: list[System]) -> dict[str, Any]:
        return {s.name: partial(s.run, train, test, given.arguments.rank, epochs, workers) for s in systems}

    frequent = [system for system in present if system.name not in _ONCE]
    in_turn(candidates([s for s in frequent if s.name.startswith(NBPS) and not given.smoke]), 1)  # compiles kernels
    runs: dict[str, list[Run]] = in_turn(candidates(frequent), given.repeats)
    runs |= in_turn(candidates([system for system in present if system.name in _ONCE]), 1)
    found = {system: describe(own, goal) for system, own in runs.items()}
    unit = yardstick_epoch_seconds(runs)
    title = f"{name}: {len(train):,} ratings, rank {given.arguments.rank}, {epochs} epochs, {workers} workers"
    show(title, found, present, absent, goal, unit)
    reached = targets(found, unit)
    # Only ml-1m has these targets; on other data the lines would mean nothing.
    if given.arguments.data is not None and not given.smoke:
        for target, yes in reached.items():
            console().print(f"{target}: {'reached' if yes else 'NOT reached'}", highlight=False)
    write(
        "mf",
        {
            "data": name,
            "train_ratings": len(train),
            "rank": given.arguments.rank,
            "workers": workers,
            "goal": goal,
            "yardstick_epoch_seconds": unit,
            "systems": found,
            "options": {system.name: system.told for system in present if system.told},
            "missing": {system.name: system.missing for system in absent},
            "targets": reached,
        },
        given,
    )


if __name__ == "__main__":
    main()
