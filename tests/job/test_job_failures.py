"""Workers that fail in every way: the caller learns who and why, the others stop, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest
import tasks

import nbps
from nbps.errors import AbortedError, ClockTimeoutError, JobClosedError, WorkerDiedError, WorkerError


def job(workers=3, **options):
    return nbps.Job([nbps.Table("t", 1, 1, "int64")], workers=workers, **options)


def test_an_exception_is_raised_in_the_caller_with_its_kind_rank_and_traceback():
    """ZeroDivisionError stays one; a note says which worker raised it, at which clock, in which line."""
    with job() as running, pytest.raises(ZeroDivisionError, match="planted") as caught:
        running.run(tasks.fail, 1, "plain")
    note = "".join(caught.value.__notes__)
    assert "raised in worker 1 at clock 3" in note
    assert 'ZeroDivisionError("planted")' in note


@pytest.mark.parametrize(
    ("kind", "message"),
    [("late", "LateError: first second"), ("unpicklable", "ValueError: <unlocked _thread.lock")],
)
def test_an_exception_that_cannot_travel_is_a_worker_error(kind, message):
    """What does not pickle, or does not load, is named in a WorkerError, with its traceback."""
    with job() as running, pytest.raises(WorkerError, match=message) as caught:
        running.run(tasks.fail, 0, kind)
    assert "raised in worker 0" in "".join(caught.value.__notes__)


def test_an_exception_that_cannot_be_printed_is_raised_all_the_same():
    """An error whose str() raises does not take its worker down."""
    with job() as running, pytest.raises(tasks.RudeError):
        running.run(tasks.fail, 0, "rude")


@pytest.mark.parametrize(("kind", "error"), [("exit", SystemExit), ("interrupt", KeyboardInterrupt)])
def test_sys_exit_and_keyboard_interrupt_in_a_worker_reach_the_caller(kind, error):
    """They are raised in the caller as they were in the worker, and the others stop."""
    with job() as running, pytest.raises(error) as caught:
        running.run(tasks.fail, 2, kind)
    assert "raised in worker 2" in "".join(caught.value.__notes__)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_a_killed_worker_is_named(workers):
    """Kill -9 of the last worker, while the others are parked at the gate: the error has its rank, clock and signal."""
    with job(workers) as running, pytest.raises(WorkerDiedError, match=rf"worker {workers - 1} at clock 3 .*SIGKILL"):
        running.run(tasks.fail, workers - 1, "kill")


def test_a_worker_that_ends_while_its_child_lives_is_named():
    """A process that the worker forked keeps its sockets open; its end is noticed all the same."""
    with job() as running, pytest.raises(WorkerDiedError, match=r"worker 1 at clock 3 .*exit code 9"):
        running.run(tasks.fail, 1, "forked")


def test_a_worker_killed_between_runs_is_named_at_the_next():
    """The job notices at the next run, and its tables can still be read."""
    with job() as running:
        (pid,) = (pid for rank, pid in enumerate(running.run(lambda worker: os.getpid())) if rank == 1)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match="worker 1"):
            running.run(tasks.add_ones, 3, ["t"], [0])
        assert running.table("t").to_numpy().shape == (1, 1)


def test_a_killed_supervisor_ends_the_job():
    """Workers die with the process that watches them, and the error says so."""

    def kill_supervisor(worker):
        if worker.rank == 0:
            os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)

    with job() as running, pytest.raises(WorkerDiedError, match="killed together with the process that watches it"):
        running.run(kill_supervisor)


def test_after_an_error_tables_are_readable_and_runs_refused():
    """What was published before stays; the next run says why it cannot start."""
    with job() as running:
        running.run(tasks.add_ones, 2, ["t"], [0])
        with pytest.raises(ZeroDivisionError):
            running.run(tasks.fail, 0, "plain")
        assert running.table("t").to_numpy().tolist() == [[6]]
        with pytest.raises(JobClosedError, match="the workers were stopped after an error"):
            running.run(tasks.add_ones, 1, ["t"], [0])


def test_a_worker_that_never_clocks_is_named():
    """The others wait for clock_timeout_s and say for whom."""

    def lazy(worker):
        if worker.rank == 1:
            time.sleep(60)
        for _ in range(10):
            worker.clock()

    with job(2, clock_timeout_s=0.3) as running, pytest.raises(ClockTimeoutError, match=r"for worker 1 \(at 0\); does"):
        running.run(lazy)


def test_a_missing_worker_at_a_barrier_is_named():
    """The same for barrier()."""

    def stay_away(worker):
        if worker.rank == 0:
            time.sleep(60)
        worker.barrier()

    with job(2, clock_timeout_s=0.3) as running, pytest.raises(ClockTimeoutError, match=r"in barrier\(\) for worker 0"):
        running.run(stay_away)


def test_a_worker_that_returns_early_holds_nobody():
    """Under BSP with a cached table, the others go on without those that have returned, through clocks and barriers."""

    def work(worker):
        if worker.rank > 0:
            worker.barrier()  # one has returned, or will, without it
        for _ in range(10 * worker.rank):
            worker.table("t").inc(0, 1)
            worker.clock()
        worker.table("t").inc(0, 100)  # not followed by a clock: committed when the function returns

    table = nbps.Table("t", 1, 1, "int64", access="cached")
    for model in (nbps.BSP(), nbps.SSP(0), nbps.ESSP(1)):
        with nbps.Job([table], workers=3, consistency=model) as running:
            running.run(work)
            assert running.table("t").to_numpy().tolist() == [[330]]


def test_a_worker_that_swallows_the_abort_is_killed(monkeypatch):
    """A function that catches everything and goes on is ended after the grace period."""

    def stubborn(worker):
        if worker.rank == 0:
            raise ZeroDivisionError
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(60)

    with job(2) as running:
        monkeypatch.setattr(running._group, "_grace_s", 0.2)
        with pytest.raises(ZeroDivisionError):
            running.run(stubborn)


def raise_planted():
    raise OSError("planted in preload")


@pytest.mark.parametrize(
    ("preload", "error", "message"),
    [
        (raise_planted, WorkerError, "OSError: planted in preload"),
        (lambda: os._exit(4), WorkerDiedError, "exit code 4"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), WorkerDiedError, "SIGKILL"),
    ],
    ids=["raises", "exits", "is killed"],
)
def test_a_preload_that_fails_says_so(preload, error, message):
    """The job does not start, and everything it had made is given back."""
    with pytest.raises(error, match=message), job(preload=preload):
        pass


def test_an_initialiser_that_raises_leaves_nothing():
    """Its error names the table where it is ours, and the segments and processes are gone."""

    def broken(values, random):
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"), nbps.Job([nbps.Table("x", 1, 1, init=broken)], workers=1):
        pass
    table = nbps.Table("named", 2, 2, init=nbps.init.from_array([[1.0]]))
    with pytest.raises(nbps.Error, match="expected shape") as caught, nbps.Job([table], workers=1):
        pass
    assert caught.value.__notes__ == ["while initialising table 'named'"]


def test_an_argument_that_does_not_pickle_leaves_the_job_usable():
    """The error is Python's own, and the next run works."""
    with job() as running:
        with pytest.raises(TypeError, match="pickle"):
            running.run(tasks.add_ones, threading.Lock())
        running.run(tasks.add_ones, 1, ["t"], [0])
        assert running.table("t").to_numpy().tolist() == [[3]]


