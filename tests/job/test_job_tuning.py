"""`auto_staleness`: its rule on rounds made up, with and without noise, and real choices, with a straggler."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

import nbps
from nbps.errors import ConfigError
from nbps.job.tuning import StalenessTrial, choose_staleness

STALENESS = (0, 1, 2, 4, 8, 16)


def rounds_of(count, *speeds, noise=0.0, machine=0.0, seed=0):
    """Make rounds of runs at 0, 1, 2, ... with these speeds: each off by some noise, whole rounds by the machine's."""
    random = np.random.default_rng(seed)
    factors = np.exp(machine * random.normal(size=(count, 1)) + noise * random.normal(size=(count, len(speeds))))
    return [
        [StalenessTrial(s, 0.3, 0 - s / 2, speed) for s, speed in zip(STALENESS, row, strict=False)]
        for row in (factors * speeds).tolist()
    ]


@pytest.mark.parametrize(
    ("speeds", "chosen"),
    [
        ([100, 100, 100, 100, 100, 100], 0),
        ([96, 97, 98, 99, 100, 100], 0),  # slower, within the tolerance
        ([70, 80, 100, 100, 99, 101], 2),  # a periodic straggler, absorbed from 2 on
        ([60, 70, 80, 90, 100, 110], 16),  # every step helps
        ([100, 100, 100, 100, 100, 130], 16),  # only the loosest does
        ([100, 90, 80, 70, 60, 50], 0),  # looser ones are even slower
        ([100], 0),
    ],
)
@pytest.mark.parametrize(("noise", "machine"), [(0.0, 0.0), (0.02, 0.0), (0.02, 0.5)], ids=["still", "noise", "load"])
def test_the_smallest_staleness_of_which_no_loss_is_sure(speeds, chosen, noise, machine):
    """Exactly without noise, and with as much as runs differ by; a load that meets whole rounds changes nothing."""
    rounds = rounds_of(15, *speeds, noise=noise, machine=machine)
    assert choose_staleness(rounds, 0.05).staleness == chosen


def test_ten_calls_on_a_noisy_machine_give_one_or_two_neighbours():
    """Single runs off by a fifth, rounds by a half: what is chosen for the same work is the same, or next to it."""
    calls = [rounds_of(25, 75, 88, 98, 100, 100, 100, noise=0.2, machine=0.5, seed=seed) for seed in range(10)]
    chosen = {choose_staleness(rounds, 0.05).staleness for rounds in calls}
    assert chosen == {1, 2}
    by_the_fastest_run = {STALENESS[int(np.argmax([run.clocks_per_second for run in rounds[0]]))] for rounds in calls}
    assert len(by_the_fastest_run) > 2


def test_a_sure_loss_is_rarely_one_of_chance():
    """Where all are equal, looser ones seem surely faster in few calls; where they are faster, in nearly all."""
    equal = [choose_staleness(rounds_of(20, *[100] * 6, noise=0.1, seed=seed), 0.0).staleness for seed in range(200)]
    assert sum(staleness > 0 for staleness in equal) <= 20
    slow = [
        choose_staleness(rounds_of(20, 80, *[100] * 5, noise=0.1, seed=seed), 0.05).staleness for seed in range(200)
    ]
    assert sum(staleness == 1 for staleness in slow) >= 180


def test_the_reason_has_the_figures():
    """What was chosen, what it was compared with, and how old reads are; the table has a line for each trial."""
    choice = choose_staleness(rounds_of(6, 60, 80, 98, 100), 0.05)
    assert choice.reason == (
        "staleness 2: looser ones were faster by 2.0% in 6 rounds, within 5.0%; "
        "fresher ones are slower for sure, by 40.0% at 0, 20.0% at 1 at least; reads miss 1.00 clocks on average"
    )
    assert str(choice).splitlines() == [
        "staleness  waiting  differential mean  clocks/s  slower  surely",
        "        0    30.0%               0.00        60   40.0%   40.0%",
        "        1    30.0%              -0.50        80   20.0%   20.0%",
        "        2    30.0%              -1.00        98    2.0%    2.0%  <-",
        "        4    30.0%              -2.00       100    0.0%    0.0%",
        choice.reason,
    ]
    unsure = choose_staleness(rounds_of(6, 80, 100, noise=0.3, seed=6), 0.05).reason
    assert unsure.startswith("staleness 0: it cannot be told apart from looser ones: they were faster by ")
    assert unsure.split("in 6 rounds, ")[1].startswith(
        "but for sure by no more than 0.0%; more rounds (repeats, budget_s)"
    )
    assert choose_staleness(rounds_of(6, 50, 100), 0.05).reason.startswith("staleness 1: the loosest; fresher ones are")
    (alone,) = {choose_staleness([[StalenessTrial(0, 0.01, 0.0, 1.0)]] * 6, 0.05).reason}
    assert alone.startswith(
        "staleness 0: workers wait 1.0% of their time, so none that is looser could save more than 5."
    )


def straggle(worker, pause_s):
    """Workers sleep long in turns: who may run ahead loses nothing by it."""
    for clock in range(24):
        time.sleep(pause_s * (5 if clock % 4 == 2 * worker.rank else 1))
        worker.table("t").inc(0, 1)
        worker.clock()


@pytest.mark.slow
def test_a_straggler_gets_slack():
    """With two workers that stumble in turns a staleness is chosen under which they wait far less; tables are fresh."""
    table = nbps.Table("t", 1, 1, dtype="int64", access="cached")
    choice = nbps.auto_staleness(straggle, 0.002, tables=[table], workers=2, candidates=[4, 0, 4], repeats=25)
    strict, slack = choice.trials
    assert (strict.staleness, slack.staleness, choice.staleness) == (0, 4, 4)
    assert strict.wait_share > slack.wait_share + 0.1
    assert strict.mean_differential == 0 > slack.mean_differential >= -4
    assert slack.clocks_per_second > strict.clocks_per_second
    assert "staleness 4: the loosest; fresher ones are slower for sure" in choice.reason


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
        ({"repeats": 5}, "repeats is 5"),
        ({"budget_s": -1}, "budget_s is -1; expected seconds >= 0"),
        ({"checkpoints": nbps.Checkpoints("folder", 1)}, "checkpoints is set by the trials"),
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
