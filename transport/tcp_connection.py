"""One end of a TCP connection: frames through a socket that does not block."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
import time

from nbps.transport.interface import Options
from nbps.transport.stream import StreamConnection

from nbps.errors import ConnectionLostError

_LINGER_S, _LOOK_AGAIN_S = 0.2, 0.0002
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
            if orderly:
                self._linger()
        self._socket.close()

    def _linger(self) -> None:
        """Wait until the other machine has what was sent: if it writes to a closed socket it may lose the rest."""
        deadline = time.monotonic() + _LINGER_S
        while time.monotonic() < deadline:
            try:
                if self._socket.recv_into(self._buffer) > 0:  # left unread it would have the same effect
                    continue
            except BlockingIOError:
                pass
            if not self._unacknowledged():
                return
            time.sleep(_LOOK_AGAIN_S)

    def _unacknowledged(self) -> int:
        (count,) = _INT.unpack(fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(_INT.size)))
        return int(count)
