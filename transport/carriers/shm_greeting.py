"""How two processes come to share the memory of a connection.

The process that connects makes a segment with a ring for each direction, passes its descriptor over the socket and
unlinks it at once: from then on it exists as long as the two ends do. Until then its name says whose it is
(`nbps.memory.segments`). What it says over the socket:

====== ===== ==========================================================================
offset bytes content
====== ===== ==========================================================================
0      4     ``nbps``
4      2     version of this format and of the segment's layout
6      2     0: with the descriptor of a segment; 1: there was no memory for one
8      8     0: bytes of each of its rings, a power of two; 1: length of an explanation
====== ===== ==========================================================================
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import select
import socket
import struct

import numpy as np

from nbps.errors import SharedMemoryError, TransportError
from nbps.kernels import ring
from nbps.kernels.prepare import prepare
from nbps.memory.segments import Segment
from nbps.transport.carriers.shm_connection import Ring, ShmConnection
from nbps.transport.interface import Bytes, Connection, Listener, Options

_RING_BYTES = 1 << 22
_SMALLEST_RING, _LARGEST_RING = 1 << 12, 1 << 30
_PAGE = 1 << 12  # the words of both rings; their data comes after it

_VERSION = 1
_GREETING = struct.Struct("<4sHHQ")
_CREDENTIALS = struct.Struct("3i")  # of SO_PEERCRED: process, user, group
_MEMORY, _NO_MEMORY = 0, 1
_EXPLANATION_BYTES = 1 << 12

_BACKLOG = 1024
_GREETED_LIMIT = 64  # connections that have not said anything yet; the oldest has to go
_OUT_OF_MEANS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def listen(where: str, address: str, options: Options) -> ShmListener:
    """Listen at the socket called `where`, for `address`."""
    prepare(ring.requests())
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.bind(where)
        listening.listen(_BACKLOG)
        return ShmListener(listening, address, options)
    except OSError as error:
        listening.close()
        reason = error.strerror
        if error.errno == errno.EADDRINUSE:
            reason = "another process listens there; choose another name, or end it (ss -xlp)"
        raise TransportError(f"cannot listen at {address!r}: {reason}") from error


class ShmListener(Listener):
    """Accepts connections at a name.

    A connection is accepted when its memory has arrived. Until then it waits here, and the descriptor that is to be
    polled is an epoll over the socket and those that wait.
    """

    def __init__(self, listening: socket.socket, address: str, options: Options) -> None:
        self.address = address
        self._options = options
        self._socket = listening
        self._greeted: dict[int, socket.socket] = {}
        self._epoll = select.epoll()
        self._epoll.register(listening, select.EPOLLIN)

    def fileno(self) -> int:
        """Descriptor to poll."""
        return self._epoll.fileno()

    def accept(self) -> Connection | None:
        """Return a new connection; None if there is none now.

        Raises
        ------
        TransportError
            If this process may open no more descriptors.
        SharedMemoryError
            If another process connected and found no room for the rings.
        """
        try:
            while not self._epoll.closed and (ready := self._epoll.poll(0)):
                for descriptor, _ in ready:
                    if descriptor == self._socket.fileno():
                        self._greet()
                    elif (greeted := self._greeted.pop(descriptor, None)) is not None:
                        self._epoll.unregister(greeted)
                        if (made := self._set_up(greeted)) is not None:
                            return made
        except OSError as error:
            if error.errno not in _OUT_OF_MEANS:
                raise
            raise TransportError(
                f"cannot accept a connection at {self.address!r}: {error.strerror}; "
                "raise the limit of open files (ulimit -n) or run fewer nodes"
            ) from error
        return None

    def _greet(self) -> None:
        """Let in a process of this user."""
        try:
            arrived, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        if _owner(arrived)[1] != os.geteuid():
            arrived.close()
            return
        arrived.setblocking(False)
        if len(self._greeted) >= _GREETED_LIMIT:
            self._greeted.pop(next(iter(self._greeted))).close()
        self._greeted[arrived.fileno()] = arrived
        self._epoll.register(arrived, select.EPOLLIN)

    def _set_up(self, arrived: socket.socket) -> Connection | None:
        """Make a connection of the memory that was passed; None, and the end of it, if none was."""
        pid, _ = _owner(arrived)
        with contextlib.ExitStack() as undo:
            undo.callback(arrived.close)
            try:
                kind, value, descriptor = _read_greeting(arrived)
                if kind == _NO_MEMORY:
                    text = arrived.recv(min(value, _EXPLANATION_BYTES)).decode(errors="replace")
                    raise SharedMemoryError(f"process {pid} cannot connect to {self.address!r}: {text}")
                try:
                    memory = _map(descriptor, value)
                finally:
                    os.close(descriptor)
            except (BlockingIOError, ConnectionResetError, _Refused):
                return None  # a peer that fails to set one up is not our error
            there, back = _rings(memory)
            made = ShmConnection(arrived, back, there, f"{self.address} (process {pid})", self._options)
            undo.pop_all()
        return made

    def close(self) -> None:
        """Stop listening."""
        self._epoll.close()
        self._socket.close()
        while self._greeted:
            self._greeted.popitem()[1].close()


class _Refused(Exception):  # noqa: N818
    """What a peer sent is not a greeting."""


def _owner(connected: socket.socket) -> tuple[int, int]:
    """Return process and user at the other end, when it connected or began to listen."""
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(credentials)
    return pid, user


def attempt(where: str, address: str, options: Options, timeout_s: float) -> Connection:
    """Connect, make the memory and pass it on; all of it goes again if anything fails."""
    prepare(ring.requests())
    with contextlib.ExitStack() as undo:
        connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        undo.callback(connecting.close)
        connecting.settimeout(timeout_s)
        connecting.connect(where)
        pid, user = _owner(connecting)
        if user != os.geteuid():
            raise TransportError(
                f"{address!r} is taken by process {pid} of user {user}; expected one of user {os.geteuid()}: "
                "choose another name for the job, or have that process ended"
            )
        there, back = _rings(_offer(connecting, address))
        made = ShmConnection(connecting, there, back, address, options)
        undo.pop_all()
    return made


def _offer(connecting: socket.socket, address: str) -> Bytes:
    """Make memory for two rings, pass it to the other end, and return it."""
    try:
        segment = Segment(f"rings-{address}", _PAGE + 2 * _RING_BYTES)
    except SharedMemoryError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EMFILE:
            raise error.__cause__ from None  # this process has too many files open: not for want of memory
        text = str(error).encode()[:_EXPLANATION_BYTES]
        connecting.sendall(_GREETING.pack(b"nbps", _VERSION, _NO_MEMORY, len(text)) + text)
        raise
    try:
        descriptor = os.open(segment.path, os.O_RDWR)
        try:
            memory = _map(descriptor, _RING_BYTES)
            for words, _ in _rings(memory):
                words[ring.READER_AWAITS] = 1  # so that each end may poll before it ever received
            greeting = _GREETING.pack(b"nbps", _VERSION, _MEMORY, _RING_BYTES)
            socket.send_fds(connecting, [greeting], [descriptor], socket.MSG_NOSIGNAL)
        finally:
            os.close(descriptor)
    finally:
        segment.unlink()
    return memory


def _read_greeting(arrived: socket.socket) -> tuple[int, int, int]:
    """Return kind, value and descriptor (-1 if none was passed) of a greeting."""
    message, descriptors, flags, _ = socket.recv_fds(arrived, _GREETING.size, 1, socket.MSG_CMSG_CLOEXEC)
    try:
        if flags & socket.MSG_CTRUNC and not descriptors:  # the kernel could not make one for us
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if len(message) < _GREETING.size:
            raise _Refused
        magic, version, kind, value = _GREETING.unpack(message)
        if (magic, version) != (b"nbps", _VERSION) or (kind, len(descriptors)) not in ((_MEMORY, 1), (_NO_MEMORY, 0)):
            raise _Refused
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return kind, value, descriptors[0] if descriptors else -1


def _map(descriptor: int, ring_bytes: int) -> Bytes:
    """Map the memory of two rings; the array holds it."""
    size = _PAGE + 2 * ring_bytes
    power_of_two = ring_bytes & (ring_bytes - 1) == 0 and _SMALLEST_RING <= ring_bytes <= _LARGEST_RING
    if not power_of_two or os.fstat(descriptor).st_size != size:
        raise _Refused
    # A peer that makes the file shorter afterwards ends us by SIGBUS. It is of our own user, and could kill us as well.
    try:
        return np.frombuffer(mmap.mmap(descriptor, size), np.uint8)
    except OSError as error:  # it is not a file, or cannot be written to
        if error.errno in _OUT_OF_MEANS:
            raise
        raise _Refused from error


def _rings(memory: Bytes) -> tuple[Ring, Ring]:
    """Return the ring from the end that connected to the one that listens, and the one back."""
    size = (memory.size - _PAGE) // 2
    words = memory[:_PAGE].view(np.int64)
    return (
        Ring(words[: ring.RING_WORDS], memory[_PAGE : _PAGE + size]),
        Ring(words[ring.RING_WORDS : 2 * ring.RING_WORDS], memory[_PAGE + size :]),
    )
