"""Rows shipped from one process to another as agents ship them, beside raw TCP and the kernels on one core.

Both processes have the real `NodeMemory`, wire format and transport; the clocks of the protocol core are left out. What
workers do costs nothing here: the rows of a `Worked` memory alternate between two states, so that each batch has all
rows of the table, changed. After each measurement both processes must hold the same values.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from types import TracebackType
from typing import Any, NamedTuple, Self

import node_raw
import numpy as np
import numpy.typing as npt

from nbps.agent.encodings import AS_IT_IS, OVERWRITE
from nbps.agent.memory import NodeMemory
from nbps.agent.share import TableShare
from nbps.core.messages import Confirm, Frame, Message, Pull, Push, Ship
from nbps.kernels import shards
from nbps.kernels.claim_layout import claims_bytes
from nbps.kernels.prepare import prepare
from nbps.memory.heap import tune_heap
from nbps.tables.shared import SharedRows
from nbps.transport import get_transport
from nbps.transport.interface import Connection, Options
from nbps.transport.wire import decode, encode

WIDTH = 32
ROW_BYTES = 4 * WIDTH
_OUTSTANDING = 4  # pulls that were asked for and have not come
OWNER, REPLICA = 0, 1  # ranks
_FRAME_LIMIT = 64 << 20
_SPIN_S = 50e-6  # as an agent does before it sleeps


class Case(NamedTuple):
    """What is shipped: all rows of a table of so many, over a transport, where `access` says how they are written."""

    transport: str
    access: str
    rows: int


def _how(access: str) -> dict[str, Any]:
    return {"encoding": OVERWRITE if access == "exclusive" else AS_IT_IS}


class Worked(NodeMemory):
    """The rows of node `rank` of two, all owned by node 0; `work` changes every one of them at no cost."""

    def __init__(self, rank: int, case: Case) -> None:
        start = (np.arange(case.rows * WIDTH, dtype=np.float32) % 7).reshape(case.rows, WIDTH)
        self._states = [start, start + 1 + start % 3]  # whole numbers: their sums are exact
        self.marks = np.zeros(-(-case.rows // 8) * 8, np.uint8)
        claims = None if case.access == "exclusive" else np.zeros(claims_bytes(case.rows), np.uint8)
        self._shared = [SharedRows(state, self.marks, claims, claims is not None, 1, 2) for state in self._states]
        share = TableShare(
            name="rows",
            values=start,
            dirty=self.marks,
            owners=np.zeros(case.rows, np.uint8),
            states=None,
            replicated=True,
            claims=claims,
            **_how(case.access),
        )
        super().__init__(rank, 2, [share])

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """The rows as they are now."""
        return self._states[0]

    def work(self) -> None:
        """Change and mark all rows."""
        self._states.reverse()
        self._shared.reverse()
        self._tables[0].values, self._tables[0].shared = self._states[0], self._shared[0]
        self.marks[:] = 1

    def work_on(self, row: int) -> None:
        """Change and mark one row."""
        self._states[0][row] += 1
        self.marks[row] = 1


class Link:
    """A connection driven as an agent drives it: look, then poll, flush what waits, receive until nothing is left."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._number = 0
        self._taken: deque[Message] = deque()
        self._poll = select.poll()
        self._poll.register(connection.fileno(), select.POLLIN)
        self._receive()  # what arrived before it was polled, it may not tell of

    def send(self, message: Message) -> None:
        """Send a message, when the one before has left the queue: else a fast sender only fills memory."""
        while self._connection.wants_write:
            self._wait(None)
        self._number += 1
        self._connection.send(*encode(Frame(0, self._number, 0, message)))

    def flush(self) -> None:
        """Wait until everything is on its way."""
        while self._connection.wants_write:
            self._wait(None)

    def take(self, spin: bool | None = None) -> Any:
        """Wait for a message: looking for it, asleep, or as an agent does (None): looking for a while, then asleep."""
        while not self._taken:
            if spin is None and self._look():
                self._receive()
            else:
                self._wait(0 if spin else None)
        return self._taken.popleft()

    def _wait(self, timeout_ms: int | None) -> None:
        connection = self._connection
        if connection.wants_write:
            self._poll.modify(connection.fileno(), select.POLLIN | select.POLLOUT)
            self._poll.poll(timeout_ms)
            connection.flush()
            if not connection.wants_write:
                self._poll.modify(connection.fileno(), select.POLLIN)
        elif not self._poll.poll(timeout_ms):
            return
        self._receive()

    def _look(self) -> bool:
        until = time.monotonic() + _SPIN_S
        while not (ready := self._poll.poll(0)) and time.monotonic() < until:
            os.sched_yield()
        return bool(ready)

    def _receive(self) -> None:
        while (payload := self._connection.receive()) is not None:
            message = decode(payload).message
            assert message is not None
            self._taken.append(message)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


