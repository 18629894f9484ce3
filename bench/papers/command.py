"""The experiments of the SSP paper (Ho et al., NIPS 2013) and the ESSP paper (Dai et al., AAAI 2015) on real processes.

``python bench/papers --data ratings.dat`` runs them all, prints the papers' questions with their answers, and writes a
JSON and a PNG for each figure. Without ``--data`` the ratings are generated in the shape of ml-1m.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import Options, console, in_turn, options, write
from rich.table import Table

from nbps.data import Ratings, generate_ratings, read_ratings
from papers import figures, numbers, plan, real
from papers.application import DECAY, SAMPLE, Problem
from papers.records import RunRecord, Setting
from papers.verdicts import all_verdicts, shown, shown_objective


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--data", type=Path, help="ratings file (default: generated ratings in the shape of ml-1m)")
    parser.add_argument(
        "--workers", type=int, default=plan.FULL.workers, help="of the paced runs (default %(default)s)"
    )


def read(given: Options) -> tuple[str, Ratings]:
    """Return a name for the data, and the ratings: all of them train."""
    if given.arguments.data is not None and not given.smoke:
        return given.arguments.data.parent.name, read_ratings(given.arguments.data)
    users, items, count = given.size(6040, 300), given.size(3706, 200), given.size(1_000_209, 8_000)
    return f"generated, {users} x {items}", generate_ratings(users=users, items=items, ratings=count)


class Backend:
    """Runs settings on real processes, and says so line by line."""

    def __init__(self, name: str, ratings: Ratings, size: plan.Size) -> None:
        self._size = size
        self._problem = functools.cache(lambda workers: Problem.of(name, ratings, workers))
        self._turns: dict[Any, int] = {}

    def candidates(self, settings: Mapping[Any, Setting], clocks: int) -> dict[Any, Any]:
        """Return a call without arguments for each setting; its n-th call injects the n-th series of sleeps."""
        return {key: functools.partial(self._run, key, setting, clocks) for key, setting in settings.items()}

    def _run(self, key: Any, setting: Setting, clocks: int) -> RunRecord:
        seed = self._turns[key] = self._turns.get(key, -1) + 1
        began = time.perf_counter()
        size = self._size
        problem = self._problem(setting.workers)
        snapshots = size.snapshots * clocks // size.clocks
        record = real.run(problem, setting, size.rank, clocks, size.clocks_per_epoch, snapshots, seed)
        whole = time.perf_counter() - began
        text = f"objective {record.final_objective:.4f} after {record.seconds:.2f} s ({whole:.1f} s with start and end)"
        console().print(f"{seed + 1}. {key}: {text}", highlight=False, soft_wrap=True)
        return record


def with_singles(runs: dict[tuple[str, str], list[RunRecord]], size: plan.Size) -> numbers.Runs:
    """Give every paced condition the single worker's runs: nobody straggles there, so one of them had it run."""
    paced = [c.name for c in plan.conditions(size) if c.pace_s > 0]
    ran = next((name for name in paced if (name, plan.SINGLE) in runs), None)
    copies = {(name, plan.SINGLE): runs[ran, plan.SINGLE] for name in paced} if ran else {}
    return {key: (runs | copies)[key] for key in [*runs, *copies]}


def show(grid: Any, speed: Any, shares: Any, staleness: Any, titles: Mapping[str, str], target: float) -> None:
    """Print a table for each condition."""

    def middle(spread: dict[str, Any]) -> str:
        return shown(spread).split()[0]

    for name, by_label in grid.items():
        table = Table(title=f"{titles[name]}: to the objective {target:.4f}; medians, (minimum to maximum)")
        headings = (
            "",
            "seconds",
            "clocks",
            "clocks/s",
            "share waiting",
            "differential: mean",
            "variance",
            "final objective",
        )
        for heading in headings:
            table.add_column(heading, justify="right" if heading else "left")
        for label, one in by_label.items():
            stale = staleness[name].get(label)
            table.add_row(
                label,
                shown(one["seconds_to_target"]),
                *map(middle, (one["clocks_to_target"], speed[name][label]["clocks_per_second"])),
                middle(shares[name][label]["shares"]["waiting"]),
                *(("", "") if stale is None else (middle(stale["mean"]), middle(stale["variance"]))),
                shown_objective(one["final_objective"]).split()[0],
            )
        console().print(table)


def summarise(
    runs: numbers.Runs, cells: list[dict[str, Any]], size: plan.Size, about: dict[str, Any], given: Options
) -> None:
    """Draw and write the figures, print the tables and the verdicts."""
    clock = size.target_epochs * size.clocks_per_epoch
    target = numbers.target_objective(runs, clock)
    titles = {c.name: c.title for c in plan.conditions(size)}
    objective, shares = numbers.objective(runs, target), numbers.time_shares(runs)
    speed, stale = numbers.quantity_quality(runs, clock), numbers.staleness(runs)
    given.out.mkdir(parents=True, exist_ok=True)

    def path(name: str) -> Path:
        return given.out / f"{name}.png"

    figures.draw_objective(objective, titles, target, path("1_objective"))
    figures.draw_shares(shares, titles, path("2_shares"))
    figures.draw_quantity_quality(speed, titles, clock, path("3_quantity_quality"))
    figures.draw_staleness(stale, titles, path("4_staleness"))
    figures.draw_divergence(cells, titles, path("5_divergence"))
    figures.draw_target(objective, titles, path("6_target"))
    show(objective, speed, shares, stale, titles, target)
    verdicts = all_verdicts(objective, shares, speed, stale, cells)
    for verdict in verdicts:
        console().print(str(verdict), highlight=False, soft_wrap=True)
    content = {
        "target": {"objective": target, "clock": clock},
        "verdicts": [verdict.to_dict() for verdict in verdicts],
        "figures": {
            "1_objective, 6_target": objective,
            "2_shares": shares,
            "3_quantity_quality": speed,
            "4_staleness": stale,
            "5_divergence": cells,
        },
    }
    write("papers", about | content, given)


def main() -> None:
    """Run everything, print it, write it."""
    given = options(__doc__, repeats=3, add=add_arguments)
    if given.arguments.out is None and not given.smoke:
        given = replace(given, out=given.out / "papers")
    size = plan.SMOKE if given.smoke else replace(plan.FULL, workers=given.arguments.workers)
    name, ratings = read(given)
    backend = Backend(name, ratings, size)
    began = time.perf_counter()
    ran = in_turn(backend.candidates(plan.grid(size), size.clocks), given.repeats)
    runs = with_singles(ran, size)
    map_clocks = size.target_epochs * size.clocks_per_epoch
    map_repeats = min(given.repeats, 2)
    mapped = in_turn(backend.candidates(plan.divergence(size), map_clocks), map_repeats)
    about = {
        "data": name,
        "ratings": len(ratings),
        "size": vars(size),
        "step": plan.STEP,
        "decay": DECAY,
        "objective_sample": min(SAMPLE, len(ratings)),
        "conditions_titles": {c.name: c.title for c in plan.conditions(size)},
    }
    about["seconds_of_all"] = round(time.perf_counter() - began, 1)
    summarise(runs, numbers.divergence(mapped), size, about, given)
    records = [run.to_dict() | {"condition": condition} for (condition, _), own in ran.items() for run in own]
    write("runs", about | {"runs": records}, given)
