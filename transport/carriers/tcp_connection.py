"""One end of a TCP connection: frames through a socket that does not block."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
import time

from nbps.errors import ConnectionLostError
from nbps.transport.carriers.stream import StreamConnection
from nbps.transport.interface import Bytes, Lent, Options

_LINGER_S, _LOOK_AGAIN_S = 0.2, 0.0002
_DRAINING_READS = 1 << 10  # 64 MiB, more than a socket buffer holds: against an end that does not stop sending
_INT = struct.Struct("i")


class TcpConnection(StreamConnection):
    """A connected TCP socket."""

    def __init__(self, connected: socket.socket, peer: str, options: Options) -> None:
        super().__init__(peer, options)
        self._socket = connected
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * options.user_timeout_s))

    def fileno(self) -> int:
        """Descriptor to poll."""
        if self._lost is not None:
            raise ConnectionLostError(self._lost)
        return self._socket.fileno()

    def lend(self) -> Lent | None:
        """Lend the socket, unless something is queued or half received, or writing has failed."""
        idle = not self._queue and self._payload is None and self._begin == self._end
        if not idle or self._broken is not None or self._lost is not None:
            return None
        return Lent(self._socket.fileno(), self._sent, self._received, self.bytes_sent, self.bytes_received)

    def take_back(self, lent: Lent, unsent: Bytes, unread: Bytes, error: int) -> None:
        """Go on where the borrower stands."""
        _, self._sent, self._received, self.bytes_sent, self.bytes_received = lent
        self._begin, self._end, self._empty = 0, unread.size, False
        self._array[: unread.size] = unread
        if error:
            self._break(OSError(error, os.strerror(error)))
        elif unsent.size:
            self._queue.append(unsent.copy().data)
            self._queued = unsent.size

    def _write(self, buffers: list[memoryview]) -> int:
        try:
            return self._socket.sendmsg(buffers)
        except BlockingIOError:
            return 0

    def _read(self, into: memoryview) -> int:
        try:
            count = self._socket.recv_into(into)
        except BlockingIOError:
            return -1
        self._empty = 0 < count < into.nbytes
        return count

    def _no_more_writing(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _release(self, orderly: bool) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            self._linger(_LINGER_S if orderly else 0.0)
        self._socket.close()

    def _linger(self, longest_s: float) -> None:
        """Wait until the other machine has what was sent.

        It may lose the rest if it writes to a closed socket, or if what it wrote was left unread.
        """
        deadline = time.monotonic() + longest_s
        reads = 0
        while True:
            try:
                while self._socket.recv_into(self._buffer) > 0 and reads < _DRAINING_READS:
                    reads += 1
            except BlockingIOError:
                pass
            if time.monotonic() >= deadline or not self._unacknowledged():
                return
            time.sleep(_LOOK_AGAIN_S)

    def _unacknowledged(self) -> int:
        (count,) = _INT.unpack(fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(_INT.size)))
        return int(count)
