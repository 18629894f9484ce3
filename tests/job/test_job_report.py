"""What a job reports: clocks, times, rows sent, and the staleness that reads really had, recomputed from the reads."""

from __future__ import annotations

import json
import math
import random
from collections import Counter

import numpy as np
import pytest

import nbps
from nbps.errors import NotRecordedError
from nbps.job.report import ClockDifferential
from nbps.kernels import layout
from support import tasks


def test_clocks_and_rows_are_counted():
    """Over all runs: each worker's clocks, and the rows of cached tables that it changed."""

    def work(worker):
        for _ in range(3 + worker.rank):
            worker.table("t").inc([0, 4, 4], 1)
            worker.clock()

    with nbps.Job([nbps.Table("t", 5, 2, access="cached")], workers=2) as job:
        for _ in range(2):
            job.run(work)
        report = job.report()
    assert [worker.clocks for worker in report.workers] == [6, 8]
    assert [worker.rows_sent for worker in report.workers] == [12, 16]
    assert all(worker.compute_seconds > 0 <= worker.wait_seconds for worker in report.workers)
    assert 0 <= report.wait_share <= 1
    assert job.report() == report  # closing changes nothing


def test_a_worker_that_only_reads_sends_no_rows():
    """Floats that others change come back to nobody as rounding noise."""

    def work(worker):
        for _ in range(20):
            if worker.rank == 0:
                worker.table("t").inc(range(50), worker.random.standard_normal((50, 9)) * 0.1)
            worker.clock()

    with nbps.Job([nbps.Table("t", 50, 9, access="cached", init=nbps.init.normal())], workers=2) as job:
        job.run(work)
        assert job.report().workers[1].rows_sent == 0


def turns(staleness, workers, count, seed):
    """Return an order in which workers may tick without any of them waiting at its gate."""
    draw, clocks, order = random.Random(seed), [0] * workers, []
    while len(order) < count:
        rank = draw.randrange(workers)
        after = [clock + (k == rank) for k, clock in enumerate(clocks)]
        if min(after) >= after[rank] - staleness:
            clocks, order = after, [*order, rank]
    return order


def in_turns(worker, order, names):
    """Between any two ticks everybody reads the probe rows; return by how much each missed the reader's clock."""
    shown = []
    for rank in order:
        for name in names:
            # Row u of the probe counts the clocks of worker u: the least of them is the visible clock.
            shown.append(min(0, int(worker.table(name).get(0).min()) - worker.current_clock))
        worker.barrier()
        if worker.rank == rank:
            for name in names:
                worker.table(name).inc(0, np.arange(worker.size) == worker.rank)
            worker.clock()
        worker.barrier()
    return shown


@pytest.mark.parametrize("model", [nbps.SSP(2), nbps.ESSP(2), nbps.SSP(4)], ids=str)
def test_the_report_says_exactly_what_the_probe_shows(model):
    """In a schedule without races the histogram of the reads is the one computed from probe rows alone."""
    names, order = ["direct", "cached"], turns(model.staleness, 3, 60, seed=3)
    tables = [nbps.Table(name, 1, 3, dtype="int64", access=name) for name in names]
    with nbps.Job(tables, workers=3, consistency=model) as job:
        each = job.run(in_turns, order, names)
        report = job.report()
    for shown, worker in zip(each, report.workers, strict=True):
        assert worker.clock_differential.counts == Counter(shown)
        assert len(set(shown)) > 2
    assert report.clock_differential.counts == sum((Counter(shown) for shown in each), Counter())


def racing(worker, clocks, names):
    """Read the probe rows before and after adding to them; return (what was counted, what the row shows) of each."""
    counters, seen = worker._clock._counters, []
    for _ in range(clocks):
        for name in [*names, *names]:
            before = counters[layout.DIFFERENTIAL_SUM]
            row = worker.table(name).get(0)
            seen.append((counters[layout.DIFFERENTIAL_SUM] - before, min(0, int(row.min()) - worker.current_clock)))
            if row[worker.rank] == worker.current_clock:
                worker.table(name).inc(0, np.arange(worker.size) == worker.rank)
        worker.clock()
    return seen


@pytest.mark.parametrize("model", [nbps.SSP(3), nbps.ESSP(3), nbps.VAP(8)], ids=str)
def test_the_report_never_claims_a_fresher_read_than_the_probe_shows(model):
    """While workers race, each read shows at least what is counted for it, and the report has just these counts."""
    names = ["direct", "cached"]
    # Refreshing so many rows takes longer than a clock: others commit when the probe, which is row 0, is already done.
    tables = [nbps.Table(name, 50_000, 3, dtype="int64", access=name) for name in names]
    with nbps.Job(tables, workers=3, consistency=model) as job:
        each = job.run(racing, 60, names)
        report = job.report()
    for seen, worker in zip(each, report.workers, strict=True):
        assert [pair for pair in seen if pair[0] > pair[1]] == []
        assert worker.clock_differential.counts == Counter(counted for counted, _ in seen)


