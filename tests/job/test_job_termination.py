"""SIGTERM of a running job: with a plan of checkpoints one is taken, and holds exactly what it says; exit code 143."""

from __future__ import annotations

import os
import signal
import threading

import pytest

import nbps
from nbps.errors import CheckpointError
from support import SCRIPTS, processes
from support.saved import saved

_LIMIT_S = 120


@pytest.fixture
def start():
    """Start a driver whose two workers are running."""
    with processes.drivers(SCRIPTS / "terminated.py") as begin:

        def running(*words):
            driver = begin(*words)
            driver.running(2)
            return driver

        yield running


def end(driver):
    """Return exit code and output; nothing of it is left in shared memory."""
    ended = driver.end()
    assert processes.segments_of(driver.pid) == []
    return ended


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "access"),
    [("ESSP(2)", "direct"), ("SSP(3)", "cached"), ("ASP()", "direct"), ("BSP()", "cached"), ("VAP(100.0)", "cached")],
)
def test_a_checkpoint_is_taken_and_holds_every_update_below_its_clock(start, tmp_path, model, access):
    """At a clock that nobody had planned; the job ends with 143, and its `finally` blocks run."""
    driver = start(str(tmp_path), model, access)
    driver.kill()
    code, output, errors = end(driver)
    assert code == 143
    assert output == "left in good order\n"
    clock, rows = saved(tmp_path)
    assert clock >= 10
    assert rows == {(clock, clock, 0, 0, 0, 0, 0, 0, 0)}
    assert errors.splitlines()[-2:] == [
        "nbps: SIGTERM: the job is saved as soon as it can be, and ends; a second one ends it at once",
        f"nbps: SIGTERM of node 0: the job was saved at clock {clock}, and ends",
    ]


def test_one_that_all_processes_get_is_the_drivers_to_heed(start, tmp_path):
    """As Slurm sends it at the end of a job's time: fork server, supervisor, workers and agent live to save."""
    driver = start(str(tmp_path), "ESSP(2)", "direct")
    below = processes.descendants(driver.pid)
    assert len(below) >= 5
    for pid in below:
        os.kill(pid, signal.SIGTERM)
    driver.kill()
    code, _, errors = end(driver)
    assert code == 143, errors
    clock, rows = saved(tmp_path)
    assert rows == {(clock, clock, 0, 0, 0, 0, 0, 0, 0)}


@pytest.mark.slow
def test_a_second_one_ends_the_job_at_once(start, tmp_path):
    """A worker that never comes to its clock holds up the checkpoint, not the end."""
    driver = start(str(tmp_path), "ESSP(2)", "direct", "busy")
    driver.kill()
    while "a second one ends it at once" not in (line := driver.process.stderr.readline()):
        assert line
    driver.kill()
    assert end(driver)[0] == -signal.SIGTERM
    with pytest.raises(CheckpointError, match="found nothing"):
        nbps.Job.resume(tmp_path)


@pytest.mark.slow
def test_without_a_plan_it_does_what_it_did(start, tmp_path):
    """The process dies of it; nothing is left."""
    driver = start(str(tmp_path), "ESSP(2)", "direct", "unplanned")
    driver.kill()
    driver.process.wait(_LIMIT_S)
    assert driver.process.returncode == -signal.SIGTERM
    driver.process.communicate()


def test_a_handler_of_the_script_stays(start, tmp_path):
    """It is called, and the job goes on."""
    driver = start(str(tmp_path), "ESSP(2)", "direct", "handler")
    driver.kill()
    assert driver.process.stdout.readline() == "mine\n"
    driver.kill(signal.SIGINT)
    code, output, _ = end(driver)
    assert (code, output) == (-signal.SIGINT, "left in good order\n")
    assert list(tmp_path.iterdir()) == []


def test_the_handler_is_there_while_a_run_is_on(tmp_path):
    """Not before, not after, and not in a run of another thread."""
    seen = []
    before = signal.getsignal(signal.SIGTERM)
    assert before is signal.SIG_DFL
    path = tmp_path / "fifo"
    os.mkfifo(path)

    def look():
        with path.open("w") as file:  # when a worker reads it
            seen.append(signal.getsignal(signal.SIGTERM))
            file.write("go on")

    def wait(worker):
        return path.read_text()

    with nbps.Job([nbps.Table("t", 1, 1)], workers=1, checkpoints=nbps.Checkpoints(tmp_path / "c", 10)) as job:
        looking = threading.Thread(target=look)
        looking.start()
        assert job.run(wait) == ["go on"]
        looking.join()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        running = threading.Thread(target=job.run, args=(wait,))
        running.start()
        look()
        running.join()
    assert callable(seen[0])
    assert seen[0] is not signal.SIG_DFL
    assert seen[1] is signal.SIG_DFL
