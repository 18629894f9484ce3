"""Two ends of a shared-memory connection as threads of the explorer: the real class and kernels, few words."""

from __future__ import annotations

import types

import numpy as np

from nbps.errors import ConnectionLostError
from nbps.kernels import ring
from nbps.kernels.atomics import exchange, fetch_add
from nbps.kernels.futex import futex_wait, futex_wake
from nbps.testing.consistency.interleave import Machine
from nbps.transport import Options
from nbps.transport.carriers import shm_connection
from nbps.transport.carriers.shm_connection import Ring, ShmConnection

# A ring without padding: what the kernels call a line is one word.
WORDS = {"TAIL": 0, "HEAD": 1, "READER_AWAITS": 2, "WRITER_AWAITS": 3}
PIECE = 2
IN, OUT = 1, 4
BELLS = 0  # the word of a socket: bytes that are under way
END = 1000  # is added to them when no more will come
WRITABLE = 1_000_000  # is added to them while the socket is polled for that as well


def add_bell(there):
    """Send a byte."""
    fetch_add(there, BELLS, 1)
    futex_wake(there, BELLS)


def take_bells(here):
    """Receive all bytes; all else stays."""
    word = exchange(here, BELLS, 0)
    if word >= END:
        fetch_add(here, BELLS, word - word % END)
    return word % WRITABLE


def shut_down(there):
    """Have the other end see the end, and poll readable for good."""
    fetch_add(there, BELLS, END)
    futex_wake(there, BELLS)


def poll_writable(here, change):
    """Begin to poll for writing as well, or end it."""
    fetch_add(here, BELLS, change)


def wait_for_bells(here):
    """Poll for reading."""
    futex_wait(here, BELLS, 0, 0)


class Socket:
    """What a connection uses of a socket; a word counts the bytes under way in one direction."""

    def __init__(self, pair, here, there):
        self.pair, self.here, self.there = pair, here, there

    def setblocking(self, _):
        pass

    def send(self, bell, _):
        self.pair.call(add_bell, self.there)
        return len(bell)

    def recv(self, _):
        bells = self.pair.call(take_bells, self.here)
        if bells == 0:
            raise BlockingIOError
        return b"\x01" * (bells % END)

    def shutdown(self, _):
        self.pair.call(shut_down, self.there)

    def close(self):
        pass


class Epoll:
    """What a connection uses of an epoll."""

    def register(self, connected, _):
        pass

    def modify(self, connected, events):
        connected.pair.call(poll_writable, connected.here, WRITABLE if events & OUT else -WRITABLE)

    def close(self):
        pass


