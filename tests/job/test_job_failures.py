"""Workers that fail in every way: the caller learns who and why, the others stop, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

import pytest

import nbps
from nbps.errors import AbortedError, ClockTimeoutError, JobClosedError, WorkerDiedError, WorkerError
from support import tasks


def job(workers=3, **options):
    return nbps.Job([nbps.Table("t", 1, 1, dtype="int64")], workers=workers, **options)


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


@pytest.mark.parametrize(("kind", "message"), [("exit", "SystemExit: 3"), ("interrupt", "KeyboardInterrupt")])
def test_sys_exit_and_keyboard_interrupt_in_a_worker_do_not_end_the_caller(kind, message):
    """What would end the caller's program is a WorkerError there, and the others stop."""
    with job() as running, pytest.raises(WorkerError, match=message) as caught:
        running.run(tasks.fail, 2, kind)
    assert "raised in worker 2" in "".join(caught.value.__notes__)


def test_an_exception_whose_class_the_caller_cannot_import_keeps_its_traceback(tmp_path):
    """A class of a module that only the worker finds."""
    (tmp_path / "only_there.py").write_text("class LocalError(Exception): pass\n")

    def fail(worker, folder):
        sys.path.append(folder)
        import only_there

        raise only_there.LocalError("planted")

    with job() as running, pytest.raises(WorkerError, match=r"only_there\.LocalError: planted") as caught:
        running.run(fail, str(tmp_path))
    assert "raise only_there.LocalError" in "".join(caught.value.__notes__)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_a_killed_worker_is_named(workers):
    """Kill -9 of the last worker, while the others are parked at the gate: the error has its rank, clock and signal."""
    with job(workers) as running, pytest.raises(WorkerDiedError, match=rf"worker {workers - 1} at clock 3 .*SIGKILL"):
        running.run(tasks.fail, workers - 1, "kill")


def test_a_killed_agent_is_named_and_its_sockets_end_with_it(tmp_path):
    """Neither its driver nor the workers keep its end of them open."""
    with job(2, checkpoints=nbps.Checkpoints(tmp_path, every=10)) as running:
        agent, pid = running._open.agent, running._open.group.pids[2]
        os.kill(pid, signal.SIGKILL)
        assert agent.connection.poll(30)
        with pytest.raises(EOFError):
            agent.connection.recv()
        with pytest.raises(WorkerDiedError, match=rf"the agent \(pid {pid}\) ended: killed by signal 9"):
            running.run(lambda worker: worker.rank)


def test_a_worker_that_the_system_ended_for_a_bad_address_is_told_what_kernels_do_not_check():
    """The likely cause of SIGSEGV here: a row id out of range in jitted code."""

    def crash(worker):
        os.kill(os.getpid(), signal.SIGSEGV)

    hint = r"signal 11 \(SIGSEGV; a row id out of range in a kernel\? kernels check nothing\)"
    with job(1) as running, pytest.raises(WorkerDiedError, match=hint):
        running.run(crash)


def test_a_worker_that_ends_while_its_child_lives_is_named():
    """A process that the worker forked keeps its sockets open; its end is noticed all the same."""
    with job() as running, pytest.raises(WorkerDiedError, match=r"worker 1 at clock 3 .*exit code 9"):
        running.run(tasks.fail, 1, "forked")


@pytest.mark.timeout(30)
def test_a_worker_that_ends_after_its_answer_while_its_child_lives_is_named(tmp_path):
    """Its end is told while the others still run; the next run remembers."""

    def answer_and_die(worker, path):
        if worker.rank == 1:
            pid = os.fork()
            if pid == 0:
                time.sleep(60)  # with copies of the worker's sockets
                os._exit(0)
            path.write_text(str(pid))
            threading.Timer(0.2, os._exit, (9,)).start()
        elif worker.rank == 0:
            time.sleep(1)

    path = tmp_path / "child"
    try:
        with job() as running:
            running.run(answer_and_die, path)
            with pytest.raises(WorkerDiedError, match=r"worker 1 .*exit code 9"):
                running.run(tasks.add_ones, 10, ["t"], [0])  # the others wait for it
    finally:
        os.kill(int(path.read_text()), signal.SIGKILL)


