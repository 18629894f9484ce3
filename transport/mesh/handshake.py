"""Two nodes make sure of each other over a fresh connection, before anything else is said.

Both prove that they know the job's secret, and who they are, in four frames of JSON (`nbps.transport.mesh.notes`)::

    connecting node                                   accepting node
      {"protocol", "version", "job", "nodes", "rank", "incarnation", "join", "farewell", "nonce"}  ->
                       <-  the same of its own
      {"proof": HMAC-SHA256(secret, "connects" || hellos)}  ->
                       <-  {"proof": HMAC-SHA256(secret, "accepts" || hellos)}

`hellos` are the bytes of both as they travelled, the length of the first before them. So a proof holds for these two
nodes of this job in these roles and for the fresh nonces of both: it can be neither replayed nor sent back, nor can any
field be changed on the way. The one that accepts answers with a proof only after it has seen one: a stranger gets
nothing from it to try secrets on. Instead of any frame, it may send ``{"refused": reason, "again": bool}``; `again`
says that it is worth trying again. This frame is not authenticated, it can only keep a node out.

A handshake does not protect what is said after it: on networks that are not trusted there is TLS. It never blocks, and
receives no frame beyond its last one. Without a secret, which is for one machine only, the key is empty.

How a job's name is read: ``name/3`` is the third of several that a script runs one after the other. Its nodes get there
at different times, so a node that knocks at ``name/2`` for ``name/3`` is told to try again.
"""

from __future__ import annotations

import abc
import contextlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NamedTuple, NoReturn

from nbps.core.rules import NODES_LIMIT
from nbps.errors import ConnectionLostError, ProtocolError, TransportError
from nbps.transport.interface import Connection
from nbps.transport.mesh.notes import check_fields, printable, read_note, write_note

PROTOCOL = 1  # of this handshake, the rendezvous and `nbps.transport.wire`
DEADLINE_S = 5.0  # one that has not proved itself by then is a stranger
NAME_LIMIT = 200  # characters of a job's name or a version

_NONCE_BYTES = 32
_CONNECTS, _ACCEPTS = b"nbps connects", b"nbps accepts "


@dataclass(frozen=True)
class Hello:
    """Who a node says it is.

    Attributes
    ----------
    version : str
        Of nbps; all nodes run the same.
    job : str
    nodes, rank : int
    incarnation : int
        64 random bits, drawn when the node started: tells a restarted node from the one before.
    join : bool
        Whether the node comes to a rendezvous, and does not know the others yet.
    farewell : str
        Why the node is gone for good, where that is all that its connection says (`nbps.transport.mesh.farewell`).
    """

    version: str
    job: str
    nodes: int
    rank: int
    incarnation: int
    join: bool = False
    farewell: str = ""

    def write(self) -> bytes:
        """Return the frame that says it, with a fresh nonce."""
        return write_note({"protocol": PROTOCOL, **asdict(self), "nonce": secrets.token_hex(_NONCE_BYTES)})


class Refusal(NamedTuple):
    """Why a node is not let in, and whether it may be later."""

    reason: str
    again: bool = False


class Handshake(abc.ABC):
    """One end of a handshake on `connection`; `own` says who this node is.

    Attributes
    ----------
    peer : Hello or None
        What the other end says it is; it is proved when `advance` returned True.
    """

    def __init__(self, connection: Connection, own: Hello, secret: bytes) -> None:
        self.connection = connection
        self.own = own
        self.peer: Hello | None = None
        self._secret = secret
        self._hello = own.write()
        self._hellos = b""
        self._next: Callable[[bytes], None] | None = None

    def advance(self) -> bool:
        """Take what has arrived; return whether both ends are sure of each other.

        Raises
        ------
        ConnectionLostError
            If the connection ended, or the other end says that it is worth trying again.
        TransportError
            If one of both refused the other; says why. The connection is for the caller to close.
        """
        while self._next is not None:
            frame = self.connection.receive()
            if frame is None:
                return False
            try:
                self._next(frame.tobytes())
            except ProtocolError as error:
                self._refuse(Refusal(f"{error}; is this a node of nbps?"))
        return True

    @abc.abstractmethod
    def _refuse(self, refusal: Refusal) -> NoReturn:
        """Raise, and tell the other end if it is to be told."""

    def _read_hello(self, payload: bytes) -> Hello:
        """Return the other end's hello; refuse it if it is not of this job."""
        note = read_note(payload)
        refusal = _other_version(self.own, note)
        if refusal is not None:
            self._refuse(refusal)
        check_fields(note, _HELLO)
        nonce = note.pop("nonce")
        del note["protocol"]
        peer = Hello(**note)
        if len(nonce) != 2 * _NONCE_BYTES or not 0 <= peer.incarnation < 1 << 64:
            raise ProtocolError(f"expected a nonce of {2 * _NONCE_BYTES} digits and an incarnation of 64 bits")
        if not 0 <= peer.rank < peer.nodes <= NODES_LIMIT:
            raise ProtocolError(f"there is no node {peer.rank} of {peer.nodes}")
        refusal = _other_job(self.own, peer)
        if refusal is not None:
            self._refuse(refusal)
        return peer

    def _proof(self, role: bytes) -> str:
        return hmac.digest(self._secret, role + self._hellos, "sha256").hex()

    def _check_proof(self, payload: bytes, role: bytes) -> None:
        note = read_note(payload)
        check_fields(note, {"proof": str})
        if not hmac.compare_digest(note["proof"].encode("utf-8", "replace"), self._proof(role).encode()):
            self._refuse(Refusal("the secrets differ: give all nodes of a job the same NBPS_SECRET"))

    def _bind(self, first: bytes, second: bytes) -> None:
        self._hellos = len(first).to_bytes(8, "little") + first + second


