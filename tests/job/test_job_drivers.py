"""A driver that is interrupted, killed, forked or careless: workers end, and nothing stays in shared memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from nbps.memory.segments import find_segments, remove_orphans
from support import SCRIPTS, processes
from support.processes import children, gone, segments_of

_LIMIT_S = 60


@pytest.fixture
def start():
    """Start a driver by name."""
    with processes.drivers(SCRIPTS / "job_drivers.py") as begin:
        yield begin


@pytest.mark.parametrize("which", ["clock", "compute"])
def test_ctrl_c_ends_the_job(start, which):
    """Once while workers clock, twice while they sit in compiled code: KeyboardInterrupt, no process, no segment."""
    driver = start(which)
    driver.running()
    family = driver.family()
    assert len(family) == 4
    assert segments_of(driver.pid)
    os.killpg(driver.pid, signal.SIGINT)
    if which == "compute":
        time.sleep(0.2)  # the first one has been taken: the grace period runs, of which nothing needs to pass
        os.killpg(driver.pid, signal.SIGINT)
    code, _, errors = driver.end()
    assert code == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert gone(family)
    assert segments_of(driver.pid) == []


@pytest.mark.slow
def test_ctrl_c_while_the_workers_start(start):
    """An interrupt before there are any workers ends the process that was to start them."""
    driver = start("fails to start")
    family = []
    while len(family) < 2:
        family = [*(servers := children(driver.pid)), *(child for pid in servers for child in children(pid))]
        time.sleep(0.01)
    time.sleep(0.5)
    os.killpg(driver.pid, signal.SIGINT)
    code, _, errors = driver.end()
    assert (code, errors.rstrip().endswith("KeyboardInterrupt")) == (-signal.SIGINT, True)
    assert gone(family)
    assert segments_of(driver.pid) == []


@pytest.mark.slow
def test_an_interrupt_that_was_ignored_stays_so(start):
    """A job that was started with ``&`` in a script goes on when Ctrl-C ends the script, and ends by SIGTERM."""
    driver = start("clock", ignores="INT")
    driver.running()
    family = driver.family()
    os.killpg(driver.pid, signal.SIGINT)
    os.kill(driver.pid, signal.SIGTERM)
    driver.end()
    assert driver.process.returncode == -signal.SIGTERM
    assert gone(family)
    while segments_of(driver.pid):
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["clock", "compute"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=["kill -9", "kill", "hangup"])
def test_workers_of_a_killed_driver_end_and_its_segments_go(start, which, number):
    """Supervisor and workers end by themselves, also in compiled code; the segments go, and nobody says they leaked."""
    driver = start(which)
    driver.running()
    family = driver.family()
    os.kill(driver.pid, number)
    code, _, errors = driver.end()
    assert (code, errors) == (-number, "")
    assert gone(family)
    while segments_of(driver.pid):
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_process_that_the_killed_driver_forked_keeps_no_worker_alive(start):
    """It holds the driver's sockets open; the death of the driver is noticed all the same."""
    driver = start("compute", "forked")
    driver.running()
    family = driver.family()
    try:
        os.kill(driver.pid, signal.SIGKILL)
        driver.process.wait(_LIMIT_S)
        assert gone(family)
        while segments_of(driver.pid):
            time.sleep(0.01)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)


@pytest.mark.slow
def test_segments_outlive_only_until_the_next_start(start):
    """Driver, fork server, supervisor and workers all killed at once: the next job removes what they left."""
    driver = start("clock")
    driver.running()
    everyone = [driver.pid, *driver.family()]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    assert len(segments_of(driver.pid)) == 4
    for pid in everyone:
        os.kill(pid, signal.SIGKILL)
    driver.process.wait(_LIMIT_S)
    assert gone(everyone)
    # Another job of this machine may have removed them already.
    assert {found.alive for found in find_segments() if found.pid == driver.pid} <= {False}
    remove_orphans()
    assert segments_of(driver.pid) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("guardless", r"\[0, 1\] \[2.0, 2.0, 2.0, 2.0\]\ncaught kept its class\n"),
        ("dropped", r"\[0, 1\] False\n"),
        ("left open", r"\[0, 1\]\n"),
        ("forks", r"\[0, 1\] True\n"),
    ],
)
def test_careless_scripts_work_and_leave_nothing(start, which, said):
    """No ``__main__`` guard, a job dropped or left open, a fork in between: right results, silent end, nothing left."""
    driver = start(which)
    code, output, errors = driver.end()
    assert (code, errors) == (0, "")
    assert re.fullmatch(said, output)
    assert segments_of(driver.pid) == []


@pytest.mark.slow
def test_a_fork_of_the_driver_cannot_use_its_job(start):
    """Its runs and checkpoints are refused, its close does nothing, and the job goes on where it was opened."""
    driver = start("fork uses it")
    code, output, errors = driver.end()
    assert (code, errors) == (0, "")
    said = "this process, CHILD, is a fork of process PARENT, which opened the job and alone can use it; open a job of"
    lines = output.splitlines()
    assert [line.partition(": ")[0] for line in lines if said in line] == ["run", "checkpoint"]
    assert "[0, 1] 0 [0, 1]" in lines
    assert len(lines) == 3


_CLOSED = """
import nbps
with nbps.Job([nbps.Table("t", 1, 1)], workers=2) as job:
    job.run(lambda worker: [print("lost", flush=True), worker.table("t").inc(0, 1)])
    open({path!r}, "w").write(str(job.table("t").to_numpy()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-", "2>&-"])
def test_a_job_runs_without_standard_streams(tmp_path, closed):
    """Closed descriptors 0 to 2 are not mistaken for the job's sockets."""
    path = tmp_path / "result"
    script = _CLOSED.format(path=str(path))
    subprocess.run(["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, script], check=True, timeout=_LIMIT_S)
    assert path.read_text() == "[[2.]]"


@pytest.mark.slow
def test_a_module_of_the_working_directory_is_not_imported(tmp_path):
    """A json.py or random.py where the user happens to be does not stop the workers from starting."""
    for name in ("json", "random", "selectors"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "job.py"
    script.write_text(_CLOSED.format(path=str(tmp_path / "result")))
    subprocess.run([sys.executable, script], cwd=tmp_path, check=True, timeout=_LIMIT_S, stdout=subprocess.DEVNULL)
    assert (tmp_path / "result").read_text() == "[[2.]]"
