"""Listeners and connections of shm, and a process of this user that speaks to them byte by byte, as no node would."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nbps.kernels import ring
from nbps.memory.segments import find_segments
from nbps.testing.transport.ends import accepted
from nbps.transport import Connection, Options, get_transport

GREETING = struct.Struct("<4sHHQ")
PAGE = 4096
RING = 4096
MEMORY, NO_MEMORY = 0, 1
_numbers = itertools.count()


def name() -> str:
    """Return an address that nobody uses."""
    return f"test-{os.getpid()}-{next(_numbers)}"


def knock(address: str) -> socket.socket:
    """Connect, and say nothing."""
    stranger = socket.socket(socket.AF_UNIX)
    stranger.connect(f"\0nbps-shm-{os.geteuid()}-{address}")
    return stranger


@contextlib.contextmanager
def memory_file(size: int) -> Iterator[int]:
    """Descriptor of a file of zeros in memory."""
    descriptor = os.memfd_create("stranger")
    try:
        os.ftruncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)


class Stranger:
    """The other end of a real connection, of which every byte can be written.

    Attributes
    ----------
    words, data : ndarray
        Of the ring to the connection.
    back : ndarray
        Words of the ring from it.
    """

    def __init__(self, address: str) -> None:
        self.socket = knock(address)
        with memory_file(PAGE + 2 * RING) as descriptor:
            memory = np.frombuffer(mmap.mmap(descriptor, PAGE + 2 * RING), np.uint8)
            socket.send_fds(self.socket, [GREETING.pack(b"nbps", 1, MEMORY, RING)], [descriptor])
        words = memory[:PAGE].view(np.int64)
        self.words, self.back = words[: ring.RING_WORDS], words[ring.RING_WORDS : 2 * ring.RING_WORDS]
        self.data = memory[PAGE : PAGE + RING]
        self.sent = 0

    def write(self, data: bytes) -> None:
        """Append to the ring, as if there were room."""
        places = (self.sent + np.arange(len(data))) % RING
        self.data[places] = np.frombuffer(data, np.uint8)
        self.sent += len(data)
        self.words[ring.TAIL] = self.sent


@contextlib.contextmanager
def stranger_and_connection(**options: int) -> Iterator[tuple[Stranger, Connection]]:
    """Give a stranger, and the connection that took it in."""
    address = name()
    listener = get_transport("shm").listen(address, Options(**options))
    with contextlib.closing(listener):
        stranger = Stranger(address)
        with stranger.socket, contextlib.closing(accepted(listener)) as connection:
            yield stranger, connection


@contextlib.contextmanager
def listening(**options):
    address = name()
    with contextlib.closing(get_transport("shm").listen(address, Options(**options))) as listener:
        yield listener


@contextlib.contextmanager
def pair(**options):
    """Give who connected and who listened."""
    with listening(**options) as listener:
        first = get_transport("shm").connect(listener.address, Options(**options), 30)
        with contextlib.closing(first), contextlib.closing(accepted(listener)) as second:
            yield first, second


def descriptors_open():
    return len(list(Path("/proc/self/fd").iterdir()))


def our_segments():
    return [found.name for found in find_segments() if found.pid == os.getpid()]


def is_closed(stranger):
    """Whether the other end closed, with nothing said before."""
    stranger.settimeout(30)
    try:
        return stranger.recv(1) == b""
    except ConnectionResetError:
        return True
