"""Nodes, shards, replicas and links by hand: one scripted situation for each rule of design section 6."""

from __future__ import annotations

import math

import pytest

from nbps.core.link import Link
from nbps.core.messages import (
    BarrierReached,
    Begin,
    Committed,
    Evicted,
    LinkDown,
    LinkUp,
    Needed,
    Pull,
    Push,
    Refreshed,
    Ship,
    Stop,
    Subscribe,
    Tick,
    Touched,
    Unsubscribe,
    WorkerLost,
)
from nbps.core.node import State
from nbps.core.rules import FINISHED, gate_target, is_checkpoint, is_too_old, value_bound
from nbps.core.terms import Terms
from nbps.errors import LocalProtocolError
from support.core_drivers import Cluster

ESSP = Terms(staleness=1)
SSP = Terms(staleness=1, eager=False)


def test_the_rules_of_the_papers():
    """C - s, r >= c - s, v0 / sqrt(t): at the borders, with 0, infinity and more staleness than clocks."""
    assert [gate_target(5, s) for s in (0, 2, 5, 9, math.inf)] == [5, 3, 0, 0, 0]
    assert [is_too_old(3, 5, s) for s in (0, 1, 2, math.inf)] == [True, True, False, False]
    assert [value_bound(2.0, t) for t in (1, 4, 16)] == [2.0, 1.0, 0.5]
    assert [is_checkpoint(c, 3) for c in (0, 1, 3, 6, FINISHED)] == [False, False, True, True, False]
    assert not is_checkpoint(3, 0)


def test_a_shard_ships_when_the_last_node_has_come_and_the_slot_rises_after_its_rows():
    """Nothing is shipped until all have committed; then values first, the slot last."""
    cluster = Cluster(3, ESSP)
    cluster.memory[1].values[0] += 7  # a worker of node 1 adds to a row of node 0
    cluster.tell(1, Committed(1))
    assert cluster.messages(1, 0) == [Push(1, 1, 7)]
    cluster.deliver(1, 0)
    cluster.tell(0, Committed(1))
    assert [message for message in cluster.messages(0, 2) if isinstance(message, Ship)] == []
    cluster.tell(2, Committed(1))
    cluster.settle()
    assert [node.shard.clock for node in cluster.nodes] == [1, 1, 1]
    assert [memory.values[0] for memory in cluster.memory] == [7, 7, 7]
    calls = cluster.calls[2]
    assert calls.index(("install", 0, 7, 0)) < calls.index(("slot", 0, 1))
    assert any(link.kept for node in cluster.nodes for link in node.links.values())
    cluster.now = 1.0
    for node in range(3):
        cluster.tell(node, Tick())
    cluster.settle()
    assert not any(link.kept for node in cluster.nodes for link in node.links.values())


def test_own_batches_that_a_ship_does_not_hold_stay_visible():
    """Read-my-writes: a ship sent before the owner had the batch does not take the batch away."""
    cluster = Cluster(2, Terms(staleness=3))
    cluster.tell(0, Committed(1))
    cluster.tell(1, Committed(1))
    cluster.deliver(1, 0)  # node 0 ships clock 1
    cluster.memory[1].values[0] += 5
    cluster.tell(1, Committed(2))  # batch 2, which that ship does not hold
    cluster.deliver(0, 1)
    assert cluster.memory[1].values[0] == 5
    assert [number for number, _ in cluster.nodes[1].replicas[0].unapplied] == [2]
    cluster.tell(0, Committed(2))
    cluster.settle()
    assert cluster.memory[1].values[0] == cluster.memory[0].values[0] == 5
    assert not cluster.nodes[1].replicas[0].unapplied


def test_a_lazy_shard_ships_only_what_is_asked_for_and_the_earliest_first():
    """SSP: no ship without a question; a question for a later clock does not hide one for an earlier clock."""
    cluster = Cluster(2, SSP)
    for clock in (1, 2):
        cluster.tell(0, Committed(clock))
    cluster.tell(1, Committed(1))
    cluster.settle()
    assert cluster.nodes[1].replicas[0].clock == 0
    cluster.tell(1, Needed(2))  # node 0's shard is at clock 1: no answer yet
    cluster.settle()
    cluster.tell(1, Needed(1))
    assert cluster.messages(1, 0) == [Pull(1)]
    cluster.settle()
    assert cluster.nodes[1].replicas[0].clock == 1
    cluster.tell(1, Committed(2))
    cluster.settle()
    assert cluster.nodes[1].replicas[0].clock == 2  # the later question was asked again


