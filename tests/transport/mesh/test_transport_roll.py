"""The roll of nodes: what who started them and they themselves note there, and whose memory it is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nbps.transport.mesh.roll import Roll, describe


@pytest.fixture
def roll():
    with contextlib.closing(Roll.made(3)) as made:
        yield made


def test_a_node_reads_what_whoever_started_it_notes(roll):
    """All nodes run at first; then each has ended in its way."""
    with contextlib.closing(Roll.found(roll.path)) as found:
        assert len(found) == 3
        assert found.ended() == {}
        roll.end(0, 0)
        roll.end(2, -signal.SIGKILL)
        assert found.ended() == {0: "exit code 0", 2: "killed by SIGKILL"}


def test_whoever_started_the_nodes_reads_which_failed_by_itself(roll):
    """First, later, or because of another one; a job that begins makes one before forgotten."""
    with contextlib.closing(Roll.found(roll.path)) as found:
        assert [roll.failed_at(rank) for rank in range(3)] == [None] * 3
        found.fail(1, because_of_another=False)
        found.fail(0, because_of_another=True)
        found.fail(2, because_of_another=False)
        assert roll.failed_at(1) < roll.failed_at(2) < roll.failed_at(0) == float("inf")
        found.begin(0)
        assert roll.failed_at(0) is None


@pytest.mark.parametrize("path", ["", "/proc/self/fd/0", "/dev/null", "/absent", "/proc/1/fd/3"])
def test_what_is_not_a_roll_is_left_alone(path):
    """No variable, and one that outlived the process that set it."""
    assert Roll.found(path) is None


def test_a_roll_ends_with_the_process_that_made_it():
    """Whoever opens it later finds none, whatever happens to the number of that process."""
    script = "from nbps.transport.mesh.roll import Roll; roll = Roll.made(2); print(roll.path)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert Roll.found(done.stdout.strip()) is None
    with Path(os.devnull).open() as other:
        assert Roll.found(f"/proc/self/fd/{other.fileno()}") is None


def test_ends_in_words():
    """Exit codes, signals, and those without a name."""
    assert [describe(status) for status in (0, 7, -signal.SIGTERM, -(signal.SIGRTMIN + 1))] == [
        "exit code 0", "exit code 7", "killed by SIGTERM", f"killed by signal {signal.SIGRTMIN + 1}",
    ]  # fmt: skip
