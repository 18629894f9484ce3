"""The agent's loop as its driver and its peers see it: runs, ends, checkpoints, and peers that send what is wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from nbps.agent import process
from nbps.agent.process import Agent
from nbps.agent.spec import Ended, Fail, Joined, RunDone, SavePlan
from nbps.checkpoint.load import latest, load
from nbps.checkpoint.writer import CheckpointWriter
from nbps.core.messages import Arrived, Confirm, Frame, Leaving, Push, Ship, Stop, Subscribe, Visible
from nbps.core.rules import FINISHED
from nbps.core.terms import Terms
from nbps.errors import ConnectionLostError
from nbps.transport.mesh.farewell import say_farewell
from support.agent_threads import ROWS, WIDTH, AgentThread, Peer, rows_of_ones
from support.meeting import places


@contextmanager
def alone(**spec) -> Iterator[AgentThread]:
    """Start the agent of a job's only node."""
    agent = AgentThread(**spec)
    try:
        assert agent.hear().workers == (1,)
        yield agent
    finally:
        agent.close()


@contextmanager
def with_peer(**spec) -> Iterator[tuple[AgentThread, Peer]]:
    """Start the agent of node 0 of two, and be node 1."""
    where = places(2, card={"workers": 1})
    agent = AgentThread(where[0], **spec)
    peer = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_FAREWELL_S", 0.1)  # nobody answers when it goes
        try:
            peer = Peer(where[1])
            assert isinstance(agent.hear(), Joined)
            yield agent, peer
        finally:
            if peer is not None:
                peer.close()
            agent.close()


def test_runs_of_a_node_without_others_are_done_when_its_workers_are():
    """One after the other; each is told to the driver once."""
    with alone() as agent:
        for _ in range(3):
            agent.begin()
            agent.commit(1)
            agent.commit(FINISHED)
            assert isinstance(agent.hear(), RunDone)
    assert agent.error is None


def test_a_checkpoint_is_there_before_its_run_is_done(tmp_path):
    """Rows of clock 2 as they were then, though the worker has gone on; the run's number is the job's."""
    plan = SavePlan(tmp_path, 2, None, {"t": {"rows": ROWS, "width": WIDTH, "dtype": "int64"}})
    with alone(terms=Terms(staleness=1, checkpoint_every=2), save=plan, first_run=4) as agent:
        agent.begin()
        agent.values[0] = 7
        agent.commit(2)
        agent.sees(2)
        agent.values[0] = 99
        agent.commit(FINISHED)
        assert isinstance(agent.hear(), RunDone)
        found = latest(tmp_path)
        assert (found.clock, found.state["run"]) == (2, 4)
        rows = np.empty((ROWS, WIDTH), np.int64)
        load(found, "t", rows)
        assert rows.tolist() == [[7, 7]] + [[0, 0]] * (ROWS - 1)


def test_a_disk_that_fails_ends_the_job(tmp_path):
    """The driver hears why, and the workers' waits end."""
    (tmp_path / "file").write_text("no folder")
    plan = SavePlan(tmp_path / "file", 1, None, {"t": {"rows": ROWS, "width": WIDTH, "dtype": "int64"}})
    with alone(terms=Terms(staleness=1, checkpoint_every=1), save=plan) as agent:
        agent.begin()
        agent.commit(1)
        ended = agent.hear()
        assert isinstance(ended, Ended)
        assert ended.unsaved
        assert ended.reason.startswith(f"checkpoint: cannot make {tmp_path}/file: ")
    assert agent.error is None


def test_while_the_disk_is_slow_the_agent_hears_its_driver(tmp_path):
    """Two copies wait for it, and a third checkpoint for room; the driver ends the job meanwhile."""
    plan = SavePlan(tmp_path, 1, None, {"t": {"rows": ROWS, "width": WIDTH, "dtype": "int64"}})
    going_on = threading.Event()
    write = CheckpointWriter.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointWriter, "write", lambda *arguments: going_on.wait() and write(*arguments))
        with alone(terms=Terms(staleness=1, checkpoint_every=1), save=plan) as agent:
            agent.begin()
            for clock in (1, 2):
                agent.commit(clock)
                agent.sees(clock)
            agent.commit(3)
            agent.driver.send(Fail("worker 0 was killed", gone=False))
            assert agent.hear() == Ended("worker 0 was killed")
            assert agent.visible(0) == 2
            going_on.set()


def test_an_agent_whose_driver_is_gone_ends():
    """Its end of the sockets says so."""
    with alone() as agent:
        agent.driver.close()
    assert agent.error is None


