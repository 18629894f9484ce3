"""The agent's loop: board, sockets and driver in, the node of the protocol core in the middle, actions out.

Each `Job.run` is a run of the node, numbered from 0. Between two runs the next one's node already lives: it
tells others that this machine does, but what they say about the next run waits until the driver begins it, since the
rows shall stay as the last run left them. Frames that came too early are kept, and a link has at most a window of them.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import select
import signal
import sys
import time
from collections import deque
from multiprocessing.connection import Connection as DriverConnection
from pathlib import Path

import numpy as np

from nbps.agent.board import AgentBoard
from nbps.agent.memory import NodeMemory
from nbps.agent.saver import Rows, Saver
from nbps.agent.share import share_of
from nbps.agent.spec import AgentSpec, Done, Ended, Fail, Joined, Run, Traffic
from nbps.checkpoint.format import later_life
from nbps.core.messages import (
    Action,
    End,
    Event,
    Evicted,
    Frame,
    Leave,
    LinkDown,
    LinkUp,
    Received,
    Send,
    Spare,
    Stop,
    Tick,
    Touched,
    WorkerLost,
)
from nbps.core.node import Node, Settings, State
from nbps.errors import ConnectionLostError, ProtocolError
from nbps.kernels import layout
from nbps.memory.heap import tune_heap
from nbps.memory.segments import attach
from nbps.transport.interface import Connection
from nbps.transport.mesh.mesh import Mesh
from nbps.transport.wire import HEADER_BYTES, decode, encode

_log = logging.getLogger("nbps.agent")

_UNUSED_CLOCKS = 64  # a row that nobody has read for one to two times as many is let go of
_EARLY_MS = 2
_EARLY_BYTES = 4096  # less is not worth a batch
_ACK_S = 0.1
_TICK_S = 0.05
_SLEEP_MS = 50  # the driver's death, of which the supervisor tells by SIGKILL, needs no waking
_SPIN_S = 50e-6  # longer than a frame takes there and back, short beside a time slice
_FAREWELL_S = 2.0  # how long others have to hear why this node goes


class Agent:
    """The agent of one node; `serve` returns when the driver has closed the job, or it has ended."""

    def __init__(self, spec: AgentSpec) -> None:
        self._spec = spec
        place = spec.place
        self._rank, self._nodes = (0, 1) if place is None else (place.rank, place.nodes)
        self._driver = DriverConnection(spec.control)
        self._board = AgentBoard(
            attach(spec.board).view(np.int64), spec.workers, self._rank, self._nodes, spec.terms.v0 is not None
        )
        self._doorbell = int(self._board.words[layout.DOORBELL])
        tables = [share_of(table, self._nodes) for table in spec.tables]
        self._memory = NodeMemory(self._rank, self._nodes, tables, self._save, self._board.answer)
        frame_limit = HEADER_BYTES + self._memory.batch_limit + (1 << 16)
        self._mesh = None if place is None else Mesh(place, frame_limit)
        self._saver: Saver | None = None
        self._connections: dict[int, Connection] = {}
        self._descriptors: dict[int, int] = {}  # of connections, by rank: a lost one does not tell
        self._ranks: dict[int, int] = {}  # the other way round
        self._backlog: dict[int, deque[Frame]] = {}  # frames that a full connection refused
        self._inbox: dict[int, deque[Frame]] = {}  # frames that came while the node waited for its disk
        self._early: deque[tuple[int, Frame]] = deque()  # of a run that has not begun here
        self._poll = select.poll()
        self._run = 0
        self._running = False  # a run has begun and not ended
        self._is_done_due = False  # it has ended, and the driver is to hear of it when everything is saved
        self._ended: Ended | None = None  # the job has, for whatever reason
        self._closing_at: float | None = None
        self._tick_at = 0.0
        self._traffic = Traffic()  # of connections that are gone
        self._previous: Node | None = None
        self._fetches = any(table.states is not None for table in spec.tables)
        self._let_go_at = 0
        self._early_at = 0.0  # when additions were sent before their clock last, and by how much that was too much
        self._early_debt = 0
        self._missing: set[int] = set()  # nodes that are waited for

    def serve(self) -> None:
        """Find the other nodes, then exchange rows until the job is over."""
        Path("/proc/self/comm").write_text("nbps-agent")  # what ps calls it
        tune_heap()
        try:
            self._join()
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # from now on the driver says what is to be done
            gc.freeze()  # what is there by now stays: `_drop` need not look through it
            while not self._is_over():
                self._turn()
        except Exception as error:
            self._tell_why(f"its agent failed: {type(error).__name__}: {error}")
            raise
        finally:
            for connection in self._connections.values():
                connection.close()
            if self._mesh is not None:
                self._mesh.close()
            if self._saver is not None:
                self._saver.close()

    def _join(self) -> None:
        """Find the other nodes, and listen from then on."""
        spec, incarnation = self._spec, secrets.randbits(64)
        workers, addresses = [spec.workers], list[str]()
        if self._mesh is not None:
            members = self._mesh.open()
            incarnation, workers = members[0].incarnation, [int(member.card["workers"]) for member in members]
            addresses = [member.address for member in members]
            self._poll.register(self._mesh.fileno(), select.POLLIN)
        for source in (self._driver.fileno(), self._doorbell):
            self._poll.register(source, select.POLLIN)
        attempt = later_life(spec.lineage, f"{incarnation:016x}")
        if spec.save is not None:
            self._saver = Saver(spec.save, attempt, self._rank, self._nodes, self._ring)
        self._driver.send(Joined(tuple(workers), tuple(addresses), attempt))
        self._node = self._new_node(0, spec.clock)  # others are heard from now on
        self._take_connections()

    def _tell_why(self, reason: str) -> None:
        """Have the other nodes hear that this one failed; its own node of the protocol may be what failed."""
        for rank, connection in self._connections.items():
            with contextlib.suppress(Exception):
                link = self._node.links[rank]
                link.again(time.monotonic())
                connection.send(*encode(link.send(Stop(0, reason), time.monotonic())))
                connection.flush()

    def _ring(self) -> None:
        os.eventfd_write(self._doorbell, 1)

    # ----------------------------------------------------------------- the loop

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        for rank in [rank for rank, inbox in self._inbox.items() if inbox]:
            if rank in self._connections:
                self._look_at_peer(rank)
        board, ready = self._board, []
        if not self._running:
            ready = self._poll.poll(_SLEEP_MS)
        elif not (ready := self._spin()) and board.doze():
            ready = self._poll.poll(_SLEEP_MS if self._spec.bandwidth_budget is None else _EARLY_MS)
            board.wake()
        for descriptor, _ in ready:
            self._look_at(descriptor)
        if self._running:
            for event in board.news():
                self._handle(event)
            if board.wanted:
                self._fetch()
            if self._spec.bandwidth_budget is not None:
                self._send_early(self._spec.bandwidth_budget)
            if self._fetches and self._let_go_at <= self._node.clock < layout.FINISHED:
                self._let_go()
        now = time.monotonic()
        if now >= self._tick_at:
            self._tick_at = now + _TICK_S
            self._handle(Tick())
            self._take_connections()  # the mesh looks after who connects, too
            if self._spec.waits:
                self._tell_who_is_missing(now)
        if self._saver is not None and self._saver.error is not None:
            self._close(f"{type(self._saver.error).__name__}: {self._saver.error}")
        elif self._is_done_due and (self._saver is None or self._saver.idle):
            self._is_done_due = False
            self._tell(Done(self._count_traffic()))
            self._look_for_stop()

    def _fetch(self) -> None:
        """Ask for rows that workers want."""
        self._board.wanted = False
        for owner, rows in self._memory.wanted():
            self._handle(Touched(owner, rows))

    def _send_early(self, budget: float) -> None:
        """Send what changes rows most, as far as the budget goes since it was used last."""
        now = time.monotonic()
        limit = int(budget * min(now - self._early_at, 1.0)) - self._early_debt
        if limit < _EARLY_BYTES:
            return
        self._early_at, before = now, self._count_traffic().bytes_sent
        share = max(1, limit // max(1, self._nodes - 1))
        for owner in range(self._nodes):
            if owner != self._rank:
                self._handle(Spare(owner, share))
        self._early_debt = max(0, self._count_traffic().bytes_sent - before - limit)

    def _let_go(self) -> None:
        """Let go of rows that nobody reads any more."""
        self._let_go_at = self._node.clock + _UNUSED_CLOCKS
        for owner, rows in self._memory.unused():
            self._handle(Evicted(owner, rows))

    def _tell_who_is_missing(self, now: float) -> None:
        """Say once which nodes are waited for that would be lost under another policy."""
        timeout_s = self._spec.failure_timeout_s
        missing = {rank for rank, link in self._node.links.items() if now - link.heard_at > timeout_s}
        for rank in sorted(missing - self._missing):
            text = f"node {rank} was not heard for {timeout_s:g} s; waiting for it (on_failure='wait')"
            print(f"nbps: {text}", file=sys.stderr, flush=True)  # noqa: T201
        self._missing = missing

    def _spin(self) -> list[tuple[int, int]]:
        """Look for news for a while, without sleeping; return the descriptors that are ready."""
        until = time.monotonic() + _SPIN_S
        while not (ready := self._poll.poll(0)) and not self._board.has_news() and time.monotonic() < until:
            os.sched_yield()  # to a worker, say, that this very wait is for
        return ready

    def _look_at(self, descriptor: int) -> None:
        rank = self._ranks.get(descriptor)
        if rank is not None:
            self._look_at_peer(rank)
        elif descriptor == self._doorbell:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(descriptor)
        elif descriptor == self._driver.fileno():
            self._listen_to_driver()
        else:
            self._take_connections()

    def _is_over(self) -> bool:
        if self._closing_at is None:
            return False
        return self._node.state is State.LEFT or time.monotonic() > self._closing_at + _FAREWELL_S

    # ----------------------------------------------------------------- the driver

    def _listen_to_driver(self) -> None:
        try:
            message = self._driver.recv()
        except (EOFError, OSError):
            self._poll.unregister(self._driver.fileno())
            self._close("its driver was killed", gone=True)
            return
        if isinstance(message, Run):
            self._begin()
        elif isinstance(message, Fail):
            self._close(message.reason, message.gone)
        else:
            self._close("its job was closed; all nodes must call run equally often")

    def _begin(self) -> None:
        if self._ended is not None:
            self._tell(self._ended)  # not before: the results of the run that ended well may not be there yet
            return
        self._board.begin(self._node.settings.clock)
        self._memory.forget_requests()
        self._let_go_at = self._node.settings.clock + _UNUSED_CLOCKS
        self._running = True
        early, self._early = self._early, deque()
        for rank, frame in early:
            self._take(rank, frame)

    def _close(self, reason: str, gone: bool = False) -> None:
        """Tell the others that this node goes, and go."""
        if self._closing_at is None:
            self._closing_at = time.monotonic()
            self._handle(WorkerLost(reason, self._rank if gone else None))

    def _save(self, clock: int, rows: Rows) -> None:
        assert self._saver is not None
        self._saver.save(self._spec.first_run + self._run, clock, rows, self._show_life)

    def _show_life(self) -> bool:
        """Let the others know that this node only waits for its disk; return whether the job is ending meanwhile.

        The node is in the middle of an event: what arrives waits for later, and a connection that is lost raises again.
        """
        for rank, connection in self._connections.items():
            with contextlib.suppress(ConnectionLostError):
                self._send_backlog(rank, connection)
                if not self._backlog[rank]:
                    connection.send(*encode(self._node.links[rank].answer(time.monotonic())))
                connection.flush()
                try:
                    while (payload := connection.receive()) is not None:
                        self._inbox[rank].append(decode(payload))
                except ProtocolError as error:
                    _log.warning("node %d sent what is no frame: %s", rank, error)
                    connection.close()
        stops = (frame for inbox in self._inbox.values() for frame in inbox if isinstance(frame.message, Stop))
        return self._driver.poll() or any(frame.run == self._run for frame in stops)

    def _tell(self, message: Done | Ended) -> None:
        try:
            self._driver.send(message)
        except OSError:  # it closes the job, or was killed: its end of the sockets says so
            _log.debug("node %d: the driver is gone and did not hear: %s", self._rank, message)

    # ----------------------------------------------------------------- the node

    def _new_node(self, run: int, clock: int = 0) -> Node:
        spec = self._spec
        timeout_s = spec.failure_timeout_s
        settings = Settings(
            rank=self._rank,
            nodes=self._nodes,
            terms=spec.terms,
            readers=spec.workers if any(table.definition.access == "cached" for table in spec.tables) else 0,
            run=run,
            clock=clock,
            retry_s=float("inf"),  # connections lose nothing while they stand
            ack_s=_ACK_S,
            heartbeat_s=min(1.0, timeout_s / 10),
            failure_timeout_s=float("inf") if spec.waits else timeout_s,
        )
        self._run = run
        node = Node(settings, self._memory, self._board, time.monotonic())
        for link in node.links.values():
            link.up = link.peer in self._connections
        return node

    def _handle(self, event: Event) -> None:
        node = self._node
        for action in node.handle(event, time.monotonic()):
            self._carry_out(action)

    def _carry_out(self, action: Action) -> None:
        if isinstance(action, Send):
            self._send(action.peer, action.frame)
        elif isinstance(action, End):
            self._ended = Ended(action.reason, action.lost)
            if self._running or self._is_done_due:
                self._tell(self._ended)  # before the workers end: the driver hears why first
            self._running = False
            self._board.abort()
        elif isinstance(action, Leave) and self._running:
            self._running = False
            self._previous = self._node
            self._node = self._new_node(self._run + 1)
            self._is_done_due = True

    def _take(self, rank: int, frame: Frame) -> None:
        """Take a frame of node `rank`, keep it for later, or answer it for a run that is over."""
        node, message = self._node, frame.message
        if frame.run == self._run and (self._running or message is None or node.state is not State.RUNNING):
            self._handle(Received(rank, frame))
        elif frame.run >= self._run:
            node.links[rank].heard_at = time.monotonic()
            if message is not None:
                self._early.append((rank, frame))
                self._look_for_stop()
        elif self._previous is not None and frame.run == self._run - 1:
            self._previous.links[rank].up = True
            for action in self._previous.handle(Received(rank, frame), time.monotonic()):
                self._carry_out(action)

    def _look_for_stop(self) -> None:
        """Heed the end of a run that has not begun here; what came before it shall not change the rows any more."""
        if self._is_done_due:
            return  # the run before ended well
        for rank, (run, _, _, message) in self._early:
            if isinstance(message, Stop) and run == self._run:
                lost = message.lost - 1 if message.lost else None
                self._handle(WorkerLost(f"node {rank} ended the job: {message.reason}", lost))
                early, self._early = self._early, deque()
                for source, frame in early:  # who said so waits to hear that it was heard
                    self._take(source, frame)
                return

    # ----------------------------------------------------------------- connections

    def _take_connections(self) -> None:
        for rank, connection in () if self._mesh is None else self._mesh.poll():
            if rank in self._connections:
                self._drop(rank)
            self._connections[rank] = connection
            self._descriptors[rank] = descriptor = connection.fileno()
            self._ranks[descriptor] = rank
            self._backlog[rank] = deque()
            self._inbox[rank] = deque()
            self._poll.register(descriptor, select.POLLIN)
            self._handle(LinkUp(rank))
            if rank in self._connections:  # its descriptor tells of nothing that came with the handshake
                self._look_at_peer(rank)

    def _lose(self, rank: int, error: Exception) -> None:
        _log.info("node %d lost its connection to node %d: %s", self._rank, rank, error)
        self._drop(rank)
        if self._mesh is not None and self._closing_at is None and self._node.state is State.RUNNING:
            self._mesh.lost(rank)

    def _drop(self, rank: int) -> None:
        connection = self._connections.pop(rank)
        self._traffic = _sum(self._traffic, connection)
        descriptor = self._descriptors.pop(rank)
        self._poll.unregister(descriptor)
        del self._ranks[descriptor]
        del self._backlog[rank], self._inbox[rank]
        connection.close()
        # What it has said too early will be said again: nothing of it was acknowledged.
        self._early = deque(early for early in self._early if early[0] != rank)
        self._handle(LinkDown(rank))
        gc.collect()  # its buffers, half a megabyte, may hang on cycles with the error that ended it

    def _look_at_peer(self, rank: int) -> None:
        connection = self._connections[rank]
        try:
            if not self._inbox[rank]:  # else it may be gone, after what is there
                connection.flush()
                self._send_backlog(rank, connection)
        except ConnectionLostError as error:
            self._lose(rank, error)
            return
        while self._connections.get(rank) is connection:  # handling a frame may find it broken
            inbox = self._inbox[rank]
            try:
                payload = None if inbox else connection.receive()
                frame = inbox.popleft() if inbox else None if payload is None else decode(payload)
            except (ConnectionLostError, ProtocolError) as error:
                self._lose(rank, error)
                return
            if frame is None:
                return
            self._take(rank, frame)

    def _send(self, rank: int, frame: Frame) -> None:
        connection = self._connections.get(rank)
        if connection is None:
            return  # the link keeps it until there is one again
        backlog = self._backlog[rank]
        try:
            if backlog or not connection.send(*encode(frame)):
                backlog.append(frame)
        except ConnectionLostError as error:
            self._lose(rank, error)
            return
        self._watch(rank, connection.wants_write or bool(backlog))

    def _send_backlog(self, rank: int, connection: Connection) -> None:
        backlog = self._backlog[rank]
        while backlog and connection.send(*encode(backlog[0])):
            backlog.popleft()
        self._watch(rank, connection.wants_write or bool(backlog))

    def _watch(self, rank: int, for_room: bool) -> None:
        self._poll.modify(self._descriptors[rank], select.POLLIN | (select.POLLOUT if for_room else 0))

    def _count_traffic(self) -> Traffic:
        total = self._traffic
        for connection in self._connections.values():
            total = _sum(total, connection)
        return total._replace(rows_sent=self._memory.rows_sent, rows_received=self._memory.rows_received)


def _sum(traffic: Traffic, connection: Connection) -> Traffic:
    return traffic._replace(
        bytes_sent=traffic.bytes_sent + connection.bytes_sent,
        bytes_received=traffic.bytes_received + connection.bytes_received,
    )
