"""What a clock costs: fitted to measured runs, drawn from in simulated ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from papers.records import Floats, RunRecord, rounded


@dataclass(frozen=True)
class Costs:
    """Seconds of the parts of a clock.

    Attributes
    ----------
    floor_s, mean_s, sd_s : ndarray, shape (workers,)
        Computing: the least ever, mean and standard deviation. Drawn independently in each clock: the floor and a
        log-normal excess, because sleeps end late, seldom by much, and never early.
    start_s : ndarray, shape (workers,)
        When a worker begins. Who begins late stays behind, as all are equally fast.
    flush_s, refresh_s : float
        Sending what a copy has, and taking in what is shared.
    """

    floor_s: Floats
    mean_s: Floats
    sd_s: Floats
    start_s: Floats
    flush_s: float
    refresh_s: float

    def computing(self, rank: int, clocks: int, seed: int) -> Floats:
        """Draw the seconds of worker `rank`, shape (clocks,); the same for all models."""
        excess = float(self.mean_s[rank] - self.floor_s[rank])
        if excess <= 0 or self.sd_s[rank] <= 0:
            return np.full(clocks, self.mean_s[rank])
        variance = np.log1p((self.sd_s[rank] / excess) ** 2)
        draw = np.random.default_rng([seed, rank, 1])
        return self.floor_s[rank] + draw.lognormal(np.log(excess) - variance / 2, np.sqrt(variance), clocks)

    def of_workers(self, workers: int) -> Costs:
        """Return the costs of `workers` workers who differ by chance only, and begin as these did."""
        pooled = float(np.sqrt(np.mean(self.sd_s**2) + np.var(self.mean_s)))
        many = [np.full(workers, value) for value in (self.floor_s.min(), self.mean_s.mean(), pooled)]
        starts = np.random.default_rng(0).choice(self.start_s, workers)
        return Costs(*many, starts, self.flush_s, self.refresh_s)

    def of_single(self, workers: int) -> Costs:
        """Return the costs of one worker who does the work of `workers` and exchanges nothing."""
        one = self.of_workers(1)
        return Costs(workers * one.floor_s, workers * one.mean_s, workers**0.5 * one.sd_s, np.zeros(1), 0.0, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: means over the workers."""
        return {name: rounded(float(np.mean(value))) for name, value in vars(self).items()}


def fit(run: RunRecord, refresh_ratio: float) -> Costs:
    """Return the costs of one measured run.

    Parameters
    ----------
    run : RunRecord
    refresh_ratio : float
        Seconds of a refresh beside those of a flush: see `refresh_ratio`. A run tells only their sum.
    """
    trace, setting = run.trace, run.setting
    busy = trace.compute_s[:, 0] + trace.sleep_s[:, 0] + trace.sync_s[:, 0]
    flush = exchange_s(run) / (1 + refresh_ratio * _refreshes(setting.model, setting.bound))
    return Costs(
        np.minimum(trace.compute_s.min(axis=1), trace.compute_s.mean(axis=1)),
        trace.compute_s.mean(axis=1),
        trace.compute_s.std(axis=1),
        np.maximum(trace.end_s[:, 0] - busy, 0.0),
        flush,
        refresh_ratio * flush,
    )


def pooled(runs: Sequence[Costs]) -> Costs:
    """Return costs whose workers are those of all `runs`."""
    arrays = {
        name: np.concatenate([getattr(one, name) for one in runs]) for name in ("floor_s", "mean_s", "sd_s", "start_s")
    }
    means = {name: float(np.mean([getattr(one, name) for one in runs])) for name in ("flush_s", "refresh_s")}
    return replace(runs[0], **arrays, **means)


def exchange_s(run: RunRecord) -> float:
    """Return the mean seconds of a clock that were neither computing nor waiting."""
    return max(0.0, float(run.trace.sync_s.sum() - run.wait_s.sum())) / run.trace.sync_s.size


def _refreshes(model: str, bound: float | None) -> float:
    """Return refreshes in a clock: SSP takes in only what is too old."""
    return 1 / (bound + 1) if model == "SSP" and bound is not None else 1.0


def refresh_ratio(lazy: Sequence[RunRecord], eager: Sequence[RunRecord]) -> float:
    """Return seconds of a refresh over those of a flush, from SSP and ESSP at the same large staleness.

    ESSP refreshes in every clock, SSP seldom, and both flush in every one: two equations.
    """
    seldom = _refreshes("SSP", lazy[0].setting.bound)
    rare, often = (float(np.median([exchange_s(run) for run in runs])) for runs in (lazy, eager))
    refresh = max(0.0, (often - rare) / (1 - seldom))
    return refresh / max(often - refresh, 1e-9)
