"""``nbps run`` with jobs that fail: which node failed first, and that nobody waits for one that has ended."""

from __future__ import annotations

import re

import pytest

from support import running

start, play = (pytest.fixture(make) for make in (running.start, running.play))

# The node that fails ends after the others, as a node with much to give back does.
_RAISES = """
import os, sys, time
import nbps

FAILS, FOLDER = int(sys.argv[1]), sys.argv[2]
RANK = int(os.environ["NBPS_NODE_RANK"])

def work(worker):
    while True:
        worker.clock()
        if worker.node == FAILS and worker.current_clock == 5:
            raise ValueError("planted")

with nbps.Job([nbps.Table("t", rows=4, width=2)], workers=1) as job:
    try:
        job.run(work)
    finally:
        print("pid", os.getpid(), flush=True)
        if RANK == FAILS:
            while not os.path.exists(f"{FOLDER}/go"):
                time.sleep(0.01)
"""
_BEFORE = """
import os, sys, time
import nbps

if int(os.environ["NBPS_NODE_RANK"]) == int(sys.argv[1]):
    sys.exit(int(sys.argv[2]))
with nbps.Job([nbps.Table("t", rows=4, width=2)], workers=1, start_timeout_s=1000, failure_timeout_s=1000) as job:
    job.run(lambda worker: None)
"""
_LEAVES = """
import os, sys
import nbps

with nbps.Job([nbps.Table("t", rows=4, width=2)], workers=1) as job:
    job.run(lambda worker: None)
    if int(os.environ["NBPS_NODE_RANK"]) == int(sys.argv[1]):
        os._exit(0)
    job.run(lambda worker: None)
"""
_BOTH_FAIL = """
import os, sys, time
from nbps.transport.mesh.roll import Roll

FIRST, FOLDER = int(sys.argv[1]), sys.argv[2]
RANK = int(os.environ["NBPS_NODE_RANK"])

def wait_for(name):
    while not os.path.exists(f"{FOLDER}/{name}"):
        time.sleep(0.01)

if RANK != FIRST:
    wait_for("failed")
Roll.found(os.environ["NBPS_ROLL"]).fail(RANK, because_of_another=False)
if RANK == FIRST:
    open(f"{FOLDER}/failed", "w").close()
    wait_for("go")
sys.exit(1)
"""
_KILLED = """
import os, signal, sys
import nbps

def work(worker):
    while True:
        worker.clock()
        if worker.node == int(NODE) and worker.current_clock == 5:
            for pid in (AGENT, DRIVER):
                os.kill(pid, signal.SIGKILL)

NODE = sys.argv[1]
DRIVER = os.getpid()
AGENT = DRIVER
with nbps.Job([nbps.Table("t", rows=4, width=2)], workers=1, failure_timeout_s=1000) as job:
    AGENT = job._open.group.pids[1]
    job.run(work)
"""


def script(folder, text):
    path = folder / "script.py"
    path.write_text(text)
    return path


def until(process, text):
    """Return what the nodes said on standard error until the line with `text`."""
    seen = b""
    while text not in seen:
        line = process.stderr.readline()
        assert line, seen.decode()
        seen += line
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("fails", [0, 1])
def test_the_node_whose_worker_raised_failed_first(start, tmp_path, fails):
    """Also if the other node, which it has told, ends earlier: it is named, with its exit code."""
    process = start("--nodes", 2, script(tmp_path, _RAISES), fails, tmp_path)
    seen = until(process, b"ended because of another: exit code 1")
    (tmp_path / "go").touch()
    _, rest = process.communicate(timeout=running.LIMIT_S)
    errors = (seen + rest).decode()
    assert process.returncode == 1
    assert f"nbps run: node {1 - fails} ended because of another: exit code 1; the others have 40 s to end" in errors
    assert f"NodeError: node {fails} ended the job: worker {fails} of node {fails}" in errors
    assert errors.splitlines()[-1] == f"error: node {fails} failed first: exit code 1"


@pytest.mark.slow
@pytest.mark.parametrize("fails", [0, 1])
def test_nobody_waits_for_a_node_that_failed_before_its_job(play, tmp_path, fails):
    """The others are told at once that it has ended, and how: they would wait for it for as long as the job says."""
    code, _, errors = play("--nodes", 3, "--grace", "inf", script(tmp_path, _BEFORE), fails, 7)
    assert code == 7
    told = re.findall(rf"NodeError: node \d waited at .*node {fails} has ended \(exit code 7\)", errors)
    assert len(told) == 2
    assert errors.splitlines()[-1] == f"error: node {fails} failed first: exit code 7"


@pytest.mark.slow
def test_nobody_waits_for_a_node_that_was_killed_as_a_whole(play, tmp_path):
    """Nothing is left of it that could tell the others; ``nbps run`` knows."""
    code, _, errors = play("--nodes", 2, "--grace", "inf", script(tmp_path, _KILLED), 1)
    assert code == 137
    assert "NodeError: node 1 ended the job: its process has ended (killed by SIGKILL)" in errors
    assert errors.splitlines()[-1] == "error: node 1 failed first: killed by SIGKILL"


@pytest.mark.slow
@pytest.mark.parametrize("leaves", [0, 1])
@pytest.mark.parametrize("when", ["before", "within"])
def test_a_node_that_leaves_and_ends_well_is_named(play, tmp_path, when, leaves):
    """The other one failed, but because of it; the exit code is that of the one that failed."""
    code, _, errors = play("--nodes", 2, script(tmp_path, _BEFORE if when == "before" else _LEAVES), leaves, 0)
    assert code == 1
    assert errors.splitlines()[-1] == (
        f"error: node {leaves} left before the others were done: exit code 0; node {1 - leaves} failed because of it: "
        f"exit code 1"
    )


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_nodes_that_fail_all_lines_name_the_same_first(start, tmp_path, first):
    """The one that fails first ends last; when the other ends, it is known that it was not the first."""
    process = start("--nodes", 2, script(tmp_path, _BOTH_FAIL), first, tmp_path)
    until(process, f"nbps run: node {1 - first} failed after node {first}: exit code 1; the others".encode())
    (tmp_path / "go").touch()
    _, rest = process.communicate(timeout=running.LIMIT_S)
    assert rest.decode().splitlines() == [f"error: node {first} failed first: exit code 1"]
