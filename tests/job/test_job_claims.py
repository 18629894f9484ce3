"""Claimed rows in jobs: exact sums under contention, and workers that are stopped or killed while they hold a claim."""

from __future__ import annotations

import linecache
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numba import njit

import nbps
from nbps.errors import ClockTimeoutError, WorkerDiedError
from nbps.kernels import claims, places
from nbps.kernels.rows import inc_rows, table_like
from nbps.runtime.clock import Clock

ROW, STALENESS = 5, 3


def zipf_rows(worker, clocks, batch, rows):
    """Add ones to rows of a few tables, of which some are far more often used; return how many were put aside."""
    draw = np.random.default_rng(worker.rank)
    live, copied = worker.table("live"), worker.table("copied")
    for _ in range(clocks):
        ids = np.minimum(draw.zipf(1.2, batch) - 1, rows - 1)
        live.inc(ids, 1)
        copied.inc(ids[:50], 1)
        assert live.get(ids[0]).min() >= 1
        worker.clock()
    return int(live._shared.aside.words[2])


@pytest.mark.parametrize(
    ("workers", "dtype", "width"), [(2, "float32", 32), (8, "float32", 32), (3, "int64", 5), (3, "float64", 2)]
)
def test_additions_of_many_workers_to_few_rows_are_exact(workers, dtype, width):
    """Two to eight processes on rows of a Zipf distribution, live and from copies: every element is the exact count."""
    clocks, batch, rows = 40, 2000, 300
    tables = [
        nbps.Table("live", rows, width, dtype=dtype),
        nbps.Table("copied", rows, width, dtype=dtype, access="cached"),
    ]
    with nbps.Job(tables, workers=workers) as job:
        job.run(zipf_rows, clocks, batch, rows)
        expected = np.zeros((2, rows))
        for rank in range(workers):
            draw = np.random.default_rng(rank)
            for _ in range(clocks):
                ids = np.minimum(draw.zipf(1.2, batch) - 1, rows - 1)
                for table, part in zip(expected, (ids, ids[:50]), strict=True):
                    table += np.bincount(part, minlength=rows)
        for name, sums in zip(("live", "copied"), expected, strict=True):
            assert np.array_equal(job.table(name).to_numpy(), np.repeat(sums[:, None], width, axis=1))


@njit(nogil=True)
def claim(table, row):
    return places.take(table.claimed.claims, claims.slot(table.claimed, row), table.claimed.me)


@njit(nogil=True)
def give(table, row):
    places.give(table.claimed.claims, claims.slot(table.claimed, row))


def compile_claims():
    table = table_like(4)
    claimed = table.claimed._replace(claims=np.zeros(1, np.uint8).ctypes.data)
    claim(table._replace(claimed=claimed), 0)


def stop_with_a_claim(worker, clocks):
    """Be stopped by SIGSTOP with a claim as worker 0; go on for some clocks as the others."""
    live, progress = worker.table("live"), worker.table("progress")
    if worker.rank == 0:
        assert claim(live.kernel, ROW)
        progress.put(0, [os.getpid()])
        worker.barrier()
        os.kill(os.getpid(), signal.SIGSTOP)
        give(live.kernel, ROW)
        for _ in range(clocks):
            worker.clock()
        return None
    worker.barrier()
    seen = []
    for clock in range(clocks):
        live.inc([ROW, ROW + 1], 1)
        worker.table("copied").inc(ROW, 1)
        seen.append((live.get(ROW).min() > clock, worker.table("copied").get(ROW).min() > clock))
        progress.put(worker.rank, [clock])
        worker.clock()
    return all(map(all, seen))


TABLES = [
    nbps.Table("live", 10, 4),
    nbps.Table("copied", 10, 4, access="cached"),
    nbps.Table("progress", 3, 1, dtype="int64", access="exclusive", init=-1),
]


