"""Checkpoints while a node runs: rows are copied at once, written in their own time, and room for copies is limited."""

from __future__ import annotations

from nbps.core.messages import Committed, Save, Saved, Touched
from nbps.core.rules import FINISHED
from nbps.core.terms import Terms
from support.core_drivers import Cluster


def checkpoints(clocks, **settings):
    """Return two nodes that have come to so many clocks, each with one addition a clock to the row of node 0."""
    cluster = Cluster(2, Terms(staleness=5, checkpoint_every=2), **settings)
    for clock in range(1, clocks + 1):
        commit(cluster, clock)
    return cluster


def commit(cluster, clock):
    cluster.memory[1].values[0] += 1
    for node in (0, 1):
        cluster.tell(node, Committed(clock))
    cluster.settle()


def saving(cluster):
    return [call for call in cluster.calls[0] if call[0] in ("copy", "slot")]


def test_rows_are_copied_before_anybody_may_pass_the_checkpoint():
    """The slot of a shard rises to a checkpoint's clock only after its rows were copied."""
    cluster = checkpoints(2)
    assert [call for call in saving(cluster) if call[1] in (0, 2)] == [("slot", 0, 1), ("copy", 2), ("slot", 0, 2)]
    assert cluster.saves[0] == [Save(0, 2, 2)]
    assert cluster.nodes[0].shard.clock == 2


def test_a_checkpoint_without_room_for_a_copy_waits_and_the_node_goes_on_answering():
    """The third waits for the first to be written; meanwhile the node takes what comes, and then copies at once."""
    cluster = checkpoints(5)
    assert len(cluster.saves[0]) == 2
    commit(cluster, 6)
    assert cluster.nodes[0].shard.save_due
    assert cluster.nodes[0].shard.clock == 5
    assert ("slot", 0, 6) not in cluster.calls[1]
    cluster.tell(1, Touched(0, (4,)))
    cluster.settle()
    assert ("subscribe", 1, (4,)) in cluster.calls[0]
    cluster.tell(0, Saved())
    assert cluster.saves[0][-1] == Save(0, 6, 6)
    cluster.settle()
    assert ("slot", 0, 6) in cluster.calls[1]
    assert cluster.nodes[0].unsaved == 2


def test_a_node_leaves_when_its_rows_are_written():
    """Others know that nothing is missing here; the run ends on this node when its disk has everything."""
    cluster = checkpoints(2)
    cluster.tell(1, Saved())
    for node in (0, 1):
        cluster.tell(node, Committed(FINISHED))
    cluster.pass_time()
    assert cluster.left == [1]
    cluster.tell(0, Saved())
    assert cluster.left == [1, 0]
    assert cluster.ends == []