@pytest.mark.timeout(30)
def test_a_killed_supervisor_ends_the_job_while_a_child_of_a_worker_lives(tmp_path):
    """The workers' sockets stay open and nobody tells their ends; the run ends all the same."""

    def orphan(worker, path):
        if worker.rank == 0:
            pid = os.fork()
            if pid:
                path.write_text(str(pid))
                os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)

    path = tmp_path / "child"
    try:
        with job(1) as running, pytest.raises(WorkerDiedError, match="killed together with the process that watches"):
            running.run(orphan, path)
    finally:
        os.kill(int(path.read_text()), signal.SIGKILL)


def test_an_interrupted_worker_is_named():
    """SIGINT sent to a worker by somebody else ends it, whether it is in a call or not."""
    with job() as running:
        pids = running.run(lambda worker: os.getpid())
        os.kill(pids[1], signal.SIGINT)
        with pytest.raises(WorkerDiedError, match=r"worker 1 .*exit code 130"):
            running.run(lambda worker: time.sleep(5))
    with job() as running, pytest.raises(WorkerDiedError, match=r"worker 2 .*exit code 130"):
        running.run(lambda worker: os.kill(os.getpid(), signal.SIGINT) if worker.rank == 2 else time.sleep(60))


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


def test_who_catches_a_time_out_can_go_on():
    """The next call waits for what the first one waited for, and nothing is committed twice."""

    def patient(worker):
        caught = 0
        for clock in range(4):
            worker.table("t").inc(0, 1)
            if worker.rank == 1 and clock == 1:
                time.sleep(0.6)
            try:
                worker.clock()
            except ClockTimeoutError:
                caught += 1
        return worker.current_clock, caught

    table = nbps.Table("t", 1, 1, dtype="int64", access="cached")
    with nbps.Job([table], workers=2, consistency=nbps.SSP(0), clock_timeout_s=0.4) as running:
        assert running.run(patient) == [(4, 1), (4, 0)]
        assert running.table("t").to_numpy().tolist() == [[8]]
        assert [worker.clocks for worker in running.report().workers] == [4, 4]


def test_a_worker_that_returns_early_holds_nobody():
    """Under BSP with a cached table, the others go on without those that have returned, through clocks and barriers."""

    def work(worker):
        if worker.rank > 0:
            worker.barrier()  # one has returned, or will, without it
        for _ in range(10 * worker.rank):
            worker.table("t").inc(0, 1)
            worker.clock()
        worker.table("t").inc(0, 100)  # not followed by a clock: committed when the function returns

    table = nbps.Table("t", 1, 1, dtype="int64", access="cached")
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
        supervisor = running._open.group._supervisor
        monkeypatch.setattr(running._open.group, "_grace_s", 0.2)
        with pytest.raises(ZeroDivisionError):
            running.run(stubborn)
        assert supervisor.wait(0) == 0  # it killed the worker, and did not have to be killed


def test_a_loop_that_passes_over_errors_is_stopped(tmp_path):
    """``except Exception`` does not catch the abort: the worker ends by itself and its ``finally`` blocks run."""

    def persistent(worker, begun, path):
        if worker.rank == 0:
            while not begun.exists():
                time.sleep(0.01)
            raise ZeroDivisionError
        try:
            begun.touch()
            while True:
                with contextlib.suppress(Exception):
                    time.sleep(60)
        finally:
            path.touch()

    path = tmp_path / "ended"
    with job(2) as running, pytest.raises(ZeroDivisionError):
        running.run(persistent, tmp_path / "begun", path)
    assert path.exists()


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
    assert refused == ["run: another thread runs or saves this job; wait for it to end", [7, 7]]


def test_an_aborted_worker_sees_an_aborted_error(tmp_path):
    """A worker in clock() when another fails gets AbortedError, so its `finally` blocks run."""

    def work(worker, path):
        if worker.rank == 0:
            worker.barrier()  # the other one is inside its `try`
            raise ZeroDivisionError
        try:
            worker.barrier()
            while True:
                worker.clock()
        except AbortedError as error:
            path.write_text(str(error))
            raise

    path = tmp_path / "error"
    with job(2) as running, pytest.raises(ZeroDivisionError):
        running.run(work, path)
    assert "the job is" in path.read_text()