@pytest.mark.parametrize("model", [nbps.BSP(), nbps.SSP(2), nbps.ESSP(1), nbps.ASP()], ids=str)
def test_histogram_mean_and_variance_agree(model):
    """Every read is one sample, none is fresher than the present or older than the bound, and the moments are exact."""
    names = ["cached"] if model == nbps.BSP() else ["direct", "cached"]
    tables = [nbps.Table(name, 1, 3, dtype="int64", access=name) for name in names]
    with nbps.Job(tables, workers=3, consistency=model) as job:
        job.run(tasks.probe, 15, names, 0.003)
        report = job.report()
    total: Counter[int] = Counter()
    for worker in report.workers:
        seen = worker.clock_differential
        samples = np.repeat(list(seen.counts), list(seen.counts.values()))
        assert seen.samples == samples.size == 15 * len(names) * 2
        assert samples.max() <= 0
        assert samples.min() >= -model.staleness
        assert seen.mean == pytest.approx(samples.mean(), abs=1e-12)
        assert seen.variance == pytest.approx(samples.var(), abs=1e-9)
        total.update(seen.counts)
    assert report.clock_differential.counts == dict(sorted(total.items(), reverse=True))
    if isinstance(model, nbps.BSP):
        assert set(total) == {0}


def test_a_clock_without_a_read_is_one_sample():
    """Programs that read only in kernels are measured where each clock began."""
    with nbps.Job([nbps.Table("t", 1, 1)], workers=2) as job:
        job.run(tasks.add_ones, 12, ["t"], [0])
        assert [worker.clock_differential.samples for worker in job.report().workers] == [12, 12]


def test_what_was_not_recorded_is_an_error():
    """Without record_staleness no read is counted; to_dict says None, str() a dash, and the question is refused."""

    def work(worker):
        for _ in range(3):
            worker.table("t").get(0)
            worker.clock()

    with nbps.Job([nbps.Table("t", 1, 1, access="cached")], workers=1, record_staleness=False) as job:
        job.run(work)
        assert not job._open.board.statistics(0)[[layout.READS, *range(layout.HISTOGRAM, layout.HISTOGRAM + 64)]].any()
        report = job.report()
    assert report.workers[0].clocks == 3
    made = json.loads(json.dumps(report.to_dict()))
    assert made["clock_differential"] is made["workers"][0]["clock_differential"] is None
    assert str(report).splitlines()[-1].split()[-2:] == ["-", "-"]
    for asked in (report, report.workers[0]):
        with pytest.raises(NotRecordedError, match="did not record the staleness of its reads; make it without"):
            asked.clock_differential  # noqa: B018


def test_reports_print_and_become_json():
    """Also without any sample; numbers that do not exist are null."""
    with nbps.Job([], workers=2, consistency=nbps.SSP(1)) as job:
        empty = job.report()
        assert math.isnan(empty.clock_differential.mean)
        assert json.loads(json.dumps(empty.to_dict()))["clock_differential"]["mean"] is None
        job.run(tasks.add_ones, 4, [], [])
        report = job.report()
    made = json.loads(json.dumps(report.to_dict()))
    assert [worker["clocks"] for worker in made["workers"]] == [4, 4]
    assert made["consistency"] == "SSP(staleness=1)"
    assert len(str(report).splitlines()) == 4


def test_differentials_beyond_the_histogram_count_in_its_last_bin():
    """Mean and variance stay exact however old a read was."""
    words = np.zeros(layout.STATS_LINES * layout.LINE, np.int64)
    words[layout.READS], words[layout.DIFFERENTIAL_SUM], words[layout.DIFFERENTIAL_SQUARES] = 2, -1001, 1 + 1000**2
    words[[layout.HISTOGRAM + 1, layout.HISTOGRAM + layout.HISTOGRAM_BINS - 1]] = 1
    seen = ClockDifferential.from_counters(words)
    assert seen.counts == {-1: 1, -63: 1}
    assert (seen.mean, seen.variance) == (-500.5, np.var([-1, -1000]))


def test_a_clock_without_a_get_counts_as_stale_as_its_oldest_copy():
    """Kernels read the copy, not the board: under SSP(3) the copy of clock 0 is 3 clocks old in clock 3."""

    def train(worker):
        for _ in range(4):
            worker.clock()
            worker.barrier()

    table = nbps.Table("t", 1, 1, dtype="int64", access="cached")
    with nbps.Job([table], workers=2, consistency=nbps.SSP(3)) as job:
        job.run(train)
        assert job.report().clock_differential.counts == {0: 2, -1: 2, -2: 2, -3: 2}
