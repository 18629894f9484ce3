"""SIGTERM of one node, or of all: the job is saved on all of them at one clock, exactly, and ends."""

from __future__ import annotations

import os
import signal

import pytest

from nbps.testing.chaos.cluster import Cluster, eventually
from support import SCRIPTS
from support.saved import saved

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def terminated(folder, model, access, ranks, *words):
    """Run two nodes, tell some of them to end, and return exit codes and what was said."""
    with Cluster(SCRIPTS / "terminated.py", 2, [str(folder), model, access, *words]) as cluster:
        cluster.start()
        for node in cluster.nodes:
            eventually(lambda node=node: node.output.count("running") == 2, f"node {node.rank} to run")
        for rank in ranks:
            os.kill(cluster.nodes[rank].pid, signal.SIGTERM)
        codes = [node.wait() for node in cluster.nodes]
        said = [node.output.replace("running\n", "") for node in cluster.nodes]
        eventually(lambda: not cluster.left_behind(), "all to be gone")
        return codes, said


@pytest.mark.parametrize(
    ("model", "access"), [("ESSP(2)", "direct"), ("SSP(2)", "cached"), ("ASP()", "direct"), ("BSP()", "cached")]
)
def test_all_nodes_are_told(tmp_path, model, access):
    """As Slurm does: each ends with 143, and one checkpoint is there, with every update below its clock."""
    codes, said = terminated(tmp_path, model, access, (0, 1))
    assert codes == [143, 143]
    assert said == ["left in good order\n"] * 2
    clock, rows = saved(tmp_path)
    assert clock >= 10
    assert rows == {(clock, clock, clock, clock, 0, 0, 0, 0, 0)}


@pytest.mark.parametrize("rank", [0, 1])
def test_one_node_is_told(tmp_path, rank):
    """As of a spot machine: the other hears why the job ends, and could go on without it from just there."""
    codes, said = terminated(tmp_path, "VAP(100.0)" if rank else "ESSP(2)", "cached", (rank,))
    clock, rows = saved(tmp_path)
    assert rows == {(clock, clock, clock, clock, 0, 0, 0, 0, 0)}
    assert codes[rank] == 143
    assert codes[1 - rank] == 0
    reason = f"SIGTERM of node {rank}: the job was saved at clock {clock}, and ends (lost {rank})"
    by = "node 0 ended the job: " if rank == 0 else ""
    assert said[1 - rank] == f"NodeError: {by}{reason}\nleft in good order\n"


def test_the_others_go_on_without_a_node_that_is_told(tmp_path):
    """Under ``on_failure="continue"``: from the clock at which it was saved: nothing is lost or doubled."""
    codes, said = terminated(tmp_path, "ESSP(2)", "direct", (1,), "continue")
    assert codes == [0, 143]
    clock, rows = saved(tmp_path)
    assert rows == {(clock, clock, clock, clock, 0, 0, 0, 0, 0)}
    row = [clock + 20] * 2 + [clock] * 2 + [0] * 5
    assert said == [f"{[clock + 20] * 2} {[row] * 4}\nleft in good order\n", "left in good order\n"]
