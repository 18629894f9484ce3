"""Jobs that cannot start: the caller learns why and what to do, and nothing is left behind."""

from __future__ import annotations

import errno
import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import nbps
from nbps.errors import WorkerDiedError, WorkerError


def job(workers=3, **options):
    return nbps.Job([nbps.Table("t", 1, 1, dtype="int64")], workers=workers, **options)


def test_a_preload_that_does_not_pickle_leaves_nothing():
    """The error is Python's own, and no process was started for it."""
    lock = threading.Lock()
    with pytest.raises(TypeError, match="pickle"), job(preload=lambda: lock):
        pass


def test_a_fork_that_fails_says_why(tmp_path):
    """The reason reaches the caller, and the workers that were forked before it end."""

    def break_fork(path, limit):
        fork = os.fork

        def limited():
            if len(pids := path.read_text().split()) == limit:
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            pid = fork()
            if pid:
                path.write_text(" ".join([*pids, str(pid)]))
            return pid

        os.fork = limited

    path = tmp_path / "pids"
    path.touch()
    preload = functools.partial(break_fork, path, 2)
    with pytest.raises(WorkerError, match="Resource temporarily unavailable"), job(preload=preload):
        pass
    pids = path.read_text().split()
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


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


def die_after_the_answer():
    """Have the supervisor, in which this runs, killed as soon as it has said that the workers run."""
    from multiprocessing.connection import Connection

    send = Connection.send

    def send_and_die(self, value):
        send(self, value)
        os.kill(os.getpid(), signal.SIGKILL)

    Connection.send = send_and_die


@pytest.mark.parametrize("agent", [False, True], ids=["workers", "workers and agent"])
def test_a_supervisor_that_is_killed_during_the_start_is_told(agent, tmp_path):
    """It is no BrokenPipeError, whatever the driver was about to send."""
    options = {"checkpoints": nbps.Checkpoints(tmp_path, every=10)} if agent else {}
    with pytest.raises(WorkerDiedError, match="killed together with"):  # noqa: SIM117
        with job(preload=die_after_the_answer, **options) as running:
            running.run(lambda worker: time.sleep(60))  # on a busy machine the start may be over before


_LIMITED = """
import resource, sys
import nbps, nbps.job.job, nbps.memory.arrow
from pathlib import Path
limit, value = getattr(resource, sys.argv[1]), int(sys.argv[2])
if limit == resource.RLIMIT_AS:  # what it has, and as much more
    value += 1024 * int(Path("/proc/self/status").read_text().split("VmSize:")[1].split()[0])
resource.setrlimit(limit, (value, resource.getrlimit(limit)[1]))
try:
    with nbps.Job([nbps.Table("large", 1 << 20, 32)], workers=4):
        print("started")
except nbps.Error as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        ("RLIMIT_NOFILE", 6, ["WorkerError", "Too many open files", "ulimit -n", "fewer workers"]),
        ("RLIMIT_NOFILE", 12, ["WorkerError", "Too many open files", "ulimit -n", "fewer workers"]),
        ("RLIMIT_FSIZE", 1 << 20, ["SharedMemoryError", "134,21", "'large'", "File too large", "ulimit -f"]),
        ("RLIMIT_AS", 1 << 26, ["SharedMemoryError", "134,21", "large'", "Cannot allocate memory", "ulimit -v"]),
    ],
)
def test_what_the_system_refuses_is_said_with_what_to_do(limit, value, words):
    """Limits of files, of their sizes and of memory: an error of nbps names the limit, the table and its size."""
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, limit, str(value)], capture_output=True, text=True, timeout=60, check=False
    )
    if limit == "RLIMIT_AS":  # the processes that start meanwhile have it too, and may have got no further
        assert re.fullmatch(r"((Traceback|Exception ignored) .*\nMemoryError:? ?\n)?", done.stderr, re.DOTALL)
    else:
        assert done.stderr == ""
    assert done.returncode == 0
    assert [word for word in words if word not in done.stdout] == []


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


_UNHEEDED = """
import os, signal
import nbps
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(3):
    with nbps.Job([], workers=2) as job:
        print(job.run(lambda worker: signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN), flush=True)
"""


def test_a_driver_that_ignores_the_end_of_children():
    """Jobs run one after the other and end in good order; their workers ignore it too, as forks of the driver would."""
    done = subprocess.run([sys.executable, "-c", _UNHEEDED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("[True, True]\n" * 3, "", 0)
