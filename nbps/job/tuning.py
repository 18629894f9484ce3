"""Choice of a staleness from what short trial runs measure: how fast workers are, and how old their reads are."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.checks import real, whole
from nbps.consistency import ESSP, SSP
from nbps.errors import ConfigError
from nbps.job.job import Job
from nbps.job.report import Report
from nbps.tables.definition import Table

_FEWEST = 6  # rounds: with fewer nothing could be told apart
_ENOUGH = 20  # rounds, if the choice is clear by then: fewer may look clear by chance
_CONFIDENCE = 0.98  # of one comparison; a candidate has up to as many as there are looser ones


@dataclass(frozen=True)
class StalenessTrial:
    """What was measured under one staleness: medians over the rounds.

    Attributes
    ----------
    staleness : int or math.inf
    wait_share : float
        Share of all workers' time spent waiting, 0 to 1.
    mean_differential : float
        Mean clock differential of the reads: minus the number of clocks that they missed.
    clocks_per_second : float
        Of all workers together.
    loss : float
        Share of the speed of looser ones that this one lacked, compared round by round.
    sure_loss : float
        The share that it lacks for sure; `loss` may be larger by chance.
    """

    staleness: float
    wait_share: float
    mean_differential: float
    clocks_per_second: float
    loss: float = 0.0
    sure_loss: float = 0.0


@dataclass(frozen=True)
class StalenessChoice:
    """What `auto_staleness` returns; ``str(choice)`` is a table of the trials and the reason.

    Attributes
    ----------
    staleness : int or math.inf
        To be used as in ``Job(..., consistency=nbps.ESSP(choice.staleness))``.
    reason : str
    trials : tuple of StalenessTrial
        From the smallest staleness on.
    """

    staleness: float
    reason: str
    trials: tuple[StalenessTrial, ...]

    def __str__(self) -> str:
        lines = ["staleness  waiting  differential mean  clocks/s  slower  surely"]
        for trial in self.trials:
            chosen = "  <-" * (trial.staleness == self.staleness)
            lines.append(
                f"{trial.staleness:9}  {trial.wait_share:7.1%}  {trial.mean_differential:17.2f}"
                f"  {trial.clocks_per_second:8.0f}  {trial.loss:6.1%}  {trial.sure_loss:6.1%}{chosen}"
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
    repeats: int = 50,
    tolerance: float = 0.05,
    budget_s: float = 20.0,
    **options: Any,
) -> StalenessChoice:
    """Choose a staleness by running ``function(worker, *args)`` under several.

    The rule: the smallest staleness of which it is not sure that looser ones are faster by more than `tolerance`. A
    larger one would let reads be older without making the run faster, as far as can be told.

    All candidates take turns, in one job of their own, so no job of yours is touched: in each round every one runs
    `function` once, and clocks a second are compared within the round. What else happens on the machine so meets all
    alike, and what it does to single runs shows in how much the rounds differ: a loss is sure where it was at least so
    large in so many rounds that chance would do it in 2 of 100 comparisons (a sign test).

    `function` should take a few dozen clocks, of the work that the real run does in a clock. It runs once unmeasured
    under each candidate, which compiles what it compiles, then in at least six rounds, and in as many more as it takes
    until the choice is clear: up to `repeats`, none of which begins after `budget_s` seconds. Where it is not clear by
    then, the reason says so. If workers hardly wait in six runs under the smallest candidate, no other could be faster,
    and none is tried.

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
        Rounds at most, and at least 6.
    tolerance : float
        Share of speed, 0 to 1, that freshness is worth.
    budget_s : float
        Seconds after which no round begins but the first six.
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
    models = {choice.staleness: choice for choice in map(model, candidates)}
    if not models:
        raise ConfigError("auto_staleness: expected at least one candidate, found none")
    repeats = whole("auto_staleness: repeats", repeats, _FEWEST)
    real("auto_staleness: tolerance", tolerance, "a share from 0 to 1", 1)
    real("auto_staleness: budget_s", budget_s, "seconds >= 0")
    rising = [models[staleness] for staleness in sorted(models)]
    job = Job(tables, workers, consistency=rising[0], **options)
    if job.settings.nodes.count > 1:
        raise ConfigError(
            "auto_staleness: each node would measure, and choose, for itself; run it on one node (unset NBPS_NODES), "
            "and give all nodes the staleness that it finds"
        )
    with job:
        rounds = _rounds(job, rising, lambda: job.run(function, *args), repeats, tolerance, budget_s)
        return choose_staleness(rounds, tolerance)


def _check(candidates: Iterable[float], options: dict[str, Any]) -> None:
    for name in ("consistency", "record_staleness", "checkpoints"):
        if name in options:
            raise ConfigError(
                f"auto_staleness: {name} is set by the trials; expected `model`, `candidates` or other options of Job"
            )
    if not isinstance(candidates, Iterable):
        raise ConfigError(f"auto_staleness: candidates is {candidates!r}; expected several numbers of clocks")


