"""Compiled turns over real sockets: what they do themselves, when they end, and what they leave to whom."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from nbps.agent.board import AgentBoard
from nbps.agent.memory import NodeMemory
from nbps.agent.peers import Peers
from nbps.agent.turns import CompiledTurns, NodeArrays
from nbps.core.messages import (
    Arrived,
    BarrierReached,
    Begin,
    Committed,
    Frame,
    LinkDown,
    LinkUp,
    Pull,
    Push,
    Received,
    Ship,
)
from nbps.core.runs import Runs
from nbps.core.settings import Settings
from nbps.core.terms import Terms
from nbps.kernels import board, layout
from nbps.kernels.prepare import prepare
from nbps.kernels.turns import loop
from nbps.transport.carriers.tcp_connection import TcpConnection
from nbps.transport.interface import Options
from nbps.transport.wire import decode, encode

FOREVER_S = 60.0
PUSHED = Frame(0, 1, 1, Push(1, 1, None))
SHIPPED = Frame(0, 2, 2, Ship(1, 1, 1, 0, None))


class OneConnection:
    """A mesh of two nodes whose connection stands already."""

    def __init__(self, connection: TcpConnection) -> None:
        self.made = [(1, connection)]

    def poll(self):
        made, self.made = self.made, []
        return made

    def lost(self, rank):
        pass


class Stage:
    """Node 0 of two, as its agent has it, without the agent; the test is its worker, its driver and the other node."""

    def __init__(self, window: int = 64) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            theirs = socket.create_connection(listening.getsockname())
            ours, _ = listening.accept()
        self.theirs = TcpConnection(theirs, "node 0", Options(frame_limit=1 << 16))
        self.ours = TcpConnection(ours, "node 1", Options(frame_limit=1 << 16))
        self.poll = select.poll()
        self.peers = Peers(OneConnection(self.ours), self.poll)  # type: ignore[arg-type]
        self.words = np.zeros(layout.board_words(3, False, 2), np.int64)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK)
        self.words[layout.DOORBELL], self.words[layout.ONE] = self.bell, 1
        self.board = AgentBoard(self.words, 1, 0, 2, bounded=False)
        self.board.begin(0)
        self.driver, self.told = socket.socketpair()
        memory = NodeMemory(0, 2, [])
        self.runs = Runs(Settings(0, 2, Terms(), window=window), memory, self.board, time.monotonic(), connected=())
        self.turns = CompiledTurns(NodeArrays(2, 1, self.board, memory.changes()), self.board, self.peers)
        for event in (LinkUp(1), Begin()):
            self.runs.handle(event, time.monotonic())
        self.peers.take()
        self.peers.changes.clear()

    def take(self, seconds: float = FOREVER_S, spin_s: float = 50e-6) -> list[int] | None:
        """Take turns; return the ranks that have to be looked at."""
        others = self.bell, self.told.fileno()
        ready = self.turns.take(self.runs, others, time.monotonic() + seconds, spin_s, 50)
        return None if ready is None else [self.peers.rank_of(descriptor) for descriptor, _ in ready]

    def take_events(self, count: int) -> None:
        """Take turns until so many events were taken in all, each of them common."""
        while self.turns.events < count:
            assert self.take(0.01) in ([], None)

    def commit(self, clock: int) -> None:
        """Publish a clock, as the only worker."""
        board.tick(self.words, layout.committed(0), 3, layout.committed(0), clock)
        board.ring(self.words)

    def hear(self, *frames: Frame) -> None:
        """Send frames as node 1."""
        for frame in frames:
            assert self.theirs.send(*encode(frame))

    def heard(self, count: int) -> list[Frame]:
        """Return the next frames that node 1 receives."""
        found = []
        while len(found) < count:
            payload = self.theirs.receive()
            found += [] if payload is None else [decode(payload)]
        return found

    def visible(self, node: int) -> int:
        """Return the clock of a shard, as workers see it."""
        return int(self.words[layout.committed(1 + node)])

    def close(self) -> None:
        """Close everything."""
        for one in (self.ours, self.theirs, self.driver, self.told):
            one.close()
        os.close(self.bell)


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Two nodes in the middle of a run."""
    prepare(loop.requests())
    found = Stage()
    yield found
    found.close()


