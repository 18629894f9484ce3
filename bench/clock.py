"""Speed of the clock: tick and gate from process to process and back, ``worker.clock()`` and ``worker.sum()``.

The round trips run in compiled loops over `nbps.kernels.board`; ``worker.clock()`` is called from Python, as users do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import clock_loops
import numpy as np
from measure import Line, Options, in_turn, options, report

import nbps
from nbps.runtime.board import Board

_TARGET_SPINNING_US, _TARGET_PARKED_US = 0.5, 15.0
_FOREVER = 1 << 40


def measure(given: Options) -> list[Line]:
    """Alternate between the ways to hand a clock over."""
    with contextlib.ExitStack() as stack:
        pair = stack.enter_context(nbps.Job([], workers=2, consistency=nbps.ASP()))
        strict = stack.enter_context(nbps.Job([], workers=2, consistency=nbps.BSP()))
        alone = stack.enter_context(nbps.Job([], workers=1, consistency=nbps.BSP()))
        board = Board(2)
        stack.callback(board.segment.unlink)

        def trips(rounds: int, spins: int) -> Callable[[], float]:
            return lambda: max(pair.run(clock_loops.round_trip_us, board.segment.name, rounds, spins))

        def clocks(job: nbps.Job) -> Callable[[], float]:
            rounds = given.size(5_000, 100)
            return lambda: max(job.run(clock_loops.clock_us, rounds))

        many = np.ones(100_000)
        candidates = {
            "tick and gate, there and back, spinning": trips(given.size(100_000, 500), _FOREVER),
            "tick and gate, there and back, parked": trips(given.size(10_000, 100), 0),
            "worker.clock(), BSP, 2 workers": clocks(strict),
            "worker.clock(), 1 worker": clocks(alone),
            "worker.sum(number), 2 workers": lambda: max(strict.run(clock_loops.sum_us, 0.5, given.size(5_000, 100))),
            "worker.sum(number), 1 worker": lambda: max(alone.run(clock_loops.sum_us, 0.5, given.size(5_000, 100))),
            "worker.sum(100,000 floats), 2 workers": lambda: max(
                strict.run(clock_loops.sum_us, many, given.size(20, 2))
            ),
        }
        in_turn(candidates, 1)
        samples = in_turn(candidates, given.repeats)
    targets = dict(zip(samples, (_TARGET_SPINNING_US, _TARGET_PARKED_US), strict=False))
    return [Line(name, "us", values, target=targets.get(name)) for name, values in samples.items()]


def main() -> None:
    """Measure, print, write ``clock.json``."""
    given = options(__doc__, repeats=9)
    report("clock", "The clock", measure(given), given)


if __name__ == "__main__":
    main()
