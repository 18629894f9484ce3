"""Nodes on machines that reach each other by TCP, IPv4 or IPv6."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time

from nbps.transport.addresses import join_address, split_address
from nbps.transport.interface import Connection, Listener, Options, Transport
from nbps.transport.stream import StreamConnection

from nbps.errors import ConnectionLostError, TransportError

_SOCKET_BYTES = 4 << 20  # of each of the two buffers of a socket
_BACKLOG = 1024
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5  # between two attempts to connect
_DRAINED_BYTES = 16 << 20

# An attempt that fails so may succeed later: the other node starts at any time before or after us.
_MAY_PASS = {
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ETIMEDOUT,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.EHOSTDOWN,
    errno.EADDRNOTAVAIL,
    errno.EAGAIN,
    errno.EINTR,
}
_OUT_OF_MEANS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class TcpTransport(Transport):
    """Frames over TCP."""

    name = "tcp"

    def listen(self, address: str, options: Options) -> TcpListener:
        """Listen at ``host:port``; port 0 has the system choose one."""
        host, port = split_address(address)
        try:
            family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        except socket.gaierror as error:
            raise TransportError(f"cannot listen at {address}: {host!r} is not known here ({error.strerror})") from None
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            # A port is taken over from a listener that ended a moment ago, not from one that lives.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _set_buffers(listening)
            listening.bind(where)
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            raise TransportError(f"cannot listen at {address}: {_advice(error, host)}") from error
        return TcpListener(listening, host, options)

    def connect(self, address: str, options: Options, timeout_s: float) -> Connection:
        """Connect to ``host:port``."""
        host, port = split_address(address)
        start = time.monotonic()
        pause = _FIRST_PAUSE_S
        while True:
            left = timeout_s - (time.monotonic() - start)
            try:
                return TcpConnection(_attempt(host, port, max(left, 0.001)), address, options)
            except OSError as error:
                last = error
            left = timeout_s - (time.monotonic() - start)
            passing = isinstance(last, (TimeoutError, socket.gaierror)) or last.errno in _MAY_PASS
            if left <= 0 or not passing:
                tried = f"tried for {time.monotonic() - start:.1f} s" if passing else "one attempt"
                raise TransportError(
                    f"nobody answers at {address} ({tried}; last error: {last.strerror or last}): "
                    "does the other node run, is this its address, and does a firewall let it through?"
                ) from last
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def _attempt(host: str, port: int, timeout_s: float) -> socket.socket:
    """Return a connected socket; try the addresses of `host` in turn."""
    last: OSError | None = None
    for family, *_, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connecting = socket.socket(family, socket.SOCK_STREAM)
        try:
            _set_buffers(connecting)
            connecting.settimeout(timeout_s)
            connecting.connect(where)
            # A local port that nobody listens at may be chosen as our own: then we answer ourselves.
            if connecting.getsockname() == connecting.getpeername():
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            return connecting
        except OSError as error:
            connecting.close()
            last = error
    assert last is not None
    raise last


class TcpListener(Listener):
    """Accepts TCP connections."""

    def __init__(self, listening: socket.socket, host: str, options: Options) -> None:
        self._socket = listening
        self._options = options
        self.address = join_address(host, listening.getsockname()[1])

    def fileno(self) -> int:
        """Descriptor to poll."""
        return self._socket.fileno()

    def accept(self) -> Connection | None:
        """Return a new connection; None if there is none now."""
        try:
            accepted, where = self._socket.accept()
        except OSError as error:
            if error.errno in _OUT_OF_MEANS:
                raise TransportError(
                    f"cannot accept a connection at {self.address}: {error.strerror}; "
                    "raise the limit of open files (ulimit -n) or run fewer nodes"
                ) from error
            return None  # also an error of a connection that ended before it was accepted
        return TcpConnection(accepted, join_address(*where[:2]), self._options)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


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
                if not self._socket.recv_into(self._array):
                    break
        self._socket.close()


def _set_buffers(unconnected: socket.socket) -> None:
    """Ask for large socket buffers; before connecting, since they decide the window."""
    unconnected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    unconnected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)


def _advice(error: OSError, host: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; choose another, port 0 for any that is free, or end who listens there (ss -ltnp)"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; `ip address` lists those that are"
    if error.errno == errno.EACCES:
        return "not permitted; ports below 1024 belong to root"
    return error.strerror or str(error)
