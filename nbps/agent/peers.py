"""The connections of an agent to those of the other nodes: frames in, frames out, and what breaks.

A connection that is full refuses frames, which then wait in its backlog. One that breaks takes its backlog along: the
protocol core keeps what was not acknowledged, and says it again on the next connection.
"""

from __future__ import annotations

import gc
import logging
import select
from collections import deque
from collections.abc import Iterator

from nbps.core.messages import Frame, LinkDown, LinkUp
from nbps.errors import ConnectionLostError, RemoteProtocolError
from nbps.transport.interface import Bytes, Connection, Lent
from nbps.transport.mesh.mesh import Mesh
from nbps.transport.wire import decode, encode

_log = logging.getLogger("nbps.agent")


class Peers:
    """The connections that `mesh` makes, None for a node without others; their descriptors are registered with `poll`.

    Attributes
    ----------
    changes : deque of LinkUp or LinkDown
        What the protocol core is to be told of connections, by whatever takes it from here.
    reconnects : bool
        Whether broken connections are made again.
    """

    def __init__(self, mesh: Mesh | None, poll: select.poll) -> None:
        self.changes: deque[LinkUp | LinkDown] = deque()
        self.reconnects = True
        self._mesh = mesh
        self._poll = poll
        self._connections: dict[int, Connection] = {}
        self._descriptors: dict[int, int] = {}  # of connections, by rank: a lost one does not tell
        self._ranks: dict[int, int] = {}  # the other way round
        self._backlog: dict[int, deque[Frame]] = {}
        self._sent = self._received = 0  # bytes, on connections that are gone

    def take(self) -> list[int]:
        """Take the connections that were made; return to whom: their frames may be there, without a sign of the poll.

        To be called about once a second: the mesh looks after those that connect, too.
        """
        made = [] if self._mesh is None else self._mesh.poll()
        for rank, connection in made:
            if rank in self._connections:
                self._drop(rank)
            self._connections[rank] = connection
            self._descriptors[rank] = descriptor = connection.fileno()
            self._ranks[descriptor] = rank
            self._backlog[rank] = deque()
            self._poll.register(descriptor, select.POLLIN)
            self.changes.append(LinkUp(rank))
        return [rank for rank, _ in made]

    def rank_of(self, descriptor: int) -> int | None:
        """Return the node whose connection has this descriptor, if any."""
        return self._ranks.get(descriptor)

    def receive(self, rank: int) -> Iterator[Frame]:
        """Yield the frames of node `rank` that are there, after what waits to be sent was; handle one, then the next.

        Ends when the connection breaks, also because of what was done with a frame.
        """
        connection = self._connections.get(rank)
        if connection is None:
            return
        try:
            connection.flush()
            self._send_backlog(rank, connection)
            while self._connections.get(rank) is connection and (payload := connection.receive()) is not None:
                yield decode(payload)
        except (ConnectionLostError, RemoteProtocolError) as error:
            self._lose(rank, error)

    def send(self, rank: int, frame: Frame) -> None:
        """Send a frame to node `rank`, or when there is room; without a connection the protocol core keeps it."""
        connection = self._connections.get(rank)
        if connection is None:
            return
        backlog = self._backlog[rank]
        try:
            if backlog or not connection.send(*encode(frame)):
                backlog.append(frame)
        except ConnectionLostError as error:
            self._lose(rank, error)
            return
        self._watch(rank, connection.wants_write or bool(backlog))

    def flush(self, rank: int) -> None:
        """Send what can be sent to node `rank` of what waits."""
        if rank in self._connections:
            self._send_backlog(rank, self._connections[rank])
            self._connections[rank].flush()

    def refuse(self, rank: int, reason: str) -> None:
        """End the connection to node `rank`, which sent what no node may send."""
        if rank in self._connections:
            _log.warning("the connection to node %d is closed, and made again: %s", rank, reason)
            self._drop(rank)
            self._reconnect(rank)

    def lend(self, count: int) -> dict[int, Lent] | None:
        """Lend the connections to all `count` other nodes, by rank, until `take_back`; None if one cannot be now."""
        if len(self._connections) < count or any(self._backlog.values()) or self.changes:
            return None
        lent = {rank: connection.lend() for rank, connection in self._connections.items()}
        return None if None in lent.values() else lent  # type: ignore[return-value]

    def take_back(self, rank: int, lent: Lent, unsent: Bytes, unread: Bytes, error: int) -> None:
        """Go on with a connection as `Connection.take_back` says."""
        self._connections[rank].take_back(lent, unsent, unread, error)
        if unsent.size:
            self._watch(rank, self._connections[rank].wants_write)

    def descriptor(self, rank: int) -> int:
        """Return the descriptor of the connection to node `rank`."""
        return self._descriptors[rank]

    def traffic(self) -> tuple[int, int]:
        """Return the bytes sent and received on all connections that there ever were."""
        connections = self._connections.values()
        sent, received = (sum(getattr(one, name) for one in connections) for name in ("bytes_sent", "bytes_received"))
        return self._sent + sent, self._received + received

    def close(self) -> None:
        """End all connections."""
        for connection in self._connections.values():
            connection.close()

    def _lose(self, rank: int, error: Exception) -> None:
        _log.info("the connection to node %d broke: %s", rank, error)
        self._drop(rank)
        self._reconnect(rank)

    def _reconnect(self, rank: int) -> None:
        if self._mesh is not None and self.reconnects:
            self._mesh.lost(rank)

    def _drop(self, rank: int) -> None:
        connection = self._connections.pop(rank)
        self._sent += connection.bytes_sent
        self._received += connection.bytes_received
        descriptor = self._descriptors.pop(rank)
        self._poll.unregister(descriptor)
        del self._ranks[descriptor], self._backlog[rank]
        connection.close()
        self.changes.append(LinkDown(rank))
        gc.collect()  # its buffers, half a megabyte, may hang on cycles with the error that ended it

    def _send_backlog(self, rank: int, connection: Connection) -> None:
        backlog = self._backlog[rank]
        while backlog and connection.send(*encode(backlog[0])):
            backlog.popleft()
        self._watch(rank, connection.wants_write or bool(backlog))

    def _watch(self, rank: int, for_room: bool) -> None:
        self._poll.modify(self._descriptors[rank], select.POLLIN | (select.POLLOUT if for_room else 0))
