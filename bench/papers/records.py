"""What one run is and what it leaves behind, whichever backend ran it.

A backend takes a `Setting` and returns a `RunRecord`. Figures and verdicts know nothing else of it, so that runs of
real processes and simulated ones can be drawn side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Straggler:
    """Sleeps injected into the clocks of workers; a sleeping worker leaves its core to the others.

    Attributes
    ----------
    kind : {"none", "constant", "random"}
        ``constant``: the worker of the highest rank sleeps in every clock. ``random``: every worker sleeps in a clock
        with probability `probability`, independently.
    sleep_s : float
    probability : float
        Of a sleep, for ``random``.
    """

    kind: str = "none"
    sleep_s: float = 0.0
    probability: float = 0.0

    def sleeps(self, rank: int, workers: int, clocks: int, seed: int) -> Floats:
        """Return the seconds that worker `rank` sleeps in each clock, shape (clocks,).

        They depend on the arguments only: every consistency model meets the same ones.
        """
        slow = np.zeros(clocks, bool)
        if self.kind == "constant":
            slow[:] = rank == workers - 1
        elif self.kind == "random":
            slow = np.random.default_rng([seed, rank]).random(clocks) < self.probability
        return np.where(slow, self.sleep_s, 0.0)

    def __str__(self) -> str:
        milliseconds = f"{1e3 * self.sleep_s:g} ms"
        texts = {
            "none": "no straggler",
            "constant": f"one worker sleeps {milliseconds} each clock",
            "random": f"each sleeps {milliseconds} with p = {self.probability:g}",
        }
        return texts[self.kind]


@dataclass(frozen=True)
class Setting:
    """What to run.

    Attributes
    ----------
    model : {"BSP", "SSP", "ESSP", "ASP", "VAP", "Hogwild", "single"}
        ``Hogwild`` and ``single`` write plainly into the one shared table, without a gate.
    bound : float, optional
        Staleness of SSP and ESSP, v0 of VAP.
    workers : int
    step : float
        Size of steps, where the application has any.
    straggler : Straggler
    pace_s : float
        Least length of a clock's computation; the worker sleeps for the rest.
    """

    model: str
    bound: float | None
    workers: int
    step: float
    straggler: Straggler
    pace_s: float = 0.0

    @property
    def label(self) -> str:
        """Name of the model, as in ``SSP(4)``."""
        return self.model if self.bound is None else f"{self.model}({self.bound:g})"


@dataclass(frozen=True)
class Trace:
    """Seconds of every clock of every worker; each array has shape (workers, clocks).

    Attributes
    ----------
    end_s : ndarray
        When the clock had ended, since the run began.
    compute_s : ndarray
        Computing, the pace's sleep included.
    cpu_s : ndarray
        CPU time of it. Without pace, wall time is longer with more workers than cores, which are then time-sliced.
    sleep_s : ndarray
        Injected.
    sync_s : ndarray
        Inside ``worker.clock()``: exchange of rows, and waiting.
    """

    end_s: Floats
    compute_s: Floats
    cpu_s: Floats
    sleep_s: Floats
    sync_s: Floats


@dataclass(frozen=True)
class Curve:
    """The training objective while the run went on; arrays of shape (snapshots,).

    `clocks` is the mean over the workers of the clocks completed when a snapshot was taken: work done, whoever did it.
    """

    seconds: Floats
    clocks: Floats
    objective: Floats
    rising: bool = False  # whether training makes the objective larger

    def at_clock(self, clock: float) -> float:
        """Return the objective at `clock`, between snapshots by linear interpolation."""
        return float(np.interp(clock, self.clocks, self.objective))

    def first_at(self, target: float, axis: Floats) -> float | None:
        """Return where on `axis` (`seconds` or `clocks`) the objective first comes to `target`; None if never.

        Between two snapshots the objective counts as linear.
        """
        hits = np.flatnonzero(self.objective >= target if self.rising else self.objective <= target)
        if hits.size == 0:
            return None
        n = int(hits[0])
        if n == 0:
            return float(axis[0])
        before, after = self.objective[n - 1], self.objective[n]
        share = (before - target) / (before - after) if math.isfinite(before) else 1.0
        return float(axis[n - 1] + share * (axis[n] - axis[n - 1]))


@dataclass(frozen=True)
class Differential:
    """Histogram of the clock differential: visible clock minus reader's clock, one read in each clock."""

    counts: dict[int, int]
    mean: float
    variance: float

    @staticmethod
    def from_counts(counts: dict[int, int]) -> Differential:
        """Compute mean and variance; NaN without reads."""
        reads = sum(counts.values())
        if reads == 0:
            return Differential({}, math.nan, math.nan)
        mean = sum(d * n for d, n in counts.items()) / reads
        return Differential(counts, mean, sum(n * (d - mean) ** 2 for d, n in counts.items()) / reads)


