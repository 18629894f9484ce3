"""Choice of a staleness from what short trial runs measure: how long workers wait, and how old their reads are."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nbps.checks import whole
from nbps.consistency import ESSP, SSP
from nbps.errors import ConfigError
from nbps.job.job import Job
from nbps.job.report import Report
from nbps.nodes.nodes import Nodes
from nbps.tables.definition import Table


@dataclass(frozen=True)
class StalenessTrial:
    """What was measured under one staleness.

    Attributes
    ----------
    staleness : int or math.inf
    wait_share : float
        Share of all workers' time spent waiting, 0 to 1.
    mean_differential : float
        Mean clock differential of the reads: minus the number of clocks that they missed.
    clocks_per_second : float
        Of all workers together.
    """

    staleness: float
    wait_share: float
    mean_differential: float
    clocks_per_second: float


@dataclass(frozen=True)
class StalenessChoice:
    """What `auto_staleness` returns; ``str(choice)`` is a table of the trials and the reason.

    Attributes
    ----------
    staleness : int or math.inf
        To be used as in ``Job(..., consistency=nbps.ESSP(choice.staleness))``.
    reason : str
    trials : tuple of StalenessTrial
        In the order in which they ran, from the smallest staleness on.
    """

    staleness: float
    reason: str
    trials: tuple[StalenessTrial, ...]

    def __str__(self) -> str:
        lines = ["staleness  waiting  differential mean  clocks/s"]
        for trial in self.trials:
            chosen = "  <-" * (trial.staleness == self.staleness)
            lines.append(
                f"{trial.staleness:9}  {trial.wait_share:7.1%}  {trial.mean_differential:17.2f}"
                f"  {trial.clocks_per_second:8.0f}{chosen}"
            )
        return "\n".join([*lines, self.reason])


# Long because it takes, and documents, what a job takes besides its own parameters.
def auto_staleness(
    function: Callable[..., object],
    *args: Any,
    tables: Sequence[Table],
    workers: int | None = None,
    model: type[SSP] = ESSP,
    candidates: Iterable[float] = (0, 1, 2, 4, 8, 16),
    repeats: int = 3,
    tolerance: float = 0.02,
    **options: Any,
) -> StalenessChoice:
    """Choose a staleness by running ``function(worker, *args)`` under several.

    The rule: the smallest staleness under which the workers' share of time spent waiting is at most `tolerance` above
    the lowest share of all trials. A larger one would let reads be older without making the run faster.

    Each candidate gets a job of its own with fresh tables, so no job of yours is touched. In it `function` runs once
    unmeasured, which compiles what it compiles, and `repeats` times measured; medians count. It should take a few dozen
    clocks, of the work that the real run does in a clock. Candidates rise; none is tried any more once the share is
    within `tolerance` of 0, since no other could be better by more than that.

    Parameters
    ----------
    function, *args
        As for `Job.run`; results are dropped.
    tables : sequence of Table
    workers : int, optional
        All usable cores by default.
    model : ESSP or SSP
        The class whose staleness is chosen.
    candidates : iterable of int
    repeats : int
    tolerance : float
        Share of time, 0 to 1, that freshness is worth.
    **options
        Further arguments of `Job`, as ``seed`` and ``preload``.

    Returns
    -------
    StalenessChoice

    Raises
    ------
    ConfigError
        If an argument cannot be used, `function` never calls ``worker.clock()``, or there are several nodes.

    Notes
    -----
    What decides convergence is the staleness that reads have, not the bound (Dai et al., AAAI 2015, section 3): compare
    the trials' `mean_differential` before you loosen a bound for a little speed.
    """
    if model not in (SSP, ESSP):
        raise ConfigError(f"auto_staleness: model is {model!r}; expected the class nbps.ESSP or nbps.SSP")
    _check(candidates, options)
    if (options.get("nodes") or Nodes.from_environment()).count > 1:
        raise ConfigError(
            "auto_staleness: each node would measure, and choose, for itself; run it on one node (unset NBPS_NODES), "
            "and give all nodes the staleness that it finds"
        )
    tables = tuple(tables)
    models = {choice.staleness: choice for choice in map(model, candidates)}
    if not models:
        raise ConfigError("auto_staleness: expected at least one candidate, found none")
    repeats = whole("auto_staleness: repeats", repeats, 1)
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance <= 1:
        raise ConfigError(f"auto_staleness: tolerance is {tolerance!r}; expected a share from 0 to 1")
    trials: list[StalenessTrial] = []
    for staleness in sorted(models):
        with Job(tables, workers, consistency=models[staleness], **options) as job:
            trials.append(_measure(job, staleness, function, args, repeats))
        if trials[-1].wait_share <= tolerance:
            break
    return choose_staleness(trials, tolerance)


def _check(candidates: Iterable[float], options: dict[str, Any]) -> None:
    for name in ("consistency", "record_staleness"):
        if name in options:
            raise ConfigError(
                f"auto_staleness: {name} is set by the trials; expected `model`, `candidates` or other options of Job"
            )
    if not isinstance(candidates, Iterable):
        raise ConfigError(f"auto_staleness: candidates is {candidates!r}; expected several numbers of clocks")


def choose_staleness(trials: Sequence[StalenessTrial], tolerance: float) -> StalenessChoice:
    """Apply the rule of `auto_staleness` to `trials`, whose staleness rises."""
    best = min(trials, key=lambda trial: trial.wait_share)
    chosen = next(trial for trial in trials if trial.wait_share <= best.wait_share + tolerance)
    reason = f"staleness {chosen.staleness}: workers wait {chosen.wait_share:.1%} of their time"
    if chosen.wait_share <= tolerance:
        reason += f", so none that is looser could save more than {tolerance:.1%}"
    elif chosen is not best:
        reason += f", and the lowest share, {best.wait_share:.1%} at {best.staleness}, is within {tolerance:.1%} of it"
    else:
        reason += ", the lowest share of all"
    fresher = [f"{trial.wait_share:.1%} at {trial.staleness}" for trial in trials if trial.staleness < chosen.staleness]
    if fresher:
        reason += f"; fresher ones wait longer ({', '.join(fresher)})"
    reason += f"; reads miss {abs(chosen.mean_differential):.2f} clocks on average"
    return StalenessChoice(chosen.staleness, reason, tuple(trials))


def _measure(
    job: Job, staleness: float, function: Callable[..., object], args: tuple[Any, ...], repeats: int
) -> StalenessTrial:
    runs = []
    job.run(function, *args)
    for _ in range(repeats):
        before, start = job.report(), time.perf_counter()
        job.run(function, *args)
        runs.append(_difference(before, job.report(), staleness, time.perf_counter() - start))
    return StalenessTrial(
        staleness,
        statistics.median(run.wait_share for run in runs),
        statistics.median(run.mean_differential for run in runs),
        statistics.median(run.clocks_per_second for run in runs),
    )


def _difference(before: Report, after: Report, staleness: float, seconds: float) -> StalenessTrial:
    """Return what was measured between two reports of a job."""

    def clocks(report: Report) -> int:
        return sum(worker.clocks for worker in report.workers)

    def total(report: Report) -> float:
        seen = report.clock_differential
        return seen.mean * seen.samples if seen.samples else 0.0

    if clocks(after) == clocks(before):
        raise ConfigError(
            "auto_staleness: the function completed no clock; expected it to call worker.clock() as the real run does"
        )
    wait = after.wait_seconds - before.wait_seconds
    compute = sum(worker.compute_seconds for worker in after.workers) - sum(w.compute_seconds for w in before.workers)
    samples = after.clock_differential.samples - before.clock_differential.samples
    return StalenessTrial(
        staleness,
        wait / (wait + compute),
        (total(after) - total(before)) / samples,
        (clocks(after) - clocks(before)) / seconds,
    )