class Stopped:
    """A job of three workers, of which worker 0 stopped itself while it held a claim."""

    def __init__(self, job, clocks):
        self.job = job
        self.error = self.results = None
        self._clocks = clocks
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.wait_until(lambda: self.stopped)
        self.pid = int(self.progress[0])

    def _run(self):
        try:
            self.results = self.job.run(stop_with_a_claim, self._clocks)
        except Exception as error:
            self.error = error

    @property
    def progress(self):
        return self.job.table("progress").to_numpy()[:, 0]

    @property
    def stopped(self):
        pid = int(self.progress[0])
        if pid < 0:
            return False
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def wait_until(self, condition):
        until = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < until, f"progress is {self.progress}"
            time.sleep(0.01)

    def end(self, number):
        os.kill(self.pid, number)
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.mark.parametrize(
    ("model", "furthest"), [(nbps.SSP(STALENESS), STALENESS), (nbps.SSP(0), 0), (nbps.ASP(), 19)], ids=str
)
def test_a_worker_stopped_with_a_claim_stops_others_at_the_staleness_bound_only(model, furthest):
    """They go on, and see their own additions, as far as the model lets them; then all sums are exact."""
    clocks = 20
    with nbps.Job(TABLES, workers=3, consistency=model, preload=compile_claims) as job:
        stopped = Stopped(job, clocks)
        stopped.wait_until(lambda: (stopped.progress[1:] == furthest).all())
        time.sleep(0.3)  # they could go on, if nothing held them
        assert stopped.progress[1:].tolist() == [furthest] * 2
        assert not job.table("live").to_numpy()[ROW].any()
        stopped.end(signal.SIGCONT)
        assert (stopped.error, stopped.results) == (None, [None, True, True])
        assert (job.table("live").to_numpy()[[ROW, ROW + 1]] == 2 * clocks).all()
        assert (job.table("copied").to_numpy()[ROW] == 2 * clocks).all()


def test_a_worker_killed_with_a_claim_ends_the_job():
    """It is named, and nobody waits for its claim, which goes with the job's memory."""
    with nbps.Job(TABLES, workers=3, consistency=nbps.SSP(STALENESS), preload=compile_claims) as job:
        stopped = Stopped(job, 20)
        stopped.end(signal.SIGKILL)
        assert isinstance(stopped.error, WorkerDiedError)
        assert "worker 0" in str(stopped.error)


def test_a_wait_for_a_claim_says_for_which():
    """The time limit of clocks holds for it, and its error names the row and who claims it."""
    options = {"consistency": nbps.SSP(STALENESS), "preload": compile_claims, "clock_timeout_s": 1.0}
    with nbps.Job(TABLES, workers=3, **options) as job:
        stopped = Stopped(job, 20)
        stopped.wait_until(lambda: stopped.error is not None)
        assert isinstance(stopped.error, ClockTimeoutError)
        assert f"row {ROW} of table 'live', which worker 0 of its node is adding to" in str(stopped.error)


def come_to_a_barrier(worker, call, gives_up):
    """Claim a row as worker 0 until worker 1 has added to it, or has given up; read it after the barrier."""
    live, progress = worker.table("live"), worker.table("progress")
    barrier = worker.barrier if call == "barrier" else lambda: worker.sum(1)
    error = ""
    if worker.rank == 0:
        assert claim(live.kernel, ROW)
    barrier()
    if worker.rank == 1:
        live.inc(ROW, 1)
        if gives_up:
            with pytest.raises(ClockTimeoutError) as raised:
                barrier()
            error = str(raised.value)
        progress.put(1, [1])
    else:
        wait_for(progress, 1)
        give(live.kernel, ROW)
    if worker.rank == 0 or not gives_up:
        barrier()
    if worker.rank == 0:
        seen = live.get(ROW).tolist()
        progress.put(0, [1])
        return seen
    if not gives_up:
        wait_for(progress, 0)  # else it might read what is added at the end of the run
    return error


def wait_for(progress, row):
    until = time.monotonic() + 60
    while progress.kernel.values[row, 0] != 1:  # `get` would pass a gate
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize("call", ["barrier", "sum"])
def test_what_is_added_to_a_claimed_row_before_a_barrier_is_read_after_it(call):
    """Worker 1 has put it aside: it arrives when the row has it."""
    with nbps.Job(TABLES, workers=2, preload=compile_claims) as job:
        assert job.run(come_to_a_barrier, call, False)[0] == [1] * 4


@pytest.mark.parametrize("call", ["barrier", "sum"])
def test_a_barrier_that_waits_for_a_claim_says_for_which(call):
    """Its time limit holds; a worker that goes on all the same arrives later."""
    with nbps.Job(TABLES, workers=2, preload=compile_claims, clock_timeout_s=1.0) as job:
        value, error = job.run(come_to_a_barrier, call, True)
    assert value == [1] * 4
    assert f"in {call}() for" in error
    assert f"row {ROW} of table 'live', which worker 0 of its node is adding to" in error


