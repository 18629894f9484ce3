"""VAP (Dai et al., section 2): a worker goes on with at most v0 / sqrt(t) in transit, as seen from outside."""

from __future__ import annotations

import dataclasses
import math
import time
from bisect import bisect_left

import numpy as np
import pytest

import nbps
from nbps.errors import ConfigError
from nbps.kernels import layout

UNIT = 1 / 64  # additions are multiples of it: sums of float64 are exact


def trace(worker, clocks, factor=1.0):
    """Add to one's own column; return (time, copy) around each clock, and (time, clock, own sum) after it."""
    core = worker._clock.core
    core.terms = dataclasses.replace(core.terms, v0=core.terms.v0 * factor)
    table, copies, ticks, total = worker.table("t"), [], [], 0.0
    for clock in range(clocks):
        if worker.random.random() < 0.5:
            time.sleep(0.003 * worker.random.random())
        amount = int(worker.random.integers(0, 64)) * UNIT
        table.inc(0, amount * (np.arange(worker.size) == worker.rank))
        total += amount
        copies.append((time.perf_counter_ns(), table.get(0)))
        worker.clock()
        now = time.perf_counter_ns()
        ticks.append((now, clock + 1, total))
        copies.append((now, table.get(0)))
        if clock % 10 == 9:
            worker.barrier()
            copies.append((time.perf_counter_ns(), table.get(0)))
    copies.append((time.perf_counter_ns() + 10**15, np.full(worker.size, np.inf)))  # it returns: nobody waits for it
    return copies, ticks


def excess(traces, v0):
    """Largest of what a worker went on with, over its bound.

    What a reader had taken in when a worker was let on is at most what its copy showed the next time it was looked at.
    """
    worst = 0.0
    for rank, (_, ticks) in enumerate(traces):
        for reader, (copies, _) in enumerate(traces):
            if reader != rank:
                times = [when for when, _ in copies]
                for when, clock, total in ticks:
                    unseen = total - copies[bisect_left(times, when)][1][rank]
                    worst = max(worst, unseen / (v0 / math.sqrt(clock)))
    return worst


@pytest.mark.parametrize(("workers", "v0"), [(3, 4.0), (2, 0.5)])
def test_nobody_goes_on_with_more_in_transit_than_the_bound(workers, v0):
    """Seen from what others' copies showed at that time; the report says how near it came, and that was never above."""
    with nbps.Job(
        [nbps.Table("t", 1, workers, dtype="float64", access="cached")], workers, consistency=nbps.VAP(v0)
    ) as job:
        traces = job.run(trace, 60)
        report = job.report()
    assert excess(traces, v0) <= 1
    assert 0 < report.transit_share <= 1
    assert report.transit_share == max(worker.transit_share for worker in report.workers)
    assert f"{report.transit_share:.2f}" in str(report)


def test_the_trace_notices_a_bound_that_is_not_kept():
    """Workers that planted allow themselves a thousand times the bound break it, and the trace says so."""
    with nbps.Job([nbps.Table("t", 1, 2, dtype="float64", access="cached")], 2, consistency=nbps.VAP(0.5)) as job:
        assert excess(job.run(trace, 60, factor=1000.0), 0.5) > 1


def stall(worker, clocks, rounds):
    """Worker 0 adds 1 in each clock and posts how far it came; worker 1 looks where it stands still, then ticks."""
    posts, table = worker.table("posts"), worker.table("t")
    if worker.rank == 0:
        for _ in range(clocks):
            table.inc(0, [1, -0.5])
            worker.clock()
            posts.inc(0, 1)
        return None
    seen = []
    for _ in range(rounds):
        time.sleep(0.15)
        seen.append(int(posts.kernel.values[0, 0]))
        worker.clock()
    return seen


def expected_stall(v0, clocks, rounds):
    """Clocks that worker 0 has passed by each look of worker 1, and its largest share, from the definition alone."""
    seen, share, passed, unseen = [], 0.0, 0, 0
    for _ in range(rounds):
        while passed < clocks:
            unseen += 1
            bound = v0 / math.sqrt(passed + 1)
            if unseen > bound:
                break
            share, passed = max(share, unseen / bound), passed + 1
        seen.append(passed)
        if passed < clocks:
            unseen, passed = 0, passed + 1  # worker 1 takes in what worker 0 committed and waits with
    return seen, share


def test_where_a_worker_stands_still_is_exactly_where_the_bound_says():
    """One that computes for long lets the other go on until the bound, to the clock; ticking lets it go on again."""
    tables = [nbps.Table("t", 1, 2, access="cached"), nbps.Table("posts", 1, 1, dtype="int64")]
    with nbps.Job(tables, workers=2, consistency=nbps.VAP(6.0)) as job:
        _, seen = job.run(stall, 12, 6)
        share = job.report().workers[0].transit_share
    assert (seen, share) == expected_stall(6.0, 12, 6)
    assert seen[0] > 1
    assert seen != sorted(set(seen)) or seen[-1] == 12


