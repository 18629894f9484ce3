"""Ends of connections, driven as `nbps.transport.interface` asks for, and a process that has one: for tests."""

from __future__ import annotations

import contextlib
import os
import random
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nbps.errors import ConnectionLostError
from nbps.memory.segments import find_segments
from nbps.transport.interface import Buffer, Connection, Listener, Options, Transport

LIMIT_S = 30.0  # in which something must happen; a broken transport fails then instead of hanging


def payload(number: int, length: int) -> bytes:
    """Return bytes that no other frame of a test has."""
    return random.Random(f"{number} {length}").randbytes(length)


class End:
    """One end of a connection, driven as the interface asks for.

    Attributes
    ----------
    outbox : deque of tuple of Buffer
        Parts of frames that are still to be sent.
    frames : list of ndarray
        What arrived.
    lost : str or None
        What the error said that ended it.
    reading : bool
        Whether it receives at all.
    """

    def __init__(self, connection: Connection, outbox: Sequence[tuple[Buffer, ...]] = ()) -> None:
        self.connection = connection
        self.outbox = deque(outbox)
        self.frames: list[npt.NDArray[np.uint8]] = []
        self.lost: str | None = None
        self.reading = True

    @property
    def idle(self) -> bool:
        """Whether all that was to be sent is on its way."""
        return self.lost is not None or not (self.outbox or self.connection.wants_write)

    def turn(self) -> None:
        """Do what can be done now."""
        if self.lost is not None:
            return
        try:
            if self.connection.wants_write:
                self.connection.flush()
            while self.outbox and self.connection.send(*self.outbox[0]):
                self.outbox.popleft()
            while self.reading and (frame := self.connection.receive()) is not None:
                self.frames.append(frame)
        except ConnectionLostError as error:
            self.lost = str(error)

    def register(self, poller: select.poll) -> None:
        """Have `poller` wait for it."""
        if self.lost is None:
            reading = select.POLLIN if self.reading else 0
            writing = select.POLLOUT if self.connection.wants_write else 0
            poller.register(self.connection.fileno(), reading | writing)


class Echo(End):
    """An end that sends back what it gets."""

    def turn(self) -> None:
        """Do what can be done now."""
        super().turn()
        while self.lost is None and self.frames:
            self.outbox.extend((frame,) for frame in self.frames)
            self.frames.clear()
            super().turn()


def drive(*ends: End, until: Callable[[], bool]) -> None:
    """Give all `ends` their turns, sleeping in between, until `until` holds."""
    for end in ends:
        end.turn()
    while not until():
        poller = select.poll()
        for end in ends:
            end.register(poller)
        assert poller.poll(1000 * LIMIT_S), f"nothing happened for {LIMIT_S:g} s: a descriptor did not poll readable"
        for end in ends:
            end.turn()


def accepted(listener: Listener) -> Connection:
    """Wait for a connection and accept it."""
    while (connection := listener.accept()) is None:
        assert select.select([listener], [], [], LIMIT_S)[0], f"nobody was accepted within {LIMIT_S:g} s"
    return connection


def left_behind() -> set[str]:
    """Return the descriptors, threads and segments that this process has now."""
    descriptors = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists the folder
            descriptors.add(f"descriptor {link.name} -> {link.readlink()}")
    threads = {f"thread {thread.name}" for thread in threading.enumerate()}
    return descriptors | threads | {f"segment {found.name}" for found in find_segments() if found.pid == os.getpid()}


# --------------------------------------------------------------------------- the process at the other end

SHORT = [(payload(n, n * 37 % 9001),) for n in range(50)]  # frames that fit everybody's buffers


def serve(transport: Transport, options: Options, address: str, listens: bool, task: str, pipe: Pipe) -> None:
    """Run in a process of its own until it is killed."""
    if listens:
        listener = transport.listen(address, options)
        pipe.send_bytes(listener.address.encode())
        connection = accepted(listener)
    else:
        connection = transport.connect(address, options, LIMIT_S)
    end = Echo(connection) if task == "echo" else End(connection)
    if task == "flood":
        number = 0
        while True:
            end.outbox.append((payload(number, number * 997 % 50_000),))
            drive(end, until=lambda: not end.outbox)
            number += 1
    if task == "send":
        drive(end, until=lambda: bool(end.frames))
        end.outbox.extend(SHORT)
        drive(end, until=lambda: end.idle)
    if task == "echo":
        drive(end, until=lambda: end.lost is not None)
    pipe.send_bytes(b"done")
    with contextlib.suppress(EOFError):
        pipe.recv_bytes()  # until the other process closes it