def test_asynchronous_nodes_get_an_answer_to_every_batch():
    """ASP: a node sees others' additions whenever it pushes, however far behind they are."""
    cluster = Cluster(2, Terms(staleness=math.inf))
    cluster.memory[0].values[0] += 3
    cluster.tell(1, Committed(1))
    cluster.settle()
    assert cluster.memory[1].values[0] == 3


def test_strict_bsp_adds_batches_in_the_order_of_nodes_when_all_have_come():
    """The order of additions does not depend on which batch came first."""
    orders = []
    for first, second in ((1, 2), (2, 1)):
        cluster = Cluster(3, Terms(staleness=0, ordered=True))
        for node in (1, 2):
            cluster.memory[node].values[0] += node
        for node in (first, second):
            cluster.tell(node, Committed(1))
            cluster.deliver(node, 0)
        assert not [call for call in cluster.calls[0] if call[0] == "apply"]
        cluster.tell(0, Committed(1))
        cluster.settle()
        orders.append([call for call in cluster.calls[0] if call[0] == "apply"])
    assert orders[0] == orders[1] == [("apply", 1), ("apply", 2)]


def test_a_late_ship_does_not_answer_a_later_request():
    """A row that was evicted and is wanted again waits for the ship that answers this request."""
    cluster = Cluster(2, ESSP)
    cluster.tell(1, Touched(0, (4,)))
    cluster.deliver(1, 0)
    cluster.tell(1, Evicted(0, (4,)))
    cluster.tell(1, Touched(0, (4,)))
    assert cluster.messages(1, 0) == [Unsubscribe((4,)), Subscribe(2, (4,))]
    cluster.settle()
    wanted = [call for call in cluster.calls[1] if call[0] in ("want", "install")]
    assert wanted == [("want", 0, (4,), 1), ("want", 0, (4,), 2), ("install", 0, 0, 1), ("install", 0, 0, 2)]


def test_what_was_lost_with_a_connection_is_sent_again_and_taken_once():
    """After a reconnect everything unacknowledged comes again; what had arrived is dropped by its number."""
    cluster = Cluster(2, ESSP)
    cluster.memory[0].values[1] += 2
    cluster.tell(0, Committed(1))
    cluster.deliver(0, 1)  # arrives, but the acknowledgement is lost with the connection
    cluster.memory[0].values[1] += 3
    cluster.tell(0, Committed(2))
    cluster.wire[0, 1].clear()
    for node in (0, 1):
        cluster.tell(node, LinkDown(1 - node))
    cluster.tell(0, Committed(3))
    assert not cluster.wire[0, 1]  # nothing is sent on a broken connection
    for node in (0, 1):
        cluster.tell(node, LinkUp(1 - node))
    cluster.settle()
    assert [call for call in cluster.calls[1] if call[0] == "apply"] == [("apply", 2), ("apply", 3)]
    assert cluster.nodes[1].shard.clocks[0] == 3


def test_what_is_not_acknowledged_is_sent_again_after_a_while():
    """A frame that vanished without a broken connection comes again after retry_s, not before."""
    cluster = Cluster(2, ESSP, retry_s=0.5)
    cluster.tell(0, Committed(1))
    cluster.wire[0, 1].clear()
    cluster.now = 0.4
    cluster.tell(0, Tick())
    assert cluster.messages(0, 1) == []
    cluster.now = 0.5
    cluster.tell(0, Tick())
    assert cluster.messages(0, 1) == [Push(1, 1, None)]


def test_a_full_window_holds_batches_back_and_loses_nothing():
    """With nothing acknowledged, `window` batches are on their way; what was added meanwhile comes with the next."""
    cluster = Cluster(2, Terms(staleness=math.inf), window=2)
    for clock in range(1, 8):
        cluster.memory[0].values[1] += 1
        cluster.tell(0, Committed(clock))
    assert [type(frame.message) for frame in cluster.nodes[0].links[1].kept] == [Push, Push, Pull]
    assert cluster.nodes[0].replicas[1].push_due
    cluster.settle()
    cluster.now = 1.0
    for node in (1, 0):
        cluster.tell(node, Tick())
        cluster.settle()
    assert cluster.memory[1].values[1] == 7
    assert cluster.nodes[1].shard.clocks[0] == 7


