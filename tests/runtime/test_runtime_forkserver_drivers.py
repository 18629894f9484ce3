"""Drivers that close, fork, drop or stop what the fork server needs: jobs go on, and the driver ends at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
from nbps.runtime import forkserver
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
