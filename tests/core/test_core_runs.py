"""The runs of machines, one after the other: nothing of a run is taken before it begins, and nothing after its end."""

from __future__ import annotations

import pytest

from nbps.core import runs
from nbps.core.messages import (
    Begin,
    Committed,
    Frame,
    Leaving,
    LinkDown,
    LinkUp,
    Needed,
    Push,
    Received,
    Saved,
    Stop,
    Tick,
    WorkerLost,
)
from nbps.core.node import State
from nbps.core.rules import FINISHED
from nbps.core.runs import Phase
from nbps.core.terms import Terms
from nbps.errors import LocalProtocolError
from support.core_drivers import Machines

ESSP = Terms(staleness=1)


def begun(count=2, terms=ESSP, **settings):
    """Return machines whose first run has begun."""
    machines = Machines(count, terms, **settings)
    for node in range(count):
        machines.tell(node, Begin())
    return machines


def finish(machines, nodes=(0, 1)):
    """Let workers finish, and time pass."""
    for node in nodes:
        machines.tell(node, Committed(FINISHED))
    machines.pass_time()


def test_a_run_that_is_over_makes_room_for_the_next():
    """Each is numbered, and starts at clock 0 but for the first, which may start at that of a checkpoint."""
    machines = begun(run=7, clock=40)
    assert [node.clock for node in machines.nodes] == [40, 40]
    finish(machines)
    assert sorted(machines.done) == [(0, 7), (1, 7)]
    assert machines.left == []
    assert [(node.run, node.clock, node.phase) for node in machines.nodes] == [(8, 0, Phase.WAITING)] * 2
    for node in (0, 1):
        machines.tell(node, Begin())
    machines.memory[1].values[0] += 5
    machines.tell(1, Committed(1))
    machines.settle()
    assert machines.memory[0].values[0] == 5


def test_what_comes_before_a_run_begins_waits_and_changes_nothing():
    """Neither rows nor acknowledgements, as long as the driver rests; then all of it is taken, in order."""
    machines = begun()
    finish(machines)
    machines.tell(1, Begin())
    for clock in (1, 2):
        machines.memory[1].values[0] += 5
        machines.tell(1, Committed(clock))
    machines.pass_time()
    assert machines.memory[0].values[0] == 0
    assert len(machines.nodes[1].node.links[0].kept) == 2
    machines.tell(0, Begin())
    assert machines.memory[0].values[0] == 10
    assert machines.nodes[0].node.links[1].received == 2


def test_what_comes_of_the_next_run_while_one_goes_on_waits_too():
    """Node 1 has left the run, and begun the next, before node 0 knows that it may leave."""
    machines = begun()
    for node in (0, 1):
        machines.tell(node, Committed(FINISHED))
    while not machines.done:
        machines.deliver(0, 1)
        if not machines.done:
            machines.deliver(1, 0, min(1, len(machines.wire[1, 0])))
    ((first, _),) = machines.done
    other = 1 - first
    machines.tell(first, Begin())
    machines.memory[first].values[other] += 5
    machines.tell(first, Committed(1))
    early = [frame for frame in machines.wire[first, other] if frame.run == 1]
    assert early
    machines.wire[first, other] = [*early, *(frame for frame in machines.wire[first, other] if frame.run == 0)]
    machines.settle()
    assert sorted(machines.done) == [(0, 0), (1, 0)]
    assert machines.memory[other].values[other] == 0
    machines.tell(other, Begin())
    assert machines.memory[other].values[other] == 5


def test_the_run_before_still_answers():
    """A farewell whose acknowledgement was lost is acknowledged by a machine that waits for the next run."""
    machines = begun()
    for node in (0, 1):
        machines.tell(node, Committed(FINISHED))
    while not machines.done:
        machines.deliver(0, 1)
        if not machines.done:
            machines.deliver(1, 0, min(1, len(machines.wire[1, 0])))
    ((first, _),) = machines.done
    other = 1 - first
    for source, target in machines.wire:
        machines.wire[source, target].clear()
    for event in (LinkDown, LinkUp):
        for node in (0, 1):
            machines.tell(node, event(1 - node))
    machines.settle()
    assert (other, 0) in machines.done
    machines.pass_time()
    assert machines.ends == []


def test_frames_kept_for_later_are_forgotten_with_their_connection():
    """All of them come again on the next, and are taken once."""
    machines = begun()
    finish(machines)
    machines.tell(1, Begin())
    machines.memory[1].values[0] += 5
    machines.tell(1, Committed(1))
    machines.settle()
    for event in (LinkDown, LinkUp):
        for node in (0, 1):
            machines.tell(node, event(1 - node))
    machines.tell(0, Begin())
    assert machines.memory[0].values[0] == 0
    machines.settle()
    assert machines.memory[0].values[0] == 5


def test_the_end_of_a_run_that_has_not_begun_is_heeded():
    """What came before it does not change the rows any more; the one that said so hears that it was heard."""
    machines = begun()
    finish(machines)
    machines.tell(1, Begin())
    machines.memory[1].values[0] += 5
    machines.tell(1, Committed(1))
    machines.tell(1, WorkerLost("worker 3 was killed"))
    machines.settle()
    assert machines.ends == ["worker 3 was killed", "node 1 ended the job: worker 3 was killed"]
    assert machines.memory[0].values[0] == 0
    assert machines.nodes[0].phase is Phase.OVER
    machines.pass_time()
    assert sorted(machines.left) == [0, 1]