@dataclass(frozen=True)
class RunRecord:
    """What one run left behind.

    Attributes
    ----------
    backend : {"real", "simulated"}
    setting : Setting
    trace : Trace
    wait_s : ndarray, shape (workers,)
        Seconds each worker waited at gates.
    curve : Curve
    differential : Differential
    """

    backend: str
    setting: Setting
    trace: Trace
    wait_s: Floats
    curve: Curve
    differential: Differential

    @property
    def seconds(self) -> float:
        """Wall time until the last worker had completed its last clock."""
        return float(self.trace.end_s.max())

    @property
    def clocks_per_second(self) -> float:
        """Clocks of one worker in a second, mean over the workers."""
        return self.trace.end_s.shape[1] / self.seconds

    @property
    def final_objective(self) -> float:
        """Objective after the last clock; infinitely bad if it is not a number any more."""
        return self.objective_at(math.inf)

    def objective_at(self, clock: float) -> float:
        """Return the objective after `clock` clocks; infinitely bad if it was not a number then."""
        value = self.curve.at_clock(clock)
        worst = -math.inf if self.curve.rising else math.inf
        return value if math.isfinite(value) else worst

    @property
    def diverged(self) -> bool:
        """Whether the objective ended worse than it began, or is not a number."""
        final, first = self.final_objective, self.curve.objective[0]
        return bool(final < first if self.curve.rising else final > first)

    def shares(self) -> dict[str, float]:
        """Return the shares of all workers' time that went into computing, sleeping, exchanging and waiting."""
        wait = float(self.wait_s.sum())
        parts = {
            "computing": float(self.trace.compute_s.sum()),
            "sleeping": float(self.trace.sleep_s.sum()),
            "exchanging": max(0.0, float(self.trace.sync_s.sum()) - wait),
            "waiting": wait,
        }
        total = sum(parts.values())
        return {name: seconds / total for name, seconds in parts.items()}

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what a simulator needs to repeat the run, and what to compare it with."""
        trace = self.trace
        return {
            "backend": self.backend,
            "model": self.setting.model,
            "bound": self.setting.bound,
            "workers": self.setting.workers,
            "pace_s": self.setting.pace_s,
            "step": self.setting.step,
            "straggler": vars(self.setting.straggler),
            "seconds": rounded(self.seconds),
            "clocks": trace.end_s.shape[1],
            "clocks_per_second": rounded(self.clocks_per_second),
            "shares": {name: rounded(share) for name, share in self.shares().items()},
            "compute_s": distribution(trace.compute_s),
            "compute_cpu_s": distribution(trace.cpu_s),
            "sync_s": distribution(trace.sync_s),
            "exchange_s_mean": rounded(max(0.0, trace.sync_s.sum() - self.wait_s.sum()) / trace.sync_s.size),
            "differential": {
                "counts": {str(d): n for d, n in sorted(self.differential.counts.items())},
                "mean": rounded(self.differential.mean),
                "variance": rounded(self.differential.variance),
            },
            "final_objective": rounded(self.final_objective),
            "diverged": self.diverged,
        }


def distribution(seconds: Floats) -> dict[str, Any]:
    """Return mean and standard deviation of times."""
    return {"mean": rounded(seconds.mean()), "sd": rounded(seconds.std())}


def rounded(value: float) -> float | None:
    """Round to five significant digits; None, which JSON has, for what is not a finite number."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