def test_workers_that_wait_for_each_other_take_in_each_others_updates():
    """Additions far above the bound from all at once, who wait in clock(), barrier() and get(): nobody hangs."""

    def work(worker):
        table = worker.table("t")
        for clock in range(30):
            table.inc(0, 100 * (np.arange(worker.size) == worker.rank))
            worker.clock(wait=clock % 3 > 0)
            if clock % 2 == worker.rank % 2:
                table.get(0, staleness=5)
            if clock % 5 == 4 and worker.rank:  # rank 0 still waits in clock() for those who are at the barrier
                worker.barrier()
            elif clock % 5 == 4:
                worker.clock()
                worker.barrier()
            if clock == 20 + worker.rank:
                return worker.current_clock
        return None

    table = nbps.Table("t", 1, 3, dtype="float64", access="cached")
    with nbps.Job([table], workers=3, consistency=nbps.VAP(1e-6), clock_timeout_s=20) as job:
        # A lost wake-up would not pass as a nap of 50 ms.
        job._open.board.words[layout.TIMEOUT] = 3600
        assert job.run(work) == [25, 22, 23]
        assert job.table("t").to_numpy().tolist() == [[2100, 2200, 2300]]
        assert job.report().transit_share == 0.0


def test_a_commit_wakes_who_sleeps_at_a_barrier():
    """News, also from one who is ahead and so raises no lowest clock: the sleeper takes it in, and sleeps again."""

    def work(worker):
        for clock in range(3):
            if worker.rank == 0:
                time.sleep(0.05)
                worker.table("t").inc(0, 1)
                worker.clock()
            elif clock == 0:
                worker.barrier()
        if worker.rank == 0:
            worker.barrier()

    table = nbps.Table("t", 1, 1, access="cached")
    with nbps.Job([table], workers=3, consistency=nbps.VAP(1e-6)) as job:
        job._open.board.words[layout.TIMEOUT] = 3600
        job.run(work)
        assert job.table("t").to_numpy().tolist() == [[3]]


def test_a_single_worker_and_live_tables_have_nothing_in_transit():
    """Nobody waits: there is no other, or others see what a direct table gets at once. NaN and infinity end too."""

    def work(worker, name):
        for clock in range(5):
            worker.table(name).inc(0, [math.inf, math.nan][clock % 2] if name == "t" else 1e9)
            worker.clock()

    def apart(worker):
        if worker.rank == 0:
            work(worker, "live")
            worker.barrier()
        else:
            worker.barrier()

    tables = [nbps.Table("t", 1, 1, access="cached"), nbps.Table("live", 1, 1)]
    with nbps.Job(tables, workers=2, consistency=nbps.VAP(1e-9), clock_timeout_s=20) as job:
        job.run(apart)
        assert job.report().transit_share == 0.0
        job.run(work, "t")
        assert job.report().transit_share == 0.0
    with nbps.Job(tables, workers=1, consistency=nbps.VAP(1e-9), clock_timeout_s=20) as job:
        job.run(work, "t")
        assert job.report().transit_share == 0.0


def test_impatience_counts_from_the_first_poll():
    """News that keeps coming does not make a wait endless: the time-out names who has not come."""

    def work(worker):
        if worker.rank == 0:
            worker.barrier()
        for _ in range(1_000_000):
            worker.clock()
            time.sleep(0.01)

    with (
        nbps.Job([], workers=2, consistency=nbps.VAP(1), clock_timeout_s=0.4) as job,
        pytest.raises(nbps.errors.ClockTimeoutError, match=r"in barrier\(\) for worker 1 \(at 0\)"),
    ):
        job.run(work)


@pytest.mark.parametrize("v0", [0, -1, math.inf, math.nan, True, None, "1", 10**400])
def test_a_bound_is_a_finite_number_above_zero(v0):
    """Anything else is refused where the model is made."""
    with pytest.raises(ConfigError, match=r"VAP: v0 is .*; expected a finite number > 0"):
        nbps.VAP(v0)


def test_only_a_value_bound_has_a_share_of_it():
    """Under other models the report says None, and nothing on paper."""
    assert nbps.VAP(np.float32(2)) == nbps.VAP(2)
    with nbps.Job([], workers=1) as job:
        job.run(lambda worker: worker.clock())
        assert job.report().transit_share is None
        assert job.report().to_dict()["transit_share"] is None
        assert "transit" not in str(job.report())
