"""An agent in a thread of a test, with a board, a table and a driver's end of its sockets; and a peer made by hand."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from nbps.agent.process import Agent
from nbps.agent.spec import AgentSpec, Close, Run
from nbps.core.messages import Frame
from nbps.core.terms import Terms
from nbps.kernels import board, layout
from nbps.kernels.claim_layout import claims_bytes
from nbps.kernels.prepare import prepare
from nbps.kernels.turns import loop
from nbps.memory.arrow import create_table_segment
from nbps.memory.segments import Segment
from nbps.runtime.board import Board
from nbps.tables.definition import TableDefinition
from nbps.tables.placed import PlacedTable
from nbps.transport.mesh.mesh import Mesh
from nbps.transport.wire import decode, encode
from support.meeting import PATIENCE_S, await_links

ROWS, WIDTH = 8, 2
ESSP = Terms(staleness=1)
TABLE = TableDefinition("t", ROWS, WIDTH, dtype="int64")


class AgentThread:
    """The agent of one worker, which is played by the test."""

    def __init__(self, place: Any = None, terms: Terms = ESSP, **spec: Any) -> None:
        prepare(loop.requests())  # as the supervisor of a job does: an agent that compiles hears nobody
        self.doorbell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        nodes = 1 if place is None else place.nodes
        self.board = Board(1, terms.v0 is not None, nodes, self.doorbell)
        self.board.reset(0)
        self.segment, where, self.values = create_table_segment("t", ROWS, WIDTH, "int64")
        self.marks = Segment("t-marks", ROWS)
        self.claims = Segment("claims", claims_bytes(ROWS))
        ours, theirs = socket.socketpair()
        self.driver = Connection(ours.detach())
        self.error: Exception | None = None
        given = AgentSpec(
            place=place,
            control=theirs.detach(),
            board=self.board.segment.name,
            workers=1,
            terms=terms,
            tables=(PlacedTable(TABLE, where, self.marks.name, None, self.claims.name),),
            **{
                "failure_timeout_s": 30.0, "waits": False, "bandwidth_budget": None, "clock": 0, "first_run": 0,
                "save": None, "lineage": None, **spec,
            },
        )  # fmt: skip
        self._nodes = nodes
        self._thread = threading.Thread(target=self._work, args=(given,))
        self._thread.start()

    def _work(self, spec: AgentSpec) -> None:
        agent = self.agent = Agent(spec)
        try:
            agent.join()
            agent.exchange()
        except Exception as error:
            self.error = error
        finally:
            agent.close()
            agent._driver.close()

    def hear(self) -> Any:
        """Return what the agent says to its driver next."""
        assert self.driver.poll(PATIENCE_S), "the agent says nothing"
        return self.driver.recv()

    def begin(self, clock: int = 0) -> None:
        """Begin a run, as the driver does."""
        self.board.reset(clock)
        self.driver.send(Run())

    def commit(self, clock: int) -> None:
        """Commit as the only worker."""
        words, sources = self.board.words, 1 + self._nodes
        board.tick(words, layout.committed(0), sources, layout.committed(0), clock)
        board.ring(words)

    def visible(self, node: int) -> int:
        """Return the clock of the shard of a node, as workers see it."""
        return int(self.board.words[layout.committed(1 + node)])

    def sees(self, clock: int) -> None:
        """Wait until workers see the shard of this node at `clock`."""
        while self.visible(0) < clock:
            assert self.error is None
            time.sleep(0.001)  # not without: the agent is a thread of this process

    def close(self) -> None:
        """Close the job; nothing stays."""
        if not self.driver.closed:
            with contextlib.suppress(OSError):  # it has ended by itself
                self.driver.send(Close())
        self._thread.join()
        if not self.driver.closed:
            self.driver.close()
        os.close(self.doorbell)
        for segment in (self.segment, self.marks, self.claims, self.board.segment):
            segment.unlink()


class Peer:
    """Node 1 of two: it says what the test wants."""

    def __init__(self, place: Any) -> None:
        self.place = place
        self.mesh = Mesh(place, 1 << 20)
        self.addresses = [member.address for member in self.mesh.open()]
        self.connection = await_links([self.mesh], [{0}])[0][0]

    def send(self, frame: Frame) -> None:
        """Send a frame."""
        self.connection.send(*encode(frame))
        while self.connection.wants_write:
            self.connection.flush()

    def receive(self) -> Frame:
        """Return the next frame with a message."""
        while True:
            payload = self.connection.receive()
            if payload is not None and (frame := decode(payload)).message is not None:
                return frame

    def receive_to_the_end(self) -> None:
        """Receive until the connection is lost."""
        while True:
            self.connection.receive()

    def reconnect(self) -> None:
        """Take the connection for lost, and get another."""
        self.connection.close()
        self.mesh.lost(0)
        self.connection = await_links([self.mesh], [{0}])[0][0]

    def close(self) -> None:
        """End the connection and the mesh."""
        self.connection.close()
        self.mesh.close()


def rows_of_ones(*rows: int) -> np.ndarray:
    """Return a batch that adds ones to some rows of the table."""
    from support.agent_tables import batch_of

    return batch_of((0, WIDTH, list(rows), np.ones((len(rows), WIDTH), np.int64)))
