"""Matrix factorization with 1 and with 2 workers on ten million generated ratings: ratings per second and their ratio.

The set does not fit a cache, so this shows whether the order of the ratings does. LIBMF with 1 and 2 threads beside it,
where found. And on as many where one user has half of all: whether the work is dealt out evenly then.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Callable

import numpy as np
from measure import Line, Options, in_turn, options, report
from peers import Epoch, libmf
from systems import train_nbps

from nbps.data import Ratings, generate_ratings

_TARGET_SCALING, _TARGET_SPEED = 1.7, 70.0
_TARGET_HEAVY = 1.6  # where a user has half of all ratings, and a worker to herself


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--epochs", type=int, default=6, help="of each training; the first is left out")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--schedule", default="rotate", choices=("rotate", "cached", "direct"))
    libmf.add_arguments(parser)


def with_heavy_user(ratings: Ratings) -> Ratings:
    """Return as many ratings, half of which, taken at random, are the first user's."""
    users = ratings.users.copy()
    users[np.random.default_rng(0).random(users.size) < 0.5] = 0
    return dataclasses.replace(ratings, users=users)


def million_per_second(epochs: list[Epoch]) -> float:
    """Return the median speed, without the first epoch, in which memory is touched for the first time."""
    return statistics.median(epoch.ratings_per_second for epoch in epochs[1:] or epochs) / 1e6


def measure(given: Options) -> list[Line]:
    """Train with 1 and 2 workers in turn."""
    users, items, count = given.size(72_000, 300), given.size(10_700, 200), given.size(10_000_000, 8_000)
    data = generate_ratings(users=users, items=items, ratings=count)
    heavy = with_heavy_user(data)
    rank, epochs = given.arguments.rank, given.size(given.arguments.epochs, 2)
    foreign = libmf.Libmf(given.arguments)

    def nbps_run(workers: int, ratings: Ratings = data) -> Callable[[], float]:
        return lambda: million_per_second(train_nbps(given.arguments.schedule, ratings, None, rank, epochs, workers))

    def libmf_run(threads: int) -> Callable[[], float]:
        return lambda: million_per_second(foreign.train(data, None, rank, epochs, threads))

    candidates = {"nbps, 1 worker": nbps_run(1), "nbps, 2 workers": nbps_run(2)}
    candidates |= {f"one user has half, {name}": nbps_run(n, heavy) for n, name in ((1, "1 worker"), (2, "2 workers"))}
    if foreign.program:
        candidates |= {"libmf, 1 thread": libmf_run(1), "libmf, 2 threads": libmf_run(2)}
    samples = in_turn(candidates, given.repeats)
    lines = []
    for name, speeds in samples.items():
        target = _TARGET_SPEED if name == "nbps, 2 workers" else None
        note = foreign.told(rank) if name.startswith("libmf") else ""
        lines.append(Line(name, "M ratings/s", speeds, target=target, at_least=True, note=note))
    for system, unit, target in (
        ("nbps", "worker", _TARGET_SCALING),
        ("one user has half", "worker", _TARGET_HEAVY),
        ("libmf", "thread", None),
    ):
        one, two = f"{system}, 1 {unit}", f"{system}, 2 {unit}s"
        if one in samples:
            # Of neighbours in time: both had the same share of the machine.
            ratios = [b / a for a, b in zip(samples[one], samples[two], strict=True)]
            lines.append(Line(f"{system}, 2 over 1", "x", ratios, target=target, at_least=True))
    return lines


def main() -> None:
    """Measure, print, write ``mf_scale.json``."""
    given = options(__doc__, repeats=5, add=add_arguments)
    report("mf_scale", "Scaling of matrix factorization, 10 million ratings", measure(given), given)


if __name__ == "__main__":
    main()
