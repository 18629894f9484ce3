"""The protocol of one worker, action by action."""

from __future__ import annotations

import math
from collections import deque

import pytest

from nbps.core.rules import FINISHED
from nbps.core.terms import Terms
from nbps.core.worker import (
    ALL,
    TRANSIT_LIMIT,
    Await,
    Flush,
    Group,
    Lowest,
    Poll,
    Publish,
    PublishSeen,
    Record,
    Refresh,
    Snapshot,
    Worker,
)
from nbps.errors import LocalProtocolError, ProtocolError
from support.core_drivers import Typed


def walk(step, answers=None):
    """Carry out a step; return its actions. `answers` by type of action; a list is used up."""
    answers = answers or {}
    actions, answer = Typed(), None
    try:
        while True:
            action = step.send(answer)
            actions.append(action)
            given = answers.get(type(action), 0)
            answer = given.pop(0) if isinstance(given, list) else given
    except StopIteration:
        return actions


def started(terms, copies=0):
    worker = Worker(0, terms)
    for _ in range(copies):
        worker.add_copy(terms.staleness)
    walk(worker.begin())
    return worker


def test_a_tick_flushes_then_publishes_then_waits_then_refreshes():
    """The order that the promise rests on, for an eager copy at staleness 1."""
    worker = started(Terms(staleness=1), copies=1)
    walk(worker.tick(), {Flush: 0.0})
    actions = walk(worker.tick(), {Flush: 0.0, Lowest: 1})
    assert actions == [
        Flush(),
        Publish(Group.COMMITTED, 2),
        Await(Group.COMMITTED, 0, ALL, 1, "clock"),
        Lowest(Group.COMMITTED),
        Refresh(0),
    ]


def test_a_board_that_lies_is_noticed_at_once():
    """A gate that opens too early, or a clock that falls, ends the worker in production too, not only in tests."""
    worker = started(Terms(staleness=1))
    walk(worker.tick(), {Flush: 0.0})
    with pytest.raises(LocalProtocolError, match=r"worker 0 at clock 2 .* the visible clock, 0, satisfies the gate, 1"):
        walk(worker.tick(), {Flush: 0.0})
    worker = started(Terms(staleness=math.inf))
    walk(worker.tick(), {Flush: 0.0, Lowest: 3})
    with pytest.raises(
        LocalProtocolError, match=r"worker 0 at clock 2 .* breaks: clocks of others, 2 after 3, never f"
    ):
        walk(worker.tick(), {Flush: 0.0, Lowest: 2})


def test_a_lazy_copy_is_refreshed_only_when_too_old():
    """SSP(2): the copy of clock 0 serves clocks 1 and 2; at clock 3 it is refreshed."""
    worker = started(Terms(staleness=2, eager=False), copies=1)
    refreshed = [Refresh(0) in walk(worker.tick(), {Flush: 0.0, Lowest: clock}) for clock in range(1, 5)]
    assert refreshed == [False, False, True, False]
    worker.validate()


def test_a_clock_that_does_not_wait_owes_its_gate_to_the_next_read():
    """The read passes the gate first; a checkpoint's gate is passed at once."""
    worker = started(Terms(staleness=0, checkpoint_every=2))
    assert walk(worker.tick(wait=False), {Flush: 0.0}) == [Flush(), Publish(Group.COMMITTED, 1)]
    gate = Await(Group.COMMITTED, 0, ALL, 1, "clock")
    assert walk(worker.read(), {Lowest: 1}) == [gate, Lowest(Group.COMMITTED), Lowest(Group.COMMITTED), Record(1)]
    assert Await(Group.COMMITTED, 0, ALL, 2, "clock") in walk(worker.tick(wait=False), {Flush: 0.0, Lowest: 2})


def test_a_checkpoint_has_staleness_zero():
    """Under SSP(9) a worker at a checkpoint waits for everybody."""
    worker = started(Terms(staleness=9, checkpoint_every=2))
    targets = [
        action.target
        for _ in range(4)
        for action in walk(worker.tick(), {Flush: 0.0, Lowest: worker.now + 1})
        if isinstance(action, Await)
    ]
    assert targets == [2, 4]


def test_a_fresher_read_waits_and_refreshes():
    """get(staleness=0) at clock 3 under SSP(3) waits for clock 3 and takes the copy in."""
    worker = started(Terms(staleness=3, eager=False), copies=1)
    for _ in range(3):
        walk(worker.tick(), {Flush: 0.0})
    assert walk(worker.read(0, 0), {Lowest: 3}) == [
        Await(Group.COMMITTED, 0, ALL, 3, "get"), Lowest(Group.COMMITTED), Refresh(0), Record(3),
    ]  # fmt: skip
    assert walk(worker.read(None, 0)) == [Record(3)]