def test_an_agent_that_fails_tells_the_others_why(monkeypatch):
    """Whatever it was that failed."""

    def fail(*arguments):
        raise MemoryError("planted")

    with with_peer() as (agent, peer):
        agent.begin()
        monkeypatch.setattr(Agent, "_look_at_board", fail)
        agent.commit(1)
        while isinstance((frame := peer.receive()).message, Push):
            pass  # the clock, if a compiled turn was faster
        assert frame.message == Stop(0, 0, "its agent failed: MemoryError: planted")
    assert isinstance(agent.error, MemoryError)


def test_the_driver_is_told_that_the_job_ended_before_its_workers_see_it():
    """Also between two runs: one that begins just then ends with the reason; and again when a run begins."""
    with with_peer() as (agent, peer):
        peer.send(Frame(0, 1, 0, Stop(0, 0, "of no use")))
        while agent.board.words[0] == 0:  # the abort flag
            time.sleep(0.001)
        assert agent.driver.poll()
        assert agent.hear() == Ended("node 1 ended the job: of no use")
        agent.begin()
        assert agent.hear() == Ended("node 1 ended the job: of no use")


def test_a_node_that_is_gone_after_it_has_left_a_run_ends_only_the_next():
    """It needs no more of this one, whose end does not depend on it; in the next it would be missed."""
    with with_peer() as (agent, peer):
        agent.begin()
        for number, message in enumerate((Push(1, FINISHED, None), Ship(1, FINISHED, 0, 0, None), Leaving()), 1):
            peer.send(Frame(0, number, 0, message))
        say_farewell(peer.place, peer.addresses, "it was switched off")
        while not agent.agent._mesh.gone():
            time.sleep(0.001)
        for _ in range(2):  # it looks for such nodes now and then
            looks_at = agent.agent._tick_at
            while agent.agent._tick_at == looks_at:
                time.sleep(0.001)
        for clock in (1, FINISHED):
            agent.commit(clock)
            agent.sees(clock)
        frame = peer.receive()
        while not isinstance(frame.message, Leaving):
            frame = peer.receive()
        assert not agent.driver.poll()
        peer.send(Frame(0, 0, frame.number, None))
        assert isinstance(agent.hear(), RunDone)
        ended = Ended("node 1 ended the job: it was switched off", 1)
        assert agent.hear() == ended
        agent.begin()
        assert agent.hear() == ended


GARBAGE = np.full(256, 0xFF, np.uint8)
WRONG = {
    "a batch of garbage": Frame(0, 1, 0, Push(1, 1, GARBAGE)),
    "a batch for rows of another node": Frame(0, 1, 0, Push(1, 1, rows_of_ones(ROWS - 1))),
    "a batch without the one before": Frame(0, 1, 0, Push(2, 1, None)),
    "an acknowledgement of what was never sent": Frame(0, 0, 99, None),
    "shipped rows that it does not own": Frame(0, 1, 0, Ship(1, 1, 0, 0, rows_of_ones(0))),
    "a ship that holds batches never sent": Frame(0, 1, 0, Ship(1, 1, 9, 0, None)),
    "a request for garbage": Frame(0, 1, 0, Subscribe(1, GARBAGE)),
    "a confirmation of what was never shipped": Frame(0, 1, 0, Confirm(9)),
    "a round that was never opened": Frame(0, 1, 0, Visible(9)),
    "summands without end": Frame(0, 1, 0, Arrived(1, np.zeros(1 << 17, np.uint8))),
    "the end of a run that nobody can be in": Frame(7, 1, 0, Leaving()),
    "the loss of a node that there is not": Frame(0, 1, 0, Stop(9, 0, "it is lost")),
}


@pytest.mark.parametrize(("begun", "ordered"), [(True, False), (True, True), (False, False)])
@pytest.mark.parametrize("name", WRONG)
def test_a_peer_that_sends_what_is_wrong_loses_its_connection_and_the_job_goes_on(name, begun, ordered):
    """Nothing of it was taken: on the next connection the same number brings what is right, and it is."""
    terms = Terms(staleness=0 if ordered else 1, ordered=ordered)
    with with_peer(terms=terms) as (agent, peer):
        if begun:
            agent.begin()
        peer.send(WRONG[name])
        if not begun:
            agent.begin()
        with pytest.raises(ConnectionLostError):
            peer.receive_to_the_end()
        peer.reconnect()
        peer.send(Frame(0, 1, 0, Push(1, 1, rows_of_ones(0, 2))))
        agent.commit(1)
        agent.sees(1)
        assert agent.values[:4].tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]
        assert agent.values[4:].tolist() == [[0, 0]] * 4
        assert not agent.driver.poll(), "the job goes on"
    assert agent.error is None