class Connecting(Handshake):
    """The end that connected, to node `rank`; to this `incarnation` of it, where it is known."""

    def __init__(
        self, connection: Connection, own: Hello, secret: bytes, rank: int, incarnation: int | None = None
    ) -> None:
        super().__init__(connection, own, secret)
        self._rank = rank
        self._incarnation = incarnation
        self._next = self._on_hello
        connection.send(self._hello)

    def _on_hello(self, payload: bytes) -> None:
        self._look_for_refusal(payload)
        self.peer = peer = self._read_hello(payload)
        if peer.rank != self._rank:
            self._refuse(Refusal(f"node {peer.rank} answers there, expected node {self._rank}"))
        if self._incarnation is not None and peer.incarnation != self._incarnation:
            self._refuse(Refusal(f"node {peer.rank} was restarted; a running job does not take it back"))
        self._bind(self._hello, payload)
        self.connection.send(write_note({"proof": self._proof(_CONNECTS)}))
        self._next = self._on_proof

    def _on_proof(self, payload: bytes) -> None:
        self._look_for_refusal(payload)
        self._check_proof(payload, _ACCEPTS)
        self._next = None

    def _look_for_refusal(self, payload: bytes) -> None:
        note = read_note(payload)
        if "refused" not in note:
            return
        check_fields(note, {"refused": str, "again": bool})
        message = f"{self.connection.peer} refused node {self.own.rank}: {printable(note['refused'])}"
        raise (ConnectionLostError if note["again"] else TransportError)(message)

    def _refuse(self, refusal: Refusal) -> NoReturn:
        kind = ConnectionLostError if refusal.again else TransportError
        raise kind(f"node {self.own.rank} connected to {self.connection.peer}: {refusal.reason}")


class Accepting(Handshake):
    """The end that accepted the connection; `admit` decides about nodes that have proved who they are."""

    def __init__(
        self, connection: Connection, own: Hello, secret: bytes, admit: Callable[[Hello], Refusal | None]
    ) -> None:
        super().__init__(connection, own, secret)
        self._admit = admit
        self._next = self._on_hello

    def _on_hello(self, payload: bytes) -> None:
        peer = self._read_hello(payload)
        if peer.rank == self.own.rank:
            self._refuse(Refusal(f"node {peer.rank} was started twice: it is here"))
        if peer.rank < self.own.rank and not peer.farewell:
            self._refuse(Refusal(f"node {peer.rank} does not connect to node {self.own.rank}, only higher ranks do"))
        self.peer = peer
        self._bind(payload, self._hello)
        self.connection.send(self._hello)
        self._next = self._on_proof

    def _on_proof(self, payload: bytes) -> None:
        assert self.peer is not None
        self._check_proof(payload, _CONNECTS)
        refusal = self._admit(self.peer)
        if refusal is not None:
            self._refuse(refusal)
        self.connection.send(write_note({"proof": self._proof(_ACCEPTS)}))
        self._next = None

    def _refuse(self, refusal: Refusal) -> NoReturn:
        # If it has gone meanwhile, the reason is still what this end is to know.
        with contextlib.suppress(ConnectionLostError):
            self.connection.send(write_note({"refused": refusal.reason, "again": refusal.again}))
        raise TransportError(refusal.reason)


_HELLO = {
    "protocol": int,
    "version": str,
    "job": str,
    "nodes": int,
    "rank": int,
    "incarnation": int,
    "join": bool,
    "farewell": str,
    "nonce": str,
}


def _other_version(own: Hello, note: dict[str, object]) -> Refusal | None:
    """Say why a node that sent `note` is of another version; of other versions only these two keys are known."""
    protocol, version = note.get("protocol"), note.get("version")
    if type(protocol) is not int or type(version) is not str:
        raise ProtocolError("expected a hello with a protocol and a version of nbps")
    if (protocol, version) == (PROTOCOL, own.version):
        return None
    return Refusal(
        f"node {own.rank} runs nbps {own.version} (protocol {PROTOCOL}), the other end nbps "
        f"{printable(version[:NAME_LIMIT])} (protocol {protocol}); install one version on all nodes"
    )


def _other_job(own: Hello, peer: Hello) -> Refusal | None:
    """Say why `peer` is not of the job of `own`."""
    if peer.job != own.job:
        name = printable(peer.job[:NAME_LIMIT])
        if _series(peer.job) is not None and _series(peer.job) == _series(own.job):
            return Refusal(f"not now: node {own.rank} is at job {own.job!r}, node {peer.rank} at job {name!r}", True)
        return Refusal(f"node {own.rank} belongs to job {own.job!r}, node {peer.rank} to job {name!r}")
    if peer.nodes != own.nodes:
        return Refusal(
            f"node {own.rank} was started as one of {own.nodes} nodes, node {peer.rank} as one of {peer.nodes}; "
            "give all the same NBPS_NODES"
        )
    return None


def _series(job: str) -> str | None:
    """Return ``name`` of job ``name/3``."""
    name, slash, number = job.rpartition("/")
    return name if slash and number.isascii() and number.isdigit() else None