class Pair:
    """A machine with two rings and a pair of sockets; `planted` are names in a kernel that mean something else."""

    def __init__(self, monkeypatch, order, capacity, planted=None, kernels=None, connection=ShmConnection):
        self.machine = Machine(order)
        self.connection = connection
        self.rings = [Ring(self.machine.array(4), self.machine.array(capacity)) for _ in range(2)]
        for words, _ in self.rings:  # as `nbps.transport.carriers.shm` leaves them
            self.machine._initial[words.cell(WORDS["READER_AWAITS"])] = 1
        self.sockets = [self.machine.array(1) for _ in range(2)]
        kernels = {"write": ring.write, "read": ring.read, "announce": ring.announce, **(kernels or {})}
        uses = {"write": ("TAIL", "HEAD", "READER_AWAITS"), "read": ("TAIL", "HEAD", "WRITER_AWAITS"), "announce": ()}
        plain = {
            name: self.machine.plain(
                kernel, **{word: WORDS[word] for word in uses[name]}, **(planted or {}).get(name, {}),
                **({"PIECE": PIECE} if "PIECE" in kernel_names(kernel) else {}),
            )
            for name, kernel in kernels.items()
        }  # fmt: skip
        self.plain = {
            function: self.machine.plain(function)
            for function in (add_bell, take_bells, shut_down, poll_writable, wait_for_bells)
        }
        monkeypatch.setattr(shm_connection, "_HEADER_BYTES", 1)
        monkeypatch.setattr(shm_connection, "select", types.SimpleNamespace(epoll=Epoll, EPOLLIN=IN, EPOLLOUT=OUT))
        monkeypatch.setattr(
            shm_connection, "ring",
            types.SimpleNamespace(
                write=lambda *arguments: self.machine.call(plain["write"], *arguments),
                read=lambda *arguments: self.read(plain["read"], *arguments),
                announce=plain["announce"],
                DONE=ring.DONE, WAKE=ring.WAKE, BROKEN=ring.BROKEN, **WORDS,
            ),
        )  # fmt: skip

    def call(self, function, *arguments):
        return self.plain[function](*arguments)

    def read(self, kernel, words, data, head, target, start):
        """Read into a copy: then of the kernel's accesses only what it read matters later."""

        def run():
            copy = target.copy()
            return kernel(words, data, head, copy, start), copy.tobytes()

        answer, content = self.machine.call(run)
        target[:] = list(content)
        return answer

    def end(self, side, **options):
        """Return one end; to be made in the thread that uses it."""
        here, there = self.sockets[side], self.sockets[1 - side]
        return self.connection(
            Socket(self, here, there), self.rings[side], self.rings[1 - side], "", Options(**options)
        )

    def wait(self, side):
        self.call(wait_for_bells, self.sockets[side])

    def step(self, side, state, options, method, *arguments):
        """Call a method of an end in `state`; return its new state, the answer, and why it was lost.

        How it came about is forgotten: so the states of the whole are far fewer.
        """

        def run():
            connection, answer, lost = self.end(side, **options), None, ""
            thaw(connection, state)
            try:
                answer = getattr(connection, method)(*arguments)
            except ConnectionLostError as error:
                lost = str(error)
            return freeze(connection), answer.tobytes() if isinstance(answer, np.ndarray) else answer, lost

        return self.machine.call(run)

    def turn(self, side, state, outbox, options):
        """Give an end in `state` a turn of a poll loop; return its new state, what is left to send, what came."""

        def run():
            now, left, received, lost = state, outbox, (), ""
            if now and now[QUEUE]:
                now, _, lost = self.step(side, now, options, "flush")
            taken = True
            while left and taken and not lost:
                now, taken, lost = self.step(side, now, options, "send", left[0])
                left = left[taken:]
            frame = b""
            while frame is not None and not lost:
                now, frame, lost = self.step(side, now, options, "receive")
                received += () if frame is None else (frame,)
            return now, left, received, lost

        return self.machine.call(run)

    def converse(self, side, outbox, expected, **options):
        """Send all of `outbox` and receive as many frames as `expected` in a poll loop; return them.

        Who has nothing to send polls before it ever received.
        """
        state, outbox, received = None, tuple(outbox), ()
        if not outbox:
            self.wait(side)
        while True:
            state, outbox, came, lost = self.turn(side, state, outbox, options)
            received += came
            if lost:
                return received, lost
            if not (outbox or state[QUEUE] or len(received) < expected):
                return received
            self.wait(side)

    def send_and_close(self, side, frames):
        """Send `frames`, for which there is room, and close."""
        connection = self.end(side)
        for frame in frames:
            connection.send(frame)
        connection.close()


QUEUE = 0
NUMBERS = ["bytes_sent", "bytes_received", "_queued", "_start", "_filled", "_has_room", "_closed_there"]


def freeze(connection):
    """Return what an end remembers of what was."""
    payload = None if connection._payload is None else connection._payload.tobytes()
    queue = tuple(buffer.tobytes() for buffer in connection._queue)
    return queue, connection._header.tobytes(), payload, *[getattr(connection, name) for name in NUMBERS]


def thaw(connection, state):
    """Have a new end remember it."""
    if state is None:
        return
    queue, header, payload, *numbers = state
    connection._queue.extend(np.frombuffer(buffer, np.uint8) for buffer in queue)
    connection._header[:] = list(header)
    connection._payload = None if payload is None else np.frombuffer(bytearray(payload), np.uint8)
    for name, number in zip(NUMBERS, numbers, strict=True):
        setattr(connection, name, number)


def kernel_names(kernel):
    return getattr(kernel, "py_func", kernel).__code__.co_names
