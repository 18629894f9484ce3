"""Processes of a job as the system shows them, and scripts that run a job."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nbps.memory.segments import find_segments

_LIMIT_S = 120


def children(pid: int) -> list[int]:
    """Return the processes that `pid` started, the oldest first."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descendants(pid: int) -> list[int]:
    """Return the processes that `pid` started, and those that they started."""
    below = children(pid)
    return [*below, *(one for child in below for one in descendants(child))]


def name(pid: int) -> str:
    """Return what ``ps`` calls a process."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def status(pid: int) -> str:
    """Return what the system says of a process; that of a zombie if it is gone."""
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "\nState:\tZ"


def gone(pids: list[int]) -> bool:
    """Whether all have ended, after waiting for it: one that stays makes the test's time limit end it."""
    while any("\nState:\tZ" not in status(pid) for pid in pids):
        time.sleep(0.01)
    return True


def segments_of(pid: int) -> list[str]:
    """Return the names of the segments that a process owns."""
    return [found.name for found in find_segments() if found.pid == pid]


class Driver:
    """A script that runs a job, in a process group of its own; it ignores the signals named in `ignores`."""

    def __init__(self, script: Path, *words: object, ignores: str = "") -> None:
        before = ["sh", "-c", f'trap "" {ignores}; exec "$@"', "sh"] if ignores else []
        self.process = subprocess.Popen(
            [*before, sys.executable, script, *map(str, words)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
        )  # fmt: skip
        self.pid = self.process.pid

    def running(self, workers: int = 1) -> None:
        """Return when so many workers have said that they are."""
        for _ in range(workers):
            assert self.process.stdout.readline() == "running\n"

    def family(self) -> list[int]:
        """Return the pids of the fork server, the supervisor and the workers."""
        (server,) = [pid for pid in children(self.pid) if name(pid) == "nbps-forkserver"]
        (supervisor,) = children(server)
        return [server, supervisor, *children(supervisor)]

    def kill(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to it alone."""
        os.kill(self.pid, number)

    def end(self) -> tuple[int, str, str]:
        """Return its exit code and output when it has ended."""
        output, errors = self.process.communicate(timeout=_LIMIT_S)
        return self.process.returncode, output, errors


@contextlib.contextmanager
def drivers(script: Path) -> Iterator[Callable[..., Driver]]:
    """Give what starts drivers with some words; kills those that the test did not end."""
    started: list[Driver] = []

    def start(*words: object, **how: str) -> Driver:
        started.append(Driver(script, *words, **how))
        return started[-1]

    try:
        yield start
    finally:
        for driver in started:
            if driver.process.poll() is None:
                os.killpg(driver.pid, signal.SIGKILL)
            driver.process.communicate()