def test_a_result_that_does_not_pickle_is_an_error_of_its_worker():
    """The caller learns which worker returned it."""
    with job() as running, pytest.raises(TypeError, match="pickle") as caught:
        running.run(lambda worker: threading.Lock())
    assert "raised in worker" in "".join(caught.value.__notes__)


def test_two_threads_cannot_run_a_job_at_once():
    """The second one is refused, and the first goes on undisturbed."""
    with job(2) as running:
        refused = []
        started = threading.Event()

        def intrude():
            started.wait()
            try:
                running.run(tasks.add_ones, 1, ["t"], [0])
            except JobClosedError as error:
                refused.append(str(error))

        thread = threading.Thread(target=intrude)
        thread.start()

        def patient(worker):
            while not (marker := worker.table("t").get(0)[0]):
                time.sleep(0.001)
            return int(marker)

        live = running.table("t")._live()
        runner = threading.Thread(target=lambda: refused.append(running.run(patient)))
        runner.start()
        while not running._run_lock.locked():
            time.sleep(0.001)
        started.set()
        thread.join()
        live[0, 0] = 7
        runner.join()
    assert refused == ["run: another thread runs this job; wait for it to end", [7, 7]]


def test_an_aborted_worker_sees_an_aborted_error(tmp_path):
    """A worker in clock() when another fails gets AbortedError, so its `finally` blocks run."""

    def work(worker, path):
        if worker.rank == 0:
            worker.clock()
            raise ZeroDivisionError
        try:
            while True:
                worker.clock()
        except AbortedError as error:
            path.write_text(str(error))
            raise

    path = tmp_path / "error"
    with job(2) as running, pytest.raises(ZeroDivisionError):
        running.run(work, path)
    assert "the job is" in path.read_text()