def test_strict_bsp_flushes_in_its_turn():
    """All have refreshed, and the rank before has flushed, before a worker flushes."""
    worker = Worker(1, Terms(staleness=0, ordered=True))
    assert walk(worker.begin()) == [Publish(Group.REFRESHED, 0)]
    actions = walk(worker.tick(), {Flush: 0.0, Lowest: 1})
    assert Typed(actions[:4]) == [
        Await(Group.REFRESHED, 0, ALL, 0, "clock"),
        Await(Group.COMMITTED, 0, 1, 1, "clock"),
        Flush(),
        Publish(Group.COMMITTED, 1),
    ]
    assert actions[-1] == Publish(Group.REFRESHED, 1)


def test_a_value_bound_waits_until_enough_was_seen():
    """VAP(3): norms 2, 2 and 2 are in transit; at clock 3 the bound is 1.7, so two clocks must have been seen."""
    worker = started(Terms(staleness=math.inf, v0=3.0), copies=1)
    walk(worker.tick(), {Flush: 2.0, Lowest: 0})
    assert worker.transit_share == pytest.approx(2 / 3)
    walk(worker.tick(), {Flush: 2.0, Lowest: [1, 0]})
    actions = walk(worker.tick(), {Flush: 2.0, Lowest: [1, 3, 3], Poll: True})
    assert Poll(Group.SEEN, 0, ALL, 3, "clock") in actions
    worker.validate()
    assert not worker.transit


def test_what_is_in_transit_is_told_apart_up_to_a_limit():
    """With 64 clocks in transit the last two become one, which is seen when the later is; the sum stays."""
    worker = started(Terms(staleness=math.inf, v0=1000.0), copies=1)
    for _ in range(70):
        walk(worker.tick(), {Flush: 1.0, Lowest: 0})
    assert len(worker.transit) == TRANSIT_LIMIT == 64
    assert worker.transit[-1] == (70, 7.0)
    assert sum(norm for _, norm in worker.transit) == 70
    worker.validate()
    walk(worker.tick(), {Flush: 0.0, Lowest: 69})
    assert worker.transit == deque([(70, 7.0)])


def test_whoever_waits_under_a_value_bound_takes_in_what_others_commit():
    """In a barrier too: each time something new was committed, it is refreshed and said so."""
    worker = started(Terms(staleness=math.inf, v0=3.0), copies=1)
    actions = walk(worker.barrier(), {Poll: [False, False, True], Snapshot: "snapshot", Lowest: 0})
    assert [type(action) for action in actions] == [
        Publish, Poll, Snapshot, Lowest, Refresh, PublishSeen, Poll, Snapshot, Lowest, Refresh, PublishSeen, Poll,
    ]  # fmt: skip
    assert PublishSeen("snapshot") in actions


def test_who_finishes_holds_nobody_back():
    """It comes to every barrier at once; what is left is flushed before its clock is set to FINISHED."""
    worker = started(Terms(staleness=1))
    assert walk(worker.finish(), {Flush: 0.0}) == [
        Publish(Group.ARRIVED, FINISHED),
        Flush(),
        Publish(Group.LAST, 0),
        Publish(Group.COMMITTED, FINISHED),
        Publish(Group.REFRESHED, FINISHED),
    ]


@pytest.mark.parametrize("step", ["tick", "read", "barrier", "finish"])
def test_a_step_out_of_place_is_an_error(step):
    """A worker that has not begun, is in another step, or has finished, says so."""
    worker = Worker(4, Terms())
    with pytest.raises(ProtocolError, match=f"worker 4 at clock 0 is new; expected it to be running for {step}"):
        next(getattr(worker, step)())
    walk(worker.begin())
    next(worker.tick())
    with pytest.raises(ProtocolError, match="is in a step"):
        next(getattr(worker, step)())


def test_broken_invariants_are_named():
    """validate() finds a copy older than its staleness and a clock that fell below zero."""
    worker = started(Terms(staleness=1), copies=1)
    worker.now = worker.visible = 5
    with pytest.raises(ProtocolError, match="no copy is older than its staleness"):
        worker.validate()
    worker.now = -1
    with pytest.raises(ProtocolError, match="clocks are >= 0"):
        worker.validate()
