"""An agent and workers on claimed rows: it waits for one, others hear that it lives, and no halt overlooks a worker."""

from __future__ import annotations

import time

import numpy as np
import pytest

from nbps.agent import process
from nbps.agent.spec import Ended, Fail, Joined, SavePlan
from nbps.checkpoint.writer import CheckpointWriter
from nbps.core.messages import Frame, Push
from nbps.core.rules import FINISHED
from nbps.core.terms import Terms
from nbps.errors import ConnectionLostError
from nbps.kernels import board, layout
from nbps.kernels.claim_layout import SPREAD
from nbps.memory.segments import attach
from nbps.transport.wire import decode
from support.agent_tables import Kind, TestNode, batch_of
from support.agent_threads import ROWS, WIDTH, AgentThread, Peer, rows_of_ones
from support.meeting import PATIENCE_S, places


def claims_of(node):
    return node.memory._tables[0].share.claims


def byte_of(row, claims):
    return (row * SPREAD) & (claims.size - 1)


@pytest.mark.parametrize("message", ["apply", "install"])
def test_a_row_that_is_claimed_is_waited_for(message):
    """Rows before it are done meanwhile, all of them once; the wait counts how often it looked at the same row."""
    waits = []

    def wait(times):
        waits.append(times)
        assert values[:, 0].tolist() == [1, 1, 0, 0]
        if len(waits) == 3:
            claims_of(node)[:] = 0
        return True

    node = TestNode(0 if message == "apply" else 1, 2, [Kind("t", 4, 3, "float32", (4,))], on_claimed=wait)
    values, batch = node.values[0], batch_of((0, 3, [0, 1, 2, 3], np.ones((4, 3), np.float32)))
    claims_of(node)[byte_of(2, claims_of(node))] = 7
    if message == "apply":
        node.memory.apply(1, batch)
    else:
        node.memory.install(0, batch, (), 0)
    assert waits == [0, 1, 2]
    assert (values == 1).all()
    assert not claims_of(node).any()


def test_nobody_waits_for_a_claim_when_the_job_ends():
    """What a killed worker has claimed stays claimed; the agent leaves it."""
    node = TestNode(0, 2, [Kind("t", 4, 3, "float32", (4,))], on_claimed=lambda times: False)
    claims_of(node)[byte_of(2, claims_of(node))] = 7
    node.memory.apply(1, batch_of((0, 3, [0, 2], np.ones((2, 3), np.float32))))
    assert node.values[0][:, 0].tolist() == [1, 0, 0, 0]


def heard(peer):
    """Wait for the next frame, with a message or without."""
    until = time.monotonic() + PATIENCE_S
    while (payload := peer.connection.receive()) is None:
        assert time.monotonic() < until, "the agent says nothing"
        time.sleep(0.001)
    return decode(payload)


def test_an_agent_that_waits_for_a_claim_shows_that_it_lives():
    """A worker stopped in the middle of an addition: the batch is applied when it goes on, and no sooner."""
    where = places(2, card={"workers": 1})
    agent = AgentThread(where[0], failure_timeout_s=1.0)
    claims = attach(agent.claims.name)
    byte = byte_of(1, claims)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_FAREWELL_S", 0.1)
        peer = Peer(where[1])
        try:
            assert isinstance(agent.hear(), Joined)
            agent.begin()
            agent.commit(1)
            claims[byte] = 1
            peer.send(Frame(0, 1, 0, Push(1, 1, rows_of_ones(0, 1))))
            while agent.values[0, 0] == 0:
                time.sleep(0.001)
            while heard(peer).message is not None:
                pass
            for _ in range(3):  # one each tenth of a second
                assert heard(peer).message is None
                assert agent.values[1, 0] == 0
                assert agent.visible(0) == 0
            claims[byte] = 0
            while agent.visible(0) < 1:
                time.sleep(0.001)
            assert (agent.values[:2] == 1).all()
        finally:
            peer.close()
            agent.close()
    assert agent.error is None or isinstance(agent.error, ConnectionLostError)


def test_rows_that_lack_an_addition_are_not_saved(tmp_path):
    """A worker killed in the middle of an addition: the rest of the batch is left out, and so is the checkpoint."""
    where = places(2, card={"workers": 1})
    plan = SavePlan(tmp_path, 1, None, {"t": {"rows": ROWS, "width": WIDTH, "dtype": "int64"}})
    agent = AgentThread(where[0], terms=Terms(staleness=1, checkpoint_every=1), save=plan)
    written, write = [], CheckpointWriter.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_FAREWELL_S", 0.1)
        patch.setattr(CheckpointWriter, "write", lambda *given: written.append(given[1]) or write(*given))
        peer = Peer(where[1])
        try:
            assert isinstance(agent.hear(), Joined)
            agent.begin()
            agent.commit(1)
            claims = attach(agent.claims.name)
            claims[byte_of(1, claims)] = 1
            peer.send(Frame(0, 1, 0, Push(1, 1, rows_of_ones(0, 1))))
            while agent.values[0, 0] == 0:
                time.sleep(0.001)
            agent.board.abort()
            agent.sees(1)
            agent.driver.send(Fail("worker 0 was killed", gone=False))
            assert agent.hear() == Ended("worker 0 was killed")
        finally:
            peer.close()
            agent.close()
    assert agent.values[:2, 0].tolist() == [1, 0]
    assert written == []
    assert agent.agent._runs.node.unsaved == 0


def test_a_halt_knows_how_far_a_worker_is_that_could_not_publish():
    """Its last clock, which it has not published, counts as much as a published one."""
    sources = 3
    words = np.zeros(layout.board_words(sources, bounded=False), np.int64)
    for worker, (published, last) in enumerate([(4, 0), (2, 6)]):
        words[layout.committed(worker)] = published
        words[layout.needed(sources, worker) + layout.LAST] = last
    assert board.hold(words, 1, 2, sources) == 7
    words[layout.committed(1)] = FINISHED
    assert board.hold(words, 1, 2, sources) == 7
    words[layout.committed(1)] = 8
    assert board.hold(words, 1, 2, sources) == 9


def test_the_tables_of_these_tests_have_claims():
    """Else they would show nothing."""
    assert TestNode(0, 2, [Kind("t", ROWS, WIDTH, "int64")]).memory._tables[0].shared.aside is not None
