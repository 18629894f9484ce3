"""One end of a TCP connection: frames through a socket that does not block."""

from __future__ import annotations

import contextlib
import socket

from nbps.transport.interface import Options
from nbps.transport.stream import StreamConnection

from nbps.errors import ConnectionLostError

_DRAINED_BYTES = 16 << 20  # more than a socket buffer holds


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

    def _release(self) -> None:
        # Closing with unread bytes resets the connection, and what the other end has not read yet could be lost.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            for _ in range(_DRAINED_BYTES // self._array.nbytes):
                if not self._socket.recv_into(self._buffer):
                    break
        self._socket.close()
