"""Connections of agents: frames arrive in order, what breaks is made again, what is wrong costs a connection."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Iterator

import numpy as np
import pytest

from nbps.agent.peers import Peers
from nbps.core.messages import Frame, LinkDown, LinkUp, Pull, Push
from support.meeting import PATIENCE_S, opened, places

MANY, ROWS_BYTES = 300, 1 << 18  # 75 MiB: more than a connection queues


class Ends:
    """Two agents' connections to each other, driven by hand."""

    def __init__(self, meshes) -> None:
        self.polls = [select.poll() for _ in meshes]
        self.peers = [Peers(mesh, poll) for mesh, poll in zip(meshes, self.polls, strict=True)]
        for mesh, poll in zip(meshes, self.polls, strict=True):
            poll.register(mesh.fileno(), select.POLLIN)
        self.got = [[], []]  # frames
        self.changes = [[], []]  # connections made and broken

    def turn(self) -> None:
        """Let both nodes take what there is."""
        for node, (peers, poll) in enumerate(zip(self.peers, self.polls, strict=True)):
            for descriptor, _ in poll.poll(10):
                rank = peers.rank_of(descriptor)
                if rank is not None:
                    self.got[node] += peers.receive(rank)
            for rank in peers.take():
                self.got[node] += peers.receive(rank)
            self.changes[node] += peers.changes
            peers.changes.clear()

    def until_reconnected(self) -> None:
        """Let both go on until each says that its connection broke, and was made again."""
        until = time.monotonic() + PATIENCE_S
        while [type(each) for each in self.changes[0]] != [LinkDown, LinkUp] or len(self.changes[1]) < 2:
            assert time.monotonic() < until, self.changes
            self.turn()
        assert self.changes == [[LinkDown(1), LinkUp(1)], [LinkDown(0), LinkUp(0)]]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Connect two agents."""
    with opened(places(2)) as results:
        assert [result.error for result in results] == [None, None]
        made = Ends([result.mesh for result in results])
        for node, peers in enumerate(made.peers):
            assert peers.take() == [1 - node]
            assert list(peers.changes) == [LinkUp(1 - node)]
            peers.changes.clear()
        yield made
        for peers in made.peers:
            peers.close()


def test_what_a_full_connection_refuses_waits_and_arrives_in_order(ends):
    """Nothing is lost while the other end takes nothing in, and the descriptor is polled for room."""
    rows = np.zeros(ROWS_BYTES, np.uint8)
    for number in range(1, MANY):
        ends.peers[0].send(1, Frame(0, number, 0, Push(number, 1, rows)))
    assert ends.peers[0].traffic()[0] < MANY * ROWS_BYTES
    while len(ends.got[1]) < MANY - 1:
        ends.turn()
    assert [frame.number for frame in ends.got[1]] == list(range(1, MANY))
    assert ends.peers[0].traffic()[0] == ends.peers[1].traffic()[1] > (MANY - 1) * ROWS_BYTES


@pytest.mark.parametrize("node", [0, 1])
def test_a_connection_that_breaks_is_told_on_both_sides_and_made_again(ends, node):
    """Whichever end it breaks at, and whoever connects; what was sent counts on."""
    ends.peers[node].close()
    before = ends.peers[node].traffic()
    ends.until_reconnected()
    ends.peers[node].send(1 - node, Frame(0, 2, 0, Pull(2)))
    while not ends.got[1 - node]:
        ends.turn()
    assert ends.got[1 - node] == [Frame(0, 2, 0, Pull(2))]
    assert ends.peers[node].traffic() > before


def test_a_refused_peer_loses_its_connection_and_gets_another(ends):
    """Its other end hears of both; to refuse what is gone changes nothing."""
    for _ in range(2):
        ends.peers[0].refuse(1, "it acknowledges what was never sent")
        assert list(ends.peers[0].changes) == [LinkDown(1)]
    ends.until_reconnected()


def test_no_frame_is_taken_from_a_connection_that_broke_while_the_one_before_was_handled(ends):
    """A peer that is refused is not listened to any more, though more of it has arrived."""
    for number in (1, 2, 3):
        ends.peers[1].send(0, Frame(0, number, 0, Pull(number)))
    ends.peers[1].flush(0)
    frames = ends.peers[0].receive(1)
    while True:
        with contextlib.suppress(StopIteration):
            assert next(frames).number == 1
            break
        frames = ends.peers[0].receive(1)
    ends.peers[0].refuse(1, "of no use")
    assert list(frames) == []


def test_bytes_that_are_not_a_frame_end_the_connection(ends):
    """As one that breaks: the loop goes on."""
    ends.peers[1]._connections[0].send(b"nonsense")
    ends.until_reconnected()
    assert ends.got[0] == []


def test_a_node_that_goes_connects_to_nobody_again(ends):
    """Its threads would outlive the job."""
    ends.peers[1].reconnects = False
    ends.peers[0].refuse(1, "of no use")
    while not ends.changes[1]:
        ends.turn()
    for _ in range(5):
        ends.turn()
    assert ends.changes == [[LinkDown(1)], [LinkDown(0)]]


def test_frames_for_a_node_without_connection_are_left_to_the_core(ends):
    """They are kept there, and sent again when there is one."""
    ends.peers[0].refuse(1, "of no use")
    ends.peers[0].send(1, Frame(0, 1, 0, Pull(1)))
    ends.peers[0].flush(1)
    assert list(ends.peers[0].receive(1)) == []
    ends.until_reconnected()
    assert ends.got == [[], []]
