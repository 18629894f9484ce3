"""Drivers that close, fork, drop or stop what the fork server needs: jobs go on, and the driver ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import nbps
from nbps.checkpoint.load import latest
from nbps.runtime import forkserver, surroundings

_CLOSING = """
import os, sys, tempfile
import nbps

def ask():
    with nbps.Job([], workers=2) as job:
        return job.run(lambda worker: worker.rank)

ask()
if sys.argv[1] == "fork" and os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
os.closerange(3, 100)
files = [tempfile.TemporaryFile() for _ in range(8)]
kept = [os.fstat(file.fileno()).st_ino for file in files]
print(ask(), ask(), [os.fstat(file.fileno()).st_ino for file in files] == kept)
"""


@pytest.mark.parametrize("where", ["fork", "driver"])
def test_a_process_that_closes_all_descriptors_goes_on(where):
    """As a daemon does: the next job starts a new server, and files that have the old one's numbers stay open."""
    done = subprocess.run([sys.executable, "-c", _CLOSING, where], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("[0, 1] [0, 1] True\n", "", 0)


_OUTLIVED = """
import os, signal
import nbps
from nbps.runtime import forkserver, surroundings
with nbps.Job([], workers=1) as job:
    job.run(str)
def closes_by_itself(server, wait=forkserver.subprocess.Popen.wait):
    code = wait(server)
    print("server", code, flush=True)
    os.kill(pid, signal.SIGKILL)
    return code
forkserver.subprocess.Popen.wait = lambda server, timeout: closes_by_itself(server)
pid = os.fork()
if pid == 0:
    signal.pause()
"""


def test_the_server_ends_though_a_fork_of_its_driver_lives():
    """The fork has a copy of the server's socket, and does not keep the driver waiting for it."""
    done = subprocess.run([sys.executable, "-c", _OUTLIVED], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("server 0\n", "", 0)


def test_a_server_that_was_stopped_is_continued():
    """The next job does not wait for somebody who would do so."""
    with nbps.Job([], workers=1) as job:
        job.run(str)
    pid = forkserver.current().pid
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        pass
    with nbps.Job([], workers=1) as job:
        assert job.run(lambda worker: worker.rank) == [0]
    assert forkserver.current().pid == pid


def test_a_supervisor_that_is_stopped_while_it_starts_is_continued():
    """Its driver would wait for it without limit: a preload may take as long as it likes."""
    with nbps.Job([], workers=2, preload=lambda: os.kill(os.getpid(), signal.SIGSTOP)) as job:
        assert job.run(lambda worker: worker.rank) == [0, 1]


_NOBODY = """
import os
from nbps.runtime import surroundings
before = surroundings.kind()
os.setgid(65534)
os.setuid(65534)
after = surroundings.kind()
print(len(before) == len(after), before != after)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_driver_that_was_root_has_surroundings():
    """It may not read its namespaces any more; as another user it needs another server."""
    done = subprocess.run([sys.executable, "-c", _NOBODY], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_a_relative_cache_folder_in_a_folder_that_is_gone(tmp_path, monkeypatch):
    """It has no absolute name; a job there gets a server of its own, not a raw error."""
    monkeypatch.setenv("NBPS_CACHE_DIR", "cache")
    elsewhere = surroundings.kind()
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert surroundings.kind() != elsewhere


_LATE = """
import atexit
import nbps
from nbps.memory.segments import find_segments
import os

def ask():
    with nbps.Job([nbps.Table("t", 1, 1)], workers=2) as job:
        found = job.run(lambda worker: worker.rank)
    print(found, [segment.name for segment in find_segments() if segment.pid == os.getpid()], flush=True)

atexit.register(ask)
ask()
"""


def test_a_job_after_the_server_was_dismissed_at_exit():
    """A handler that was registered before the first job runs after the server's: it gets a new one."""
    done = subprocess.run([sys.executable, "-c", _LATE], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("[0, 1] []\n" * 2, "", 0)


_FIRST = """
import atexit, sys
import nbps

def ask():
    plan = nbps.Checkpoints(sys.argv[1], every=5)
    with nbps.Job([nbps.Table("t", 1, 1)], workers=2, checkpoints=plan) as job:
        print(job.run(lambda worker: [worker.clock() for _ in range(6)][0]), flush=True)

atexit.register(ask)
"""


def test_the_first_job_of_a_process_may_be_one_at_exit(tmp_path):
    """What it needs and nobody has imported yet can still be: no threads of the driver's, which Python refuses."""
    command = [sys.executable, "-c", _FIRST, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = [line for line in done.stderr.splitlines() if not line.startswith("nbps: compil")]  # it may be the first to
    assert (done.stdout, said, done.returncode) == ("[None, None]\n", [], 0)
    assert latest(tmp_path).clock == 5
