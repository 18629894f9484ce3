"""Nodes on machines that reach each other by TCP, IPv4 or IPv6.

Whoever only asks about addresses, as drivers do, does not pay for connections: these need Numba.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from nbps.errors import TransportError
from nbps.transport.addresses import (
    free_address,
    is_ip,
    is_loopback,
    is_wildcard,
    join_address,
    split_address,
)
from nbps.transport.interface import Connection, Listener, Options, Transport

_SOCKET_BYTES = 4 << 20  # of each of the two buffers of a socket
_BACKLOG = 1024
_SHORTEST_ATTEMPT_S = 0.001
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5  # between two attempts to connect

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
    address_form = "host:port of node 0, as in 10.0.0.1:29500 or [::1]:29500, with a port from 1 to 65535"

    def listen(self, address: str, options: Options) -> TcpListener:
        """Listen at ``host:port``; port 0 has the system choose one."""
        host, port = split_address(address)
        wrap = _wrapper(options, server_side=True)
        try:
            family, where = _resolve(host, port)[0]
        except OSError as error:
            raise TransportError(f"cannot listen at {address}: host {host!r} is not known here ({error})") from error
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
        return TcpListener(listening, host, wrap)

    def connect(self, address: str, options: Options, timeout_s: float) -> Connection:
        """Connect to ``host:port``; a TLS handshake goes on when the connection is used."""
        host, port = split_address(address)
        wrap = _wrapper(options, server_side=False)
        start = time.monotonic()
        pause = _FIRST_PAUSE_S
        while True:
            try:
                connected = _attempt(host, port, start + timeout_s)
                try:
                    return wrap(connected, address)
                except OSError:  # it ended at once
                    connected.close()
                    raise
            except OSError as error:
                last = error
            left = start + timeout_s - time.monotonic()
            passing = isinstance(last, (TimeoutError, socket.gaierror)) or last.errno in _MAY_PASS
            if left <= 0 or not passing:
                tried = f"tried for {time.monotonic() - start:.1f} s" if passing else "one attempt"
                raise TransportError(
                    f"nobody answers at {address} ({tried}; last error: {last.strerror or last}): "
                    "does the other node run, is this its address, and does a firewall let it through?"
                ) from last
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def canonical(self, address: str) -> str | None:
        """Return ``host:port``, names in small letters; None with port 0, or with what cannot be a host."""
        try:
            host, port = split_address(address)
        except TransportError:
            return None
        strange = any(sign.isspace() or not sign.isprintable() or sign == "/" for sign in host)
        if port == 0 or strange or (":" in host and not is_ip(host)):
            return None
        return join_address(str(ipaddress.ip_address(host)) if is_ip(host) else host.lower(), port)

    def is_local(self, address: str) -> bool:
        """Whether the host of `address` is loopback; a name that is not known to be is not."""
        return is_loopback(split_address(address)[0])

    def free_rendezvous(self, job: str) -> str:
        """Return a port of the loopback device."""
        return free_address()

    def entrance(self, rendezvous: str, bind: str) -> str:
        """Return the port of `rendezvous` at the host `bind`.

        Without one: at the host of `rendezvous`. Where that is a name: at all IPv4 addresses, because ``/etc/hosts`` of
        a machine often gives its own name a loopback address.
        """
        host, port = split_address(rendezvous)
        if not bind and not (is_ip(host) or is_loopback(host)):
            bind = "0.0.0.0"
        return join_address(bind or host, port)

    def own_address(self, rendezvous: str, bind: str, node: str, connection: Connection) -> str:
        """Return `bind`, or the address from which the rendezvous is reached, with a port that the system chooses."""
        return join_address(bind or _local_host(connection), 0)

    def told_address(self, listening: str, connection: Connection) -> str:
        """Return `listening`, and for all addresses of this machine the one from which the rendezvous is reached."""
        host, port = split_address(listening)
        return join_address(_local_host(connection) if is_wildcard(host) else host, port)


_Wrapper = Callable[[socket.socket, str], Connection]  # of a connected socket and its other end's address


def _wrapper(options: Options, server_side: bool) -> _Wrapper:
    """Return what makes connections of sockets."""
    from nbps.kernels import checksum
    from nbps.kernels.prepare import prepare
    from nbps.transport.carriers.tcp_connection import TcpConnection

    prepare(checksum.requests())  # compiled before the first frame: nothing may hold up a node's loop
    if options.tls is None:
        return lambda connected, peer: TcpConnection(connected, peer, options)
    from nbps.transport.carriers.tls import TlsConnection, tls_context

    context = tls_context(options.tls, server_side)
    return lambda connected, peer: TlsConnection(connected, peer, options, context, server_side)


def _local_host(connection: Connection) -> str:
    """Return the address of this machine that `connection`, a socket, uses."""
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        return str(same.getsockname()[0])


def _resolve(host: str, port: int) -> list[tuple[int, Any]]:
    """Return family and address of sockets at `host` and `port`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except ValueError as error:  # what cannot be the name of a host
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from error
    return [(family, where) for family, _, _, _, where in found]


def _attempt(host: str, port: int, deadline: float) -> socket.socket:
    """Return a connected socket; try the addresses of `host` in turn, each at least once."""
    last: OSError | None = None
    for family, where in _resolve(host, port):
        connecting = socket.socket(family, socket.SOCK_STREAM)
        try:
            _set_buffers(connecting)
            connecting.settimeout(max(deadline - time.monotonic(), _SHORTEST_ATTEMPT_S))
            connecting.connect(where)
            # A local port that nobody listens at may be chosen as our own: then we would answer ourselves.
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

    def __init__(self, listening: socket.socket, host: str, wrap: _Wrapper) -> None:
        self._socket = listening
        self._wrap = wrap
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
        try:
            return self._wrap(accepted, join_address(*where[:2]))
        except OSError:  # it ended at once
            accepted.close()
            return None

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


@functools.cache
def _large_buffers() -> list[int]:
    """Return which socket buffers may be as large as we ask; a smaller fixed one is worse than one that grows."""
    with socket.socket() as probe:
        options = [socket.SO_SNDBUF, socket.SO_RCVBUF]
        for option in options:
            probe.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)
        # Linux doubles what was asked for, to have room for its own data.
        return [option for option in options if probe.getsockopt(socket.SOL_SOCKET, option) >= 2 * _SOCKET_BYTES]


def _set_buffers(unconnected: socket.socket) -> None:
    """Ask for large socket buffers; before connecting, since they decide the window."""
    for option in _large_buffers():
        unconnected.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)


def _advice(error: OSError, host: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; choose another, or end what listens there (ss -ltnp)"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; `ip address` lists those that are"
    if error.errno == errno.EACCES:
        return "not permitted; ports below 1024 belong to root"
    return error.strerror or str(error)