def test_a_clock_goes_there_and_back(stage):
    """The worker's clock is pushed, what comes is taken, the shard's clock rises and is shipped; counters say so."""
    stage.commit(1)
    stage.hear(PUSHED, SHIPPED)
    stage.take_events(3)
    assert [frame.message for frame in stage.heard(2)] == [Push(1, 1, None), Ship(1, 1, 1, 0, None)]
    assert (stage.visible(0), stage.visible(1)) == (1, 1)
    node = stage.runs.node
    assert (node.clock, node.shard.clock, node.replicas[1].clock) == (1, 1, 1)
    assert [type(event) for event in list(node.told)[-5::2]].count(Committed) == 1
    assert stage.turns.events == 3
    assert stage.peers.traffic() == (2 * 96, 2 * 96)
    assert stage.board.news() == []
    node.validate()


def test_python_goes_on_where_compiled_turns_stand(stage):
    """Numbers of messages and frames, and what was told, are those of both."""
    stage.commit(1)
    stage.take_events(1)
    stage.hear(PUSHED, SHIPPED, Frame(0, 3, 2, Pull(0)))
    assert stage.take() == [1]
    (frame,) = stage.peers.receive(1)
    assert frame.message == Pull(0)
    for action in stage.runs.handle(Received(1, frame), time.monotonic()):
        stage.peers.send(*action)
    stage.commit(2)
    stage.take_events(4)
    assert [frame.number for frame in stage.heard(4)] == [1, 2, 3, 4]
    assert stage.runs.node.links[1].received == 3


@pytest.mark.parametrize("rare", [Frame(0, 1, 0, Arrived(1)), Frame(7, 1, 0, Push(1, 1, None)), Frame(0, 0, 9, None)])
def test_a_rare_frame_is_left_as_it_came(stage, rare):
    """Behind a common one that was taken, before one that was not looked at."""
    stage.hear(Frame(0, 0, 0, None), rare, PUSHED)
    assert stage.take() == [1]
    assert stage.turns.events == 1
    assert list(stage.peers.receive(1)) == [rare, PUSHED]


def test_the_beginning_of_a_frame_is_left_to_the_connection(stage):
    """It waits for the rest; no compiled turn is taken until that has come."""
    stage.theirs._socket.send(frame_bytes(PUSHED)[:50])
    assert stage.take() == [1]
    assert list(stage.peers.receive(1)) == []
    assert stage.ours.lend() is None
    stage.theirs._socket.send(frame_bytes(PUSHED)[50:])
    while not (frames := list(stage.peers.receive(1))):
        pass
    assert frames == [PUSHED]
    assert stage.ours.lend() is not None


def frame_bytes(frame):
    """Return the first frame of a connection as it travels."""
    ours, theirs = socket.socketpair()
    connection = TcpConnection.__new__(TcpConnection)
    super(TcpConnection, connection).__init__("pair", Options())
    connection._socket = ours
    connection.send(*encode(frame))
    data = theirs.recv(1 << 10)
    ours.close()
    theirs.close()
    return data


def test_turns_end_when_the_driver_speaks(stage):
    """It is not for them to read what it says."""
    stage.driver.send(b"x")
    assert stage.take() == []
    assert stage.told.recv(1) == b"x"


def test_turns_end_for_what_is_rare_on_the_board(stage):
    """All of what is new on it is told by Python."""
    stage.words[layout.arrived(3, 0)] = 1
    stage.commit(1)
    assert stage.take() == []
    assert stage.board.news() == [Committed(1), BarrierReached(1, None)]
    assert stage.runs.node.clock == 0