def test_an_end_that_is_said_before_the_run_before_is_over_is_heeded_after_it():
    """The driver hears first that its run ended well."""
    machines = begun()
    machines.tell(0, Committed(FINISHED))
    machines.tell(0, Received(1, Frame(1, 1, 0, Stop(2, 0, "of no use"))))
    assert machines.ends == []
    machines.tell(1, Committed(FINISHED))
    machines.pass_time()
    assert (0, 0) in machines.done
    assert machines.ends[0] == "node 1 ended the job: of no use"


def test_a_run_is_done_when_its_rows_are_written():
    """Until then the machine shows that it lives, and hears the others, which may be in the next run already."""
    machines = begun(terms=Terms(staleness=5, checkpoint_every=1), failure_timeout_s=3.0)
    for node in (0, 1):
        machines.tell(node, Committed(1))
    machines.settle()
    machines.tell(1, Saved())
    finish(machines)
    assert machines.done == [(1, 0)]
    for _ in range(3):
        machines.pass_time()
    assert machines.ends == []
    machines.tell(0, Saved())
    assert machines.done == [(1, 0), (0, 0)]


@pytest.mark.parametrize("event", [Committed(1), Needed(1), Saved()])
def test_workers_that_have_not_begun_say_nothing(event):
    """Their driver would mix two runs: that is an error which names the event, and the run that waits."""
    with pytest.raises(LocalProtocolError, match=rf"run 0 of node 0 .* is waiting to begin.*{type(event).__name__}"):
        Machines(2, ESSP).tell(0, event)


def test_a_run_begins_once_and_not_after_the_end():
    """A driver that does not know that its job has ended is told so."""
    machines = begun()
    with pytest.raises(LocalProtocolError, match="is running; it does not know the event Begin"):
        machines.tell(0, Begin())
    machines.tell(0, WorkerLost("worker 3 was killed"))
    with pytest.raises(LocalProtocolError, match="is over, as the job is; it does not know the event Begin"):
        machines.tell(0, Begin())
    for event in (WorkerLost("again"), Tick(), LinkDown(1), LinkUp(1)):
        machines.tell(0, event)
    assert machines.ends == ["worker 3 was killed"]


@pytest.mark.parametrize("run", [2, 99])
def test_a_node_that_speaks_of_a_run_that_cannot_be_loses_its_connection(run):
    """It would have to have left a run that this node has not left; so would one with frames without end."""
    machines = begun()
    machines.tell(0, Received(1, Frame(run, 1, 0, Leaving())))
    assert [refuse.peer for _, refuse in machines.refused] == [1]
    assert machines.nodes[0].node.state is State.RUNNING


def test_frames_that_wait_are_limited(monkeypatch):
    """A peer with more of them than any window has loses its connection, and they go with it."""
    monkeypatch.setattr(runs, "_EARLY_LIMIT", 5)
    machines = Machines(2, ESSP)
    for number in range(1, 8):
        machines.tell(0, Received(1, Frame(0, number, 0, Push(number, number, None))))
    assert [refuse.peer for _, refuse in machines.refused] == [1, 1]
    assert "with 5 frames before it that wait" in machines.refused[0][1].reason
    machines.tell(0, LinkDown(1))
    machines.tell(0, LinkUp(1))
    machines.tell(0, Begin())
    assert machines.nodes[0].node.links[1].received == 0


def test_a_wrong_end_of_a_run_that_waits_costs_the_connection():
    """There is no such node that could be lost."""
    machines = Machines(2, ESSP)
    machines.tell(0, Received(1, Frame(0, 1, 0, Stop(3, 0, "because"))))
    assert [refuse.reason for _, refuse in machines.refused] == ["node 1 says that node 2 is lost, of 2"]
    assert machines.ends == []


def test_wrong_frames_that_waited_cost_their_connection_when_the_run_begins():
    """Those of the same node after it are not taken; others are."""
    machines = Machines(3, ESSP)
    for source, rows in ((1, "broken"), (2, 4)):
        machines.tell(0, Received(source, Frame(0, 1, 0, Push(1, 1, rows))))
        machines.tell(0, Received(source, Frame(0, 2, 0, Push(2, 2, 3))))
    machines.tell(0, Begin())
    assert [refuse.peer for _, refuse in machines.refused] == [1]
    assert machines.memory[0].values[0] == 7
    assert machines.nodes[0].node.links[1].received == 0


def test_a_machine_that_fails_tells_why_in_any_state():
    """Its last words are a frame for every connection; so the others need not wait for it."""
    machines = begun()
    for rank, frame in machines.nodes[0].last_words("its agent failed", 0.0):
        machines.tell(rank, Received(0, frame))
    assert machines.ends == ["node 0 ended the job: its agent failed"]


def test_silent_nodes_are_named():
    """Those not heard for longer than asked; a frame of any run is heard."""
    machines = begun(3, failure_timeout_s=float("inf"))
    machines.now = 5.0
    machines.tell(0, Received(1, Frame(1, 1, 0, Push(1, 1, None))))
    assert machines.nodes[0].silent(2.0, 6.0) == {2}
    assert machines.nodes[0].silent(0.5, 6.0) == {1, 2}
