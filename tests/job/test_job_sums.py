"""`Worker.sum`: exact, the same for all, under every model; and what it says to workers that do not agree."""

from __future__ import annotations

import time

import numpy as np
import pytest

import nbps
from nbps.errors import ClockTimeoutError, ConfigError, LocalProtocolError

MODELS = [nbps.BSP(), nbps.SSP(1), nbps.ESSP(2), nbps.ASP(), nbps.VAP(1.0)]


def job(workers, **options):
    """Return a job with one table."""
    return nbps.Job([nbps.Table("t", 1, 2, access="cached")], workers=workers, **options)


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("workers", [1, 3])
def test_sums_are_those_of_all_workers_in_the_order_of_ranks(model, workers):
    """Numbers and arrays, between barriers and clocks, in two runs: to the bit what NumPy adds."""

    def work(worker, turns, seed):
        numbers = np.random.default_rng([seed, worker.rank])
        given, sums = [], []
        for turn in range(turns):
            for value in (numbers.random(), int(numbers.integers(-9, 9)), numbers.random((2, 3))):
                given.append(value)
                sums.append(worker.sum(value))
            if turn % 2:
                worker.barrier()
            if turn % 3:
                worker.table("t").inc(0, 1e-3)
                worker.clock()
        return given, sums

    with job(workers, consistency=model) as running:
        for turns, seed in ((5, 1), (8, 2)):
            given, sums = zip(*running.run(work, turns, seed), strict=True)
            for values, found in zip(zip(*given, strict=True), zip(*sums, strict=True), strict=True):
                expected = values[0]
                for value in values[1:]:
                    expected = expected + value
                assert all(np.array_equal(one, expected) for one in found)
                assert {type(one) for one in found} == {type(values[0])}


def test_a_job_that_saves_and_one_that_resumes_add_up(tmp_path):
    """Where an agent looks on, and with another number of workers from a checkpoint on."""

    def work(worker, until):
        sums = []
        while worker.current_clock < until:
            sums.append(worker.sum(worker.current_clock * 10 + worker.rank))
            worker.clock()
        return sums

    with job(2, checkpoints=nbps.Checkpoints(tmp_path, every=2)) as running:
        assert running.run(work, 5) == [[1, 21, 41, 61, 81]] * 2
    with nbps.Job.resume(tmp_path, workers=3) as running:
        assert running.run(work, 6) == [[123, 153]] * 3


def test_large_arrays_are_added_in_pieces():
    """Arrays larger than the board holds come out whole, in their shape; so do empty ones."""

    def work(worker):
        return worker.sum(np.arange(9_999).reshape(3, 3333) * (worker.rank + 1)), worker.sum(np.zeros((0, 4)))

    with job(3) as running:
        for large, empty in running.run(work):
            assert np.array_equal(large, np.arange(9_999).reshape(3, 3333) * 6)
            assert empty.shape == (0, 4)


def test_floats_of_one_worker_make_the_sum_floats():
    """Bools and integers are int64, beside floats float64; narrower types are widened first."""

    def work(worker):
        narrow = np.full(2, 200, np.uint8), np.full(2, 2**24, np.float32)
        mixed = worker.sum(worker.rank * 0.5 if worker.rank else 1)
        return worker.sum(True), mixed, worker.sum(narrow[0]).tolist(), worker.sum(narrow[1] + worker.rank).tolist()

    with job(2) as running:
        for flags, mixed, small, wide in running.run(work):
            assert (type(flags), flags) == (int, 2)
            assert (type(mixed), mixed) == (float, 1.5)
            assert small == [400, 400]
            assert wide == [2.0**25 + 0, 2.0**25 + 0]  # 2**24 + 1 was no float32 before


@pytest.mark.parametrize("value", [1j, "one", None, 2**63, np.datetime64("2020-01-01"), np.array([2**63], np.uint64)])
def test_what_cannot_be_added_is_refused(value):
    """Before anybody waits for it."""
    with job(1) as running, pytest.raises(ConfigError, match=r"sum of .* expected a number or array"):
        running.run(lambda worker: worker.sum(value))


def test_a_sum_commits_nothing_and_counts_as_waiting():
    """Clocks stay, additions stay private; who waits for a slow worker has it in the report."""

    def work(worker):
        worker.table("t").inc(0, 1)
        time.sleep(0.2 * worker.rank)
        worker.sum(1)
        return worker.current_clock, worker.table("t").get(0).tolist()

    with job(2, consistency=nbps.ESSP(2)) as running:
        assert running.run(work) == [(0, [1, 1]), (0, [1, 1])]
        assert [report.clocks for report in running.report().workers] == [0, 0]
        assert running.report().workers[0].wait_seconds > 0.1


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda worker: worker.sum(np.ones(2 + worker.rank)), r"worker \d gave \d elements, this one \d"),
        (lambda worker: worker.sum(np.ones((2, 3) if worker.rank else (3, 2))), "worker . gave .*, or other shapes"),
        (lambda worker: worker.sum(1) if worker.rank else worker.barrier(), r"worker 0 came with barrier\(\); all"),
        (lambda worker: worker.rank and worker.sum(1), "worker 0 has returned; all workers must call"),
        (lambda worker: worker.rank and (worker.barrier(), worker.sum(1)), "worker 0 has returned; all"),
        (lambda worker: worker.rank and (worker.barrier(), worker.barrier(), worker.sum(1)), "worker 0 has returned;"),
    ],
    ids=["sizes", "shapes", "barrier", "returned", "returned before a barrier", "returned before two"],
)
def test_workers_that_do_not_agree_are_named(work, message):
    """None gets a wrong sum, and none waits for ever; also in a second run, where the first left its summands."""
    with job(2) as running:
        assert running.run(lambda worker: worker.sum(1)) == [2, 2]
        with pytest.raises(LocalProtocolError, match=f"^sum: {message}"):  # the note quotes the line above
            running.run(work)


def test_a_worker_that_is_missing_is_named():
    """After clock_timeout_s, as in barrier()."""

    def work(worker):
        if worker.rank == 1:
            time.sleep(5)
        worker.sum(1)

    with job(2, clock_timeout_s=0.3) as running, pytest.raises(ClockTimeoutError, match=r"in sum\(\) for worker 1"):
        running.run(work)


def test_a_sum_that_timed_out_is_completed_by_the_next(tmp_path):
    """A worker that catches the time-out has skipped that sum; what a slow one still reads is left alone."""
    late = tmp_path / "late"

    def work(worker):
        barrier, sums = worker._clock.barrier, []

        def slow(what):
            barrier(what)
            while not late.exists():
                time.sleep(0.01)
            time.sleep(0.1)
            worker._clock.barrier = barrier

        if worker.rank:
            worker._clock.barrier = slow
        for turn in range(3):
            try:
                sums.append(worker.sum(10 * turn + worker.rank))
            except ClockTimeoutError:
                sums.append(None)
                late.touch()
        return sums

    with job(2, clock_timeout_s=1.0) as running:
        assert running.run(work) == [[1, None, 41], [1, 21, 41]]
