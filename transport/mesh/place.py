"""The place of a node in a job: which node it is, where the others are found, and who can reach it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbps.core.rules import NODES_LIMIT
from nbps.errors import ConfigError
from nbps.transport.interface import Tls, Transport
from nbps.transport.mesh.handshake import NAME_LIMIT, Hello


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
        IP address at which this node is to listen, where the transport uses IP; empty if it may choose.
    tls : Tls or None
    card : mapping
        What the nodes tell each other, as far as JSON holds it, with the ``version`` of nbps. They must agree in
        everything but `nbps.transport.mesh.cards.OWN`.
    start_timeout_s : float
        How long the nodes wait for each other.
    insecure : bool
        Go without a secret, also where other machines may connect.
    roll : str
        Path of the roll (`nbps.transport.mesh.roll`) on which the nodes stand; empty for none.
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
    roll: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.nodes <= NODES_LIMIT:
            raise ConfigError(f"rank={self.rank}, nodes={self.nodes}: expected 0 <= rank < nodes <= {NODES_LIMIT}")
        if not (0 < len(self.job) <= NAME_LIMIT and self.job.isprintable()):
            raise ConfigError(f"job={self.job!r}: expected 1 to {NAME_LIMIT} printable characters")
        if not 0 <= self.incarnation < 1 << 64:
            raise ConfigError(f"incarnation={self.incarnation}: expected 64 bits")
        if not self.start_timeout_s > 0:
            raise ConfigError(f"start_timeout_s={self.start_timeout_s}: expected a number > 0")

    def hello(self, join: bool = False, farewell: str = "") -> Hello:
        """Return who this node is, and what it comes for."""
        version = str(self.card.get("version", "unknown"))
        return Hello(version, self.job, self.nodes, self.rank, self.incarnation, join, farewell)

    def check_reach(self, transport: Transport) -> None:
        """Raise `ConfigError` if strangers may reach this node and there is no secret; or if other nodes cannot."""
        if transport.canonical(self.rendezvous) is None:
            raise ConfigError(
                f"the rendezvous (NBPS_RENDEZVOUS) of the nodes is {self.rendezvous!r}; expected "
                f"{transport.address_form}"
            )
        exposed = transport.exposed(self.rendezvous, self.bind)
        if exposed is not None and not self.secret and not self.insecure:
            raise ConfigError(
                f"node {self.rank} would use {exposed}, where other machines may connect, without a secret: set "
                "NBPS_SECRET, or name a file of mode 0600 that holds it, on all nodes; or stay on this machine"
            )
        if exposed is not None and transport.is_local(transport.entrance(self.rendezvous, self.bind)):
            raise ConfigError(
                f"node {self.rank} would listen at {self.bind}, where no other machine can connect, but the "
                f"rendezvous is at {self.rendezvous}; leave bind empty"
            )
