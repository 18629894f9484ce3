"""What a job reports: clocks, times, rows sent, and the staleness that reads really had, recomputed from the reads."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
import tasks
from nbps.kernels import layout

import nbps
from nbps.errors import NotRecordedError
from nbps.report import ClockDifferential


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


def test_the_clock_differential_is_what_a_lazy_copy_really_showed():
    """Under SSP(3) with all clocks in step, the copy ages and is refreshed within the bound."""

    def work(worker):
        shown = []
        for clock in range(21):
            row = worker.table("t").get(0)
            shown.append(int(min(row)) - clock)
            worker.table("t").inc(0, np.arange(worker.size) == worker.rank)
            worker.clock()
            worker.barrier()
        return shown

    with nbps.Job([nbps.Table("t", 1, 2, "int64", access="cached")], workers=2, consistency=nbps.SSP(3)) as job:
        each = job.run(work)
        report = job.report()
    for shown, worker in zip(each, report.workers, strict=True):
        seen = worker.clock_differential
        assert seen.samples == 21
        # The probe row may show more than the clock that was certainly visible when the copy was refreshed, never less.
        assert all(-3 <= lag <= 0 for lag in shown)
        assert min(seen.counts) >= -3
        assert sum(seen.counts.values()) == 21
        assert seen.mean <= np.mean(shown)
    assert report.clock_differential.samples == 42


@pytest.mark.parametrize("model", [nbps.BSP(), nbps.SSP(2), nbps.ESSP(1), nbps.ASP()], ids=str)
def test_histogram_mean_and_variance_agree(model):
    """Every read is one sample, none is fresher than the present or older than the bound, and the moments are exact."""
    names = ["cached"] if model == nbps.BSP() else ["direct", "cached"]
    tables = [nbps.Table(name, 1, 3, "int64", access=name) for name in names]
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
        assert not job._board.statistics(0)[[layout.READS, *range(layout.HISTOGRAM, layout.HISTOGRAM + 64)]].any()
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
