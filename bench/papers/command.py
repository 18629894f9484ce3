"""The experiments of the SSP paper (Ho et al., NIPS 2013) and the ESSP paper (Dai et al., AAAI 2015).

``python bench/papers --data ratings.dat --documents docword.txt.gz`` runs matrix factorization, LDA and the Lasso on
real processes; factorization also with 512 workers on 64 machines in the simulator, which then simulates the real runs
and says how well they agree. It prints the papers' questions with their answers, and writes for each application a
folder with a JSON and a PNG for each figure. What is not given is generated.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from measure import Options, console, in_turn, options, write
from rich.table import Table

from papers import agreement, experiments, figures, numbers, plan
from papers.application import Application
from papers.backends import Backend, Task, simulate, tasks_of
from papers.costs import Costs
from papers.experiments import EXPERIMENTS, Deal, Experiment
from papers.records import RunRecord
from papers.verdicts import Verdict, all_verdicts, shown, shown_objective


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    experiments.add_arguments(parser)
    parser.add_argument("--applications", help="comma-separated: which (default: all)")
    parser.add_argument("--only", choices=("real", "simulated"), help="one backend (default: both, and how they agree)")
    parser.add_argument(
        "--workers", type=int, default=plan.FULL.workers, help="of the paced runs (default %(default)s)"
    )


def choose(given: Options) -> dict[str, Experiment]:
    """Return the experiments asked for."""
    names = given.arguments.applications.split(",") if given.arguments.applications else list(EXPERIMENTS)
    unknown = sorted(set(names) - set(EXPERIMENTS))
    if unknown:
        raise SystemExit(f"--applications: unknown {', '.join(unknown)}; known: {', '.join(EXPERIMENTS)}")
    chosen = {name: EXPERIMENTS[name] for name in names}
    if given.arguments.only == "simulated":
        chosen = {name: one for name, one in chosen.items() if one.clusters}
        if not chosen:
            raise SystemExit(f"--only simulated: the simulator runs factorization, not {', '.join(names)}")
    return chosen


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


class Part(NamedTuple):
    """What one backend ran, as numbers of the figures, and with it what the figures need."""

    application: Application
    backend: str
    titles: dict[str, str]
    target: float
    clock: int
    objective: Any
    shares: Any
    speed: Any
    staleness: Any
    cells: list[dict[str, Any]]

    @staticmethod
    def of(application: Application, backend: str, sizes: list[plan.Size], runs: numbers.Runs, mapped: Any) -> Part:
        """Compute the numbers of all figures from runs by condition and label, and those of the map."""
        clock = sizes[0].target_clock
        target = numbers.target_objective(runs, clock)
        titles = {c.name: f"{backend}: {c.title}" for size in sizes for c in plan.conditions(size)}
        computed = (numbers.objective(runs, target), numbers.time_shares(runs), numbers.quantity_quality(runs, clock))
        stale, cells = numbers.staleness(runs), numbers.divergence(mapped)
        return Part(application, backend, titles, target, clock, *computed, stale, cells)

    def images(self) -> dict[str, Any]:
        """Draw every figure; that of divergence where there are steps to choose."""
        scale = figures.Scale.of(self.application.quantity, self.application.rising, self.objective)
        drawn = {
            "1_objective": figures.draw_objective(self.objective, self.titles, self.target, scale),
            "2_shares": figures.draw_shares(self.shares, self.titles),
            "3_quantity_quality": figures.draw_quantity_quality(self.speed, self.titles, self.clock, scale),
            "4_staleness": figures.draw_staleness(self.staleness, self.titles),
        }
        if self.cells:
            drawn["5_divergence"] = figures.draw_divergence(self.cells, self.titles)
        return drawn | {"6_target": figures.draw_target(self.objective, self.titles)}

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers by figure."""
        known = {
            "1_objective, 6_target": self.objective,
            "2_shares": self.shares,
            "3_quantity_quality": self.speed,
            "4_staleness": self.staleness,
        }
        return known | ({"5_divergence": self.cells} if self.cells else {})

    def verdicts(self) -> list[Verdict]:
        """Print the tables, and the papers' questions with their answers; return these."""
        show(self.objective, self.speed, self.shares, self.staleness, self.titles, self.target)
        grids = self.objective, self.shares, self.speed, self.staleness, self.cells
        found = all_verdicts(*grids, self.application.rising)
        for verdict in found:
            console().print(f"{self.backend}: {verdict}", highlight=False, soft_wrap=True)
        return found


def run_real(deal: Deal, size: plan.Size, repeats: int) -> tuple[numbers.Runs, Part]:
    """Run everything on real processes."""
    backend = Backend(deal, size)
    ran = in_turn(backend.candidates(plan.grid(size), size.clocks), repeats)
    mapped = in_turn(backend.candidates(plan.divergence(size), size.target_clock), min(repeats, 2))
    runs = with_singles(ran, size)
    return ran, Part.of(deal(1, size.rank), "real", [size], runs, mapped)


