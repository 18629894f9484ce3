"""How jobs of several nodes end in good order, also where the nodes do not do the same."""

from __future__ import annotations

from pathlib import Path

from nbps.testing.cluster import Cluster, eventually

SCRIPT = Path(__file__).with_name("scripts.py")


def outputs(*arguments, nodes=2, code=0):
    """Run a program on nodes that all end with `code` and leave nothing; return what they said."""
    with Cluster(SCRIPT, nodes, list(arguments)) as cluster:
        cluster.start()
        assert cluster.wait() == [code] * nodes
        eventually(lambda: not cluster.left_behind(), "everything to go", 10)
        return [node.output for node in cluster.nodes]


def test_a_run_that_ended_well_gives_its_results_though_another_node_is_gone():
    """Node 1 has closed the job when the results of node 0's workers arrive: they are returned."""
    assert outputs("slow results") == ["['result']\n", "['fast']\n"]