def test_batches_that_take_much_memory_are_held_back():
    """Where one batch is as much as may be kept unapplied, the next waits for it; what was added comes with that."""
    cluster = Cluster(2, Terms(staleness=math.inf), window=64, window_bytes=8)
    for clock in range(1, 8):
        cluster.memory[0].values[1] += 1
        cluster.tell(0, Committed(clock))
    assert [type(frame.message) for frame in cluster.nodes[0].links[1].kept] == [Push, Pull]
    assert cluster.nodes[0].replicas[1].unapplied_bytes == 8
    cluster.settle()
    assert cluster.memory[1].values[1] == 7
    assert cluster.nodes[1].shard.clocks[0] == 7


def test_a_value_bound_waits_for_everybody_and_says_so():
    """VAP: what others have taken in is told to the workers only when every other node has confirmed it."""
    cluster = Cluster(3, Terms(staleness=math.inf, v0=1.0))
    cluster.memory[0].values[1] += 1
    cluster.tell(0, Committed(0, (1, 0)))
    cluster.deliver(0, 1)
    cluster.deliver(0, 2)
    cluster.deliver(1, 0)
    assert ("seen", (1, 0)) not in cluster.calls[0]
    cluster.settle()
    assert ("seen", (1, 0)) in cluster.calls[0]


def test_rounds_that_nobody_takes_in_are_limited():
    """VAP: while a reader elsewhere computes, `window` rounds are open; what is committed meanwhile is one more."""
    cluster = Cluster(2, Terms(staleness=math.inf, v0=1.0), window=3, readers=1)
    for clock in range(1, 10):
        cluster.memory[0].values[1] += 1
        cluster.tell(0, Committed(clock, (clock,)))
        cluster.settle()
    ships = [call for call in cluster.calls[1] if call[0] == "installs"]
    assert cluster.nodes[1].shard.clocks[0] == 3
    assert len(cluster.nodes[0].shard.transit) == 3
    cluster.tell(1, Refreshed(0, ships[-1][1]))
    cluster.settle()
    assert cluster.nodes[1].shard.clocks[0] == 9
    assert cluster.memory[1].values[1] == 9
    assert ("seen", (3,)) in cluster.calls[0]
    assert len(cluster.nodes[0].shard.transit) == 1


def test_barriers_are_told_to_every_node():
    """A node's arrival is published on every board, on those of others with what its workers add up."""
    cluster = Cluster(3, ESSP)
    cluster.tell(1, BarrierReached(4, "summands"))
    cluster.settle()
    others = ("arrived", 1, 4, "summands")
    assert [others in calls for calls in cluster.calls] == [True, False, True]
    assert ("arrived", 1, 4, None) in cluster.calls[1]


def test_a_node_not_heard_for_too_long_ends_the_job_everywhere():
    """After failure_timeout_s the job ends with a reason that names the node, on every node that can be told."""
    cluster = Cluster(3, ESSP, failure_timeout_s=5.0, heartbeat_s=1.0)
    for second in range(1, 7):
        cluster.now = float(second)
        for node in (0, 1):
            cluster.tell(node, Tick())
        cluster.wire[0, 2].clear()
        cluster.wire[1, 2].clear()
        cluster.settle()
    assert [node.state for node in cluster.nodes] == [State.ENDED, State.ENDED, State.RUNNING]
    assert any("node 2 was not heard for 6.0 s" in reason for reason in cluster.ends)
    with pytest.raises(LocalProtocolError, match=r"node 0 \(ended, clock 0\) does not know the event Committed"):
        cluster.tell(0, Committed(9))


def finish(cluster, nodes):
    """Let the workers of some nodes finish, and time pass until nothing is said any more."""
    for node in nodes:
        cluster.tell(node, Committed(FINISHED))
    cluster.pass_time()


def test_nodes_leave_together_when_nothing_is_missing_anywhere():
    """A node whose workers have finished stays for the others; when all have finished, all leave."""
    cluster = Cluster(3, ESSP)
    finish(cluster, [0, 2])
    assert cluster.left == []
    cluster.memory[1].values[2] += 4
    finish(cluster, [1])
    assert sorted(cluster.left) == [0, 1, 2]
    assert cluster.memory[2].values[2] == 4
    assert cluster.ends == []


def test_a_connection_that_breaks_while_nodes_leave_loses_no_farewell():
    """Who has heard a farewell still owes its own, also after the connection broke."""
    cluster = Cluster(2, ESSP)
    for node in (0, 1):
        cluster.tell(node, Committed(FINISHED))
    cluster.deliver(0, 1)
    cluster.deliver(1, 0)  # node 0 says farewell
    cluster.deliver(0, 1)
    cluster.wire[1, 0].clear()
    for event in (LinkDown, LinkUp):
        for node in (0, 1):
            cluster.tell(node, event(1 - node))
    finish(cluster, [])
    assert sorted(cluster.left) == [0, 1]
    assert cluster.ends == []