# --------------------------------------------------------------------------- what the two processes do


class Side:
    """One of the two processes: its links and its rows."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self.raw = socket.socket()
        self._memories: dict[tuple[int, Case], Worked] = {}
        tune_heap()
        node_raw.compile_loops()
        prepare([*shards.requests("float32", False), *shards.requests("float32", True)])

    def memory(self, rank: int, case: Case) -> Worked:
        """Return the rows of `case` as node `rank` has them in this process."""
        return self._memories.setdefault((rank, case), Worked(rank, case))

    def close(self) -> None:
        """End all connections."""
        self.raw.close()
        for link in self.links.values():
            link.close()


def ship_values(side: Side, case: Case, times: int) -> float:
    """Send batches of values and wait until all are taken in."""
    memory, link = side.memory(OWNER, case), side.links[case.transport]
    for number in range(times):
        memory.work()
        link.send(Ship(number, 0, 0, 0, memory.gather(REPLICA, everything=False)))
    link.take()
    return float(memory.values.sum())


def install_values(side: Side, case: Case, times: int) -> float:
    """Be the other side of `ship_values`."""
    memory, link = side.memory(REPLICA, case), side.links[case.transport]
    for _ in range(times):
        memory.install(OWNER, link.take().rows, (), 0)
    link.send(Confirm(times))
    return float(memory.values.sum())


def pull_values(side: Side, case: Case, times: int) -> float:
    """Ask for batches of values, a few at a time, and take them in."""
    memory, link = side.memory(REPLICA, case), side.links[case.transport]
    for number in range(times + _OUTSTANDING):
        if number >= _OUTSTANDING:
            memory.install(OWNER, link.take().rows, (), 0)
        if number < times:
            link.send(Pull(number))
    return float(memory.values.sum())


def serve_values(side: Side, case: Case, times: int) -> float:
    """Be the other side of `pull_values`."""
    memory, link = side.memory(OWNER, case), side.links[case.transport]
    for number in range(times):
        link.take()
        memory.work()
        link.send(Ship(number, 0, 0, 0, memory.gather(REPLICA, everything=False)))
    link.flush()
    return float(memory.values.sum())


def push_additions(side: Side, case: Case, times: int) -> float:
    """Send batches of additions and wait until all are applied."""
    memory, link = side.memory(REPLICA, case), side.links[case.transport]
    for number in range(times):
        memory.work()
        link.send(Push(number, 0, memory.collect(OWNER, exact=False)))
    link.take()
    return float(memory.values.sum())


def apply_additions(side: Side, case: Case, times: int) -> float:
    """Be the other side of `push_additions`."""
    memory, link = side.memory(OWNER, case), side.links[case.transport]
    for _ in range(times):
        memory.apply(REPLICA, link.take().rows)
    link.send(Confirm(times))
    return float(memory.values.sum())


def get_row(side: Side, case: Case, times: int, spin: bool) -> float:
    """Ask for one row that changed, and take it in."""
    memory, link = side.memory(REPLICA, case), side.links[case.transport]
    for number in range(times):
        link.send(Pull(number))
        memory.install(OWNER, link.take(spin).rows, (), 0)
    return float(memory.values.sum())


def give_row(side: Side, case: Case, times: int, spin: bool) -> float:
    """Be the other side of `get_row`."""
    memory, link = side.memory(OWNER, case), side.links[case.transport]
    for number in range(times):
        link.take(spin)
        memory.work_on(number % case.rows)
        link.send(Ship(number, 0, 0, 0, memory.gather(REPLICA, everything=False)))
    return float(memory.values.sum())


def push_row(side: Side, case: Case, times: int, spin: bool) -> float:
    """Send what was added to one row, and wait until the owner says that it has been applied."""
    memory, link = side.memory(REPLICA, case), side.links[case.transport]
    for number in range(times):
        memory.work_on(number % case.rows)
        link.send(Push(number, 0, memory.collect(OWNER, exact=False)))
        link.take(spin)
    return float(memory.values.sum())


def apply_row(side: Side, case: Case, times: int, spin: bool) -> float:
    """Be the other side of `push_row`; the sender is not told of its own additions."""
    memory, link = side.memory(OWNER, case), side.links[case.transport]
    for number in range(times):
        memory.apply(REPLICA, link.take(spin).rows)
        link.send(Ship(number, 0, number, 0, memory.gather(REPLICA, everything=False)))
    return float(memory.values.sum())


def receive_raw(side: Side, how: str, size: int, times: int) -> None:
    """Receive so many raw messages, then say so."""
    node_raw.STREAMS[how][1](side.raw, np.empty(size, np.uint8), times)
    side.raw.sendall(b"1")


def answer_raw(side: Side, how: str, size: int, times: int) -> None:
    """Send so many raw messages back."""
    node_raw.TRIPS[how][1](side.raw, np.empty(size, np.uint8), times)


# --------------------------------------------------------------------------- the two processes


class Pair:
    """Two processes connected by every transport and a plain socket, one of them this one; a context manager."""

    def __init__(self, transports: tuple[str, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_be_there, args=(theirs, transports), name="the other process")
        self._transports = transports
        self.here = Side()

    def __enter__(self) -> Self:
        self._process.start()
        for name in self._transports:
            connection = get_transport(name).connect(self._pipe.recv(), Options(frame_limit=_FRAME_LIMIT), 60.0)
            self.here.links[name] = Link(connection)
        node_raw.tune(self.here.raw).connect(self._pipe.recv())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.here.close()
        self._pipe.close()  # the other process ends
        self._process.join(10.0)
        self._process.kill()
        self._process.join()

    def time(self, ours: Callable[..., Any], theirs: Callable[..., Any], *arguments: Any) -> float:
        """Return the seconds of ``ours(side, *arguments)`` while the other process does `theirs`; compare results."""
        self._pipe.send((theirs, arguments))
        start = time.perf_counter()
        found = ours(self.here, *arguments)
        seconds = time.perf_counter() - start
        there = self._pipe.recv()
        if found != there:
            raise RuntimeError(f"{ours.__name__}{arguments}: values sum to {found} here, to {there} there")
        return seconds

    def stream_raw(self, how: str, size: int, times: int) -> float:
        """Return the seconds in which so many messages of `size` bytes go to the other process, by a plain socket."""

        def send(side: Side, *_: Any) -> None:
            node_raw.STREAMS[how][0](side.raw, np.empty(size, np.uint8), times)
            side.raw.recv(1)

        return self.time(send, receive_raw, how, size, times)

    def trip_raw(self, how: str, size: int, times: int) -> float:
        """Return the seconds of so many round trips of `size` bytes."""
        data = np.empty(size, np.uint8)
        return self.time(lambda side, *_: node_raw.TRIPS[how][0](side.raw, data, times), answer_raw, how, size, times)


def _be_there(pipe: Pipe, transports: tuple[str, ...]) -> None:
    """Be the other process: do what `pipe` says until it is closed."""
    side = Side()
    try:
        for name in transports:
            address = f"bench-{time.monotonic_ns():x}" if name == "shm" else "127.0.0.1:0"
            listener = get_transport(name).listen(address, Options(frame_limit=_FRAME_LIMIT))
            pipe.send(listener.address)
            while (connection := listener.accept()) is None:
                select.select([listener.fileno()], [], [])
            side.links[name] = Link(connection)
            listener.close()
        with node_raw.tune(socket.socket()) as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            pipe.send(listening.getsockname())
            side.raw = node_raw.tune(listening.accept()[0])
        while True:
            function, arguments = pipe.recv()
            pipe.send(function(side, *arguments))
    except EOFError:
        pass
    finally:
        side.close()
