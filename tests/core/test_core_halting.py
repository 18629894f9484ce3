"""A halt: all nodes find one clock that nobody is past, hold their workers there, save it, and end; wrong ones cost."""

from __future__ import annotations

import pytest

from nbps.core.messages import Committed, Halt, Saved, Terminate
from nbps.core.rules import FINISHED
from nbps.core.terms import Terms
from nbps.errors import RemoteProtocolError
from support.core_drivers import Cluster


def cluster_of(*bounds, **terms):
    """Return nodes whose workers come to these clocks at most before they heed that they are held."""
    cluster = Cluster(len(bounds), Terms(staleness=9, **terms))
    for node, bound in zip(cluster.nodes, bounds, strict=True):
        node._board.bound = bound
    return cluster


def holds(cluster, node):
    return [clock for kind, clock, *_ in (call for call in cluster.calls[node] if call[0] == "hold")]


def commit(cluster, clock):
    for node in range(len(cluster.nodes)):
        cluster.tell(node, Committed(clock))
    cluster.settle()


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_all_nodes_halt_at_the_highest_bound(asked):
    """Whichever is told to end: workers are held and let go up to that clock; it is saved, and node 0 ends the job."""
    cluster = cluster_of(3, 5, 4)
    cluster.tell(asked, Terminate())
    assert holds(cluster, asked) == [1]
    cluster.settle()
    assert [holds(cluster, node) for node in range(3)] == [[1, 5]] * 3
    cluster.tell(asked, Terminate())  # a second one changes nothing
    for clock in range(1, 6):
        commit(cluster, clock)
    assert [[save.clock for save in saves] for saves in cluster.saves] == [[5]] * 3
    for node in (2, 1):
        cluster.tell(node, Saved())
    assert cluster.ends == []
    cluster.tell(0, Saved())
    cluster.settle()
    reason = f"SIGTERM of node {asked}: the job was saved at clock 5, and ends"
    assert cluster.ends == [reason, f"node 0 ended the job: {reason}", f"node 0 ended the job: {reason}"]


def test_one_node_halts_at_its_own_bound():
    """There is nobody to ask."""
    cluster = cluster_of(4)
    cluster.tell(0, Terminate())
    assert holds(cluster, 0) == [1, 4]
    cluster.tell(0, Committed(3))
    assert cluster.saves == [[]]
    cluster.tell(0, Committed(4))
    cluster.tell(0, Saved())
    assert cluster.ends == ["SIGTERM of node 0: the job was saved at clock 4, and ends"]


def test_a_shard_waits_for_the_bounds_of_nodes_that_have_finished():
    """It has come to a clock that may be that of the halt: nothing is saved or said before it knows."""
    cluster = cluster_of(1, 4)
    cluster.tell(1, Committed(FINISHED))
    cluster.settle()
    cluster.tell(0, Terminate())
    cluster.tell(0, Committed(1))
    assert cluster.nodes[0].shard.clock == 0
    assert cluster.nodes[0].shard.save_due
    cluster.settle()
    assert cluster.nodes[0].halting.clock == 4
    assert cluster.nodes[0].shard.clock == 1
    cluster.tell(0, Committed(4))
    cluster.settle()
    assert [[save.clock for save in saves] for saves in cluster.saves] == [[4]] * 2


def test_workers_that_finish_before_the_clock_of_the_halt_end_the_run():
    """Nothing is left to be saved for: the run is over as if nobody had been told."""
    cluster = cluster_of(7, 7)
    cluster.tell(0, Terminate())
    cluster.settle()
    commit(cluster, FINISHED)
    cluster.pass_time()
    assert sorted(cluster.left) == [0, 1]
    assert cluster.saves == [[], []]
    assert cluster.ends == []


def test_what_is_added_is_sent_whole_from_the_halt_on():
    """Rows may be saved at any of the next clocks: compressed additions leave nothing behind."""
    cluster = cluster_of(2, 2)
    exact = []
    collect = cluster.memory[1].collect
    cluster.memory[1].collect = lambda owner, whole: exact.append(whole) or collect(owner, whole)
    commit(cluster, 1)
    cluster.tell(0, Terminate())
    cluster.settle()
    commit(cluster, 2)
    assert exact == [False, True]


def test_a_bound_below_what_was_said_is_refused():
    """And a second one: a node says its bound once, before it comes to it."""
    cluster = cluster_of(4, 4)
    commit(cluster, 3)
    halting = cluster.nodes[0].halting
    with pytest.raises(
        RemoteProtocolError, match="node 1 halts at clock 3 at most; expected that once, and more than 3"
    ):
        halting.hear(1, Halt(3, 1))
    halting.hear(1, Halt(4, 1))
    with pytest.raises(RemoteProtocolError, match="node 1 halts at clock 5 at most; expected that once"):
        halting.hear(1, Halt(5, 1))