def test_no_farewell_is_said_before_the_last_values_are_sent():
    """They wait for room; were the frame lost that brings them, a receiver that has all farewells would not miss it."""
    cluster = Cluster(2, ESSP, window=2)
    cluster.memory[0].values[0] += 5
    cluster.tell(1, Committed(FINISHED))
    for clock in (1, FINISHED):
        cluster.tell(0, Committed(clock))
    cluster.deliver(1, 0)
    assert cluster.nodes[0].shard.clock == FINISHED
    assert [type(message) for message in cluster.messages(0, 1) if message] == [Push, Push]
    finish(cluster, [])
    assert sorted(cluster.left) == [0, 1]
    assert cluster.memory[1].values[0] == 5


def test_a_node_that_has_left_is_not_lost():
    """Where the last acknowledgement is lost, its receiver leaves too, without an error, after failure_timeout_s."""
    cluster = Cluster(2, ESSP, failure_timeout_s=3.0)
    for node in (0, 1):
        cluster.tell(node, Committed(FINISHED))
    while not cluster.left:
        cluster.deliver(1, 0, 1 if cluster.wire[1, 0] else 0)
        if not cluster.left:
            cluster.deliver(0, 1, 1 if cluster.wire[0, 1] else 0)
        cluster.now += 0.1
        for node in (0, 1):
            cluster.tell(node, Tick())
    first = cluster.left[0]
    other = 1 - first
    assert cluster.nodes[other].state is State.RUNNING
    for _ in range(40):
        cluster.wire[first, other].clear()
        cluster.now += 0.1
        cluster.tell(other, Tick())
    assert cluster.left == [first, other]
    assert cluster.ends == []


def test_why_a_job_ends_is_said_until_it_has_arrived():
    """The frame that says it is lost; after the reconnect the reason comes, and then the node leaves."""
    cluster = Cluster(2, ESSP)
    cluster.tell(0, WorkerLost("worker 3 was killed"))
    cluster.wire[0, 1].clear()
    cluster.now = 1.0
    cluster.tell(0, Tick())
    assert cluster.left == []
    cluster.settle()
    assert cluster.ends == ["worker 3 was killed", "node 0 ended the job: worker 3 was killed"]
    cluster.now = 2.0
    for node in (1, 0):
        cluster.tell(node, Tick())
        cluster.settle()
    assert cluster.left == [1, 0]


def test_a_lost_worker_ends_the_job_everywhere():
    """The reason travels."""
    cluster = Cluster(2, ESSP)
    cluster.tell(0, WorkerLost("worker 3 was killed"))
    assert cluster.messages(0, 1) == [Stop(0, 0, "worker 3 was killed")]
    cluster.settle()
    assert cluster.ends == ["worker 3 was killed", "node 0 ended the job: worker 3 was killed"]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Committed(-1), "went back from clock 0 to -1"),
        (Begin(), "does not know the event Begin"),
    ],
)
def test_what_a_driver_cannot_say_is_an_error_with_a_story(event, message):
    """A clock that falls or an unknown event names itself and tells what the node was told."""
    cluster = Cluster(2, ESSP)
    cluster.tell(0, Tick())
    with pytest.raises(LocalProtocolError, match=message) as raised:
        cluster.tell(0, event)
    assert "was told last:\n  0.000000 Tick()" in str(raised.value)


def test_a_link_takes_every_message_once_and_in_order():
    """Repeated, early and foreign frames are not taken; the gap closes when everything comes again."""
    source, target = Link(1, 0, 0.0), Link(0, 0, 0.0)
    frames = [source.send(Pull(n), 0.0) for n in range(4)]
    assert target.accept(frames[1], 0.0) is None
    assert target.accept(frames[0], 0.0) == Pull(0)
    assert target.accept(frames[0], 0.0) is None
    assert target.accept(frames[1]._replace(run=1), 0.0) is None
    source.accept(target.answer(0.0), 0.0)
    assert [target.accept(frame, 0.0) for frame in source.again(0.0)] == [Pull(1), Pull(2), Pull(3)]
    source.validate()
    source.kept.pop(0)
    with pytest.raises(LocalProtocolError, match="keeps messages"):
        source.validate()
    with pytest.raises(LocalProtocolError, match="keeps 3 messages; expected 2 to 5"):
        source.send(Pull(5), 0.0)
