"""What a transport is: frames of bytes between two nodes, whole, in order, none twice, as long as a connection lives.

Nothing here blocks, except `Transport.connect` up to its time limit and `Connection.close` for a moment: one thread
drives all connections of a node from one ``poll``. What is at the other end, and what the bytes mean, is decided above.

The contract, which `nbps.testing.transport.contract.TransportContract` checks:

- Frames arrive whole, unchanged, in the order of `Connection.send`, none twice; a gap or a changed bit ends the
  connection instead.
- `Connection.send` takes a frame or refuses it; what it refused it has not seen. At least one frame fits always.
- When one end is closed or its process dies, the other end receives what was sent before, then `ConnectionLostError`:
  also if it writes meanwhile. So only `Connection.receive` finds that the other end is gone; until it has said so,
  frames are taken and lost.
- After an error a connection is never used again: every call raises `ConnectionLostError`, `close` does nothing.
- Nothing is left behind: no descriptor, thread, file or segment.

A loop over a connection that keeps to it: poll its descriptor for reading, and for writing if `Connection.wants_write`;
after any event call `Connection.flush` if `Connection.wants_write`, then `Connection.receive` until it returns None.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nbps.errors import ConfigError

Bytes = npt.NDArray[np.uint8]
Buffer = bytes | bytearray | memoryview | Bytes

_LONGEST_TIMEOUT_S = 2_000_000  # TCP counts it in milliseconds, with 31 bits
GREETING_LIMIT = 1 << 16  # bytes of a frame before the two ends know each other


@dataclass(frozen=True)
class Tls:
    """Files for TLS 1.3 with certificates on both sides, in PEM format.

    Attributes
    ----------
    certificate, key : Path
        Of this node.
    authority : Path
        Certificates that sign those of the other nodes.
    """

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True)
class Options:
    """What both ends of a connection may be told.

    Attributes
    ----------
    frame_limit : int
        Longest payload that is received, in bytes; a longer one ends the connection before memory is taken for it.
        `Connection.frame_limit` can be raised when the other end is known.
    queue_bytes : int
        What `Connection.send` holds at most; beyond it frames are refused.
    user_timeout_s : float
        A connection whose bytes are not acknowledged for so long has ended (TCP_USER_TIMEOUT).
    tls : Tls or None
    """

    frame_limit: int = GREETING_LIMIT
    queue_bytes: int = 64 << 20
    user_timeout_s: float = 30.0
    tls: Tls | None = None

    def __post_init__(self) -> None:
        for name in ("frame_limit", "queue_bytes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a number of bytes, 0 or more")
        if not 0.001 <= self.user_timeout_s <= _LONGEST_TIMEOUT_S:
            raise ConfigError(
                f"user_timeout_s is {self.user_timeout_s}; expected seconds from 0.001 to {_LONGEST_TIMEOUT_S:,}"
            )


class Lent(NamedTuple):
    """Where a connection stands that is lent: a socket with frames as `nbps.transport.carriers.header` has them.

    Attributes
    ----------
    descriptor : int
    frames_sent, frames_received : int
        Modulo 2**32.
    bytes_sent, bytes_received : int
    """

    descriptor: int
    frames_sent: int
    frames_received: int
    bytes_sent: int
    bytes_received: int


class Connection(abc.ABC):
    """One end of a connection.

    Attributes
    ----------
    peer : str
        Address of the other end, for messages.
    frame_limit : int
        Longest payload that is received, in bytes.
    bytes_sent, bytes_received : int
        With headers.
    """

    peer: str
    frame_limit: int
    bytes_sent: int
    bytes_received: int

    @abc.abstractmethod
    def fileno(self) -> int:
        """Descriptor that polls readable when `receive` may have something, also that the connection ended."""

    @property
    @abc.abstractmethod
    def wants_write(self) -> bool:
        """Whether something is queued, and `flush` is to be called when the descriptor polls writable.

        Not so while a TLS handshake waits for the other end: then `receive` goes on with it.
        """

    @abc.abstractmethod
    def send(self, *parts: Buffer) -> bool:
        """Send the concatenation of `parts` as one frame, as far as goes without blocking, and queue the rest.

        Returns
        -------
        bool
            False if the queue is full: nothing was taken. The buffers must stay unchanged until they were sent.

        Raises
        ------
        ConnectionLostError
            If the connection has ended.
        """

    @abc.abstractmethod
    def flush(self) -> None:
        """Go on sending what is queued, as far as goes without blocking.

        Raises
        ------
        ConnectionLostError
            If the connection has ended.
        """

    @abc.abstractmethod
    def receive(self) -> Bytes | None:
        """Return the payload of the next frame, uint8[n], the caller's own; None if it is not complete yet.

        Call it until it returns None before polling again: several frames may have arrived at once.

        Raises
        ------
        ConnectionLostError
            If the connection has ended, or what arrived is not a frame: says what was found. Every later call of any
            method but `close` raises the same.
        """

    def lend(self) -> Lent | None:
        """Lend what the connection is made of to a compiled loop, until `take_back`; None if that is not possible now.

        Never, if frames go another way than through a socket as they are; nor where anything is on its way.
        """
        return None

    def take_back(self, lent: Lent, unsent: Bytes, unread: Bytes, error: int) -> None:
        """Go on where the loop stands, which has not sent and not taken these bytes, and met this error if not 0."""
        raise NotImplementedError(f"{type(self).__name__} lends nothing")

    @abc.abstractmethod
    def close(self, linger: bool = True) -> None:
        """End the connection; what is still queued is dropped. Idempotent.

        With `linger` it may wait for a fifth of a second at most, until the other machine has what left the queue.
        """


class Listener(abc.ABC):
    """Accepts connections at one address.

    Attributes
    ----------
    address : str
        Where it listens, as `Transport.connect` takes it, with the port that was chosen.
    """

    address: str

    @abc.abstractmethod
    def fileno(self) -> int:
        """Descriptor that polls readable when `accept` may have a connection."""

    @abc.abstractmethod
    def accept(self) -> Connection | None:
        """Return a new connection; None if there is none now. A peer that fails to set one up is not our error.

        Raises
        ------
        TransportError
            If this process may open no more descriptors.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Stop listening; accepted connections stay. Idempotent."""


class Transport(abc.ABC):
    """A way to connect nodes. What its addresses look like and mean is its own: nobody else looks into one.

    The methods that are not abstract are right where an address is a name.

    Attributes
    ----------
    name : str
        Under which it is registered.
    crosses_processes : bool
        Whether the two ends of a connection can be in two processes, as the nodes of a job are.
    address_form : str
        What the address of a rendezvous looks like, for messages: "host:port, as in 10.0.0.1:29500".
    """

    name: str
    crosses_processes: bool = True
    address_form: str

    @abc.abstractmethod
    def listen(self, address: str, options: Options) -> Listener:
        """Listen at `address`.

        Raises
        ------
        TransportError
            If that is not possible: a port in use, an address that is not this machine's, a malformed address.
        """

    @abc.abstractmethod
    def connect(self, address: str, options: Options, timeout_s: float) -> Connection:
        """Connect to the listener at `address`, trying again until there is one, for `timeout_s` at most.

        Raises
        ------
        TransportError
            If nobody answered; says how long was tried, and the last error.
        """

    @abc.abstractmethod
    def canonical(self, address: str) -> str | None:
        """Return the one way to write `address`, at which nodes shall meet; None if they cannot meet there.

        Two that are written alike are the same place. Opens no connection and looks no name up.
        """

    @abc.abstractmethod
    def is_local(self, address: str) -> bool:
        """Whether nobody but this user, on this machine, can connect to a listener at `address`.

        At others nodes do not listen without a secret. Where that is not known: False.
        """

    @abc.abstractmethod
    def free_rendezvous(self, job: str) -> str:
        """Return an address that is local, and free, for node 0 of `job`, a name that no other job of this machine has.

        Raises
        ------
        TransportError
            If none is found.
        """

    def entrance(self, rendezvous: str, bind: str) -> str:
        """Return where node 0 listens so that the others find it at `rendezvous`.

        Parameters
        ----------
        rendezvous : str
        bind : str
            IP address of this machine at which the user wants the node to listen, empty for none: of no meaning to
            transports that do not use IP.
        """
        return rendezvous

    def exposed(self, rendezvous: str, bind: str) -> str | None:
        """Return the rendezvous, or else the `entrance`, if others may connect there; None if both are local."""
        places = rendezvous, self.entrance(rendezvous, bind)
        return next((address for address in places if not self.is_local(address)), None)

    def own_address(self, rendezvous: str, bind: str, node: str, connection: Connection) -> str:
        """Return where another node than node 0 is to listen.

        Parameters
        ----------
        rendezvous, bind : str
            As for `entrance`.
        node : str
            At most 22 letters, digits and hyphens, which no other node has.
        connection : Connection
            To the rendezvous: which way this node reaches others.
        """
        return f"{rendezvous}-{node}"

    def told_address(self, listening: str, connection: Connection) -> str:
        """Return how others reach a node that listens at `listening` and has this `connection` to the rendezvous."""
        return listening


def total_bytes(parts: Sequence[Buffer]) -> int:
    """Return the length of the concatenation of `parts`."""
    length = 0
    for part in parts:
        length += part.nbytes if isinstance(part, (memoryview, np.ndarray)) else len(part)
    return length
