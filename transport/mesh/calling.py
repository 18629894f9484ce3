"""A node connects to another one: the connection, the handshake, and then waiting for what the other says.

All of it blocks, up to its time limit, and ends at once when the node gives up (`Caller.stop`), except for an attempt
to connect. An error that may pass is a `ConnectionLostError`: it is worth trying again after a pause.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator

from nbps.errors import ConnectionLostError, TransportError
from nbps.transport.interface import Bytes, Connection, Options, Transport
from nbps.transport.mesh.handshake import DEADLINE_S, Connecting
from nbps.transport.mesh.place import Place

LONGEST_ATTEMPT_S = 2.0  # to connect, before the handshake

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


class Stopped(Exception):  # noqa: N818  # no error
    """The node does not want to connect any more."""


def pauses() -> Iterator[float]:
    """Give the seconds to wait before each attempt to connect again."""
    pause_s = _FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


class Caller:
    """Connects to other nodes for the node at `place`; several threads may use it at a time."""

    def __init__(self, place: Place, transport: Transport, options: Options) -> None:
        self.place = place
        self._transport = transport
        self._options = options
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # readable once it is to end

    def connect(
        self,
        rank: int,
        address: str,
        incarnation: int | None,
        timeout_s: float,
        *,
        join: bool = False,
        farewell: str = "",
    ) -> Connection:
        """Return a connection to node `rank` at `address` after the handshake; `Hello` says what it is for.

        Raises
        ------
        ConnectionLostError
            If nobody answers, or not in time, or asks to try again.
        TransportError
            If the two do not accept each other: it will not be better later.
        Stopped
            If `stop` was called.
        """
        try:
            connection = self._transport.connect(address, self._options, timeout_s)
        except TransportError as error:
            raise ConnectionLostError(str(error)) from error
        try:
            hello = self.place.hello(join, farewell)
            handshake = Connecting(connection, hello, self.place.secret, rank, incarnation)
            until = time.monotonic() + DEADLINE_S
            while not handshake.advance():
                if not self._wait(connection, until):
                    raise ConnectionLostError(f"{address} took the connection, but said nothing for {DEADLINE_S:g} s")
        except BaseException:
            connection.close()
            raise
        return connection

    def receive(self, connection: Connection, until: float) -> Bytes | None:
        """Wait for the next frame; None if there was none until then, on the monotonic clock."""
        while (frame := connection.receive()) is None:
            if not self._wait(connection, until):
                return None
        return frame

    def rest(self, pause_s: float) -> None:
        """Wait; raises `Stopped` if `stop` was called."""
        if pause_s > 0:
            select.select([self._stop], [], [], pause_s)
        self._look()

    def stop(self) -> None:
        """Have everybody who waits here raise `Stopped`."""
        os.eventfd_write(self._stop, 1)

    def close(self) -> None:
        """Give the descriptor back, when nobody waits any more."""
        os.close(self._stop)

    def _wait(self, connection: Connection, until: float) -> bool:
        """Wait until something may have arrived, or went out; return False if that was not in time."""
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLIN | (select.POLLOUT if connection.wants_write else 0))
        poller.register(self._stop, select.POLLIN)
        events = poller.poll(max(0.0, until - time.monotonic()) * 1000)
        self._look()
        if connection.wants_write:
            connection.flush()
        return bool(events)

    def _look(self) -> None:
        if select.select([self._stop], [], [], 0)[0]:
            raise Stopped
