"""`auto_staleness`: its rule on measured trials, exactly, and one real choice with an injected straggler."""

from __future__ import annotations

import math
import time

import pytest

import nbps
from nbps.errors import ConfigError
from nbps.job.tuning import StalenessTrial, choose_staleness


def trials(*shares):
    """Trials at 0, 1, 2, 4, ... with these wait shares; reads miss half of what they may."""
    staleness = [0, *(2**n for n in range(len(shares) - 1))]
    return [StalenessTrial(s, share, 0 - s / 2, 100.0) for s, share in zip(staleness, shares, strict=True)]


@pytest.mark.parametrize(
    ("shares", "chosen"),
    [
        ([0.004], 0),  # balanced: nothing to gain
        ([0.30, 0.29, 0.31, 0.30], 0),  # waits that no staleness shortens, as for a slow worker
        ([0.45, 0.30, 0.12, 0.031, 0.030, 0.029], 4),  # a periodic straggler, absorbed from 4 on
        ([0.45, 0.30, 0.12, 0.08, 0.05, 0.0], 16),  # every step helps
        ([0.45, 0.05, 0.30, 0.05], 1),  # noise after the best: the fresher of two equals
        ([0.05, 0.05], 0),
        ([0.52, 0.5], 0),  # at the edge of the tolerance: still within it
        ([0.53, 0.5], 1),
    ],
)
def test_the_smallest_staleness_that_waits_hardly_longer_than_the_best(shares, chosen):
    """The rule of the docstring, with a tolerance of 2 %."""
    measured = trials(*shares)
    choice = choose_staleness(measured, 0.02 + 1e-9)
    assert choice.staleness == chosen
    assert choice.trials == tuple(measured)


def test_the_reason_has_the_figures():
    """What was chosen, what it was compared with, and how old reads are; the table has a line for each trial."""
    choice = choose_staleness(trials(0.45, 0.30, 0.041, 0.03), 0.02)
    assert choice.reason == (
        "staleness 2: workers wait 4.1% of their time, and the lowest share, 3.0% at 4, is within 2.0% of it; "
        "fresher ones wait longer (45.0% at 0, 30.0% at 1); reads miss 1.00 clocks on average"
    )
    assert str(choice).splitlines() == [
        "staleness  waiting  differential mean  clocks/s",
        "        0    45.0%               0.00       100",
        "        1    30.0%              -0.50       100",
        "        2     4.1%              -1.00       100  <-",
        "        4     3.0%              -2.00       100",
        choice.reason,
    ]
    assert "so none that is looser could save more than 2.0%" in choose_staleness(trials(0.01), 0.02).reason
    assert "the lowest share of all; fresher ones" in choose_staleness(trials(0.5, 0.1), 0.02).reason


def straggle(worker, pause_s):
    """Workers sleep long in turns: who may run ahead loses nothing by it."""
    for clock in range(24):
        time.sleep(pause_s * (5 if clock % 4 == 2 * worker.rank else 1))
        worker.table("t").inc(0, 1)
        worker.clock()


def test_a_straggler_gets_slack():
    """With two workers that stumble in turns a staleness is chosen under which they wait far less; tables are fresh."""
    table = nbps.Table("t", 1, 1, dtype="int64", access="cached")
    choice = nbps.auto_staleness(straggle, 0.002, tables=[table], workers=2, candidates=[4, 0, 4], repeats=2)
    strict, slack = choice.trials
    assert (strict.staleness, slack.staleness, choice.staleness) == (0, 4, 4)
    assert strict.wait_share > slack.wait_share + 0.1
    assert strict.mean_differential == 0 > slack.mean_differential >= -4
    assert slack.clocks_per_second > strict.clocks_per_second
    assert "staleness 4: workers wait" in choice.reason


def test_what_needs_no_slack_is_tried_once():
    """A single worker waits for nobody: the first trial decides."""

    def work(worker, times):
        assert worker.table("t").get(0)[0] % times == 0  # each run of the one job adds to what the ones before left
        for _ in range(times):
            time.sleep(0.001)
            worker.table("t").inc(0, 1)
            worker.clock()

    choice = nbps.auto_staleness(work, 10, tables=[nbps.Table("t", 1, 1)], workers=1, model=nbps.SSP)
    assert (choice.staleness, len(choice.trials)) == (0, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": nbps.BSP}, "model is <class 'nbps.consistency.BSP'>; expected the class nbps.ESSP or nbps.SSP"),
        ({"model": nbps.SSP(1)}, "model is SSP"),
        ({"candidates": []}, "at least one candidate"),
        ({"candidates": [1, -1]}, "staleness is -1"),
        ({"repeats": 0}, "repeats is 0"),
        ({"tolerance": -0.1}, "tolerance is -0.1; expected a share from 0 to 1"),
        ({"tolerance": math.nan}, "tolerance is nan"),
        ({"tolerance": 2}, "tolerance is 2"),
        ({"record_staleness": False}, "record_staleness is set by the trials"),
        ({"consistency": nbps.SSP(1)}, "consistency is set by the trials"),
        ({"candidates": 3}, "candidates is 3; expected several numbers"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_used(options, message):
    """Each is refused before any job starts."""
    with pytest.raises(ConfigError, match=message):
        nbps.auto_staleness(print, tables=[], workers=1, **options)


def test_a_function_without_clocks_is_refused():
    """Nothing could be chosen from it."""
    with pytest.raises(ConfigError, match=r"completed no clock; expected it to call worker\.clock\(\)"):
        nbps.auto_staleness(lambda worker: None, tables=[], workers=1)