def keep_a_kernel(worker):
    worker.state["kernel"] = worker.table("live").kernel
    worker.state["copied"] = worker.table("copied").kernel


def add_by_a_kernel_of_before(worker):
    """Worker 1 adds to a row that worker 0 has claimed, by the kernel that it has kept."""
    progress = worker.table("progress")
    if worker.rank == 0:
        assert claim(worker.table("live").kernel, ROW)
    worker.barrier()
    if worker.rank == 1:
        inc_rows(worker.state["kernel"], np.array([ROW]), np.ones((1, 4), np.float32))
        progress.put(1, [1])
    else:
        wait_for(progress, 1)
        give(worker.table("live").kernel, ROW)
    inc_rows(worker.state["copied"], np.array([ROW]), np.ones((1, 4), np.float32))
    worker.clock()


def test_a_kernel_is_valid_until_the_job_ends():
    """Also where `auto_staleness` has its workers go on under another staleness: what it puts aside is added."""
    with nbps.Job(TABLES, workers=2, preload=compile_claims) as job:
        job.run(keep_a_kernel)
        job._open.open_workers(nbps.ESSP(1))
        job.run(add_by_a_kernel_of_before)
        assert job.table("live").to_numpy()[ROW].tolist() == [1] * 4
        assert job.table("copied").to_numpy()[ROW].tolist() == [2] * 4


def fork_with_something_put_aside(worker):
    """Fork as worker 1, which has put an addition aside; the child adds to the table as well."""
    live, progress = worker.table("live"), worker.table("progress")
    if worker.rank == 0:
        assert claim(live.kernel, ROW)
    worker.barrier()
    if worker.rank == 0:
        wait_for(progress, 1)
        give(live.kernel, ROW)
        progress.put(0, [1])
        return None
    live.inc(ROW, 1)
    child = os.fork()
    if child == 0:
        try:
            progress.put(1, [1])
            wait_for(progress, 0)
            live.inc([ROW + 1] * (2 * claims.EVERY), 1)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def test_a_child_of_a_worker_does_not_add_what_the_worker_has_put_aside():
    """It has a copy of the buffer, whose entries its parent adds."""
    with nbps.Job(TABLES, workers=2, preload=compile_claims) as job:
        assert job.run(fork_with_something_put_aside) == [None, 0]
        assert job.table("live").to_numpy()[[ROW, ROW + 1], 0].tolist() == [1, 2 * claims.EVERY]


class InterruptedByTestError(Exception):
    """As a signal handler raises one, between any two lines."""


def interrupt_before(function, line):
    """Raise where `function` comes to a line with these words, once."""

    def trace(frame, event, _):
        if frame.f_code is not function.__code__:
            return None
        if event == "line" and line in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
            raise InterruptedByTestError  # ends the tracing, too
        return trace

    sys.settrace(trace)


def be_interrupted_in_publishing(worker):
    """Owe a clock as worker 1, and be interrupted just before it is published."""
    live, progress = worker.table("live"), worker.table("progress")
    if worker.rank == 0:
        assert claim(live.kernel, ROW)
    worker.barrier()
    if worker.rank == 0:
        wait_for(progress, 1)
        give(live.kernel, ROW)
        progress.put(0, [1])
    else:
        live.inc(ROW, 1)
        worker.clock(wait=False)
        progress.put(1, [1])
        wait_for(progress, 0)
        interrupt_before(Clock._publish, "board.tick(")
        with pytest.raises(InterruptedByTestError):
            live.get(ROW)
        return live.get(ROW).tolist()
    worker.clock()
    return live.get(ROW).tolist()


def test_a_clock_that_is_owed_is_so_until_it_is_published():
    """Also when what publishes it is interrupted: its worker, which waits for all, would wait for itself."""
    options = {"consistency": nbps.SSP(0), "preload": compile_claims, "clock_timeout_s": 3.0}
    with nbps.Job(TABLES, workers=2, **options) as job:
        assert job.run(be_interrupted_in_publishing) == [[1] * 4] * 2
