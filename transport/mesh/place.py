"""The place of a node in a job: which node it is, where the others are found, and who can reach it.

What an address is, its transport knows; two kinds are told apart here. Those of `inproc` and `shm` are names on one
machine. All others are ``host:port`` (`nbps.transport.addresses`) and open to whoever reaches the host: without a
secret only loopback hosts are used, unless the user insists.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbps.transport.addresses import join_address, split_address
from nbps.transport.interface import Connection, Tls
from nbps.transport.mesh.handshake import NAME_LIMIT, NODES_LIMIT, Hello

from nbps.errors import ConfigError, TransportError

_ONE_MACHINE = {"inproc", "shm"}  # transports whose addresses are names


@dataclass(frozen=True)
class Place:
    """Where a node stands.

    Attributes
    ----------
    rank, nodes : int
    rendezvous : str
        Address at which node 0 listens and all others come to be told of each other.
    job : str
        Name of the job, the same on all nodes; ``name/3`` for the third of a script's.
    incarnation : int
        64 random bits, drawn when the node started.
    secret : bytes
        Known to all nodes of the job; empty for none.
    transport : str
    bind : str
        Host at which this node listens. Empty for the one of the rendezvous on node 0, and on others the one from which
        they reach it.
    tls : Tls or None
    card : mapping
        What the nodes tell each other, as far as JSON holds it, with the ``version`` of nbps. They must agree in
        everything but `nbps.transport.mesh.cards.OWN`.
    start_timeout_s : float
        How long the nodes wait for each other.
    insecure : bool
        Go without a secret, also where other machines may connect.
    """

    rank: int
    nodes: int
    rendezvous: str
    job: str
    incarnation: int
    secret: bytes = field(default=b"", repr=False)
    transport: str = "tcp"
    bind: str = ""
    tls: Tls | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    start_timeout_s: float = 60.0
    insecure: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.nodes <= NODES_LIMIT:
            raise ConfigError(f"rank={self.rank}, nodes={self.nodes}: expected 0 <= rank < nodes <= {NODES_LIMIT}")
        if not (0 < len(self.job) <= NAME_LIMIT and self.job.isprintable()):
            raise ConfigError(f"job={self.job!r}: expected 1 to {NAME_LIMIT} printable characters")
        if not 0 <= self.incarnation < 1 << 64:
            raise ConfigError(f"incarnation={self.incarnation}: expected 64 bits")
        if not self.start_timeout_s > 0:
            raise ConfigError(f"start_timeout_s={self.start_timeout_s}: expected a number > 0")

    def hello(self, join: bool = False) -> Hello:
        """Return who this node is."""
        version = str(self.card.get("version", "unknown"))
        return Hello(version, self.job, self.nodes, self.rank, self.incarnation, join)

    @property
    def on_one_machine(self) -> bool:
        """Whether addresses are names that no other machine reaches."""
        return self.transport in _ONE_MACHINE

    def check_exposure(self) -> None:
        """Raise `ConfigError` if strangers may reach this node and there is no secret; or if other nodes cannot."""
        if self.on_one_machine:
            return
        try:
            host, _ = split_address(self.rendezvous)
        except TransportError as error:
            raise ConfigError(f"the rendezvous (NBPS_RENDEZVOUS) of the nodes: {error}") from error
        exposed = [name for name in (host, self.bind) if name and not is_loopback(name)]
        if exposed and not self.secret and not self.insecure:
            raise ConfigError(
                f"node {self.rank} would use {exposed[0]}, where other machines may connect, without a secret: set "
                "NBPS_SECRET, or name a file of mode 0600 that holds it, on all nodes; or stay on 127.0.0.1"
            )
        if self.bind and is_loopback(self.bind) and exposed:
            raise ConfigError(
                f"node {self.rank} would listen at {self.bind}, where no other machine can connect, but the "
                f"rendezvous is at {self.rendezvous}; leave bind empty"
            )

    def only_here(self, address: str) -> bool:
        """Whether no other machine reaches `address`, though it could if it were another one."""
        return not self.on_one_machine and is_loopback(split_address(address)[0])

    def listening_address(self, rendezvous: Connection | None = None) -> str:
        """Return where this node is to listen; nodes other than 0 need their connection to the rendezvous."""
        if rendezvous is None:
            if self.on_one_machine or not self.bind:
                return self.rendezvous
            return join_address(self.bind, split_address(self.rendezvous)[1])
        if self.on_one_machine:
            return f"{self.rendezvous}-{self.rank}-{self.incarnation:016x}"
        return join_address(self.bind or local_host(rendezvous), 0)

    def told_address(self, listening: str, rendezvous: Connection) -> str:
        """Return the address at which others reach a listener of this node at `listening`."""
        if self.on_one_machine:
            return listening
        host, port = split_address(listening)
        return join_address(local_host(rendezvous) if is_wildcard(host) else host, port)


def is_loopback(host: str) -> bool:
    """Whether `host`, an address or a name, is this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False  # not known: take no chances
    return all(ipaddress.ip_address(str(where[0]).partition("%")[0]).is_loopback for *_, where in found)


def is_wildcard(host: str) -> bool:
    """Whether `host` stands for all addresses of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def local_host(connection: Connection) -> str:
    """Return the address of this machine that `connection`, a socket, uses."""
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        return str(same.getsockname()[0])