def test_an_agent_that_sleeps_is_woken_by_its_worker(stage):
    """Compiled turns announce that they sleep, and take the bell."""

    def work():
        while stage.words[layout.AGENT_SLEEPS] == 0:
            time.sleep(0.001)
        stage.commit(1)
        stage.heard(1)
        stage.driver.send(b"x")

    worker = threading.Thread(target=work)
    worker.start()
    assert stage.take(spin_s=0.0) == []
    worker.join()
    assert stage.runs.node.clock == 1
    assert stage.words[layout.AGENT_SLEEPS] == 0
    with pytest.raises(BlockingIOError):
        os.eventfd_read(stage.bell)


@pytest.mark.parametrize("abrupt", [False, True])
def test_an_end_is_told_by_the_connection(stage, abrupt):
    """What came before it is taken first."""
    stage.hear(Frame(0, 0, 0, None))
    if abrupt:
        stage.theirs._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stage.theirs._socket.close()
    else:
        stage.theirs.close()
    assert stage.take() in ([], [1])
    while not stage.peers.changes:
        assert stage.poll.poll(FOREVER_S * 1000)[0][0] == stage.ours.fileno()
        list(stage.peers.receive(1))
    assert list(stage.peers.changes) == [LinkDown(1)]


def test_an_error_of_sending_is_told_after_what_came_before(stage):
    """As where Python meets it: what was sent meanwhile is lost, and the connection ends when it is received."""
    stage.ours._socket.shutdown(socket.SHUT_WR)
    stage.commit(1)
    assert stage.take() == [1]
    assert stage.ours._broken == "the other end is gone"
    assert not stage.ours.wants_write
    assert list(stage.peers.receive(1)) == []
    assert list(stage.peers.changes) == [LinkDown(1)]
    assert stage.runs.node.clock == 1
    assert len(stage.runs.node.links[1].kept) == 1


def test_what_a_full_socket_does_not_take_waits_in_the_connection(stage):
    """It goes on in the middle of a frame; until then Python is at work, and watches for room."""
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += stage.ours._socket.send(bytes(1 << 16))
    stage.commit(1)
    assert stage.take() == []
    assert stage.ours.wants_write
    assert stage.take() is None
    while filled:
        filled -= len(stage.theirs._socket.recv(min(filled, 1 << 16)))
    while stage.ours.wants_write:
        stage.ours.flush()
    assert [frame.message for frame in stage.heard(1)] == [Push(1, 1, None)]
    stage.commit(2)
    stage.take_events(2)
    assert [frame.message for frame in stage.heard(1)] == [Push(2, 2, None)]


def test_more_answers_than_there_is_room_for_are_sent_in_between():
    """Each push of a window of one is acknowledged at once."""
    prepare(loop.requests())
    stage, pushes = Stage(window=1), 600
    try:
        stage.hear(*(Frame(0, n, 0, Push(n, 0, None)) for n in range(1, pushes + 1)))
        stage.take_events(pushes)
        assert [frame.acknowledged for frame in stage.heard(pushes)] == list(range(1, pushes + 1))
    finally:
        stage.close()


def test_an_agent_for_which_compiled_turns_do_not_pay_takes_fewer(stage):
    """Half as often after each that ended at once, down to a limit; as soon as they pay, always."""
    number = 0

    def be_rare():
        nonlocal number
        number += 1
        stage.hear(Frame(0, number, 0, Arrived(number)))
        while (found := stage.take()) is None:
            skipped.append(number)
        assert found == [1]
        list(stage.peers.receive(1))

    counts = []
    for _ in range(9):
        skipped: list[int] = []
        be_rare()
        counts.append(len(skipped))
    assert counts == [0, 1, 3, 7, 15, 31, 63, 64, 64]
    skipped = []
    while stage.take(0.01) is None:
        skipped.append(0)
    assert len(skipped) == 64
    assert stage.take(0.01) == []


def test_an_error_has_the_words_of_the_system(stage):
    """A time limit of the connection says more than that the other end is gone."""
    lent = stage.ours.lend()
    assert lent is not None
    nothing = np.zeros(0, np.uint8)
    stage.ours.take_back(lent, nothing, nothing, errno.ETIMEDOUT)
    assert "took nothing of what was sent" in str(stage.ours._broken)