def run_simulated(deal: Deal, sizes: list[plan.Size], costs: Costs, smoke: bool) -> tuple[numbers.Runs, Part]:
    """Run everything in the simulator, once: it has no noise."""
    tasks: dict[Any, Task] = {}
    for size in sizes:
        tasks |= tasks_of(plan.grid(size), size, size.clocks, costs)
        tasks |= tasks_of(plan.divergence(size), size, size.target_clock, costs)
    done = {key: [run] for key, run in simulate(deal, tasks, smoke).items()}
    ran = {key: own for key, own in done.items() if len(key) == 2}
    runs = {key: own for size in sizes for key, own in with_singles(_of_size(ran, size), size).items()}
    mapped = {key: own for key, own in done.items() if len(key) == 3}
    return ran, Part.of(deal(1, sizes[0].rank), "simulated", sizes, runs, mapped)


def _of_size(runs: numbers.Runs, size: plan.Size) -> dict[Any, Any]:
    names = {c.name for c in plan.conditions(size)}
    return {key: own for key, own in runs.items() if key[0] in names}


def compare(deal: Deal, ran: numbers.Runs, size: plan.Size, smoke: bool) -> dict[str, Any]:
    """Simulate the real runs, print both, and return the comparison by condition and label."""
    real = agreement.compared(ran)
    again = simulate(deal, agreement.tasks_of(real, size), smoke)
    grid = agreement.agreement(real, again, size.target_clock)
    agreement.show(grid)
    return grid


def finish(parts: list[Part], grid: dict[str, Any] | None, about: dict[str, Any], given: Options) -> None:
    """Draw the figures, all backends in each, and write the numbers."""
    given.out.mkdir(parents=True, exist_ok=True)
    drawn = [part.images() for part in parts]
    for name in drawn[0]:
        figures.save([images[name] for images in drawn], given.out / f"{name}.png")
    verdicts = {part.backend: [verdict.to_dict() for verdict in part.verdicts()] for part in parts}
    numbers_of = {part.backend: part.to_dict() for part in parts}
    content = {name: {backend: by[name] for backend, by in numbers_of.items()} for name in parts[0].to_dict()}
    if grid is not None:
        figures.save([agreement.draw(grid, parts[0].titles)], given.out / "7_agreement.png")
        content["7_agreement"] = grid
        about["agreement"] = agreement.sayings(grid)
        console().print("\n".join(about["agreement"]), highlight=False, soft_wrap=True)
    targets = {part.backend: {"objective": part.target, "clock": part.clock} for part in parts}
    write("papers", about | {"target": targets, "verdicts": verdicts, "figures": content}, given)
    compact(given.out / "papers.json")


def compact(path: Path) -> None:
    """Put each list, and each dictionary in which there is no other, on one line: a third of the bytes."""
    text = path.read_text()
    for innermost in (r"\[[^\[\]{}]*\]", r"\{[^{}]*\}"):
        text = re.sub(innermost, lambda found: re.sub(r"\n\s*", "", found.group(0)), text)
    path.write_text(text)


def run(name: str, experiment: Experiment, given: Options) -> None:
    """Run the experiments of an application, print them, write them."""
    size = experiment.smoke if given.smoke else replace(experiment.full, workers=given.arguments.workers)
    clusters = list(experiment.smoke_clusters if given.smoke else experiment.clusters)
    data, only = experiment.load(given), given.arguments.only
    console().rule(f"{name}: {data.name}")
    about: dict[str, Any] = {"application": name, "data": data.name, **data.about, "size": vars(size)}
    about["clusters"] = [vars(one) for one in clusters]
    began = time.perf_counter()
    parts, records, grid, costs = [], [], None, plan.COSTS
    if only != "simulated":
        ran, part = run_real(data.deal, size, given.repeats)
        parts.append(part)
        records += described(ran)
        about["seconds_of_real"] = round(time.perf_counter() - began, 1)
    if clusters and only is None:
        costs = agreement.costs_of(agreement.compared(ran))
    if clusters and only != "real":
        simulated, part = run_simulated(data.deal, clusters, costs, given.smoke)
        parts.append(part)
        records += described(simulated)
        about["costs"] = costs.to_dict()
    if clusters and only is None:
        grid = compare(data.deal, ran, size, given.smoke)
    about["titles"] = {name: title for part in parts for name, title in part.titles.items()}
    about["seconds_of_all"] = round(time.perf_counter() - began, 1)
    write("runs", about | {"runs": records}, given)
    compact(given.out / "runs.json")
    finish(parts, grid, about, given)


def main() -> None:
    """Run every application, each into a folder of its own."""
    given = options(__doc__, repeats=2, add=add_arguments)
    out = given.out / "papers" if given.arguments.out is None and not given.smoke else given.out
    for name, experiment in choose(given).items():
        run(name, experiment, replace(given, out=out / name))


def described(runs: numbers.Runs) -> list[dict[str, Any]]:
    """Return what JSON has of each run."""
    return [run.to_dict() | {"condition": condition} for (condition, _), own in runs.items() for run in own]
