"""A transport as somebody else would write one: frames over Unix sockets, at addresses such as ``loft 7, by the sea``.

It is found by the entry point beside it when this folder is on the search path, as an installed package is. What bytes
travel as, `nbps.transport.carriers.stream` knows.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

from nbps.errors import ConnectionLostError, TransportError
from nbps.transport.carriers.stream import StreamConnection
from nbps.transport.interface import Connection, Listener, Options, Transport


def _where(address: str) -> str:
    """Return the socket of a loft, in the abstract namespace, which knows no files."""
    if not address.startswith("loft "):
        raise TransportError(f"{address!r} is not a loft; expected one, as in 'loft 7, by the sea'")
    return f"\0pigeons-{os.geteuid()}-{address}"


class PigeonTransport(Transport):
    """Frames between processes of one machine."""

    name = "carrier-pigeon"
    address_form = "a loft, as in 'loft 7, by the sea'"

    def listen(self, address: str, options: Options) -> Listener:
        """Listen at a loft."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            listening.bind(_where(address))
            listening.listen()
        except OSError as error:
            listening.close()
            raise TransportError(f"cannot listen at {address!r}: {error.strerror}") from error
        except TransportError:
            listening.close()
            raise
        return PigeonListener(listening, address, options)

    def connect(self, address: str, options: Options, timeout_s: float) -> Connection:
        """Connect to a loft."""
        where, until = _where(address), time.monotonic() + timeout_s
        while True:
            connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connecting.connect(where)
                return PigeonConnection(connecting, address, options)
            except OSError as error:
                connecting.close()
                if time.monotonic() >= until:
                    raise TransportError(f"nobody answers at {address!r} (tried for {timeout_s:g} s)") from error
            time.sleep(0.01)

    def canonical(self, address: str) -> str | None:
        """Return a loft with single spaces between its words."""
        return " ".join(address.split()) if address.startswith("loft ") else None

    def is_local(self, address: str) -> bool:
        """Return True: the socket is in this machine's memory."""
        return True

    def free_rendezvous(self, job: str) -> str:
        """Return a loft with the name of the job."""
        return f"loft {job}, by the sea"


class PigeonListener(Listener):
    """Accepts connections at a loft."""

    def __init__(self, listening: socket.socket, address: str, options: Options) -> None:
        self.address = address
        self._socket = listening
        self._options = options

    def fileno(self) -> int:
        """Descriptor to poll."""
        return self._socket.fileno()

    def accept(self) -> Connection | None:
        """Return a new connection; None if there is none now."""
        try:
            accepted, _ = self._socket.accept()
        except BlockingIOError:
            return None
        return PigeonConnection(accepted, f"{self.address} (which connected)", self._options)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


class PigeonConnection(StreamConnection):
    """A connected socket."""

    def __init__(self, connected: socket.socket, peer: str, options: Options) -> None:
        super().__init__(peer, options)
        self._socket = connected
        connected.setblocking(False)

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
            return self._socket.recv_into(into)
        except BlockingIOError:
            return -1

    def _no_more_writing(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _release(self, orderly: bool) -> None:
        self._socket.close()
