"""What another node sends wrong costs it its connection, never the job."""

from __future__ import annotations

import pytest

from nbps.core.messages import (
    Committed,
    Confirm,
    Frame,
    LinkDown,
    LinkUp,
    Push,
    Received,
    Ship,
    Stop,
    Subscribe,
    Visible,
    WorkerLost,
)
from nbps.core.node import State
from nbps.core.terms import Terms
from support.core_drivers import Cluster

WRONG = {
    "acknowledgement": (None, 9, "acknowledges message 9; expected at most 0"),
    "clock": (Push(1, -3, None), 0, "node 1 sent batch 1 of clock -3 to shard 0; expected number 1 of clock 0"),
    "number": (Push(2, 1, None), 0, "node 1 sent batch 2 of clock 1 to shard 0; expected number 1 of clock 0"),
    "batch": (Push(1, 1, "broken"), 0, "these rows are broken"),
    "ship": (Ship(2, 1, 0, 0, None), 0, "node 1 shipped number 2 of clock 1"),
    "ship of a batch": (Ship(1, 1, 1, 0, None), 0, "with batches up to 1"),
    "ship of a request": (Ship(1, 1, 0, 1, None), 0, "answers up to 1"),
    "ship of an earlier clock": (Ship(1, -1, 0, 0, None), 0, "node 1 shipped number 1 of clock -1"),
    "shipped rows": (Ship(1, 1, 0, 0, "broken"), 0, "these rows are broken"),
    "request": (Subscribe(2, (1,)), 0, "node 1 sent request 2 for rows; expected number 1"),
    "requested rows": (Subscribe(1, "broken"), 0, "these rows are broken"),
    "confirmation": (Confirm(1), 0, "node 1 confirms ship 1; expected at most 0"),
    "round": (Visible(1), 0, "node 1 says that round 1 was seen; the last is 0"),
    "loss": (Stop(3, 0, "because"), 0, "node 1 says that node 2 is lost, of 2"),
}


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_what_another_node_sent_wrong_costs_it_its_connection_alone(name, ordered):
    """Nothing changes, and nothing is acknowledged: the same number may come again, and right, after a reconnect."""
    message, acknowledged, text = WRONG[name]
    cluster = Cluster(2, Terms(staleness=0 if ordered else 1, ordered=ordered))
    node = cluster.nodes[0]
    cluster.tell(0, Received(1, Frame(0, 1 if message else 0, acknowledged, message)))
    ((refused_by, refuse),) = cluster.refused
    assert (refused_by, refuse.peer) == (0, 1)
    assert text in refuse.reason
    assert node.state is State.RUNNING
    assert node.links[1].received == 0
    assert cluster.wire[0, 1] == cluster.calls[0] == []
    for event in (LinkDown(1), LinkUp(1)):
        cluster.tell(0, event)
    cluster.tell(0, Received(1, Frame(0, 1, 0, Push(1, 1, 5))))
    cluster.tell(0, Committed(1))
    assert cluster.memory[0].values[0] == 5


def test_a_wrong_acknowledgement_after_the_end_costs_the_connection_too():
    """The job is over, for another reason."""
    cluster = Cluster(2, Terms(staleness=1))
    cluster.tell(0, WorkerLost("worker 3 was killed"))
    cluster.tell(0, Received(1, Frame(0, 0, 7, None)))
    assert [refuse.reason for _, refuse in cluster.refused] == [
        "node 1 acknowledges message 7; expected at most 1, the last sent"
    ]
    assert cluster.ends == ["worker 3 was killed"]