def choose_staleness(rounds: Sequence[Sequence[StalenessTrial]], tolerance: float) -> StalenessChoice:
    """Apply the rule of `auto_staleness` to `rounds`, each of which has a run of every staleness, rising."""
    trials = _trials(rounds)
    chosen = _chosen(trials, tolerance)
    return StalenessChoice(chosen.staleness, _reason(trials, chosen, len(rounds), tolerance), tuple(trials))


def _trials(rounds: Sequence[Sequence[StalenessTrial]]) -> list[StalenessTrial]:
    speeds = np.log([[run.clocks_per_second for run in runs] for runs in rounds])
    return [
        StalenessTrial(
            runs[0].staleness,
            statistics.median(run.wait_share for run in runs),
            statistics.median(run.mean_differential for run in runs),
            statistics.median(run.clocks_per_second for run in runs),
            *_losses(speeds[:, number:]),
        )
        for number, runs in enumerate(zip(*rounds, strict=True))
    ]


def _chosen(trials: Iterable[StalenessTrial], tolerance: float) -> StalenessTrial:
    return next(trial for trial in trials if trial.sure_loss <= tolerance)


def _losses(speeds: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the loss and the sure loss of the first column against the looser ones after it.

    Those from any one on are taken together: five runs of a round are a quieter measure than one.
    """
    loss = sure = 0.0
    for first in range(1, speeds.shape[1]):
        losses = np.sort(1 - np.exp(speeds[:, 0] - speeds[:, first:].mean(axis=1)))
        loss = max(loss, float(np.median(losses)))
        sure = max(sure, float(losses[_bound(len(losses))]))
    return loss, sure


def _bound(rounds: int) -> int:
    """Return which of so many sorted losses the median is not below, by a sign test."""
    below, tail = -1, 0.0
    while (tail := tail + math.comb(rounds, below + 1) / 2**rounds) <= 1 - _CONFIDENCE:
        below += 1
    return below


def _reason(trials: Sequence[StalenessTrial], chosen: StalenessTrial, rounds: int, tolerance: float) -> str:
    text, looser = f"staleness {chosen.staleness}: ", [trial for trial in trials if trial.staleness > chosen.staleness]
    if len(trials) == 1:
        text += f"workers wait {chosen.wait_share:.1%} of their time"
        text += f", so none that is looser could save more than {tolerance:.1%}" * (chosen.wait_share <= tolerance)
    elif not looser:
        text += "the loosest"
    elif chosen.loss <= tolerance:
        text += f"looser ones were faster by {chosen.loss:.1%} in {rounds} rounds, within {tolerance:.1%}"
    else:
        text += (
            f"it cannot be told apart from looser ones: they were faster by {chosen.loss:.1%} in {rounds} rounds, but "
            f"for sure by no more than {chosen.sure_loss:.1%}; more rounds (repeats, budget_s) tell more"
        )
    slower = [f"{trial.sure_loss:.1%} at {trial.staleness}" for trial in trials if trial.staleness < chosen.staleness]
    if slower:
        text += f"; fresher ones are slower for sure, by {', '.join(slower)} at least"
    return f"{text}; reads miss {abs(chosen.mean_differential):.2f} clocks on average"


def _rounds(
    job: Job, models: Sequence[SSP], run: Callable[[], object], repeats: int, tolerance: float, budget_s: float
) -> list[list[StalenessTrial]]:
    """Return what was measured in each round under each of `models`, whose staleness rises."""
    deadline = time.monotonic() + budget_s
    first = [_measure(job, models[0], run) for _ in range(1 + _FEWEST)][1:]
    if len(models) == 1 or statistics.median(trial.wait_share for trial in first) <= tolerance:
        return [[trial] for trial in first]
    for model in models[1:]:
        _measure(job, model, run)
    rounds: list[list[StalenessTrial]] = []
    while len(rounds) < repeats and (len(rounds) < _FEWEST or time.monotonic() < deadline):
        if len(rounds) >= _ENOUGH and _chosen(_trials(rounds), tolerance).loss <= tolerance:
            break
        # Each one begins a round now and then, and its neighbours come before and after it alike.
        order = [(len(rounds) // 2 + number) % len(models) for number in range(len(models))]
        measured = {k: _measure(job, models[k], run) for k in (order if len(rounds) % 2 else reversed(order))}
        rounds.append([measured[number] for number in range(len(models))])
    return rounds


def _measure(job: Job, model: SSP, run: Callable[[], object]) -> StalenessTrial:
    """Return what one run under `model` measures."""
    assert job._open is not None
    job._open.open_workers(model)  # in one job, so that all take turns
    before = job.report()
    run()
    return _difference(before, job.report(), model.staleness)


def _difference(before: Report, after: Report, staleness: float) -> StalenessTrial:
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
    busy = [
        now.compute_seconds + now.wait_seconds - then.compute_seconds - then.wait_seconds
        for now, then in zip(after.workers, before.workers, strict=True)
    ]
    samples = after.clock_differential.samples - before.clock_differential.samples
    return StalenessTrial(
        staleness,
        wait / sum(busy),
        (total(after) - total(before)) / samples,
        (clocks(after) - clocks(before)) / max(busy),  # of the slowest: what comes before and after is not the run
    )
